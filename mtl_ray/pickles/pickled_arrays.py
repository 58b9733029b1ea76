"""NumPy arrays in a foreign pickle, built from checked parts.

NumPy's own ``__setstate__`` trusts its input.
"""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SPEC = re.compile(r"b1|[iuf][1248]|f16|c8|c16|[SUV]\d{1,9}|O8?")
_MAX_DIMENSIONS = 32
_MOST_EMPTY = 1_000_000
"""The most items of an array that takes no byte of the file."""


class PickledDtype:
    """Replaces ``numpy.dtype`` in a pickle: takes its arguments and its state.

    ``dtype()`` is the real dtype.

    Raises:
        ValueError: for dtypes other than numbers, strings and objects.
    """

    def __init__(self, spec: object, align: object = False, copy: object = False) -> None:
        text = spec.decode("ascii") if isinstance(spec, bytes) else spec
        if not isinstance(text, str) or not _SPEC.fullmatch(text):
            raise ValueError(f"arrays of {spec!r} are not supported")
        self._dtype = np.dtype(text if text != "O8" else "O")

    def __setstate__(self, state: object) -> None:
        """``state`` is (version, byte order, subarray, names, fields, size, alignment, flags,
        ...).
        """
        if (
            not isinstance(state, tuple)
            or len(state) < 7
            or any(part is not None for part in state[2:5])
        ):
            raise ValueError("arrays of records are not supported")
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|"):
            raise ValueError(f"{order!r} is not a byte order")
        if order == ">":
            self._dtype = self._dtype.newbyteorder(">")

    def dtype(self) -> np.dtype[Any]:
        """The dtype with its byte order."""
        return self._dtype


class PickledArray:
    """Replaces the result of ``numpy._core.multiarray._reconstruct``.

    Empty until ``__setstate__``.
    """

    array: NDArray[Any]

    def __setstate__(self, state: object) -> None:
        """``state`` is (version, shape, dtype, in Fortran's order, content).

        The content is bytes, or a list of objects.
        """
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("the state of an array is invalid")
        shape, dtype, fortran, content = state[-4:]
        self.array = make_array(content, dtype, shape, "F" if fortran else "C")


def reconstruct(kind: object, shape: object, typecode: object) -> PickledArray:
    """The first step of an array, ``_reconstruct(ndarray, (0,), b"b")``.

    Raises:
        ValueError: for other arguments, such as a shape of a terabyte.
    """
    if kind != NDARRAY or shape != (0,):
        raise ValueError("an array does not start like in NumPy's pickles")
    return PickledArray()


NDARRAY = "numpy.ndarray"
"""Placeholder for the class itself, which must not be called."""


def from_buffer(buffer: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    """``numpy._core.numeric._frombuffer``, as in pickles of protocol 5."""
    return make_array(buffer, dtype, shape, "F" if order == "F" else "C")


def numpy_scalar(dtype: object, content: object = b"") -> Any:
    """``numpy._core.multiarray.scalar``: a number or string of NumPy."""
    return make_array(content, dtype, (), "C")[()]


def make_array(content: object, dtype: object, shape: object, order: str) -> NDArray[Any]:
    """An array that owns its memory.

    Raises:
        ValueError: if the length of the content does not fit shape and dtype.
    """
    if not isinstance(dtype, PickledDtype):
        raise ValueError("an array without a dtype")
    real = dtype.dtype()
    sides = _sides(shape)
    if real.hasobject:
        return _objects(content, sides, order)
    # a string of Python 2
    data = content.encode("latin-1") if isinstance(content, str) else content
    if not isinstance(data, bytes | bytearray) or len(data) != math.prod(sides) * real.itemsize:
        raise ValueError(f"an array of shape {sides} and type {real} has the wrong number of bytes")
    if real.itemsize == 0:  # texts without a character, of which NumPy stores one all the same
        if math.prod(sides) > _MOST_EMPTY:
            raise ValueError(f"an array of {math.prod(sides):,} empty texts")
        return np.zeros(sides, real)
    return (
        np.frombuffer(data, real).reshape(sides, order="F" if order == "F" else "C").copy(order="K")
    )


def _sides(shape: object) -> tuple[int, ...]:
    sides = (shape,) if isinstance(shape, int) else shape
    if not isinstance(sides, tuple) or len(sides) > _MAX_DIMENSIONS:
        raise ValueError(f"{shape!r} is not the shape of an array")
    for side in sides:
        if type(side) is not int or side < 0:
            raise ValueError(f"{shape!r} is not the shape of an array")
    return sides


def _objects(content: object, sides: tuple[int, ...], order: str) -> NDArray[Any]:
    if not isinstance(content, list) or len(content) != math.prod(sides):
        raise ValueError("an array of objects does not have as many as its shape says")
    flat = np.empty(len(content), object)
    for index, value in enumerate(content):
        flat[index] = value
    return flat.reshape(sides, order="F" if order == "F" else "C")
