"""The messages of the Open Inference Protocol over gRPC, read within bounds and written by hand
(https://github.com/kserve/open-inference-protocol, ``open_inference_grpc.proto``).

A parser made from the schema would take a hundred bytes of memory for every two of a hostile
message; the one here refuses messages with many fields.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.backends.backend import GraphArrays
from mtl_ray.serving.reply import Reply, RequestError, quoted
from mtl_ray.serving.v2_http import MAX_ID, refuse_parameters
from mtl_ray.serving.v2_model import VERSION
from mtl_ray.serving.v2_tensors import (
    DATATYPES,
    GivenTensor,
    InferRequest,
    Values,
    check_shape,
    datatype_of,
    to_bytes,
)
from mtl_ray.sources.lidar.protobuf_wire import Message

PROTOBUF = "application/x-protobuf"
SERVICE = "inference.GRPCInferenceService"
MAX_FIELDS = 4096
"""Of one message."""
_CONTENTS = {"b": (1,), "i": (2, 3), "u": (4, 5), "f": (6, 7)}
"""The fields of ``InferTensorContents`` by the kind of a dtype: of at most 32 bits, and of 64."""


@dataclass(frozen=True, kw_only=True)
class GrpcCall:
    """See ``TensorCall``.

    Attributes:
        model: its name.
        message: ``ModelInferRequest``.
        version: that answers.
    """

    model: str
    version: str = VERSION
    message: Message

    def read(self) -> InferRequest:
        """See ``TensorCall``."""
        try:
            return self._read()
        except ValueError as error:
            raise RequestError(400, f"the message cannot be read: {error}") from None

    def _read(self) -> InferRequest:
        refuse_parameters(_keys(self.message, 4))
        raw = self.message.chunks(7)
        described = self.message.messages(5)
        if not described:
            raise RequestError(400, "the request has no inputs")
        if raw and len(raw) != len(described):
            raise RequestError(
                400, f"there are {len(described)} inputs and {len(raw)} raw_input_contents"
            )
        wanted = self.message.messages(6)
        for each in wanted:
            refuse_parameters(_keys(each, 2))
        names = tuple(each.text(1) for each in wanted)
        if len(set(names)) < len(names):
            raise RequestError(400, "an output is asked for twice")
        if len(identity := self.message.text(3)) > MAX_ID:
            raise RequestError(400, f"the id must be text of at most {MAX_ID} characters")
        return InferRequest(
            id=identity,
            inputs=tuple(
                _tensor(each, raw[i] if raw else None) for i, each in enumerate(described)
            ),
            outputs=names or None,
        )

    def write(self, request: InferRequest, outputs: GraphArrays) -> Reply:
        """``ModelInferResponse``; the values are always raw."""
        body = [
            _text(1, self.model),
            _text(2, self.version),
            _text(3, request.id),
            *(_output(name, values) for name, values in outputs.items()),
            *(part for each in outputs.values() for part in _parts(6, to_bytes(each))),
        ]
        return Reply(body=b"".join(body), type=PROTOBUF)

    def refuse(self, error: RequestError) -> Reply:
        """The sentence; the server makes a gRPC status of it."""
        return Reply(
            body=str(error).encode(),
            status=error.status,
            type="text/plain",
            headers=error.reply.headers,
        )


def read_message(data: bytes) -> Message:
    """A message.

    Raises:
        RequestError: 400 if it is none.
    """
    try:
        return Message(data, MAX_FIELDS)
    except ValueError as error:
        raise RequestError(400, f"the message cannot be read: {error}") from None


def flag_message(value: bool) -> bytes:
    """``ServerLiveResponse``, ``ServerReadyResponse`` and ``ModelReadyResponse``."""
    return _key(1, 0) + _varint(int(value))


def server_message(metadata: Mapping[str, Any]) -> bytes:
    """``ServerMetadataResponse``."""
    return b"".join(
        [
            _text(1, metadata["name"]),
            _text(2, metadata["version"]),
            *(_text(3, each) for each in metadata["extensions"]),
        ]
    )


def model_message(metadata: Mapping[str, Any]) -> bytes:
    """``ModelMetadataResponse``."""
    tensors = [
        b"".join(
            _parts(
                number,
                _text(1, each["name"]) + _text(2, each["datatype"]) + _packed(3, each["shape"]),
            )
        )
        for number, key in ((4, "inputs"), (5, "outputs"))
        for each in metadata[key]
    ]
    return b"".join(
        [
            _text(1, metadata["name"]),
            *(_text(2, each) for each in metadata["versions"]),
            _text(3, metadata["platform"]),
            *tensors,
        ]
    )


def _tensor(message: Message, raw: memoryview | None) -> GivenTensor:
    """``InferInputTensor``."""
    refuse_parameters(_keys(message, 4))
    name, datatype = message.text(1), message.text(2)
    return GivenTensor(
        name=name,
        datatype=datatype,
        shape=check_shape(name, message.integers(3)),
        values=_contents(name, datatype, message.chunks(5)) if raw is None else raw,
    )


def _contents(name: str, datatype: str, chunks: Sequence[memoryview]) -> Values:
    """The values of ``InferTensorContents`` in the field of the datatype."""
    dtype = DATATYPES.get(datatype)
    if dtype is None or datatype == "FP16":
        raise RequestError(
            400,
            f"the input {quoted(name)} has the datatype {quoted(datatype)}, which contents cannot "
            "hold here; send raw_input_contents",
        )
    if not chunks:
        raise RequestError(400, f"the input {quoted(name)} has no contents")
    number = _CONTENTS[dtype.kind][-1 if dtype.itemsize == 8 else 0]
    message = Message(chunks[-1], MAX_FIELDS)
    if dtype.kind == "f":
        return message.doubles(number) if dtype.itemsize == 8 else message.floats(number)
    values = unpacked(b"".join(message.chunks(number)))
    if dtype.kind == "b":
        return values.astype(bool)
    signed: NDArray[Any] = values if dtype.kind == "u" else values.view(np.int64)
    return signed


def unpacked(data: bytes) -> NDArray[np.uint64]:
    """The numbers of a packed field of varints.

    Raises:
        ValueError: if it is cut short or one is longer than ten bytes.
    """
    coded = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(coded < 0x80)
    if len(coded) and (not len(ends) or ends[-1] != len(coded) - 1):
        raise ValueError("a number is cut short")
    lengths = np.diff(ends, prepend=-1)
    if (lengths > 10).any():
        raise ValueError("a number has more than ten bytes")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(lengths.max(initial=0))):
        there = lengths > place
        at = ends[there] - lengths[there] + 1 + place
        values[there] |= (coded[at] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values


def _keys(message: Message, number: int) -> list[str]:
    """The keys of a map of parameters."""
    return [each.text(1) for each in message.messages(number)]


def _output(name: str, values: NDArray[Any]) -> bytes:
    """``InferOutputTensor`` as a field of the response."""
    described = _text(1, name) + _text(2, datatype_of(values.dtype)) + _packed(3, values.shape)
    return b"".join(_parts(5, described))


def _text(number: int, text: str) -> bytes:
    return b"".join(_parts(number, text.encode())) if text else b""


def _packed(number: int, values: Iterable[int]) -> bytes:
    return b"".join(_parts(number, b"".join(_varint(value) for value in values)))


def _parts(number: int, content: bytes) -> tuple[bytes, bytes]:
    """A field of bytes: its head, and the bytes."""
    return _key(number, 2) + _varint(len(content)), content


def _key(number: int, kind: int) -> bytes:
    return struct.pack("B", number << 3 | kind)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers in two's complement
    coded = bytearray()
    while value > 0x7F:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*coded, value])
