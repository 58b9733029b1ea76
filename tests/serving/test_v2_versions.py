"""Raw tensors of a model with several versions, over HTTP and gRPC; what is counted of them."""

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mtl_ray.serving.app import App, open_app
from mtl_ray.serving.config import ServeConfig, ServedModel
from mtl_ray.serving.v2_grpc import SERVICE
from tests.serving.bundles import make_bundle
from tests.serving.server import running
from tests.serving.test_app import call
from tests.serving.v2_protobuf import MESSAGES

IMAGE = np.zeros((1, 3, 64, 64), np.uint8)
REQUEST = {
    "inputs": [
        {"name": "image", "datatype": "UINT8", "shape": IMAGE.shape, "data": IMAGE.ravel().tolist()}
    ]
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ServeConfig:
    """Version 2 has half the requests; "plain" has no versions."""
    folder = tmp_path_factory.mktemp("v2")
    uris = {name: make_bundle(folder / name, "boxes") for name in ("1", "2")}
    pets = ServedModel(versions=uris, weights={"1": 1, "2": 1})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ServeConfig(
        models={"pets": pets, "plain": uris["1"]},
        grpc_port=port,
        request_log=str(folder / "log"),
    )


@pytest.fixture
def app(config: ServeConfig) -> Iterator[App]:
    opened = open_app(config, 1, {})
    yield opened
    opened.close()


def infer(app: App, place: str, request_id: str) -> dict[str, Any]:
    answer = call(
        app,
        "POST",
        f"/v2/models/{place}/infer",
        content=json.dumps(REQUEST),
        headers={"X-Request-ID": request_id},
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_model_is_one_model_with_its_versions(app: App) -> None:
    for path in ("/v2/models/pets", "/v2/models/pets/versions/2"):
        described = call(app, "GET", path).json()
        assert (described["name"], described["versions"]) == ("pets", ["1", "2"])
    assert call(app, "GET", "/v2/models/plain").json()["versions"] == ["1"]
    assert call(app, "GET", "/v2/models/pets@1").status_code == 404, "no name of ours"


def test_answers_name_the_version_that_was_chosen(app: App) -> None:
    found = [infer(app, "pets", f"id-{i}") for i in range(20)]
    assert {each["model_name"] for each in found} == {"pets"}
    assert {each["model_version"] for each in found} == {"1", "2"}
    assert {infer(app, "pets", "the-same")["model_version"] for _ in range(3)} in ({"1"}, {"2"})
    assert infer(app, "pets/versions/2", "x")["model_version"] == "2"
    plain = infer(app, "plain", "x")
    assert (plain["model_name"], plain["model_version"]) == ("plain", "1")


def test_an_update_that_adds_a_version_is_seen(app: App, config: ServeConfig) -> None:
    assert call(app, "GET", "/v2/models/pets").json()["versions"] == ["1", "2"]
    pets = config.models["pets"]
    assert isinstance(pets, ServedModel)
    more = replace(pets, versions={**pets.versions, "3": pets.versions["1"]})
    app.update(replace(config, models={**config.models, "pets": more}), 1)
    assert call(app, "GET", "/v2/models/pets").json()["versions"] == ["1", "2", "3"]


def test_grpc_has_versions_and_is_counted_and_logged(app: App, config: ServeConfig) -> None:
    def ask(method: str, request: Any, reply: str) -> Any:
        answer = channel.unary_unary(f"/{SERVICE}/{method}")(request.SerializeToString())
        return MESSAGES[reply].FromString(answer)

    with running(app), grpc.insecure_channel(f"127.0.0.1:{config.grpc_port}") as channel:
        described = ask(
            "ModelMetadata",
            MESSAGES["ModelMetadataRequest"](name="pets"),
            "ModelMetadataResponse",
        )
        assert (described.name, list(described.versions)) == ("pets", ["1", "2"])
        request = MESSAGES["ModelInferRequest"](
            model_name="pets", model_version="2", raw_input_contents=[IMAGE.tobytes()]
        )
        request.inputs.add(name="image", datatype="UINT8", shape=IMAGE.shape)
        reply = ask("ModelInfer", request, "ModelInferResponse")
        assert (reply.model_name, reply.model_version) == ("pets", "2")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(app.v2, "model", lambda *_: 1 / 0)
            with pytest.raises(grpc.RpcError):
                ask("ModelInfer", request, "ModelInferResponse")
        request.inputs[0].shape[0] = 2
        with pytest.raises(grpc.RpcError):
            ask("ModelInfer", request, "ModelInferResponse")
    metrics = app.report().metrics
    counted = 'mtl_ray_requests_total{model="pets",version="2",status='
    assert (metrics[f'{counted}"200"}}'], metrics[f'{counted}"400"}}']) == (1, 1)
    assert metrics['mtl_ray_requests_total{model="",status="500"}'] == 1
    assert config.request_log is not None
    lines = [json.loads(line) for line in Path(config.request_log).read_text().splitlines()[-3:]]
    assert [(each["path"], each["status"], each["version"]) for each in lines] == [
        (f"/{SERVICE}/ModelInfer", 200, "2"),
        (f"/{SERVICE}/ModelInfer", 500, ""),
        (f"/{SERVICE}/ModelInfer", 400, "2"),
    ]
