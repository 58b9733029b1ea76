"""Raw tensors over gRPC: a real client and server, and messages that are held against protobuf."""

import random
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.serving.app import App
from mtl_ray.serving.records import recorded
from mtl_ray.serving.reply import RequestError
from mtl_ray.serving.v2_messages import GrpcCall, read_message, unpacked
from tests.serving.server import running
from tests.serving.test_app import open_app
from tests.serving.v2_protobuf import MESSAGES

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), np.uint8)
SERVICE = "/inference.GRPCInferenceService"
KEY = (("authorization", "Bearer sesame"),)


@dataclass(frozen=True)
class Client:
    app: App
    channel: grpc.Channel

    def ask(self, method: str, request: Any, reply: str, metadata: Any = KEY) -> Any:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        answer = self.channel.unary_unary(f"{SERVICE}/{method}")(
            data, timeout=30, metadata=metadata
        )
        return MESSAGES[reply].FromString(answer)

    def infer(self, request: Any) -> Any:
        return self.ask("ModelInfer", request, "ModelInferResponse")

    def refusal(self, request: Any, method: str = "ModelInfer", metadata: Any = KEY) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(method, request, "ModelInferResponse", metadata)
        assert "\n" not in caught.value.details()
        assert len(caught.value.details()) < 300
        return caught.value


@pytest.fixture(scope="module")
def client(bundle: Callable[..., str]) -> Iterator[Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = open_app(
        {"all": bundle("boxes", "semantic", "labels"), "map": bundle("semantic")},
        key="sesame",
        grpc_port=port,
        max_body_bytes=1_000_000,
        max_images=8,
    )
    with running(app), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(app, channel)
    app.close()


def request(**changes: Any) -> Any:
    given = MESSAGES["ModelInferRequest"](
        model_name=changes.pop("model", "all"),
        model_version=changes.pop("version", ""),
        id=changes.pop("id", ""),
        raw_input_contents=changes.pop("raw", [IMAGES.tobytes()]),
    )
    given.inputs.add(**{"name": "image", "datatype": "UINT8", "shape": IMAGES.shape, **changes})
    return given


def outputs(reply: Any) -> dict[str, np.ndarray]:
    dtypes = {"FP32": "f4", "UINT8": "u1", "INT64": "i8"}
    return {
        each.name: np.frombuffer(raw, dtypes[each.datatype]).reshape(each.shape)
        for each, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }


def expected(client: Client) -> dict[str, Any]:
    predictor = client.app.limits.service.predictors["all"]
    assert isinstance(predictor, BundlePredictor)
    return dict(predictor.session.run({"image": IMAGES}))


def test_server_and_models_describe_themselves(client: Client) -> None:
    assert client.ask("ServerLive", b"", "Flag", None).value
    assert client.ask("ServerReady", b"", "Flag", None).value
    about = client.ask("ServerMetadata", b"", "ServerMetadataResponse", None)
    assert (about.name, list(about.extensions)) == ("mtl_ray", ["binary_tensor_data"])
    for name, version, ready in (("map", "", 1), ("map", "1", 1), ("map", "2", 0), ("x", "", 0)):
        asked = MESSAGES["ModelReadyRequest"](name=name, version=version)
        assert client.ask("ModelReady", asked, "Flag").value == ready
    asked = MESSAGES["ModelMetadataRequest"](name="map")
    found = client.ask("ModelMetadata", asked, "ModelMetadataResponse")
    assert (found.name, list(found.versions)) == ("map", ["1"])
    assert [list(each.shape) for each in found.inputs] == [[-1, 3, 64, 64]]
    assert [(each.name, each.datatype) for each in found.outputs] == [("strongest", "UINT8")]


def test_raw_and_typed_contents(client: Client) -> None:
    wanted = expected(client)
    reply = client.infer(request(id="9"))
    assert (reply.model_name, reply.model_version, reply.id) == ("all", "1", "9")
    found = outputs(reply)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)
    typed = request(raw=[])
    typed.inputs[0].contents.uint_contents.extend(IMAGES.ravel().tolist())
    typed.outputs.add(name="labels")
    found = outputs(client.infer(typed))
    assert list(found) == ["labels"]
    np.testing.assert_array_equal(found["labels"], wanted["labels"])


@pytest.mark.parametrize(
    ("changes", "code", "part"),
    [
        ({"model": "none"}, "NOT_FOUND", "there is all, map"),
        ({"version": "7"}, "NOT_FOUND", "no version '7'"),
        ({"name": "picture"}, "INVALID_ARGUMENT", "no input 'picture'"),
        ({"datatype": "FP32"}, "INVALID_ARGUMENT", "takes UINT8"),
        ({"shape": [2, 3, 64]}, "INVALID_ARGUMENT", "takes [-1, 3, 64, 64]"),
        ({"shape": [2**62, 3, 64, 64]}, "INVALID_ARGUMENT", "1 to 8 samples"),
        ({"shape": [-1, 3, 64, 64]}, "INVALID_ARGUMENT", "whole numbers"),
        ({"raw": [b"abc"]}, "INVALID_ARGUMENT", "has 3 bytes, its shape needs 24,576"),
        ({"raw": [b"abc", b""]}, "INVALID_ARGUMENT", "1 inputs and 2 raw_input_contents"),
        ({"raw": []}, "INVALID_ARGUMENT", "no contents"),
        ({"raw": [], "contents": {"uint_contents": [1, 2]}}, "INVALID_ARGUMENT", "has 2 values"),
        ({"raw": [], "contents": {"fp32_contents": [1, 2]}}, "INVALID_ARGUMENT", "has 0 values"),
        (
            {"raw": [], "contents": {"uint_contents": [256] * IMAGES.size}},
            "INVALID_ARGUMENT",
            "outside the range of UINT8",
        ),
        ({"parameters": [{"key": "shared_memory_region"}]}, "INVALID_ARGUMENT", "not supported"),
        ({"id": "x" * 2000}, "INVALID_ARGUMENT", "the id"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    client: Client, changes: dict[str, Any], code: str, part: str
) -> None:
    refusal = client.refusal(request(**changes))
    assert refusal.code().name == code
    assert part in refusal.details()


def test_key_queue_and_size(client: Client) -> None:
    assert client.refusal(request(), metadata=None).code().name == "UNAUTHENTICATED"
    client.app.limits.held.count = client.app.limits.limit
    busy = client.refusal(request())
    client.app.limits.held.count = 0
    assert busy.code().name == "UNAVAILABLE"
    assert ("retry-after", "1") in [tuple(each) for each in busy.trailing_metadata()]
    large = client.refusal(request(raw=[b"x" * 1_100_000]))
    assert large.code().name == "RESOURCE_EXHAUSTED"
    assert client.refusal(b"", method="RepositoryIndex").code().name == "UNIMPLEMENTED"
    assert len(client.infer(request()).outputs) == 5


@pytest.mark.parametrize("method", ["RepositoryIndex", "ModelStatistics", "Unknown"])
def test_methods_of_triton_alone_are_refused(method: str, client: Client) -> None:
    refused = client.refusal(b"", method)
    assert refused.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "ModelInfer; Triton's further ones" in refused.details()


def test_streams_are_refused(client: Client) -> None:
    ask = client.channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    with pytest.raises(grpc.RpcError) as caught:
        list(ask(iter([request().SerializeToString()] * 3), timeout=30, metadata=KEY))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "not supported" in caught.value.details()
    assert outputs(client.infer(request()))  # the place is free again


def test_a_client_that_goes_away_leaves_its_place(client: Client) -> None:
    call = client.channel.unary_unary(f"{SERVICE}/ModelInfer")
    data = request().SerializeToString()
    waiting = [call.future(data, metadata=KEY) for _ in range(20)]
    for each in waiting:
        each.cancel()
    assert len(client.infer(request()).outputs) == 5
    done = threading.Event()
    for _ in range(200):
        if client.app.limits.held.count == 0:
            break
        done.wait(0.05)
    assert client.app.limits.held.count == 0


def test_many_clients_at_once(client: Client) -> None:
    wanted = expected(client)["labels"]
    with ThreadPoolExecutor(16) as pool:
        for found in pool.map(lambda _: outputs(client.infer(request())), range(64)):
            np.testing.assert_array_equal(found["labels"], wanted)


def test_broken_messages_are_one_sentence(client: Client) -> None:
    rng = random.Random(0)
    model = client.app.v2.model(client.app.limits.current, recorded({"headers": []}), "all")
    whole = request(id="some").SerializeToString()
    head = len(whole) - IMAGES.nbytes
    seen: dict[int, int] = {}
    for _ in range(5000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(head)
            if rng.random() < 0.6:
                data[at] = rng.randrange(256)
            elif rng.random() < 0.5:
                del data[at : at + rng.randrange(1, 6)]
            else:
                data[at:at] = rng.randbytes(rng.randrange(1, 12))
        try:
            message = read_message(bytes(data))
        except RequestError as error:
            status, said = error.status, str(error)
        else:
            (reply,) = model.replies([GrpcCall(model="all", message=message)])
            status, said = reply.status, reply.body[:400].decode("utf-8", "replace")
        seen[status] = seen.get(status, 0) + 1
        assert status == 200 or (len(said) < 300 and "\n" not in said)
    assert set(seen) <= {200, 400}
    assert seen[400] > 1000
    many = b"\x2a\x00" * 400_000  # 400,000 empty inputs, of which a parser makes 400,000 objects
    assert client.refusal(many).details().startswith("the message cannot be read: a message has")


def test_packed_numbers_are_those_of_protobuf() -> None:
    rng = np.random.default_rng(0)
    values = [
        int(each) >> int(shift)
        for each, shift in zip(
            rng.integers(0, 2**64, 300, np.uint64), rng.integers(0, 64, 300), strict=True
        )
    ] + [0, 1, 127, 128, 2**64 - 1]
    message = MESSAGES["InferTensorContents"](uint64_contents=values)
    (field,) = read_message(message.SerializeToString()).chunks(5)
    assert unpacked(bytes(field)).tolist() == values
    signed = MESSAGES["InferTensorContents"](int64_contents=[-1, -(2**63), 5])
    (field,) = read_message(signed.SerializeToString()).chunks(3)
    assert unpacked(bytes(field)).view(np.int64).tolist() == [-1, -(2**63), 5]
    for broken in (b"\x80", b"\x01\xff", b"\xff" * 11 + b"\x01"):
        with pytest.raises(ValueError, match="a number"):
            unpacked(broken)
