"""Reads files of ``torch.save`` of all versions, without executing code in them.

The first format (before torch 0.1.10) is a tar file with the members ``storages``, ``tensors`` and
``pickle``. ``storages`` is a number, for each storage its record and numbers, and the list of
views. ``tensors`` is a number, and for each tensor its record, dimensions, sizes, strides and
offset. ``pickle`` is the content, which refers to both by number. torch itself reads this format
only by executing it.
"""

import io
import pickle
import struct
import tarfile
import zipfile
from typing import Any

import torch

from mtl_ray.pickles.pickle_scan import check_operations
from mtl_ray.pickles.pickled_tensors import STORAGES, TensorStorage, rebuild_tensor
from mtl_ray.pickles.unpickle import GLOBALS, RestrictedUnpickler, resolve_arrays
from mtl_ray.weights.torch_checkpoints import (
    BROKEN_ZIP,
    read_legacy_checkpoint,
    read_zip_checkpoint,
    storages_in_a_row,
)

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_GROWTH = 64
_REFUSALS = (
    *(
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        AssertionError,
    ),
    *(OverflowError, MemoryError, struct.error),
)
"""What PyTorch's reader raises for files that it refuses, and for broken ones."""


def is_torch_file(data: bytes) -> bool:
    """True for the three formats of ``torch.save``: a zip file, five consecutive pickles, a tar
    file.
    """
    return _is_zip(data) or data.startswith(_LEGACY) or data[257:262] == b"ustar"


def read_torch(data: bytes) -> Any:
    """The saved content, with tensors on the CPU.

    PyTorch's own restricted reader is tried first. It refuses training checkpoints with objects of
    their program beside the weights (logs of MMEngine, configs of Detectron2 and Swin). These are
    read with a ``ForeignObject`` in place of each such object.

    Raises:
        ValueError: if the file needs another class or function, which the message names; or if it
            is incomplete.
    """
    if data[257:262] == b"ustar":
        return read_tar(data)
    zipped = _is_zip(data)
    if zipped:
        _check_growth(data)
    try:
        _check_pickles(data, zipped)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (*_REFUSALS, *BROKEN_ZIP):
        return read_zip_checkpoint(data) if zipped else read_legacy_checkpoint(data)


def _check_pickles(data: bytes, zipped: bool) -> None:
    """See ``check_operations``: PyTorch's reader does not check them."""
    if zipped:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                if name.endswith("/data.pkl"):
                    check_operations(archive.read(name))
    else:
        end = 0
        for _ in range(5):
            end = check_operations(data, end)


def _is_zip(data: bytes) -> bool:
    return data.startswith(b"PK\x03\x04")


def _check_growth(data: bytes) -> None:
    """Rejects a zip file that unpacks to many times its size: ``torch.save`` does not compress."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"this file of torch.save is broken: {error}") from error
    if size > _GROWTH * len(data):
        raise ValueError(
            f"this file of {len(data)} bytes would unpack to {size}: it is not from torch.save"
        )


class _Reader(RestrictedUnpickler):
    def __init__(self, data: bytes, start: int, known: dict[int, Any]) -> None:
        super().__init__(io.BytesIO(memoryview(data)[start:]), GLOBALS)
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("torch") and name.endswith(("Storage", "Tensor")):
            return name
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        return self._known[int(pid)]


def read_tar(data: bytes) -> Any:
    """The content of a tar file of ``torch.save``, with tensors as arrays.

    Raises:
        ValueError: if it needs more than plain values and tensors, which the message names; or if
            it is incomplete.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            storages, tensors, content = (
                _member(archive, name) for name in ("storages", "tensors", "pickle")
            )
        known: dict[int, Any] = _storages(storages)
        known |= _tensors(tensors, known)
        check_operations(content)
        return resolve_arrays(_Reader(content, 0, known).load(), {})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this tar file of torch.save cannot be read: {error}") from error
    except (
        pickle.UnpicklingError,
        tarfile.TarError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        struct.error,
    ) as error:
        raise ValueError(f"this tar file of torch.save is broken: {error}") from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} in it is not a file")
    return file.read()


def _value(data: bytes, start: int) -> tuple[Any, int]:
    """The value of the pickle at a position, and the position after it."""
    end = check_operations(data, start)
    return _Reader(data, start, {}).load(), end


def _storages(data: bytes) -> dict[int, TensorStorage]:
    count, place = _value(data, 0)
    found: dict[int, TensorStorage] = {}
    for _ in range(count):
        (key, _device, kind), place = _value(data, place)
        storage = storages_in_a_row(data, place, [(str(key), kind)])[str(key)]
        place += 8 + storage.numbers.nbytes
        found[int(key)] = storage
    views, _ = _value(data, place)
    for target, root, offset, length in views:
        numbers = found[int(root)].numbers
        kind = next(kind for kind, dtype in STORAGES.items() if dtype == numbers.dtype)
        found[int(target)] = TensorStorage(numbers[offset : offset + length].tobytes(), kind)
    return found


def _tensors(data: bytes, storages: dict[int, Any]) -> dict[int, Any]:
    count, place = _value(data, 0)
    found = {}
    for _ in range(count):
        (key, storage, _kind), place = _value(data, place)
        (dimensions,) = struct.unpack_from("<i", data, place)
        if not 0 <= dimensions <= 32:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        numbers = struct.unpack_from(f"<{2 * dimensions + 1}q", data, place + 8)
        place += 8 + 8 * len(numbers)
        sizes, strides, offset = numbers[:dimensions], numbers[dimensions:-1], numbers[-1]
        found[int(key)] = rebuild_tensor(storages[int(storage)], offset, sizes, strides)
    return found
