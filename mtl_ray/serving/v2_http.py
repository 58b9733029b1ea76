"""The Open Inference Protocol v2 over HTTP: raw tensors in and out, beside ``/predictions``
(https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol; binary tensors
as https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).

Errors are ``{"error": "one sentence"}``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_ray.backends.backend import GraphArrays
from mtl_ray.serving.reply import Reply, RequestError, as_json, quoted
from mtl_ray.serving.v2_model import VERSION
from mtl_ray.serving.v2_tensors import (
    GivenTensor,
    InferRequest,
    check_shape,
    datatype_of,
    to_bytes,
    to_json,
)

HEADER = "Inference-Header-Content-Length"
"""The bytes of JSON in a body that has binary tensors behind them."""
MAX_LISTS, MAX_NUMBERS = 200_000, 4_000_000
"""Of JSON: a list of Python takes many times the bytes of its text."""
MAX_ID = 1024
REFUSED = ("shared_memory", "classification", "sequence_")
"""Parameters that change what is asked for; others, such as priority and timeout, are ignored."""


@dataclass(kw_only=True)
class HttpCall:
    """See ``TensorCall``.

    Attributes:
        model: its name.
        version: that answers.
        body: of the request.
        header_bytes: of the JSON, if binary tensors follow.
        binary: which outputs are answered as bytes; read from the request.
    """

    model: str
    version: str = VERSION
    body: bytes
    header_bytes: int | None
    binary: Mapping[str, bool] = field(default_factory=dict)
    binary_default: bool = False

    def read(self) -> InferRequest:
        """See ``TensorCall``."""
        end = len(self.body) if self.header_bytes is None else self.header_bytes
        if not 0 <= end <= len(self.body):
            raise RequestError(400, f"{HEADER} is {end:,}, the body has {len(self.body):,} bytes")
        content = _json(memoryview(self.body)[:end])
        tensors = memoryview(self.body)[end:]
        self.binary_default = _flag(_parameters(content, "the request"), "binary_data_output")
        inputs = []
        for each in _objects(content, "inputs", required=True):
            tensor, used = _tensor(each, tensors)
            inputs.append(tensor)
            tensors = tensors[used:]
        if tensors:
            raise RequestError(
                400, f"the body has {len(tensors):,} bytes more than its inputs have"
            )
        outputs = None
        if content.get("outputs") is not None:
            outputs = self._wanted(_objects(content, "outputs", required=False))
        return InferRequest(id=_id(content), inputs=tuple(inputs), outputs=outputs or None)

    def _wanted(self, outputs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        names = [_text(each, "name", "an output") for each in outputs]
        if len(set(names)) < len(names):
            raise RequestError(400, "an output is asked for twice")
        self.binary = {
            name: _flag(parameters, "binary_data")
            for name, each in zip(names, outputs, strict=True)
            if "binary_data" in (parameters := _parameters(each, f"the output {quoted(name)}"))
        }
        return tuple(names)

    def write(self, request: InferRequest, outputs: GraphArrays) -> Reply:
        """See ``TensorCall``."""
        described, blobs = [], []
        for name, values in outputs.items():
            tensor: dict[str, Any] = {
                "name": name,
                "datatype": datatype_of(values.dtype),
                "shape": list(values.shape),
            }
            if self.binary.get(name, self.binary_default):
                blobs.append(to_bytes(values))
                tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                tensor["data"] = to_json(name, values)
            described.append(tensor)
        head = {"model_name": self.model, "model_version": self.version, "outputs": described}
        reply = as_json({**head, **({"id": request.id} if request.id else {})})
        if not blobs:
            return reply
        return Reply(
            body=b"".join((reply.body, *blobs)),
            type="application/octet-stream",
            headers={HEADER: str(len(reply.body))},
        )

    def refuse(self, error: RequestError) -> Reply:
        """See ``TensorCall``."""
        return as_error(error)


def as_error(error: RequestError) -> Reply:
    """An error in the protocol's form."""
    return as_json({"error": str(error)}, error.status, error.reply.headers)


def header_bytes(text: str) -> int | None:
    """The value of ``HEADER``, None if it is not there."""
    if text and not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise RequestError(400, f"{HEADER} is {quoted(text)}, not a number of bytes")
    return int(text) if text else None


def _json(data: memoryview) -> Mapping[str, Any]:
    text = bytes(data)
    if text.count(b"[") + text.count(b"{") > MAX_LISTS or text.count(b",") > MAX_NUMBERS:
        raise RequestError(
            400,
            f"the JSON has more than {MAX_LISTS:,} lists or {MAX_NUMBERS:,} numbers; send binary "
            "tensors",
        )
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise RequestError(400, 'the body is no JSON in UTF-8; send {"inputs": [...]}') from None
    if not isinstance(content, dict):
        raise RequestError(400, 'the body is no JSON object; send {"inputs": [...]}')
    return content


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _objects(
    content: Mapping[str, Any], key: str, *, required: bool
) -> Sequence[Mapping[str, Any]]:
    values = content.get(key, [])
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise RequestError(400, f"{key} must be a list of objects")
    if required and not values:
        raise RequestError(400, f"the request has no {key}")
    return values


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise RequestError(400, f"the {key} of {where} must be text")
    return value


def _id(content: Mapping[str, Any]) -> str:
    value = content.get("id", "")
    if not isinstance(value, str) or len(value) > MAX_ID:
        raise RequestError(400, f"the id must be text of at most {MAX_ID} characters")
    return value


def _parameters(content: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The parameters of a request, an input or an output."""
    parameters = content.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestError(400, f"the parameters of {where} must be an object")
    refuse_parameters(parameters)
    return parameters


def refuse_parameters(names: Mapping[str, Any] | Sequence[str]) -> None:
    """Raises a RequestError for parameters whose meaning is not supported."""
    for name in names:
        if name.startswith(REFUSED):
            raise RequestError(400, f"the parameter {quoted(name)} is not supported")


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(400, f"{name} must be true or false")
    return value


def _tensor(content: Mapping[str, Any], following: memoryview) -> tuple[GivenTensor, int]:
    """An input, and how many of the ``following`` bytes it takes."""
    name = _text(content, "name", "an input")
    datatype = _text(content, "datatype", f"the input {quoted(name)}")
    shape = content.get("shape")
    if not isinstance(shape, list):
        raise RequestError(400, f"the shape of {quoted(name)} must be a list")
    size = _parameters(content, f"the input {quoted(name)}").get("binary_data_size")
    values: Any = content.get("data")
    if (size is None) == (values is None):
        raise RequestError(
            400, f"the input {quoted(name)} needs either data or the parameter binary_data_size"
        )
    if size is None:
        if not isinstance(values, list):
            raise RequestError(400, f"the data of {quoted(name)} must be a list")
    elif type(size) is not int or not 0 <= size <= len(following):
        raise RequestError(
            400,
            f"{quoted(name)} has the binary_data_size {quoted(size)}, but {len(following):,} bytes "
            "follow",
        )
    else:
        values = following[:size]
    tensor = GivenTensor(
        name=name, datatype=datatype, shape=check_shape(name, shape), values=values
    )
    return tensor, size or 0
