"""Samples as an Arrow IPC file: one record batch a block, a null where a kind of annotation is
absent.

A block is read by its place in the file, which the manifest knows; neither schema nor footer is
read for it. The schema follows from the columns that the manifest lists.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.columns import ColumnType
from mtl_ray.layout import DEFAULT, KEY, Layout
from mtl_ray.samples import Sample, present
from mtl_ray.shards.columns import LIST_DTYPES, Lists, columns_of, reader, schema_of

SUFFIX = ".arrow"
_NO_BYTES: Mapping[ColumnType, Any] = {"binary": b"", "list<binary>": ()}


class ArrowBlock:
    """A block of Samples over the bytes of a record batch, which are not copied; rows become
    Samples when they are asked for.
    """

    def __init__(self, data: memoryview, layout: Layout = DEFAULT) -> None:
        """Reads the layout of the block.

        Raises:
            ValueError: if the bytes are not a record batch of the schema.
        """
        try:
            batch = pa.ipc.read_record_batch(pa.py_buffer(data), schema_of(layout))
            batch.validate(full=True)
        except (pa.ArrowInvalid, OSError, EOFError) as error:
            raise ValueError(f"not a block of samples: {error}") from error
        self._layout = layout
        self._rows = batch.num_rows
        self._types = layout.columns
        self._columns = {name: batch.column(name) for name in self._types}
        self._readers: dict[str, Callable[[int], Any]] = {}

    def __len__(self) -> int:
        return int(self._rows)

    def __getitem__(self, row: int) -> Sample:
        return self._sample(row, self._value)

    def outline(self, row: int) -> Sample:
        """One of them; columns of bytes are not read, and are empty."""
        return self._sample(row, self._outlined)

    def _sample(self, row: int, value: Callable[[str, int], Any]) -> Sample:
        inputs = {
            each.name: each.from_row({name: value(name, row) for name in each.columns})
            for each in self._layout.inputs
        }
        found = {kind.name: self.annotation(kind, row) for kind in self._layout.annotations}
        return Sample(key=self._value(KEY, row), inputs=inputs, annotations=present(found))

    def annotation(self, kind: AnnotationKind[Any, Any], row: int) -> Any | None:
        """The annotation of a row; no input is read."""
        return kind.from_row({name: self._value(name, row) for name in kind.columns})

    def classes(self, kind: AnnotationKind[Any, Any]) -> Iterator[NDArray[np.int64]]:
        """The class indices of each row; none where it is not annotated."""
        for row in range(self._rows):
            if kind.class_column is not None:
                found = self._value(kind.class_column, row)
                yield np.zeros(0, np.int64) if found is None else found
            else:
                value = self.annotation(kind, row)
                yield np.zeros(0, np.int64) if value is None else kind.classes(value)

    def flat(self, column: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The numbers of a list column end to end, not copied, and how many each row has."""
        return Lists(self._columns[column], LIST_DTYPES[self._types[column]]).flat(self._rows)

    def integers(self, column: str) -> NDArray[np.int64]:
        """The numbers of a column of type int32."""
        return np.frombuffer(self._columns[column].buffers()[1] or b"", np.int32)[
            : self._rows
        ].astype(np.int64)

    def _outlined(self, column: str, row: int) -> Any:
        return (
            _NO_BYTES[kind]
            if (kind := self._types[column]) in _NO_BYTES
            else self._value(column, row)
        )

    def _value(self, column: str, row: int) -> Any:
        if column not in self._readers:
            self._readers[column] = reader(self._columns[column], self._types[column])
        return self._readers[column](row)


def write_blocks(
    path: Path, blocks: Iterable[list[Sample]], layout: Layout = DEFAULT
) -> tuple[list[int], list[int]]:
    """Writes a file of record batches; gives the offset and the length of each block in it, in
    bytes.
    """
    offsets, lengths = [], []
    schema = schema_of(layout)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for samples in blocks:
            batch = pa.RecordBatch.from_arrays(columns_of(samples, layout), schema=schema)
            writer.write_batch(batch)
            lengths.append(pa.ipc.get_record_batch_size(batch))
            offsets.append(sink.tell() - lengths[-1])
            del samples, batch  # before the next block is read, which then takes their memory
    return offsets, lengths
