"""Samples as a TFRecord file of ``tf.train.Example``, for readers elsewhere as well as for the one
here.

A record is its length, a masked CRC-32C of that, its bytes and a masked CRC-32C of those
(https://www.tensorflow.org/tutorials/load_data/tfrecord). The text file ``.idx`` beside it has a
line "offset size" for each record.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.columns import Features
from mtl_ray.layout import DEFAULT, Layout
from mtl_ray.samples import Sample
from mtl_ray.shards.columns import LIST_DTYPES
from mtl_ray.shards.example import decode_example, encode_example
from mtl_ray.shards.features import is_annotated, to_features, to_sample
from mtl_ray.shards.local import map_file
from mtl_ray.sources.tfrecord_files import FRAME_BYTES, HEADER_BYTES, mask_crc, masked_crc32c

SUFFIX = ".tfrecord"
INDEX_SUFFIX = ".idx"


class RecordBlock:
    """A block of Samples over the bytes of some records, which are not copied."""

    def __init__(self, data: memoryview, layout: Layout = DEFAULT) -> None:
        """Finds where each record lies.

        Raises:
            ValueError: if the bytes are not records.
        """
        self._data = data
        self._layout = layout
        self._records = list(_walk(data))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, row: int) -> Sample:
        return to_sample(decode_example(_payload(self._data, *self._records[row])), self._layout)

    def outline(self, row: int) -> Sample:
        """One of them, without its checksum."""
        return to_sample(self._unchecked(row), self._layout)

    def annotation(self, kind: AnnotationKind[Any, Any], row: int) -> Any | None:
        """The annotation of a row; no input is read."""
        features = self._unchecked(row)
        return kind.from_features(features, (), is_annotated(features, kind.name))

    def classes(self, kind: AnnotationKind[Any, Any]) -> Iterator[NDArray[np.int64]]:
        """The class indices of each row; none where it is not annotated."""
        for row in range(len(self)):
            value = self.annotation(kind, row)
            yield np.zeros(0, np.int64) if value is None else kind.classes(value)

    def flat(self, column: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The numbers of a list column end to end, and how many each row has."""
        kind = self._layout.owner(column)
        values = (self.annotation(kind, row) for row in range(len(self)))
        rows = [
            np.zeros(0) if value is None else np.ravel(kind.to_row(value)[column])
            for value in values
        ]
        dtype = LIST_DTYPES[kind.columns[column]]
        return np.concatenate([np.zeros(0, dtype), *rows]).astype(dtype), np.array(
            [len(row) for row in rows], np.int64
        )

    def integers(self, column: str) -> NDArray[np.int64]:
        """The numbers of a column of type int32."""
        each = next(each for each in self._layout.inputs if column in each.columns)
        found = [each.from_features(self._unchecked(row)) for row in range(len(self))]
        if any(value is None for value in found):
            raise ValueError(f"a record has no {each.name}")
        return np.array([each.to_row(value)[column] for value in found], np.int64)

    def _unchecked(self, row: int) -> Features:
        """The features of a row, of which the input is not looked at."""
        start, length = self._records[row]
        return decode_example(self._data[start : start + length])


def write_blocks(
    path: Path,
    blocks: Iterable[list[Sample]],
    layout: Layout = DEFAULT,
    *,
    keypoints: Sequence[str] = (),
) -> tuple[list[int], list[int]]:
    """Writes a file of records; gives the offset and the length of each block in it, in bytes."""
    offsets, lengths = [], []
    with open(path, "wb") as file:
        for samples in blocks:
            offsets.append(file.tell())
            records = [
                part
                for sample in samples
                for part in _record(encode_example(to_features(sample, layout, keypoints)))
            ]
            file.write(b"".join(records))
            lengths.append(file.tell() - offsets[-1])
            del samples, records  # before the next block is read, which then takes their memory
    return offsets, lengths


def _record(payload: list[bytes]) -> list[bytes]:
    """A record in parts, for a payload in parts."""
    length = struct.pack("<Q", sum(map(len, payload)))
    return [
        length,
        struct.pack("<I", masked_crc32c(length)),
        *payload,
        struct.pack("<I", mask_crc(reduce(google_crc32c.extend, payload, 0))),
    ]


def index_text(path: Path) -> str:
    """The ``.idx`` of a file: a line with the offset and the whole size of each record."""
    return "".join(
        f"{start - HEADER_BYTES} {length + FRAME_BYTES}\n"
        for start, length in _walk(map_file(path))
    )


def read_records(path: Path, keypoints: Sequence[str] = ()) -> Iterator[Sample]:
    """The Samples of a TFRecord file that may come from elsewhere.

    Args:
        path: of the file.
        keypoints: the names of the nodes to look for.

    Raises:
        ValueError: if it is not a TFRecord file of images, or a checksum does not hold.
    """
    data = map_file(path)
    for start, length in _walk(data):
        yield to_sample(decode_example(_payload(data, start, length)), DEFAULT, keypoints)


def _walk(data: memoryview) -> Iterator[tuple[int, int]]:
    """Start and length of the payload of each record; only the headers are read."""
    at = 0
    while at < len(data):
        if at + FRAME_BYTES > len(data):
            raise ValueError(f"a record at {at} is cut short")
        length, checksum = struct.unpack_from("<QI", data, at)
        if masked_crc32c(data[at : at + 8]) != checksum:
            raise ValueError(f"there is no record at {at} (CRC-32C)")
        if at + FRAME_BYTES + length > len(data):
            raise ValueError(f"the record at {at} is cut short")
        yield at + HEADER_BYTES, length
        at += FRAME_BYTES + length


def _payload(data: memoryview, start: int, length: int) -> memoryview:
    payload = data[start : start + length]
    if struct.unpack_from("<I", data, start + length) != (masked_crc32c(payload),):
        raise ValueError(
            f"the record at {start - HEADER_BYTES} does not have the content that was written "
            "(CRC-32C)"
        )
    return payload
