"""Predictions on their way into a table: they are encoded and written to a file at once, so that
memory does not grow with the images.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from mtl_ray.evaluation.stored import TableRow, encode_predictions, rows_to_table, table_row, table_schema
from mtl_ray.inference.predictor import Predictions
from mtl_ray.samples import Sample
from mtl_ray.tasks.task import HeadKind

ROWS = 64
"""Encoded predictions that are held until they are written together."""


class Spool:
    """A temporary Arrow file that predictions are written to; what ``table`` gives goes on to read
    it after the block.

    Args:
        heads: of each head that predicts, by name.
    """

    def __init__(self, heads: Mapping[str, HeadKind]) -> None:
        self._heads = heads
        self._samples: list[TableRow] = []
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="mtl_ray-predictions-")
        self._path = Path(self._folder.name) / "predictions.arrow"
        self._writer = pa.ipc.new_file(self._path, table_schema(self._heads))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()
        self._folder.cleanup()

    def add(self, sample: Sample, predictions: Predictions) -> None:
        """Takes what was predicted of one sample; of the sample only its key and the size of its
        image are kept.
        """
        self._samples.append(table_row(sample))
        self._rows.append(encode_predictions(predictions, self._heads))
        if len(self._samples) == ROWS:
            self._flush()

    def table(self) -> pa.Table:
        """All rows, in order; nothing can be added afterwards. The file stays mapped, and goes when
        the table does.
        """
        self._flush()
        self._writer.close()
        with pa.memory_map(str(self._path)) as mapped:
            return pa.ipc.open_file(mapped).read_all()

    def _flush(self) -> None:
        if self._samples:
            self._writer.write_table(rows_to_table(self._samples, self._rows, self._heads))
        self._samples, self._rows = [], []
