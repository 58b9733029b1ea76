"""Reads foreign pickles without executing code in them. This module imports no torch.

A pickle is a program: it names functions and calls them. Here it may use only the names of one
table, and gets our own functions for them, which check their arguments. The result holds plain
values, NumPy arrays and scalars, and tensors as arrays.
"""

import io
import pickle
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.pickles import pickled_arrays as arrays
from mtl_ray.pickles.pickle_scan import check_operations
from mtl_ray.pickles.pickled_tensors import torch_globals


def load_pickle(data: bytes) -> Any:
    """The content of a pickle of any protocol, of Python 2 as well.

    Args:
        data: the whole file. Strings of Python 2 are read as Latin-1.

    Returns:
        Built-in values and containers (a ``defaultdict`` becomes a dict), NumPy arrays and scalars;
        tensors of torch as arrays,
        bfloat16 as float32.

    Raises:
        ValueError: if the pickle needs another class or function, which the message names; or if it
            is incomplete or not a pickle.
    """
    try:
        check_operations(data)
        return resolve_arrays(RestrictedUnpickler(io.BytesIO(data), GLOBALS).load(), {})
    except RecursionError as error:
        raise ValueError("this pickle is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"this pickle cannot be read: {error}") from error
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        LookupError,
        TypeError,
        OverflowError,
        MemoryError,
        ArithmeticError,
    ) as error:
        raise ValueError(f"this pickle is broken: {error}") from error


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows only the names of a table.

    Args:
        file: starts with a pickle.
        table: the names that a pickle may use, and their replacements.
    """

    def __init__(self, file: IO[bytes], table: Mapping[str, Any]) -> None:
        super().__init__(file, encoding="latin-1")
        self._table = table

    def find_class(self, module: str, name: str) -> Any:
        """The replacement for a name; never imports."""
        full = f"{module}.{name}"
        if full not in self._table:
            shown = full if full.isprintable() and len(full) < 100 else reprlib.repr(full)
            raise ValueError(
                f"it uses {shown}, which could execute code; only plain values, arrays and tensors "
                "are read"
            )
        return self._table[full]

    def persistent_load(self, pid: Any) -> Any:
        """Refuses references to something outside the pickle."""
        raise ValueError(
            "it refers to data outside the pickle; a file of torch.save is read as weights, not as "
            "a pickle"
        )


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode``: Python 3 writes bytes with it in the older protocols."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in {encoding!r}")
    return text.encode("latin-1")


def _bytes(content: bytes = b"") -> bytes:
    """``bytes()``, but not with a number, which would allocate that many bytes."""
    if not isinstance(content, bytes):
        raise ValueError("bytes() of something that is not bytes")
    return content


def _bytearray(content: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    return bytearray(_encode(content, encoding) if isinstance(content, str) else _bytes(content))


def _defaultdict(*_factory: object) -> dict[Any, Any]:
    return {}


def _builtins() -> Iterator[tuple[str, Any]]:
    simple = (list, dict, tuple, set, frozenset, int, float, bool, complex)
    for module in ("builtins", "__builtin__"):
        yield from ((f"{module}.{kind.__name__}", kind) for kind in simple)
        yield from ((f"{module}.bytes", _bytes), (f"{module}.bytearray", _bytearray))
    yield "__builtin__.long", int


def numpy_globals() -> Iterator[tuple[str, Any]]:
    """The names that a pickle with arrays may use, and their replacements.

    NumPy 1 and 2 use different names.
    """
    for core in ("numpy.core", "numpy._core"):
        yield f"{core}.multiarray._reconstruct", arrays.reconstruct
        yield f"{core}.multiarray.scalar", arrays.numpy_scalar
        yield f"{core}.numeric._frombuffer", arrays.from_buffer
    yield "numpy.dtype", arrays.PickledDtype
    yield "numpy.ndarray", arrays.NDARRAY
    yield "_codecs.encode", _encode


class GuardedCall:
    """A function that a pickle may call but not change: a pickle could set attributes of a
    Python function.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function."""
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        """Refused."""
        raise ValueError("it would change a function")


_NAMED: dict[str, Any] = {
    **dict(_builtins()),
    **dict(numpy_globals()),
    **torch_globals(),
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": _defaultdict,
}
GLOBALS = {
    name: value if isinstance(value, type | str) else GuardedCall(value)
    for name, value in _NAMED.items()
}
"""The names that a pickle of plain values, arrays and tensors may use, and their replacements."""


def resolve_arrays(value: Any, done: dict[int, Any]) -> Any:
    """Replaces ``PickledArray`` and ``PickledDtype`` by the real ones.

    ``done`` maps the ids of values that occur several times.
    """
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, arrays.PickledDtype):
        return value.dtype()
    if isinstance(value, tuple):
        done[id(value)] = tuple(resolve_arrays(item, done) for item in value)
    elif isinstance(value, dict | list | np.ndarray | arrays.PickledArray):
        new = value.array if isinstance(value, arrays.PickledArray) else value
        done[id(value)] = done[id(new)] = new
        _fill(new, done)
    return done.get(id(value), value)


def _fill(value: dict[Any, Any] | list[Any] | NDArray[Any], done: dict[int, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = resolve_arrays(item, done)
    elif isinstance(value, list):
        value[:] = [resolve_arrays(item, done) for item in value]
    elif value.dtype.hasobject:
        for index, item in enumerate(value.flat):
            value.flat[index] = resolve_arrays(item, done)
