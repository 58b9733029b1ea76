"""Training checkpoints that hold objects of the program that wrote them: the tensors and plain values, with those objects left out."""

import io
import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mtl_ray.weights.pickle_scan import check_operations
from mtl_ray.weights.pickled_tensors import MAGIC, STORAGES, Storage
from mtl_ray.weights.unpickle import GLOBALS, Call, Restricted, settle

PROGRAMS = (
    *("mmengine", "mmcv", "mmdet", "mmseg", "mmcls", "mmpretrain", "mmpose", "mmdet3d", "addict"),
    *("yacs", "omegaconf", "fvcore", "iopath", "detectron2", "argparse", "pathlib", "datetime", "typing"),
    *("pytorch_lightning", "lightning", "lightning_fabric", "ml_collections"),
)
"""Packages whose objects stand beside weights in training checkpoints; all of them are read as ``Record``."""

_BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, OverflowError, MemoryError, struct.error)
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, RuntimeError)
"""What a broken zip file raises: OSError where a record claims to be bzip2, RuntimeError where encrypted or of a new version."""


class Record(dict[Any, Any]):
    """Stands for an object of a program that is not here; what is called, filled or set on it stays without effect."""

    def __new__(cls, *_arguments: object, **_named: object) -> "Record":
        """Takes any arguments."""
        return super().__new__(cls)

    def __init__(self, *_arguments: object, **_named: object) -> None:
        super().__init__()

    def __setstate__(self, _state: object) -> None:
        """Takes any state."""

    def append(self, _item: object) -> None:
        """As of a list."""

    def extend(self, _items: object) -> None:
        """As of a list."""


class _Reader(Restricted):
    def __init__(self, data: bytes, start: int, table: Mapping[str, Any], storage: Callable[[str, str, int], object]) -> None:
        super().__init__(io.BytesIO(memoryview(data)[start:]), table)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in STORAGES:
            return name
        if module.partition(".")[0] in PROGRAMS:
            return Record
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] not in ("storage", b"storage") or pid[1] not in STORAGES:
            raise ValueError("a tensor's storage is not one")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("it has views of storages, which only the first versions of torch wrote")
        return self._storage(pid[1], str(pid[2]), int(pid[4]))


_TABLE: Mapping[str, Any] = {**GLOBALS, "builtins.getattr": Call(Record), "torch.device": Call(Record)}
_BLIND = {name: Call(Record) if name.startswith("torch._utils.") else value for name, value in _TABLE.items()}


def read_zip_with_records(data: bytes) -> Any:
    """The content of a zip file of ``torch.save``, tensors as arrays.

    Raises:
        ValueError: naming what it asks for beyond ``PROGRAMS``; or if it is not whole.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            program = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if program is None:
                raise ValueError("it has no data.pkl")
            folder = program.removesuffix("data.pkl")
            if folder + "constants.pkl" in archive.namelist():
                raise ValueError("it is a TorchScript program, not weights")

            def storage(kind: str, key: str, _count: int) -> Storage:
                return Storage(archive.read(f"{folder}data/{key}"), kind)

            code = archive.read(program)
            check_operations(code)
            return settle(_Reader(code, 0, _TABLE, storage).load(), {})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this file of torch.save is not read: {error}") from error
    except (*_BROKEN, *BROKEN_ZIP) as error:
        raise ValueError(f"this is not a whole file of torch.save: {error}") from error


def read_legacy_with_records(data: bytes) -> Any:
    """The same of the older form: magic number, version, machine, content, names of the storages, and their bytes.

    The content comes before the bytes of its tensors, so it is read twice.
    """
    try:
        starts = [0]
        for _ in range(5):
            starts.append(check_operations(data, starts[-1]))
        if _Reader(data, 0, _TABLE, _refused).load() != MAGIC:
            raise ValueError("it does not begin as torch.save's files do")
        kinds: dict[str, str] = {}
        _Reader(data, starts[3], _BLIND, lambda kind, key, _count: kinds.setdefault(key, kind)).load()
        keys = [str(key) for key in _Reader(data, starts[4], _TABLE, _refused).load()]
        filled = storages_in_a_row(data, starts[5], [(key, kinds[key]) for key in keys])
        return settle(_Reader(data, starts[3], _TABLE, lambda _kind, key, _count: filled[key]).load(), {})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this file of torch.save is not read: {error}") from error
    except _BROKEN as error:
        raise ValueError(f"this is not a whole file of torch.save: {error}") from error


def storages_in_a_row(data: bytes, start: int, keys: Iterable[tuple[str, str]]) -> dict[str, Storage]:
    """Storages by key as they follow each other: the number of numbers in 8 bytes, then the numbers.

    Raises:
        ValueError: if the data ends before they do.
    """
    found = {}
    for key, kind in keys:
        (count,) = struct.unpack_from("<q", data, start)
        stop = start + 8 + count * STORAGES[kind].itemsize
        if count < 0 or stop > len(data):
            raise ValueError("it ends before its tensors do")
        found[key] = Storage(data[start + 8 : stop], kind)
        start = stop
    return found


def _refused(*_pid: object) -> object:
    raise ValueError("a tensor where none belongs")
