"""Samples as a TFRecord file of ``tf.train.Example``, for readers elsewhere as well as for the one here.

A record is its length, a masked CRC-32C of that, its bytes and a masked CRC-32C of those
(https://www.tensorflow.org/tutorials/load_data/tfrecord). The text file ``.idx`` beside it has a line "offset size" for each record.
"""

import struct
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.samples import Annotation, Sample
from mtl_ray.shards.example import ReadFeature, decode_example, encode_example
from mtl_ray.shards.features import classes_of, semantic_of, to_features, to_sample
from mtl_ray.shards.local import map_file

SUFFIX = ".tfrecord"
INDEX_SUFFIX = ".idx"
_HEADER_BYTES = 12
_FRAME_BYTES = 16
_MASK = 0xA282EAD8


class RecordBlock:
    """A block of Samples over the bytes of some records, which are not copied."""

    def __init__(self, data: memoryview) -> None:
        """Finds where each record lies.

        Raises:
            ValueError: if the bytes are not records.
        """
        self._data = data
        self._records = list(_walk(data))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, row: int) -> Sample:
        return to_sample(decode_example(_payload(self._data, *self._records[row])))

    def classes(self, annotation: Annotation) -> Iterator[NDArray[np.int64]]:
        """The class indices of each row for labels or instances; empty where it is not annotated."""
        for row in range(len(self)):
            yield classes_of(self._unchecked(row), annotation)

    def semantic(self, row: int) -> bytes | None:
        """The encoded semantic map of a row."""
        return semantic_of(self._unchecked(row))

    def objects(self, row: int) -> tuple[int, int, Instances | None]:
        """Height and width of the image of a row, and its objects."""
        sample = to_sample(self._unchecked(row))
        return sample.height, sample.width, sample.instances

    def boxes(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
        """The boxes of all rows, see ``split.BoxColumns``."""
        rows = [self.objects(row) for row in range(len(self))]
        sizes = np.array([(height, width) for height, width, _ in rows], np.int64).reshape(-1, 2)
        found = [objects for _, _, objects in rows if objects is not None]
        counts = np.array([0 if objects is None else len(objects) for _, _, objects in rows], np.int64)
        boxes = np.concatenate([np.zeros((0, 4), np.float32), *(objects.boxes_xyxy for objects in found)])
        return sizes, counts, boxes, np.concatenate([np.zeros(0, np.bool_), *(objects.crowd for objects in found)])

    def _unchecked(self, row: int) -> dict[str, ReadFeature]:
        """The features of a row, of which the image is not looked at."""
        start, length = self._records[row]
        return decode_example(self._data[start : start + length])


def write_blocks(path: Path, blocks: Iterable[list[Sample]], *, keypoints: tuple[str, ...] = ()) -> tuple[list[int], list[int]]:
    """Writes a file of records; gives the offset and the length of each block in it, in bytes."""
    offsets, lengths = [], []
    with open(path, "wb") as file:
        for samples in blocks:
            offsets.append(file.tell())
            records = [part for sample in samples for part in _record(encode_example(to_features(sample, keypoints)))]
            file.write(b"".join(records))
            lengths.append(file.tell() - offsets[-1])
            del samples, records  # before the next block is read, which then takes their memory
    return offsets, lengths


def _record(payload: list[bytes]) -> list[bytes]:
    """A record in parts, for a payload in parts."""
    length = struct.pack("<Q", sum(map(len, payload)))
    return [length, struct.pack("<I", _masked_crc32c(length)), *payload, struct.pack("<I", _mask(reduce(google_crc32c.extend, payload, 0)))]


def index_text(path: Path) -> str:
    """The ``.idx`` of a file: a line with the offset and the whole size of each record."""
    return "".join(f"{start - _HEADER_BYTES} {length + _FRAME_BYTES}\n" for start, length in _walk(map_file(path)))


def read_records(path: Path, keypoints: tuple[str, ...] = ()) -> Iterator[Sample]:
    """The Samples of a TFRecord file that may come from elsewhere.

    Args:
        path: of the file.
        keypoints: the names of the nodes to look for.

    Raises:
        ValueError: if it is not a TFRecord file of images, or a checksum does not hold.
    """
    data = map_file(path)
    for start, length in _walk(data):
        yield to_sample(decode_example(_payload(data, start, length)), keypoints)


def _walk(data: memoryview) -> Iterator[tuple[int, int]]:
    """Start and length of the payload of each record; only the headers are read."""
    at = 0
    while at < len(data):
        if at + _FRAME_BYTES > len(data):
            raise ValueError(f"a record at {at} is cut short")
        length, checksum = struct.unpack_from("<QI", data, at)
        if _masked_crc32c(data[at : at + 8]) != checksum:
            raise ValueError(f"there is no record at {at} (CRC-32C)")
        if at + _FRAME_BYTES + length > len(data):
            raise ValueError(f"the record at {at} is cut short")
        yield at + _HEADER_BYTES, length
        at += _FRAME_BYTES + length


def _payload(data: memoryview, start: int, length: int) -> memoryview:
    payload = data[start : start + length]
    if struct.unpack_from("<I", data, start + length) != (_masked_crc32c(payload),):
        raise ValueError(f"the record at {start - _HEADER_BYTES} does not have the content that was written (CRC-32C)")
    return payload


def _masked_crc32c(data: bytes | memoryview) -> int:
    return _mask(google_crc32c.value(np.frombuffer(data, np.uint8)))


def _mask(crc: int) -> int:
    """TFRecords hold checksums of data that may hold checksums itself, and change them for that reason."""
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
