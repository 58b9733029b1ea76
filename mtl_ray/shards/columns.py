"""Samples laid out as the columns of a record batch; each image is copied once.

Columns are put together from their buffers (https://arrow.apache.org/docs/format/Columnar.html): there is no Python object for a
number on the way, and no import of pandas, which ``pyarrow.array`` would begin with.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtl_ray.samples import Sample


def columns_of(samples: list[Sample], schema: pa.Schema) -> list[pa.Array]:
    """The columns of a schema for some samples."""
    objects = [sample.instances for sample in samples]
    poses = [None if found is None else found.keypoints for found in objects]
    columns = {
        "key": _binary([sample.key.encode() for sample in samples], pa.string()),
        "height": _numbers(np.array([sample.height for sample in samples], np.int32), pa.int32()),
        "width": _numbers(np.array([sample.width for sample in samples], np.int32), pa.int32()),
        "labels": _number_lists([sample.labels for sample in samples], pa.int64()),
        "boxes_xyxy": _boxes([None if found is None else found.boxes_xyxy for found in objects]),
        "masks": _mask_lists([None if found is None else found.masks for found in objects]),
        "num_keypoints": _numbers(
            np.array([0 if pose is None else pose.shape[1] for pose in poses], np.int32), pa.int32(), _validity(poses)
        ),
        "keypoints": _number_lists([None if pose is None else pose.ravel() for pose in poses], pa.float32()),
        "attributes": _attributes([None if found is None else list(found.attributes.items()) for found in objects]),
        "semantic": _binary([sample.semantic for sample in samples], pa.binary()),
        "image": _binary([sample.image for sample in samples], pa.binary()),
    }
    for name in ("classes", "ids", "areas", "crowd", "difficult", "truncated"):
        rows = [None if found is None else getattr(found, name) for found in objects]
        columns[name] = _number_lists(rows, schema.field(name).type.value_type)
    return [columns[name] for name in schema.names]


def _validity(rows: Sequence[object]) -> pa.Buffer | None:
    """A bit for each row that is there; no buffer if all are."""
    if not any(row is None for row in rows):
        return None
    return pa.py_buffer(np.packbits([row is not None for row in rows], bitorder="little"))


def _offsets(rows: Sequence[Any]) -> pa.Buffer:
    """Where each row begins, and the end of the last; a row that is not there is empty."""
    return pa.py_buffer(np.cumsum([0, *(0 if row is None else len(row) for row in rows)]).astype(np.int32))


def _numbers(values: NDArray[Any], kind: pa.DataType, validity: pa.Buffer | None = None) -> pa.Array:
    content = np.packbits(values, bitorder="little") if kind == pa.bool_() else values
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(content)])


def _binary(rows: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    content = b"".join([row for row in rows if row is not None])
    return pa.Array.from_buffers(kind, len(rows), [_validity(rows), _offsets(rows), pa.py_buffer(content)])


def _lists(rows: Sequence[Any], values: pa.Array, kind: pa.DataType | None = None) -> pa.Array:
    """A column of lists whose items lie end to end in ``values``."""
    return pa.Array.from_buffers(kind or pa.list_(values.type), len(rows), [_validity(rows), _offsets(rows)], children=[values])


def _number_lists(rows: Sequence[NDArray[Any] | None], kind: pa.DataType) -> pa.Array:
    return _lists(rows, _numbers(_joined(rows, _DTYPES[kind]), kind))


def _boxes(rows: Sequence[NDArray[np.float32] | None]) -> pa.Array:
    boxes = _joined(rows, np.float32).reshape(-1, 4)
    values = _numbers(boxes.ravel(), pa.float32())
    return _lists(rows, pa.Array.from_buffers(pa.list_(pa.float32(), 4), len(boxes), [None], children=[values]))


def _mask_lists(rows: Sequence[tuple[bytes, ...] | None]) -> pa.Array:
    return _lists(rows, _binary([mask for row in rows if row is not None for mask in row], pa.binary()))


def _attributes(rows: Sequence[list[tuple[str, NDArray[np.int64]]] | None]) -> pa.Array:
    items = [item for row in rows if row is not None for item in row]
    keys = _binary([name.encode() for name, _ in items], pa.string())
    kind = pa.map_(pa.string(), pa.list_(pa.int64()))
    pairs = pa.StructArray.from_arrays(
        [keys, _number_lists([values for _, values in items], pa.int64())], fields=[kind.key_field, kind.item_field]
    )
    return _lists(rows, pairs, kind)


_DTYPES = {pa.int64(): np.int64, pa.float32(): np.float32, pa.bool_(): np.bool_}


def _joined(rows: Sequence[NDArray[Any] | None], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *(row.ravel() for row in rows if row is not None)]).astype(dtype, copy=False)
