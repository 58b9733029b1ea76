"""Raw tensors over HTTP, without a server: answers, and the sentence for everything wrong."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest

from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.serving.app import App
from mtl_ray.serving.records import recorded
from mtl_ray.serving.v2_http import HEADER, HttpCall
from mtl_ray.serving.v2_model import TensorModel
from mtl_ray.serving.v2_tensors import GivenTensor, to_array
from tests.serving.test_app import call, open_app

INFER = "/v2/models/all/infer"
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), np.uint8)
OUTPUTS = ["boxes", "scores", "classes", "strongest", "labels"]


@pytest.fixture(scope="module")
def app(bundle: Callable[..., str]) -> Iterator[App]:
    opened = open_app(
        {"all": bundle("boxes", "semantic", "labels"), "map": bundle("semantic")},
        max_body_bytes=2_000_000,
        max_images=8,
    )
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def expected(app: App) -> dict[str, Any]:
    predictor = app.limits.service.predictors["all"]
    assert isinstance(predictor, BundlePredictor)
    return dict(predictor.session.run({"image": IMAGES}))


def tensor(**changes: Any) -> dict[str, Any]:
    return {
        "name": "image",
        "datatype": "UINT8",
        "shape": [2, 3, 64, 64],
        "data": IMAGES.ravel().tolist(),
        **changes,
    }


def binary(size: int = IMAGES.nbytes, **changes: Any) -> dict[str, Any]:
    given = tensor(parameters={"binary_data_size": size}, **changes)
    del given["data"]
    return given


def post(app: App, content: Any, blob: bytes | None = None, path: str = INFER) -> httpx.Response:
    head = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {} if blob is None else {HEADER: str(len(head))}
    return call(app, "POST", path, content=head + (blob or b""), headers=headers)


def arrays(answer: httpx.Response) -> dict[str, np.ndarray]:
    """The outputs of an answer in either form."""
    assert answer.status_code == 200, answer.text
    size = answer.headers.get(HEADER)
    head = answer.content if size is None else answer.content[: int(size)]
    rest = b"" if size is None else answer.content[int(size) :]
    found = {}
    for each in json.loads(head)["outputs"]:
        dtype = {"FP32": "f4", "UINT8": "u1", "INT64": "i8"}[each["datatype"]]
        if "data" in each:
            values = np.array(each["data"], dtype)
        else:
            values = np.frombuffer(rest, dtype, int(np.prod(each["shape"])))
            rest = rest[each["parameters"]["binary_data_size"] :]
        found[each["name"]] = values.reshape(each["shape"])
    assert rest == b""
    return found


def same(found: dict[str, np.ndarray], expected: dict[str, Any], names: list[str]) -> None:
    assert list(found) == names
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])


def test_server_and_models_describe_themselves(app: App) -> None:
    about = call(app, "GET", "/v2").json()
    assert about["name"] == "mtl_ray"
    assert "binary_tensor_data" in about["extensions"]
    assert call(app, "GET", "/v2/health/live").json() == {"live": True}
    assert call(app, "GET", "/v2/health/ready").json() == {"ready": True}
    assert call(app, "GET", "/v2/models/map/ready").status_code == 200
    assert call(app, "GET", "/v2/models/map/versions/1/ready").status_code == 200
    assert call(app, "GET", "/v2/models/other/ready").status_code == 404
    assert call(app, "GET", "/v2/models/map/versions/2").status_code == 404
    described = call(app, "GET", "/v2/models/map/versions/1").json()
    assert described == {
        "name": "map",
        "versions": ["1"],
        "platform": "mtl_ray_onnxruntime",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 3, 64, 64]}],
        "outputs": [{"name": "strongest", "datatype": "UINT8", "shape": [-1, 64, 64]}],
    }


def test_json_in_and_out(app: App, expected: dict[str, Any]) -> None:
    answer = post(app, {"id": "7", "inputs": [tensor()]})
    assert answer.json()["id"] == "7"
    assert answer.json()["model_name"] == "all"
    same(arrays(answer), expected, OUTPUTS)
    nested = post(app, {"inputs": [tensor(data=IMAGES.tolist())]})
    same(arrays(nested), expected, OUTPUTS)


def test_binary_in_and_chosen_outputs(app: App, expected: dict[str, Any]) -> None:
    blob = IMAGES.tobytes()
    content = {"inputs": [binary()], "parameters": {"binary_data_output": True}}
    same(arrays(post(app, content, blob)), expected, OUTPUTS)
    chosen = [
        {"name": "labels", "parameters": {"binary_data": False}},
        {"name": "strongest"},
    ]
    answer = post(app, {**content, "outputs": chosen}, blob, "/v2/models/all/versions/1/infer")
    same(arrays(answer), expected, ["labels", "strongest"])
    head = json.loads(answer.content[: int(answer.headers[HEADER])])
    assert ["data" in each for each in head["outputs"]] == [True, False]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"name": "picture"}, "no input 'picture'; it has image"),
        ({"name": "x" * 5000}, "no input 'xxx"),
        ({"name": 3}, "name"),
        ({"datatype": "FP32"}, "takes UINT8"),
        ({"datatype": "BYTES"}, "takes UINT8"),
        ({"datatype": None}, "datatype"),
        ({"shape": [2, 3, 64]}, "the model takes [-1, 3, 64, 64]"),
        ({"shape": [2, 4, 64, 48]}, "the model takes [-1, 3, 64, 64]"),
        ({"shape": [2, 3, 32, 128]}, "heights are 64 to 64"),
        ({"shape": [0, 3, 64, 64], "data": []}, "batch is 0"),
        ({"shape": [9, 3, 64, 64]}, "1 to 8 samples"),
        ({"shape": [2**62, 3, 64, 64]}, "1 to 8 samples"),
        ({"shape": [2, 3, 2**62, 2**62]}, "model all"),
        ({"shape": [10**30, 3, 64, 64]}, "whole numbers"),
        ({"shape": [-2, -3, 64, 64]}, "whole numbers"),
        ({"shape": [2.0, 3, 64, 64]}, "whole numbers"),
        ({"shape": [True, 3, 64, 64]}, "whole numbers"),
        ({"shape": [1] * 100}, "at most 16"),
        ({"shape": "2,3"}, "must be a list"),
        ({"data": [1, 2, 3]}, "has 3 values, its shape needs 24,576"),
        ({"data": [256] * 24576}, "outside the range of UINT8"),
        ({"data": [-1] * 24576}, "outside the range of UINT8"),
        ({"data": [10**40] * 24576}, "outside the range of UINT8"),
        ({"data": [0.5] * 24576}, "whole numbers"),
        ({"data": [True] * 24576}, "whole numbers"),
        ({"data": ["a"] * 24576}, "whole numbers"),
        ({"data": [[1, 2], 3]}, "mixes lists and numbers"),
        ({"data": [{}] * 24576}, "whole numbers"),
        ({"data": 5}, "must be a list"),
        ({"data": None}, "needs either data"),
        ({"parameters": {"binary_data_size": 4}}, "needs either data"),
        ({"parameters": 5}, "must be an object"),
        ({"parameters": {"shared_memory_region": "a"}}, "not supported"),
    ],
)
def test_a_wrong_input_is_one_sentence(app: App, changes: dict[str, Any], part: str) -> None:
    refused(post(app, {"inputs": [tensor(**changes)]}), 400, part)


def refused(answer: httpx.Response, status: int, part: str) -> None:
    assert answer.status_code == status, answer.text[:300]
    assert list(answer.json()) == ["error"]
    sentence = answer.json()["error"]
    assert part in sentence
    assert len(sentence) < 300
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b"[" * 250_000, "lists"),
        (b'{"inputs": [NaN]}', "no JSON"),
        ({}, "no inputs"),
        ({"inputs": {}}, "list of objects"),
        ({"inputs": [3]}, "list of objects"),
        ({"inputs": [tensor(), tensor()]}, "there twice"),
        ({"inputs": [tensor()], "id": 5}, "the id"),
        ({"inputs": [tensor()], "id": "x" * 2000}, "the id"),
        ({"inputs": [tensor()], "outputs": [{"name": "nothing"}]}, "no output 'nothing'"),
        ({"inputs": [tensor()], "outputs": [{"name": "labels"}] * 2}, "twice"),
        ({"inputs": [tensor()], "outputs": [{}]}, "name of an output"),
        (
            {
                "inputs": [tensor()],
                "outputs": [{"name": "labels", "parameters": {"classification": 3}}],
            },
            "'classification' is not supported",
        ),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, "true or false"),
    ],
)
def test_a_wrong_request_is_one_sentence(app: App, content: Any, part: str) -> None:
    refused(post(app, content), 400, part)


def test_wrong_binary_sizes(app: App) -> None:
    blob = IMAGES.tobytes()
    content = {"inputs": [binary()]}
    refused(post(app, content, blob[:-1]), 400, "24,575 bytes follow")
    refused(post(app, content, blob + b"x"), 400, "1 bytes more")
    refused(post(app, {"inputs": [binary(100)]}, blob[:100]), 400, "has 100 bytes")
    refused(post(app, {"inputs": [binary(-1)]}, blob), 400, "binary_data_size '-1'")
    refused(post(app, {"inputs": [binary(10**30)]}, blob), 400, "binary_data_size")
    head = json.dumps(content).encode()
    for length in ("999999", "99999999999999999", "-1", "x", "\u00b2"):
        headers = {HEADER: length.encode("latin-1")}
        answer = call(app, "POST", INFER, content=head + blob, headers=headers)
        refused(answer, 400, HEADER)


def test_limits_and_addresses_as_of_predictions(app: App, bundle: Callable[..., str]) -> None:
    refused(post(app, b"x" * 2_100_000), 413, "2,000,000 bytes of tensors")
    refused(call(app, "GET", INFER), 405, "POST")
    refused(call(app, "POST", "/v2/models/all"), 405, "GET")
    for path in ("repository/index", "repository/models/all/load", "models/all/config", "logging"):
        refused(call(app, "POST", f"/v2/{path}"), 404, "of Triton are not supported")
    refused(
        post(app, {"inputs": [tensor()]}, path="/v2/models/none/infer"), 404, "there is all, map"
    )
    refused(call(app, "GET", "/v2/other"), 404, "nothing at")
    packed = call(app, "POST", INFER, content=b"x", headers={"Content-Encoding": "gzip"})
    refused(packed, 415, "compressed")
    app.limits.held.count = app.limits.limit
    busy = post(app, {"inputs": [tensor()]})
    app.limits.held.count = 0
    refused(busy, 503, "try again")
    assert busy.headers["retry-after"] == "1"
    closed = open_app({"all": bundle("labels")}, key="sesame")
    assert call(closed, "GET", "/v2/health/ready").status_code == 200
    refused(call(closed, "GET", "/v2/models/all"), 401, "Authorization")
    refused(post(closed, {"inputs": [tensor()]}), 401, "Authorization")
    headers = {"Authorization": "Bearer sesame"}
    assert call(closed, "GET", "/v2/models/all", headers=headers).status_code == 200
    closed.close()


@contextmanager
def counted(predictor: BundlePredictor) -> Iterator[list[int]]:
    """The sizes of the batches that the engine runs."""
    ran: list[int] = []
    session = predictor.session

    class Counting:
        about = session.about

        def run(self, given: dict[str, np.ndarray]) -> Any:
            ran.append(len(given["image"]))
            return session.run(given)

    predictor.session = Counting()
    try:
        yield ran
    finally:
        predictor.session = session


def test_requests_above_the_largest_batch_are_joined_in_parts(
    app: App, expected: dict[str, Any]
) -> None:
    predictor = app.limits.service.predictors["all"]
    assert isinstance(predictor, BundlePredictor)
    parts = ([0], [1], [0, 1], [1, 0, 1], [0])
    bodies = [
        json.dumps(
            {"inputs": [tensor(shape=[len(i), 3, 64, 64], data=IMAGES[i].ravel().tolist())]}
        ).encode()
        for i in parts
    ]
    calls = [HttpCall(model="all", body=body, header_bytes=None) for body in bodies]
    with counted(predictor) as ran:
        replies = TensorModel("all", predictor, 4).replies(calls)
    assert ran == [4, 4]
    for i, reply in zip(parts, replies, strict=True):
        for each in json.loads(reply.body)["outputs"]:
            found = np.array(each["data"]).reshape(each["shape"])
            np.testing.assert_allclose(found, expected[each["name"]][i], rtol=1e-6)


def test_requests_that_wait_are_joined_and_one_bad_one_spoils_no_other(
    app: App, expected: dict[str, Any]
) -> None:
    predictor = app.limits.service.predictors["all"]
    assert isinstance(predictor, BundlePredictor)
    contents = [
        {"inputs": [tensor(shape=[1, 3, 64, 64], data=IMAGES[i].ravel().tolist())]} for i in (0, 1)
    ]
    bodies = [*(json.dumps(each).encode() for each in contents), b"{}"]
    calls = [HttpCall(model="all", body=bodies[i], header_bytes=None) for i in (0, 2, 1)]
    with counted(predictor) as ran:
        first, bad, second = TensorModel("all", predictor, 8).replies(calls)
    assert ran == [2]
    assert bad.status == 400
    for i, reply in enumerate((first, second)):
        for each in json.loads(reply.body)["outputs"]:
            found = np.array(each["data"]).reshape(each["shape"])
            np.testing.assert_allclose(found, expected[each["name"]][i : i + 1], rtol=1e-6)


def test_a_range_that_was_checked(bundle: Callable[..., str], tmp_path: Path) -> None:
    predictor = BundlePredictor(bundle("semantic"))
    predictor.checked = tuple(
        type(predictor.canvas)(kind="stretch", height=size, width=64)  # type: ignore[call-arg]
        for size in (64, 128)
    )
    model = TensorModel("map", predictor, 4)
    described = model.metadata()
    assert described["inputs"][0]["shape"] == [-1, 3, -1, 64]
    assert described["outputs"][0]["shape"] == [-1, -1, 64]

    def answer(height: int, width: int) -> Any:
        data = [0] * (3 * height * width)
        given = tensor(shape=[1, 3, height, width], data=data)
        (reply,) = model.replies(
            [
                HttpCall(
                    model="map", body=json.dumps({"inputs": [given]}).encode(), header_bytes=None
                )
            ]
        )
        return reply.status, json.loads(reply.body)

    assert answer(96, 64)[0] == 200
    assert "multiples of 32" in answer(100, 64)[1]["error"]
    assert "64 to 128" in answer(160, 64)[1]["error"]
    assert "64 to 64" in answer(96, 96)[1]["error"]


@pytest.mark.parametrize(
    ("datatype", "values", "ok"),
    [
        ("FP32", [1, 2.5], True),
        ("FP32", [1e300, 0.0], False),
        ("FP32", [float("inf"), 0.0], False),  # 1e999 in JSON
        ("FP64", [float("inf"), 0.0], False),
        ("FP16", [1e5, 0.0], False),
        ("FP16", [0.5, 1], True),
        ("BOOL", [True, False], True),
        ("BOOL", [1, 0], False),
        ("INT64", [2**63 - 1, -(2**63)], True),
        ("INT64", [2**63, 0], False),
        ("UINT64", [2**64 - 1, 0], True),
        ("INT8", [-128, 127], True),
    ],
)
def test_datatypes_in_json(datatype: str, values: list[Any], ok: bool) -> None:
    given = GivenTensor(name="x", datatype=datatype, shape=(2,), values=values)
    if ok:
        assert to_array(given).tolist() == values
    else:
        with pytest.raises(Exception, match="the data of x"):
            to_array(given)


def test_answers_are_what_openapi_says(app: App) -> None:
    document = call(app, "GET", "/openapi.json").json()
    assert "/v2/models/{model}/infer" in document["paths"]
    schemas = {"components": document["components"]}
    for content, name in (
        ({"inputs": [tensor()]}, "TensorAnswer"),
        ({"inputs": []}, "TensorError"),
    ):
        schema = {"$ref": f"#/components/schemas/{name}", **schemas}
        jsonschema.validate(post(app, content).json(), schema)
    jsonschema.validate(
        {"inputs": [tensor()]}, {"$ref": "#/components/schemas/TensorRequest", **schemas}
    )


def test_ten_thousand_broken_bodies(app: App) -> None:
    """Every answer is one sentence, or right."""
    rng = random.Random(0)
    blob = IMAGES[:1].tobytes()
    whole = json.dumps({"inputs": [binary(len(blob), shape=[1, 3, 64, 64])]}).encode()
    model = app.v2.model(app.limits.current, recorded({"headers": []}), "all")
    seen: dict[int, int] = {}
    for _ in range(10_000):
        body = bytearray(whole + blob)
        length = len(whole)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(whole))
            kind = rng.randrange(5)
            if kind == 0:
                body[at] = rng.randrange(256)
            elif kind == 1:
                del body[at : at + rng.randrange(1, 9)]
            elif kind == 2:
                body[at:at] = rng.choice([b"9" * 20, b"[", b"{", b'"', b"-", b"null", b"e99"])
            elif kind == 3:
                body = body[: rng.randrange(1, len(body))]
                break
            else:
                length = rng.randrange(len(body) + 10)
        (reply,) = model.replies([HttpCall(model="all", body=bytes(body), header_bytes=length)])
        seen[reply.status] = seen.get(reply.status, 0) + 1
        if reply.status != 200:
            content = json.loads(reply.body)
            assert list(content) == ["error"]
            assert len(content["error"]) < 400
    assert set(seen) <= {200, 400}
    assert seen[400] > 5000
