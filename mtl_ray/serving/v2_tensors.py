"""Tensors of the Open Inference Protocol: their datatypes, and their values as bytes and in JSON
(https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol).

What a client sends is untrusted: memory is only taken for as many values as the checked shape has.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.serving.reply import RequestError, quoted

DATATYPES: Mapping[str, "np.dtype[Any]"] = {
    "BOOL": np.dtype(bool),
    **{f"UINT{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
"""The datatypes of the protocol that numpy has; BYTES is not among them."""
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
MAX_RANK = 16

Values = memoryview | NDArray[Any] | Sequence[Any]
"""Raw little-endian bytes; or a flat array; or numbers of JSON, flat or nested."""


@dataclass(frozen=True, kw_only=True)
class GivenTensor:
    """An input as the client sent it, not yet checked."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """A request, not yet checked.

    Attributes:
        id: of the client; the answer has it too.
        inputs: the tensors.
        outputs: the outputs that are asked for; None for all.
    """

    id: str
    inputs: tuple[GivenTensor, ...]
    outputs: tuple[str, ...] | None


def datatype_of(dtype: "np.dtype[Any] | str") -> str:
    """The protocol's name of a dtype."""
    return NAMES[np.dtype(dtype)]


def check_shape(name: str, shape: Sequence[object]) -> tuple[int, ...]:
    """The shape of a tensor.

    Raises:
        RequestError: 400 if it is none.
    """
    if len(shape) > MAX_RANK or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise RequestError(
            400,
            f"the shape of {quoted(name)} must be a list of at most {MAX_RANK} whole numbers, "
            "none below 0",
        )
    return tuple(n for n in shape if isinstance(n, int))


def to_array(tensor: GivenTensor) -> NDArray[Any]:
    """The values of a tensor as an array of its datatype and shape, which were checked.

    Raises:
        RequestError: 400 if there are more or fewer values, or one is not of the datatype.
    """
    dtype, count = DATATYPES[tensor.datatype], math.prod(tensor.shape)
    if isinstance(tensor.values, memoryview):
        flat = _from_bytes(tensor.name, tensor.values, dtype, count)
    elif isinstance(tensor.values, np.ndarray):
        _check_count(tensor.name, len(tensor.values), count)
        flat = _cast(tensor.name, tensor.values, dtype)
    else:
        flat = _from_json(tensor.name, tensor.values, dtype, count)
    return flat.reshape(tensor.shape)


def to_bytes(array: NDArray[Any]) -> bytes:
    """The little-endian bytes of an array in C order."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def to_json(name: str, array: NDArray[Any]) -> list[Any]:
    """The values of an output as a flat list.

    Raises:
        RequestError: 400 if JSON does not hold them.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError(
            400,
            f"the output {name} has infinite or undefined values, which JSON does not hold; ask "
            "for it with the parameter binary_data",
        )
    values: list[Any] = array.ravel().tolist()
    return values


def _from_bytes(name: str, data: memoryview, dtype: "np.dtype[Any]", count: int) -> NDArray[Any]:
    if len(data) != count * dtype.itemsize:
        raise RequestError(
            400,
            f"the input {name} has {len(data):,} bytes, its shape needs {count * dtype.itemsize:,}",
        )
    stored = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    # a copy: engines may need aligned memory, and the body is not kept
    return np.frombuffer(data, stored.newbyteorder("<")).astype(dtype)


def _from_json(
    name: str, values: Sequence[Any], dtype: "np.dtype[Any]", count: int
) -> NDArray[Any]:
    flat = list(values)
    for _ in range(MAX_RANK):
        if not flat or not isinstance(flat[0], list):
            break
        if not all(isinstance(each, list) for each in flat):
            raise RequestError(400, f"the data of {name} mixes lists and numbers")
        flat = list(chain.from_iterable(flat))
    _check_count(name, len(flat), count)
    kinds: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}
    allowed = kinds.get(dtype.kind, {int})
    if set(map(type, flat)) - allowed:
        raise RequestError(400, f"the data of {name} must be {_words(dtype)}")
    try:
        wide = np.array(flat, np.float64) if dtype.kind == "f" else np.array(flat, dtype)
    except OverflowError:
        raise _outside(name, dtype) from None
    if dtype.kind == "f" and not np.isfinite(wide).all():  # such as 1e999, which JSON allows
        raise _outside(name, dtype)
    return _cast(name, wide, dtype)


def _cast(name: str, values: NDArray[Any], dtype: "np.dtype[Any]") -> NDArray[Any]:
    """Values in a narrower dtype of the same kind."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast: NDArray[Any] = values.astype(dtype)
    same = np.isfinite(cast) | ~np.isfinite(values) if dtype.kind == "f" else cast == values
    if not same.all():
        raise _outside(name, dtype)
    return cast


def _outside(name: str, dtype: "np.dtype[Any]") -> RequestError:
    return RequestError(
        400, f"the data of {name} has a number outside the range of {datatype_of(dtype)}"
    )


def _check_count(name: str, given: int, count: int) -> None:
    if given != count:
        raise RequestError(400, f"the input {name} has {given:,} values, its shape needs {count:,}")


def _words(dtype: "np.dtype[Any]") -> str:
    return {"b": "true or false", "f": "numbers"}.get(dtype.kind, "whole numbers")
