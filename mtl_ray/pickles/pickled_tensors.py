"""Tensors of torch in a plain pickle (not in a file of ``torch.save``) as NumPy arrays.

This module does not need torch. A plain pickle holds a tensor as storage, shape and strides. The
storage is the output of ``torch.save`` in the older format: four pickles (a magic number, a
version, the machine, the record of the storage), the list of storages, and their bytes.
"""

import io
import math
import pickle
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.pickles.pickle_scan import check_operations

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
    "UntypedStorage": np.dtype("u1"),
    "ComplexFloatStorage": np.dtype("<c8"),
    "ComplexDoubleStorage": np.dtype("<c16"),
}
"""NumPy's dtype for each class of storage; bfloat16, which NumPy lacks, as its bits."""
_TYPES = {"uint16": "<u2", "uint32": "<u4", "uint64": "<u8"}


class TensorStorage:
    """The numbers of a storage as a flat array; ``kind`` is its class, such as FloatStorage."""

    def __init__(self, content: bytes | bytearray | memoryview, kind: str) -> None:
        self.numbers: NDArray[Any] = np.frombuffer(content, STORAGES[kind])
        self.bfloat16 = kind == "BFloat16Storage"

    def __setstate__(self, state: object) -> None:
        """Refused: a tensor could then reach outside the numbers."""
        raise ValueError("it would change a storage")


class _StorageUnpickler(pickle.Unpickler):
    """Reads the record of one storage: ("storage", kind, key, device, length, view)."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in STORAGES:
            return name
        raise ValueError(f"{module}.{name} is not supported")

    def persistent_load(self, pid: Any) -> Any:
        if (
            not isinstance(pid, tuple)
            or len(pid) != 6
            or pid[0] not in ("storage", b"storage")
            or pid[5] is not None
        ):
            raise ValueError("the storage of a tensor is invalid")
        return pid


def load_from_bytes(data: object) -> TensorStorage:
    """``torch.storage._load_from_bytes`` without torch.

    Raises:
        ValueError: if the bytes are not exactly one storage.
    """
    if not isinstance(data, bytes | bytearray):
        raise ValueError("the storage of a tensor is not bytes")
    end = 0
    for _ in range(5):
        end = check_operations(data, end)
    file = io.BytesIO(data)
    magic, version, _machine, record, keys = (_StorageUnpickler(file).load() for _ in range(5))
    if magic != MAGIC or version != 1001 or not isinstance(record, tuple) or len(keys) != 1:
        raise ValueError("the storage of a tensor is not from torch.save")
    kind, count = record[1], record[4]
    dtype = STORAGES[kind]
    (stored,) = struct.unpack("<q", file.read(8))
    content = file.read()
    if stored != count or len(content) != count * dtype.itemsize:
        raise ValueError(f"the storage of a tensor with {count} numbers has {len(content)} bytes")
    return TensorStorage(content, kind)


def rebuild_tensor(
    storage: object, offset: Any, size: Any, stride: Any, *_more: object
) -> NDArray[Any]:
    """``torch._utils._rebuild_tensor_v2``: an array with its own memory.

    Raises:
        ValueError: if shape and strides reach outside the storage.
    """
    if not isinstance(storage, TensorStorage) or type(offset) is not int or offset < 0:
        raise ValueError("a tensor without a storage")
    size, stride = tuple(size), tuple(stride)
    if len(size) != len(stride) or any(
        type(number) is not int or number < 0 for number in (*size, *stride)
    ):
        raise ValueError("a tensor's shape and strides do not agree")
    numbers = storage.numbers
    if math.prod(size) == 0:
        return _real(np.zeros(size, numbers.dtype), storage)
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if last >= numbers.size or math.prod(size) > numbers.size:
        raise ValueError("a tensor reaches outside its storage")
    width = numbers.itemsize
    view = np.lib.stride_tricks.as_strided(
        numbers[offset:], size, [step * width for step in stride], writeable=False
    )
    return _real(view.copy(), storage)


def rebuild_typed(
    storage: object,
    offset: Any,
    size: Any,
    stride: Any,
    _grad: object,
    _hooks: object,
    dtype: object,
) -> NDArray[Any]:
    """``torch._utils._rebuild_tensor_v3``: dtypes that have no storage class."""
    if (
        not isinstance(storage, TensorStorage)
        or dtype not in _TYPES.values()
        or storage.numbers.dtype != np.uint8
    ):
        raise ValueError("a tensor of this type is not supported")
    typed = TensorStorage(b"", "ByteStorage")
    typed.numbers = storage.numbers.view(str(dtype))
    return rebuild_tensor(typed, offset, size, stride)


def rebuild_parameter(data: object, *_more: object) -> object:
    """``torch._utils._rebuild_parameter``: the tensor itself."""
    return data


def _real(array: NDArray[Any], storage: TensorStorage) -> NDArray[Any]:
    """Converts bfloat16 to float32; its bits are the upper half of a float32."""
    return (array.astype(np.uint32) << 16).view(np.float32) if storage.bfloat16 else array


def torch_globals() -> dict[str, Any]:
    """The names that a pickle with tensors may use, and their replacements."""
    return {
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_tensor": rebuild_tensor,
        "torch._utils._rebuild_tensor_v3": rebuild_typed,
        "torch._utils._rebuild_parameter": rebuild_parameter,
        "torch.storage._load_from_bytes": load_from_bytes,
        "torch.Size": tuple,
        **{f"torch.{name}": dtype for name, dtype in _TYPES.items()},
    }
