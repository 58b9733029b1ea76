"""Samples as an Arrow IPC file: one record batch a block, one schema for all tasks, a null where a kind is not annotated.

A block is read by its place in the file, which the manifest knows; neither schema nor footer is read for it. The schema here goes
with the version of the manifest. The image is the last column: a scan of the annotations of a memory-mapped block touches no page of it.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtl_ray.samples import Annotation, Instances, Sample

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

    def __len__(self) -> int:
        return int(self._rows)

    def __getitem__(self, row: int) -> Sample:
        labels = self._columns["labels"][row]
        return Sample(
            key=self._columns["key"][row].as_py(),
            image=self._columns["image"][row].as_py(),
            height=self._columns["height"][row].as_py(),
            width=self._columns["width"][row].as_py(),
            labels=_array(labels, np.int64) if labels.is_valid else None,
            instances=self._instances(row),
            semantic=self._columns["semantic"][row].as_py(),
        )

    def classes(self, annotation: Annotation) -> Iterator[NDArray[np.int64]]:
        """The class indices of each row (not of semantic maps, which have to be decoded); empty where it is not annotated."""
        column = self._columns["labels" if annotation == "labels" else "classes"]
        offsets, values = column.offsets.to_numpy(), column.values.to_numpy()
        for start, stop in pairwise(offsets):
            yield values[start:stop]

    def semantic(self, row: int) -> bytes | None:
        """The encoded semantic map of a row."""
        found: bytes | None = self._columns["semantic"][row].as_py()
        return found

    def _instances(self, row: int) -> Instances | None:
        found = {name: self._columns[name][row] for name in _INSTANCE_COLUMNS}
        if not found["boxes_xyxy"].is_valid:
            return None
        boxes_xyxy = np.array(found["boxes_xyxy"].values.flatten(), np.float32).reshape(-1, 4)
        num_keypoints = self._columns["num_keypoints"][row].as_py()
        masks = found["masks"].as_py()
        return Instances(
            boxes_xyxy=boxes_xyxy,
            classes=_array(found["classes"], np.int64),
            ids=_array(found["ids"], np.int64),
            areas=_array(found["areas"], np.float32),
            crowd=_array(found["crowd"], np.bool_),
            difficult=_array(found["difficult"], np.bool_),
            truncated=_array(found["truncated"], np.bool_),
            masks=None if masks is None else tuple(masks),
            keypoints=None if num_keypoints is None else _array(found["keypoints"], np.float32).reshape(len(boxes_xyxy), num_keypoints, 3),
            attributes={name: np.array(values, np.int64) for name, values in found["attributes"].as_py()},
        )


_INSTANCE_COLUMNS = (
    *("boxes_xyxy", "classes", "ids", "areas", "crowd", "difficult", "truncated"),
    *("masks", "keypoints", "attributes"),
)


def _array(scalar: Any, dtype: type) -> NDArray[Any]:
    return np.array(scalar.values, dtype)


def write_blocks(path: Path, blocks: Iterable[list[Sample]]) -> tuple[list[int], list[int]]:
    """Writes a file of record batches; gives the offset and the length of each block in it, in bytes."""
    offsets, lengths = [], []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for samples in blocks:
            batch = _batch(samples)
            writer.write_batch(batch)
            lengths.append(pa.ipc.get_record_batch_size(batch))
            offsets.append(sink.tell() - lengths[-1])
    return offsets, lengths


def _batch(samples: list[Sample]) -> pa.RecordBatch:
    objects = [sample.instances for sample in samples]
    poses = [None if found is None else found.keypoints for found in objects]
    columns = {
        "key": [sample.key for sample in samples],
        "height": [sample.height for sample in samples],
        "width": [sample.width for sample in samples],
        "labels": _lists([sample.labels for sample in samples], pa.int64()),
        "boxes_xyxy": _boxes([None if found is None else found.boxes_xyxy for found in objects]),
        "masks": [None if found is None else found.masks for found in objects],
        "num_keypoints": [None if pose is None else pose.shape[1] for pose in poses],
        "keypoints": _lists([None if pose is None else pose.ravel() for pose in poses], pa.float32()),
        "attributes": [None if found is None else list(found.attributes.items()) for found in objects],
        "semantic": [sample.semantic for sample in samples],
        "image": _binary([sample.image for sample in samples]),
    }
    for name in ("classes", "ids", "areas", "crowd", "difficult", "truncated"):
        values = [None if found is None else getattr(found, name) for found in objects]
        columns[name] = _lists(values, SCHEMA.field(name).type.value_type)
    return pa.RecordBatch.from_arrays([_column(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _lists(rows: list[NDArray[Any] | None], kind: pa.DataType) -> pa.ListArray:
    """A list column made of its numbers end to end, without a Python object for each."""
    lengths = [0 if row is None else len(row) for row in rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = np.concatenate([np.empty(0, kind.to_pandas_dtype()), *(row for row in rows if row is not None)])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind), mask=pa.array([row is None for row in rows]))


def _binary(rows: list[bytes]) -> pa.BinaryArray:
    """A column of images, each copied once."""
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return pa.BinaryArray.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(rows))])


def _boxes(rows: list[NDArray[np.float32] | None]) -> pa.ListArray:
    flat = _lists([None if row is None else row.ravel() for row in rows], pa.float32())
    offsets = pa.array(flat.offsets.to_numpy() // 4)
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(flat.values, 4), mask=flat.is_null())
