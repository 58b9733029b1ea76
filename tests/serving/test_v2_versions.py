"""Raw tensors of a model with several versions, over HTTP and gRPC; what is counted of them."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from mtl_ray.serving.app import App, open_app
from mtl_ray.serving.config import AutoscaleConfig, ServeConfig, ServedModel
from mtl_ray.serving.v2_messages import SERVICE
from mtl_ray.serving.v2_model import TensorModel
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


def only_the_second(config: ServeConfig) -> ServeConfig:
    """The same server after an update that removes version 1."""
    pets = config.models["pets"]
    assert isinstance(pets, ServedModel)
    kept = ServedModel(versions={"2": pets.versions["2"]})
    return replace(config, models={**config.models, "pets": kept})


def test_a_request_that_began_before_an_update_ends_as_it_began(
    app: App, config: ServeConfig
) -> None:
    content, changed = json.dumps(REQUEST).encode(), only_the_second(config)
    changing: list[asyncio.Task[None]] = []

    async def parts() -> AsyncIterator[bytes]:
        yield content[:100]
        before = app.limits.current
        changing.append(asyncio.create_task(asyncio.to_thread(app.update, changed, 1)))
        while app.limits.current is before:  # the update itself ends after this request
            await asyncio.sleep(0.01)
        yield content[100:]

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            place = "/v2/models/pets/versions/1/infer"
            first = await http.post(place, content=parts())
            await changing[0]
            return first, await http.post(place, content=content)

    during, after = asyncio.run(ask())
    assert during.status_code == 200, during.text
    assert during.json()["model_version"] == "1"
    assert after.status_code == 404


def test_a_page_of_another_site_may_ask(config: ServeConfig) -> None:
    app = open_app(replace(config, grpc_port=None, cors_origins=("https://a.example",)), 1, {})
    for place, method in (("/v2/models/pets/infer", "POST"), ("/v2/models/pets", "GET")):
        answer = call(app, "OPTIONS", place, headers={"Origin": "https://a.example"})
        assert answer.status_code == 200
        assert method in answer.headers["access-control-allow-methods"]
        assert "Inference-Header-Content-Length" in answer.headers["access-control-allow-headers"]
    app.close()


def test_without_a_replica_nothing_would_listen_for_grpc(config: ServeConfig) -> None:
    with pytest.raises(ValueError, match="no replica would listen on grpc_port"):
        replace(config, autoscale=AutoscaleConfig(min=0, max=2))


def infer_request(version: str = "") -> bytes:
    """A gRPC message for "pets"."""
    request = MESSAGES["ModelInferRequest"](
        model_name="pets", model_version=version, raw_input_contents=[IMAGE.tobytes()]
    )
    request.inputs.add(name="image", datatype="UINT8", shape=IMAGE.shape)
    message: bytes = request.SerializeToString()
    return message


def test_grpc_calls_survive_updates(app: App, config: ServeConfig) -> None:
    done = threading.Event()

    def client(_: int) -> int:
        count = 0
        while not done.is_set():
            infer(infer_request(), timeout=30)
            count += 1
        return count

    with running(app), grpc.insecure_channel(f"127.0.0.1:{config.grpc_port}") as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        with ThreadPoolExecutor(4) as pool:
            counts = pool.map(client, range(4))
            for changed in (only_the_second(config), config) * 2:
                app.update(changed, 2)
            done.set()
            assert min(counts) > 0


def test_a_server_that_ends_answers_the_calls_that_run(
    app: App, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, replies = threading.Event(), TensorModel.replies

    def slow(self: TensorModel, calls: Any) -> Any:
        began.set()
        time.sleep(1)
        return replies(self, calls)

    monkeypatch.setattr(TensorModel, "replies", slow)
    with grpc.insecure_channel(f"127.0.0.1:{config.grpc_port}") as channel:
        with running(app):
            answer = channel.unary_unary(f"/{SERVICE}/ModelInfer").future(infer_request("2"))
            assert began.wait(30)
        assert MESSAGES["ModelInferResponse"].FromString(answer.result()).model_version == "2"


def test_the_metadata_of_a_grpc_answer_names_request_and_version(
    app: App, config: ServeConfig
) -> None:
    metadata = (("x-request-id", "mine"),)
    with running(app), grpc.insecure_channel(f"127.0.0.1:{config.grpc_port}") as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        _, answered = infer.with_call(infer_request("2"), metadata=metadata)
        told = dict(answered.trailing_metadata())
        assert (told["x-request-id"], told["x-model-version"]) == ("mine", "2")
        with pytest.raises(grpc.RpcError) as refused:
            infer(infer_request("3"), metadata=metadata)
        assert dict(refused.value.trailing_metadata())["x-request-id"] == "mine"


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
