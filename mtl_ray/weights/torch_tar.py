"""The first form of ``torch.save`` (before 0.1.10): a tar file with the members ``storages``, ``tensors`` and ``pickle``.

``storages`` is a number, and for each storage its record and numbers, then the list of views; ``tensors`` a number, and for each its
record, dimensions, sizes, strides and offset; ``pickle`` the content, which refers to both by number. torch reads it only by running it.
"""

import io
import pickle
import struct
import tarfile
from typing import Any

from mtl_ray.weights.pickle_scan import check_operations
from mtl_ray.weights.pickled_tensors import STORAGES, Storage, rebuild_tensor
from mtl_ray.weights.torch_records import storages_in_a_row
from mtl_ray.weights.unpickle import GLOBALS, Restricted, settle


class _Reader(Restricted):
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
    """What was saved, tensors as arrays.

    Raises:
        ValueError: naming what it asks for beyond plain values and tensors; or if it is not whole.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            storages, tensors, content = (_member(archive, name) for name in ("storages", "tensors", "pickle"))
        known: dict[int, Any] = _storages(storages)
        known |= _tensors(tensors, known)
        check_operations(content)
        return settle(_Reader(content, 0, known).load(), {})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this tar file of torch.save is not read: {error}") from error
    except (pickle.UnpicklingError, tarfile.TarError, EOFError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"this is not a whole tar file of torch.save: {error}") from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} in it is no file")
    return file.read()


def _value(data: bytes, start: int) -> tuple[Any, int]:
    """The pickle at a place, and the place behind it."""
    end = check_operations(data, start)
    return _Reader(data, start, {}).load(), end


def _storages(data: bytes) -> dict[int, Storage]:
    count, place = _value(data, 0)
    found: dict[int, Storage] = {}
    for _ in range(count):
        (key, _device, kind), place = _value(data, place)
        storage = storages_in_a_row(data, place, [(str(key), kind)])[str(key)]
        place += 8 + storage.numbers.nbytes
        found[int(key)] = storage
    views, _ = _value(data, place)
    for target, root, offset, length in views:
        numbers = found[int(root)].numbers
        kind = next(kind for kind, dtype in STORAGES.items() if dtype == numbers.dtype)
        found[int(target)] = Storage(numbers[offset : offset + length].tobytes(), kind)
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
