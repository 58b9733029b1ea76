"""TFRecord files of other projects: where their records are, and their bytes.

A record is its length (8 bytes), a masked CRC-32C of that, its bytes and a masked CRC-32C of those
(https://www.tensorflow.org/tutorials/load_data/tfrecord). Files of a gigabyte are read record by
record.
"""

import struct
from collections.abc import Iterator

import google_crc32c
import numpy as np

from mtl_ray import storage

HEADER_BYTES = 12
"""Before the bytes of a record."""
FRAME_BYTES = 16
"""A record without its bytes."""
_MASK = 0xA282EAD8


def masked_crc32c(data: bytes | memoryview) -> int:
    """The checksum that a TFRecord file has of some bytes."""
    return mask_crc(google_crc32c.value(np.frombuffer(data, np.uint8)))


def mask_crc(crc: int) -> int:
    """TFRecords hold checksums of data that may hold checksums itself, and change them for that
    reason.
    """
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def find_records(uri: str) -> Iterator[tuple[int, int]]:
    """Start and length of the bytes of each record; only the headers are read.

    Raises:
        ValueError: in one sentence, if the file is cut short or no TFRecord file; records before
            that place were given.
    """
    size, at = storage.size(uri), 0
    while at < size:
        header = storage.read(uri, at, min(at + HEADER_BYTES, size))
        if len(header) < HEADER_BYTES:
            raise ValueError(f"it is cut short: a record at {at}")
        length, checksum = struct.unpack("<QI", header)
        if masked_crc32c(header[:8]) != checksum:
            raise ValueError(f"it is no TFRecord file, or damaged: no record at {at} (CRC-32C)")
        if at + FRAME_BYTES + length > size:
            raise ValueError(f"it is cut short: the record at {at}")
        yield at + HEADER_BYTES, length
        at += FRAME_BYTES + length


def read_record(uri: str, start: int, length: int) -> memoryview:
    """The bytes of a record.

    Raises:
        ValueError: in one sentence, if its checksum does not hold.
    """
    data = memoryview(storage.read(uri, start, start + length + 4))
    content = data[:length]
    if len(data) < length + 4 or struct.unpack_from("<I", data, length) != (
        masked_crc32c(content),
    ):
        raise ValueError("the record does not have the content that was written (CRC-32C)")
    return content
