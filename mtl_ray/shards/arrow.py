"""Samples as an Arrow IPC file: one record batch a block, one schema for all tasks, a null where a kind is not annotated.

A block is read by its place in the file, which the manifest knows; neither schema nor footer is read for it. The schema here goes
with the version of the manifest. The image is the last column: a scan of the annotations of a memory-mapped block touches no page of it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.samples import Annotation, Sample, image_sample
from mtl_ray.shards.columns import columns_of

SUFFIX = ".arrow"
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("labels", pa.list_(pa.int64())),
        pa.field("boxes_xyxy", pa.list_(pa.list_(pa.float32(), 4))),
        pa.field("classes", pa.list_(pa.int64())),
        pa.field("ids", pa.list_(pa.int64())),
        pa.field("areas", pa.list_(pa.float32())),
        pa.field("crowd", pa.list_(pa.bool_())),
        pa.field("difficult", pa.list_(pa.bool_())),
        pa.field("truncated", pa.list_(pa.bool_())),
        pa.field("masks", pa.list_(pa.binary())),
        pa.field("num_keypoints", pa.int32()),
        pa.field("keypoints", pa.list_(pa.float32())),
        pa.field("attributes", pa.map_(pa.string(), pa.list_(pa.int64()))),
        pa.field("semantic", pa.binary()),
        pa.field("image", pa.binary(), nullable=False),
    ],
    metadata={"format": "mtl_ray sample", "version": "1"},
)


class ArrowBlock:
    """A block of Samples over the bytes of a record batch, which are not copied; rows are made into Samples when they are asked for."""

    def __init__(self, data: memoryview) -> None:
        """Reads the layout of the block.

        Raises:
            ValueError: if the bytes are not a record batch of the schema.
        """
        try:
            batch = pa.ipc.read_record_batch(pa.py_buffer(data), SCHEMA)
            batch.validate(full=True)
        except (pa.ArrowInvalid, OSError, EOFError) as error:
            raise ValueError(f"not a block of samples: {error}") from error
        self._rows = batch.num_rows
        self._columns = {name: batch.column(name) for name in SCHEMA.names}
        self._numbers = {name: Lists(self._columns[name], dtype) for name, dtype in _NUMBERS.items()}

    def __len__(self) -> int:
        return int(self._rows)

    def __getitem__(self, row: int) -> Sample:
        return image_sample(
            key=self._columns["key"][row].as_py(),
            image=self._columns["image"][row].as_py(),
            height=self._columns["height"][row].as_py(),
            width=self._columns["width"][row].as_py(),
            labels=self._numbers["labels"][row] if self._columns["labels"][row].is_valid else None,
            instances=self._instances(row) if self._columns["boxes_xyxy"][row].is_valid else None,
            semantic=self.semantic(row),
        )

    def classes(self, annotation: Annotation) -> Iterator[NDArray[np.int64]]:
        """The class indices of each row for labels or instances; empty where it is not annotated."""
        numbers = self._numbers["labels" if annotation == "labels" else "classes"]
        return (numbers[row] for row in range(self._rows))

    def semantic(self, row: int) -> bytes | None:
        """The encoded semantic map of a row."""
        found: bytes | None = self._columns["semantic"][row].as_py()
        return found

    def objects(self, row: int) -> tuple[int, int, Instances | None]:
        """Height and width of the image of a row, and its objects."""
        found = self._instances(row) if self._columns["boxes_xyxy"][row].is_valid else None
        return self._columns["height"][row].as_py(), self._columns["width"][row].as_py(), found

    def boxes(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
        """The boxes of all rows, see ``split.BoxColumns``."""
        sizes = np.stack([np.frombuffer(self._columns[name].buffers()[1] or b"", np.int32)[: self._rows] for name in ("height", "width")])
        boxes, counts = self._numbers["boxes_xyxy"].flat(self._rows)
        crowd, _ = self._numbers["crowd"].flat(self._rows)
        return sizes.T.astype(np.int64), counts // 4, boxes.reshape(-1, 4), crowd

    def _instances(self, row: int) -> Instances:
        found = {name: self._numbers[name][row] for name in _NUMBERS}
        boxes_xyxy = found["boxes_xyxy"].reshape(-1, 4)
        num_keypoints = self._columns["num_keypoints"][row].as_py()
        masks = self._columns["masks"][row].as_py()
        return Instances(
            boxes_xyxy=boxes_xyxy,
            classes=found["classes"],
            ids=found["ids"],
            areas=found["areas"],
            crowd=found["crowd"],
            difficult=found["difficult"],
            truncated=found["truncated"],
            masks=None if masks is None else tuple(masks),
            keypoints=None if num_keypoints is None else found["keypoints"].reshape(len(boxes_xyxy), num_keypoints, 3),
            attributes={name: np.array(values, np.int64) for name, values in self._columns["attributes"][row].as_py()},
        )


_NUMBERS = {
    **{"labels": np.int64, "boxes_xyxy": np.float32, "classes": np.int64, "ids": np.int64, "areas": np.float32},
    **{"crowd": np.bool_, "difficult": np.bool_, "truncated": np.bool_, "keypoints": np.float32},
}
"""The list columns of numbers; lists within lists are read flat."""


class Lists:
    """The rows of a list column of numbers, by NumPy alone: Arrow's own way to arrays would import pandas."""

    def __init__(self, column: pa.Array, dtype: type) -> None:
        """Finds the numbers; bits are unpacked."""
        flat, width = column.values, 1
        if pa.types.is_fixed_size_list(flat.type):
            flat, width = flat.values, flat.type.list_size
        content = flat.buffers()[1] or b""
        values = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little") if dtype == np.bool_ else content
        self._values: NDArray[Any] = np.frombuffer(values, dtype)
        self._ends = np.frombuffer(column.buffers()[1] or bytes(4), np.int32) * width

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self._values[self._ends[row] : self._ends[row + 1]].copy()

    def flat(self, rows: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The numbers of the first rows end to end, not copied, and how many each row has."""
        ends = self._ends[: rows + 1].astype(np.int64)
        return self._values[ends[0] : ends[-1]], np.diff(ends)


def write_blocks(path: Path, blocks: Iterable[list[Sample]]) -> tuple[list[int], list[int]]:
    """Writes a file of record batches; gives the offset and the length of each block in it, in bytes."""
    offsets, lengths = [], []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for samples in blocks:
            batch = pa.RecordBatch.from_arrays(columns_of(samples, SCHEMA), schema=SCHEMA)
            writer.write_batch(batch)
            lengths.append(pa.ipc.get_record_batch_size(batch))
            offsets.append(sink.tell() - lengths[-1])
            del samples, batch  # before the next block is read, which then takes their memory
    return offsets, lengths
