"""Samples laid out as the columns of a record batch, and back; each input is copied once.

Columns are put together from their buffers (https://arrow.apache.org/docs/format/Columnar.html):
there is no Python object for a number on the way, and no import of pandas, which ``pyarrow.array``
would begin with.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtl_ray.columns import ColumnType
from mtl_ray.layout import KEY, Layout
from mtl_ray.samples import Sample

TYPES: Mapping[ColumnType, pa.DataType] = {
    "int32": pa.int32(),
    "string": pa.string(),
    "binary": pa.binary(),
    "list<int64>": pa.list_(pa.int64()),
    "list<float32>": pa.list_(pa.float32()),
    "list<bool>": pa.list_(pa.bool_()),
    "list<binary>": pa.list_(pa.binary()),
    "list<xyxy>": pa.list_(pa.list_(pa.float32(), 4)),
    "map<list<int64>>": pa.map_(pa.string(), pa.list_(pa.int64())),
}
_METADATA = {"format": "mtl_ray sample", "version": "1"}


def schema_of(layout: Layout) -> pa.Schema:
    """The Arrow schema of a layout."""
    required = layout.required
    fields = [
        pa.field(name, TYPES[kind], nullable=name not in required)
        for name, kind in layout.columns.items()
    ]
    return pa.schema(fields, metadata=_METADATA)


def columns_of(samples: Sequence[Sample], layout: Layout) -> list[pa.Array]:
    """The columns of some samples, in the order of the schema."""
    rows: dict[str, list[Any]] = {name: [] for name in layout.columns}
    for sample in samples:
        rows[KEY].append(sample.key)
        for each in layout.inputs:
            _add(rows, each.columns, each.to_row(sample.inputs[each.name]))
        for kind in layout.annotations:
            value = sample.annotations.get(kind.name)
            _add(rows, kind.columns, {} if value is None else kind.to_row(value))
    return [_ENCODE[kind](rows[name]) for name, kind in layout.columns.items()]


def _add(
    rows: Mapping[str, list[Any]], columns: Mapping[str, ColumnType], row: Mapping[str, Any]
) -> None:
    for name in columns:
        rows[name].append(row.get(name))


# From values to columns.


def _validity(rows: Sequence[object]) -> pa.Buffer | None:
    """A bit for each row that is there; no buffer if all are."""
    if not any(row is None for row in rows):
        return None
    return pa.py_buffer(np.packbits([row is not None for row in rows], bitorder="little"))


def _offsets(rows: Sequence[Any]) -> pa.Buffer:
    """Where each row starts, and the end of the last; a row that is not there is empty."""
    return pa.py_buffer(
        np.cumsum([0, *(0 if row is None else len(row) for row in rows)]).astype(np.int32)
    )


def _numbers(
    values: NDArray[Any], kind: pa.DataType, validity: pa.Buffer | None = None
) -> pa.Array:
    content = np.packbits(values, bitorder="little") if kind == pa.bool_() else values
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(content)])


def _integers(rows: Sequence[int | None]) -> pa.Array:
    return _numbers(np.array([row or 0 for row in rows], np.int32), pa.int32(), _validity(rows))


def _binary(rows: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    content = b"".join([row for row in rows if row is not None])
    return pa.Array.from_buffers(
        kind, len(rows), [_validity(rows), _offsets(rows), pa.py_buffer(content)]
    )


def _strings(rows: Sequence[str | None]) -> pa.Array:
    return _binary([None if row is None else row.encode() for row in rows], pa.string())


def _lists(rows: Sequence[Any], values: pa.Array, kind: pa.DataType | None = None) -> pa.Array:
    """A column of lists whose items lie end to end in ``values``."""
    return pa.Array.from_buffers(
        kind or pa.list_(values.type),
        len(rows),
        [_validity(rows), _offsets(rows)],
        children=[values],
    )


def _number_lists(rows: Sequence[NDArray[Any] | None], kind: pa.DataType) -> pa.Array:
    return _lists(rows, _numbers(_joined(rows, _DTYPES[kind]), kind))


def _boxes(rows: Sequence[NDArray[np.float32] | None]) -> pa.Array:
    boxes = _joined(rows, np.float32).reshape(-1, 4)
    values = _numbers(boxes.ravel(), pa.float32())
    return _lists(
        rows,
        pa.Array.from_buffers(pa.list_(pa.float32(), 4), len(boxes), [None], children=[values]),
    )


def _binary_lists(rows: Sequence[Sequence[bytes] | None]) -> pa.Array:
    return _lists(
        rows, _binary([item for row in rows if row is not None for item in row], pa.binary())
    )


def _maps(rows: Sequence[Mapping[str, NDArray[np.int64]] | None]) -> pa.Array:
    items = [item for row in rows if row is not None for item in row.items()]
    keys = _strings([name for name, _ in items])
    kind = TYPES["map<list<int64>>"]
    values = _number_lists([values for _, values in items], pa.int64())
    pairs = pa.StructArray.from_arrays([keys, values], fields=[kind.key_field, kind.item_field])
    return _lists(rows, pairs, kind)


_DTYPES: Mapping[pa.DataType, Any] = {
    pa.int64(): np.int64,
    pa.float32(): np.float32,
    pa.bool_(): np.bool_,
}


def _joined(rows: Sequence[NDArray[Any] | None], dtype: type) -> NDArray[Any]:
    return np.concatenate(
        [np.empty(0, dtype), *(row.ravel() for row in rows if row is not None)]
    ).astype(dtype, copy=False)


_ENCODE: Mapping[ColumnType, Callable[[Sequence[Any]], pa.Array]] = {
    "int32": _integers,
    "string": _strings,
    "binary": lambda rows: _binary(rows, pa.binary()),
    "list<int64>": lambda rows: _number_lists(rows, pa.int64()),
    "list<float32>": lambda rows: _number_lists(rows, pa.float32()),
    "list<bool>": lambda rows: _number_lists(rows, pa.bool_()),
    "list<binary>": _binary_lists,
    "list<xyxy>": _boxes,
    "map<list<int64>>": _maps,
}


# From columns to values.


class Lists:
    """The rows of a list column of numbers, by NumPy alone: Arrow's own way to arrays would
    import pandas.
    """

    def __init__(self, column: pa.Array, dtype: type) -> None:
        """Finds the numbers; bits are unpacked."""
        self._column = column
        flat, self._width = column.values, 1
        if pa.types.is_fixed_size_list(flat.type):
            flat, self._width = flat.values, flat.type.list_size
        content = flat.buffers()[1] or b""
        values = (
            np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
            if dtype == np.bool_
            else content
        )
        self._values: NDArray[Any] = np.frombuffer(values, dtype)
        self._ends = np.frombuffer(column.buffers()[1] or bytes(4), np.int32) * self._width

    def __getitem__(self, row: int) -> NDArray[Any] | None:
        if not self._column[row].is_valid:
            return None
        found = self._values[self._ends[row] : self._ends[row + 1]].copy()
        return found if self._width == 1 else found.reshape(-1, self._width)

    def flat(self, rows: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The numbers of the first rows end to end, not copied, and how many each row has."""
        ends = self._ends[: rows + 1].astype(np.int64)
        return self._values[ends[0] : ends[-1]], np.diff(ends)


def reader(column: pa.Array, kind: ColumnType) -> Callable[[int], Any]:
    """What gives the value of a row; None where it is null."""
    if kind in LIST_DTYPES:
        return Lists(column, LIST_DTYPES[kind]).__getitem__
    if kind == "list<binary>":
        return lambda row: None if (found := column[row].as_py()) is None else tuple(found)
    if kind == "map<list<int64>>":
        return lambda row: (
            None
            if (found := column[row].as_py()) is None
            else {name: np.array(values, np.int64) for name, values in found}
        )
    return lambda row: column[row].as_py()


LIST_DTYPES: Mapping[ColumnType, Any] = {
    "list<int64>": np.int64,
    "list<float32>": np.float32,
    "list<bool>": np.bool_,
    "list<xyxy>": np.float32,
}
"""The list columns of numbers."""
