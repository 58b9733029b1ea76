"""Files of ``torch.save`` of all ages, read without running anything that is in them."""

import io
import pickle
import struct
import zipfile
from typing import Any

import torch

from mtl_ray.weights.torch_records import read_legacy_with_records, read_zip_with_records
from mtl_ray.weights.torch_tar import read_tar

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_GROWTH = 64
_REFUSALS = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError, TypeError, ValueError, AssertionError),
    *(OverflowError, MemoryError, struct.error),
)
"""What PyTorch's reader raises for files that it does not like, and for broken ones."""


def is_torch_file(data: bytes) -> bool:
    """True for the three forms that ``torch.save`` has had: a zip file, five pickles in a row, a tar file."""
    return _is_zip(data) or data.startswith(_LEGACY) or data[257:262] == b"ustar"


def read_torch(data: bytes) -> Any:
    """What was saved, tensors on the CPU.

    PyTorch's own restricted reader is asked first. It refuses training checkpoints that hold objects of their program beside the
    weights (logs of MMEngine, configs of Detectron2 and Swin); these are read with a ``Record`` in the place of each such object.

    Raises:
        ValueError: naming the class or function, if the file asks for something that is neither; or if it is not whole.
    """
    if data[257:262] == b"ustar":
        return read_tar(data)
    zipped = _is_zip(data)
    if zipped:
        _check_growth(data)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _REFUSALS:
        return read_zip_with_records(data) if zipped else read_legacy_with_records(data)


def _is_zip(data: bytes) -> bool:
    return data.startswith(b"PK\x03\x04")


def _check_growth(data: bytes) -> None:
    """Refuses a zip file that unpacks to many times its size: ``torch.save`` does not compress."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"this is not a whole file of torch.save: {error}") from error
    if size > _GROWTH * len(data):
        raise ValueError(f"this file of {len(data)} bytes would unpack to {size}: it is not of torch.save")
