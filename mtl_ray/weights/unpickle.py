"""Foreign pickles, read without running anything that is in them. Imports no torch.

A pickle is a program: it names functions and calls them. Here it may name only what stands in one table, and gets our own functions
under those names, which check what they are given. Plain values, NumPy arrays and scalars and tensors (as arrays) come out.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.weights import pickled_arrays as arrays
from mtl_ray.weights.pickle_scan import check_operations
from mtl_ray.weights.pickled_tensors import torch_globals


def load_pickle(data: bytes) -> Any:
    """The content of a pickle of any protocol, of Python 2 as well.

    Args:
        data: the whole file. Texts of Python 2 are read as Latin-1.

    Returns:
        Built-in values and containers (a ``defaultdict`` becomes a dict), NumPy arrays and scalars; tensors of torch as arrays,
        bfloat16 as float32.

    Raises:
        ValueError: naming the class or function, if the pickle asks for any other; or if it is not whole or not a pickle.
    """
    try:
        check_operations(data)
        return settle(Restricted(io.BytesIO(data), GLOBALS).load(), {})
    except RecursionError as error:
        raise ValueError("this pickle is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"this pickle is not read: {error}") from error
    except (pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, OverflowError, MemoryError, ArithmeticError) as error:
        raise ValueError(f"this is not a whole pickle of plain values: {error}") from error


class Restricted(pickle.Unpickler):
    """A reader that knows no names but those of a table.

    Args:
        file: begins with a pickle.
        table: what a pickle may name, and what it gets.
    """

    def __init__(self, file: IO[bytes], table: Mapping[str, Any]) -> None:
        super().__init__(file, encoding="latin-1")
        self._table = table

    def find_class(self, module: str, name: str) -> Any:
        """Ours of that name; never an import."""
        full = f"{module}.{name}"
        if full not in self._table:
            raise ValueError(f"it asks for {full}, which may run anything; only plain values, arrays and tensors are read")
        return self._table[full]

    def persistent_load(self, pid: Any) -> Any:
        """What stands outside the pickle: nothing does."""
        raise ValueError("it refers to something outside; a file of torch.save is read as weights, not as a pickle")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode``, by which Python 3 writes bytes in the older protocols."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in {encoding!r}")
    return text.encode("latin-1")


def _bytes(content: bytes = b"") -> bytes:
    """``bytes()``, but no room for a terabyte by a number."""
    if not isinstance(content, bytes):
        raise ValueError("bytes that are not there")
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
    """What a pickle with arrays may name, and what it gets; NumPy 1 and 2 say it differently."""
    for core in ("numpy.core", "numpy._core"):
        yield f"{core}.multiarray._reconstruct", arrays.reconstruct
        yield f"{core}.multiarray.scalar", arrays.scalar
        yield f"{core}.numeric._frombuffer", arrays.from_buffer
    yield "numpy.dtype", arrays.PickledDtype
    yield "numpy.ndarray", arrays.NDARRAY
    yield "_codecs.encode", _encode


class Call:
    """A function that a pickle may call, but not change: functions of Python have attributes that it could set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives."""
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        """Never."""
        raise ValueError("it would change a function")


_NAMED: dict[str, Any] = {
    **dict(_builtins()),
    **dict(numpy_globals()),
    **torch_globals(),
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": _defaultdict,
}
GLOBALS = {name: value if isinstance(value, type | str) else Call(value) for name, value in _NAMED.items()}
"""What a pickle of plain values, arrays and tensors may name, and what it gets."""


def settle(value: Any, done: dict[int, Any]) -> Any:
    """The value with the real arrays in place of those that were being made; ``done`` by identity, for what stands there twice."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, arrays.PickledDtype):
        return value.dtype()
    if isinstance(value, tuple):
        done[id(value)] = tuple(settle(item, done) for item in value)
    elif isinstance(value, dict | list | np.ndarray | arrays.PickledArray):
        new = value.array if isinstance(value, arrays.PickledArray) else value
        done[id(value)] = done[id(new)] = new
        _fill(new, done)
    return done.get(id(value), value)


def _fill(value: dict[Any, Any] | list[Any] | NDArray[Any], done: dict[int, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = settle(item, done)
    elif isinstance(value, list):
        value[:] = [settle(item, done) for item in value]
    elif value.dtype.hasobject:
        for index, item in enumerate(value.flat):
            value.flat[index] = settle(item, done)
