"""Reads the tensors and plain values of training checkpoints, and skips the objects of the
program that wrote them.
"""

import io
import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mtl_ray.pickles.pickle_scan import check_operations
from mtl_ray.pickles.pickled_tensors import MAGIC, STORAGES, TensorStorage
from mtl_ray.pickles.unpickle import GLOBALS, GuardedCall, RestrictedUnpickler, resolve_arrays

PROGRAMS = (
    *("mmengine", "mmcv", "mmdet", "mmseg", "mmcls", "mmpretrain", "mmpose", "mmdet3d", "addict"),
    *(
        "yacs",
        "omegaconf",
        "fvcore",
        "iopath",
        "detectron2",
        "argparse",
        "pathlib",
        "datetime",
        "typing",
    ),
    *("pytorch_lightning", "lightning", "lightning_fabric", "ml_collections"),
)
"""Packages whose objects training checkpoints contain beside the weights; all are read as
``ForeignObject``."""

_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    LookupError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
)
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, RuntimeError)
"""Errors of a broken zip file: OSError if a record claims to be bzip2, RuntimeError if it is
encrypted or of a newer version."""


class ForeignObject(dict[Any, Any]):
    """A placeholder for an object of a program that is not installed.

    Calling, filling or setting it has no effect.
    """

    def __new__(cls, *_arguments: object, **_named: object) -> "ForeignObject":
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


class _Reader(RestrictedUnpickler):
    def __init__(
        self,
        data: bytes,
        start: int,
        table: Mapping[str, Any],
        storage: Callable[[str, str, int], object],
    ) -> None:
        super().__init__(io.BytesIO(memoryview(data)[start:]), table)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in STORAGES:
            return name
        if module.partition(".")[0] in PROGRAMS:
            return ForeignObject
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if (
            not isinstance(pid, tuple)
            or len(pid) < 5
            or pid[0] not in ("storage", b"storage")
            or pid[1] not in STORAGES
        ):
            raise ValueError("the storage of a tensor is invalid")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError(
                "it has views of storages, which only the first versions of torch wrote"
            )
        return self._storage(pid[1], str(pid[2]), int(pid[4]))


_TABLE: Mapping[str, Any] = {
    **GLOBALS,
    "builtins.getattr": GuardedCall(ForeignObject),
    "torch.device": GuardedCall(ForeignObject),
}
_BLIND = {
    name: GuardedCall(ForeignObject) if name.startswith("torch._utils.") else value
    for name, value in _TABLE.items()
}


def read_zip_checkpoint(data: bytes) -> Any:
    """The content of a zip file of ``torch.save``, tensors as arrays.

    Raises:
        ValueError: if it needs a class outside ``PROGRAMS``, which the message names; or if it is
            incomplete.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            program = next(
                (name for name in archive.namelist() if name.endswith("/data.pkl")), None
            )
            if program is None:
                raise ValueError("it has no data.pkl")
            folder = program.removesuffix("data.pkl")
            if folder + "constants.pkl" in archive.namelist():
                raise ValueError("it is a TorchScript program, not weights")

            def storage(kind: str, key: str, _count: int) -> TensorStorage:
                return TensorStorage(archive.read(f"{folder}data/{key}"), kind)

            code = archive.read(program)
            check_operations(code)
            return resolve_arrays(_Reader(code, 0, _TABLE, storage).load(), {})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this file of torch.save cannot be read: {error}") from error
    except (*_BROKEN, *BROKEN_ZIP) as error:
        raise ValueError(f"this file of torch.save is broken: {error}") from error


def read_legacy_checkpoint(data: bytes) -> Any:
    """The content of a file in the older format: magic number, version, machine, content, names of
    the storages, their bytes.

    The content comes before the bytes of its tensors, so it is read twice.
    """
    try:
        starts = [0]
        for _ in range(5):
            starts.append(check_operations(data, starts[-1]))
        if _Reader(data, 0, _TABLE, _refused).load() != MAGIC:
            raise ValueError("it does not start like a file of torch.save")
        kinds: dict[str, str] = {}
        _Reader(
            data, starts[3], _BLIND, lambda kind, key, _count: kinds.setdefault(key, kind)
        ).load()
        keys = [str(key) for key in _Reader(data, starts[4], _TABLE, _refused).load()]
        filled = storages_in_a_row(data, starts[5], [(key, kinds[key]) for key in keys])
        return resolve_arrays(
            _Reader(data, starts[3], _TABLE, lambda _kind, key, _count: filled[key]).load(), {}
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this file of torch.save cannot be read: {error}") from error
    except _BROKEN as error:
        raise ValueError(f"this file of torch.save is broken: {error}") from error


def storages_in_a_row(
    data: bytes, start: int, keys: Iterable[tuple[str, str]]
) -> dict[str, TensorStorage]:
    """Consecutive storages by key: each has the count of its numbers in 8 bytes, then the numbers.

    Raises:
        ValueError: if the data is too short.
    """
    found = {}
    for key, kind in keys:
        (count,) = struct.unpack_from("<q", data, start)
        stop = start + 8 + count * STORAGES[kind].itemsize
        if count < 0 or stop > len(data):
            raise ValueError("it ends before its tensors do")
        found[key] = TensorStorage(data[start + 8 : stop], kind)
        start = stop
    return found


def _refused(*_pid: object) -> object:
    raise ValueError("an unexpected tensor")
