"""Versions of a model: shares of the requests, a version by its name, and updates under load."""

import asyncio
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from mtl_ray.inference.endpoint import EndpointPredictor
from mtl_ray.serving.app import App, open_app
from mtl_ray.serving.config import ServeConfig, ServedModel, read_targets
from mtl_ray.serving.reply import RequestError
from mtl_ray.serving.routes import Routes
from tests.serving.bundles import make_bundle
from tests.serving.server import running
from tests.serving.test_app import call


@pytest.fixture(scope="module")
def uris(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Version 1 is sure of a dog, version 2 of a cat."""
    folder = tmp_path_factory.mktemp("versions")
    return {
        "1": make_bundle(folder / "1", "boxes"),
        "2": make_bundle(folder / "2", "boxes", kinds="0, 1"),
    }


def served(uris: dict[str, str], **weights: float) -> ServeConfig:
    model = ServedModel(versions=uris, weights={name[1:]: share for name, share in weights.items()})
    return ServeConfig(models={"pets": model, "plain": uris["1"]})


@pytest.fixture
def app(uris: dict[str, str]) -> Iterator[App]:
    opened = open_app(served(uris, v1=0.9, v2=0.1), 1, {})
    yield opened
    opened.close()


def animal(answer: httpx.Response) -> str:
    return str(answer.json()[0]["class_name"])


def test_each_version_gets_its_share_and_an_id_keeps_its_version() -> None:
    canary = ServedModel(versions={"1": "a", "2": "b"}, weights={"1": 0.9, "2": 0.1})
    routes = Routes(("pets@1", "pets@2"), {"pets": canary})
    ids = [f"request {i}" for i in range(5000)]
    counted = Counter(routes.choose("pets", None, each).version for each in ids)
    assert 0.08 < counted["2"] / 5000 < 0.12
    again = Counter(routes.choose("pets", None, each).version for each in ids)
    assert counted == again
    more = Routes(
        ("pets@1", "pets@2"),
        {"pets": ServedModel(versions={"1": "a", "2": "b"}, weights={"1": 1, "2": 1})},
    )
    moved = [
        each
        for each in ids
        if routes.choose("pets", None, each).version == "1"
        and more.choose("pets", None, each).version == "2"
    ]
    assert 0.36 < len(moved) / 5000 < 0.44
    assert all(
        more.choose("pets", None, each).version == "2"
        for each in ids
        if routes.choose("pets", None, each).version == "2"
    ), "who had the new version keeps it when its share grows"


def test_without_weights_the_last_version_answers_and_a_weight_of_0_answers_nothing() -> None:
    versions = {"a": "x", "b": "y", "c": "z"}
    assert ServedModel(versions=versions).shares == {"a": 0, "b": 0, "c": 1}
    model = ServedModel(versions=versions, weights={"a": 3, "b": 1})
    assert model.shares == {"a": 0.75, "b": 0.25, "c": 0}
    routes = Routes(("m@a", "m@b", "m@c"), {"m": model})
    assert {routes.choose("m", None, str(i)).version for i in range(500)} == {"a", "b"}


def test_the_header_says_who_answered(app: App, picture: bytes) -> None:
    found = Counter[str]()
    for number in range(60):
        answer = call(
            app,
            "POST",
            "/predictions/pets",
            content=picture,
            headers={"X-Request-ID": f"request-{number}"},
        )
        assert answer.headers["x-request-id"] == f"request-{number}"
        version = answer.headers["x-model-version"]
        assert animal(answer) == {"1": "dog", "2": "cat"}[version]
        found[version] += 1
    assert found["1"] > found["2"] > 0
    assert "x-model-version" not in call(app, "POST", "/predictions/plain", content=picture).headers


@pytest.mark.parametrize("path", ["/predictions/pets/versions/{}", "/predictions/pets?version={}"])
def test_a_version_by_its_name(app: App, picture: bytes, path: str) -> None:
    for version, name in (("1", "dog"), ("2", "cat")):
        answer = call(app, "POST", path.format(version), content=picture)
        assert (animal(answer), answer.headers["x-model-version"]) == (name, version)
    missing = call(app, "POST", path.format("3"), content=picture)
    assert missing.status_code == 404
    assert missing.json()["message"] == "the model 'pets' has no version '3'; it has 1, 2"


def test_an_endpoint_may_be_a_version(app: App) -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    with running(app) as port:
        for version, index in (("1", 1), ("2", 0)):
            place = f"http://127.0.0.1:{port}/predictions/pets/versions/{version}"
            (prediction,) = EndpointPredictor(place).predict([black])
            assert prediction["boxes"].classes[0] == index


def test_a_plain_model_has_no_versions(app: App, picture: bytes) -> None:
    answer = call(app, "POST", "/predictions/plain/versions/1", content=picture)
    assert (answer.status_code, answer.json()["message"]) == (
        404,
        "the model 'plain' has no versions",
    )
    assert call(app, "POST", "/predictions/plain?version=1", content=picture).status_code == 400
    assert call(app, "POST", "/predictions/pets@1", content=picture).status_code == 404
    models = {each["name"]: each for each in call(app, "GET", "/models").json()["models"]}
    assert models["pets"]["versions"] == {"1": pytest.approx(0.9), "2": pytest.approx(0.1)}
    assert "versions" not in models["plain"]


def test_an_update_drops_no_request_and_goes_back(uris: dict[str, str], picture: bytes) -> None:
    """Eight clients ask without a pause; the weights, then a bundle, change three times."""
    first, second = served(uris, v1=1.0), served(uris, v2=1.0)
    moved = replace(first, models={"pets": uris["2"]}, max_batch=2)
    app = open_app(first, 2, {})
    done, statuses, animals = threading.Event(), Counter[int](), []

    def change() -> None:
        for config in (second, first, moved, first):
            app.update(config, 2)
        done.set()

    async def client(http: httpx.AsyncClient) -> None:
        while not done.is_set():
            answer = await http.post("/predictions/pets", content=picture)
            statuses[answer.status_code] += 1
            animals.append(animal(answer))

    async def load() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            changing = asyncio.create_task(asyncio.to_thread(change))
            await asyncio.gather(*(client(http) for _ in range(8)), changing)

    before = threading.active_count()
    asyncio.run(load())
    assert set(statuses) == {200}
    assert statuses[200] > 20
    assert {"dog", "cat"} == set(animals)
    assert animals[-1] == "dog"
    assert app.limits.current.config is first
    assert "plain" in app.limits.current.workers
    app.close()
    assert threading.active_count() < before, "the threads of every generation have ended"


def test_what_cannot_be_opened_changes_nothing(
    uris: dict[str, str], picture: bytes, tmp_path: Path
) -> None:
    app = open_app(served(uris, v1=1.0), 1, {})
    broken = Path(make_bundle(tmp_path / "broken", "boxes"))
    (broken / "model.onnx").write_bytes(b"damaged")
    for uri in (str(tmp_path / "nothing"), str(broken)):
        with pytest.raises((ValueError, FileNotFoundError)):
            app.update(served({**uris, "2": uri}, v2=1.0), 1)
        assert animal(call(app, "POST", "/predictions/pets", content=picture)) == "dog"
    assert 'mtl_ray_updates_total{result="failed"} 2' in call(app, "GET", "/metrics").text
    app.close()


def test_unchanged_bundles_are_not_opened_again(uris: dict[str, str]) -> None:
    app = open_app(served(uris, v1=1.0), 1, {})
    before = dict(app.limits.service.predictors)
    app.update(served(uris, v1=0.5, v2=0.5), 1)
    assert all(app.limits.service.predictors[key] is each for key, each in before.items())
    app.update(replace(served(uris, v1=0.5, v2=0.5), threads=2), 1)
    assert all(app.limits.service.predictors[key] is not each for key, each in before.items())
    app.close()


def test_another_bundle_at_the_same_place_is_opened(tmp_path: Path, picture: bytes) -> None:
    config = ServeConfig(models={"pet": make_bundle(tmp_path / "pet", "boxes")})
    app = open_app(config, 1, {})
    assert animal(call(app, "POST", "/predictions/pet", content=picture)) == "dog"
    shutil.rmtree(tmp_path / "pet")
    make_bundle(tmp_path / "pet", "boxes", kinds="0, 1")
    app.update(config, 1)
    assert animal(call(app, "POST", "/predictions/pet", content=picture)) == "cat"
    app.close()


def test_the_config_of_versions(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(
        'serve:\n  models:\n    a: s3://b/a\n    pets:\n      versions: {"1": x, "2": y}\n'
        '      weights: {"1": 0.9, "2": 0.1}\n'
    )
    config = read_targets([str(file)], ["serve.autoscale={min: 0, max: 3}"])
    assert config.bundles() == {
        "a": ("s3://b/a", None),
        "pets@1": ("x", None),
        "pets@2": ("y", None),
    }
    assert config.autoscale is not None
    assert (config.autoscale.min, config.most_replicas) == (0, 3)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('models: {m: {versions: {"1": x}, weights: {"2": 1}}}', "weights has '2'"),
        ('models: {m: {versions: {"1": x}, weights: {"1": 0}}}', "one of them above 0"),
        ('models: {m: {versions: {"1": x}, weights: {"1": -1}}}', "at least 0"),
        ("models: {m: {versions: {}}}", "versions"),
        ('models: {m: {versions: {"a b": x}}}', "cannot be a version"),
        ('models: {m: {version: {"1": x}}}', "version"),
        ("models: {m: x}\n  autoscale: {min: 3, max: 2}", "min is 3 and max is 2"),
        ("models: {m: x}\n  pipelines: {m: {detector: m/a, classifier: m/b}}", "both|are called"),
        ("models: {m: x}\n  pipelines: {p: {detector: m, classifier: m/b}}", "must be MODEL/HEAD"),
        ("models: {m: x}\n  api_keys_env: A\n  api_key_env: B", "not both"),
        ("models: {m: x}\n  port: 8001\n  grpc_port: 8001", "port and grpc_port are both 8001"),
    ],
)
def test_mistakes(text: str, part: str, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(f"serve:\n  {text}\n")
    with pytest.raises(ValueError, match=part):
        read_targets([str(file)], [])


def test_an_unknown_model_is_named(uris: dict[str, str]) -> None:
    routes = Routes(("a", "b@1"), {"b": ServedModel(versions={"1": "x"})})
    with pytest.raises(RequestError, match="there is b, a"):
        routes.choose("c", None, "")
