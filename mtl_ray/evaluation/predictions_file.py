"""Predictions in an Arrow file: one row for each sample, one column for each head."""

import json
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa

from mtl_ray import storage
from mtl_ray.config.validate import read_record
from mtl_ray.inference.predictor import Predictions, head_of
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.detection.task import DETECTION
from mtl_ray.tasks.head_classes import head_vocabulary
from mtl_ray.tasks.task import HeadKind, KnownHead
from mtl_ray.vocabulary import vocabulary_from_json, vocabulary_to_json

FORMAT = "mtl_ray predictions"


VERSION = 2
"""1: every head has all classes. 2: some heads have their own list, under ``classes``."""


COCO_RESULTS_HEAD = KnownHead(
    type="coco_results", task=DETECTION, annotation="instances", exclusive=False
)
"""The head of a COCO results file, which states no type."""


_STAND_INS = {COCO_RESULTS_HEAD.type: COCO_RESULTS_HEAD}


@dataclass(frozen=True, kw_only=True)
class StoredPredictions:
    """Predictions that were read from a file.

    Attributes:
        heads, vocabulary, plugins: of the predictor that made them.
        by_name: the predictions by the sample's key, or by the image's name in a results file.
        complete: False if an image without an entry is one without detections.
        notes: remarks for the reader of the metrics.
    """

    heads: Mapping[str, HeadKind]
    vocabulary: Vocabulary
    by_name: Mapping[str, Predictions]
    complete: bool
    notes: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()


class TableRow(NamedTuple):
    """The columns of a sample itself: its key, and height and width of its image if it has one."""

    key: str
    height: int | None
    width: int | None


def table_row(sample: Sample) -> TableRow:
    """See ``TableRow``."""
    image = sample.inputs.get("image")
    return (
        TableRow(sample.key, None, None)
        if image is None
        else TableRow(sample.key, image.height, image.width)
    )


def table_schema(heads: Mapping[str, HeadKind]) -> pa.Schema:
    """The columns of ``to_table``."""
    sizes = [("height", pa.int32()), ("width", pa.int32())]
    return pa.schema(
        [
            ("key", pa.string()),
            *sizes,
            *((f"head:{name}", head.task.row_type()) for name, head in heads.items()),
        ]
    )


def to_table(
    samples: Sequence[Sample], found: Sequence[Predictions], heads: Mapping[str, HeadKind]
) -> pa.Table:
    """A row for each sample: its key, height and width of its image, and a struct for each head."""
    return rows_to_table(
        list(map(table_row, samples)),
        [encode_predictions(predictions, heads) for predictions in found],
        heads,
    )


def encode_predictions(predictions: Predictions, heads: Mapping[str, HeadKind]) -> dict[str, Any]:
    """The values of one sample in the columns of the heads; class maps are compressed."""
    return {name: head.task.to_row(predictions[name]) for name, head in heads.items()}


def rows_to_table(
    samples: Sequence[TableRow], rows: Sequence[Mapping[str, Any]], heads: Mapping[str, HeadKind]
) -> pa.Table:
    """The table of samples and their encoded predictions (``encode_predictions``)."""
    columns: dict[str, Any] = {
        "key": pa.array([sample.key for sample in samples], pa.string()),
        "height": pa.array([sample.height for sample in samples], pa.int32()),
        "width": pa.array([sample.width for sample in samples], pa.int32()),
    }
    for name, head in heads.items():
        columns[f"head:{name}"] = pa.array([row[name] for row in rows], head.task.row_type())
    return pa.table(columns)


def write_arrow(
    uri: str,
    table: pa.Table,
    heads: Mapping[str, HeadKind],
    vocabulary: Vocabulary,
    plugins: Sequence[str] = (),
) -> None:
    """Writes an Arrow IPC file.

    The metadata of its schema holds the types of the heads, their plugins and the vocabulary.
    """
    types = {name: head.type for name, head in heads.items()}
    about: dict[str, Any] = {
        "format": FORMAT,
        "version": 1,
        "heads": types,
        "vocabulary": vocabulary_to_json(vocabulary),
    }
    if classes := {
        name: list(head.classes) for name, head in heads.items() if head.classes is not None
    }:
        about |= {"version": VERSION, "classes": classes}
    if plugins:
        about["plugins"] = list(plugins)
    schema = table.schema.with_metadata({"mtl_ray": json.dumps(about)})
    with storage.writing(uri) as path, pa.ipc.new_file(path, schema) as writer:
        writer.write_table(table)


def read_arrow(uri: str) -> StoredPredictions:
    """The inverse of ``write_arrow``.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is no such file, or a plugin cannot be imported.
    """
    if not storage.is_remote(uri) and not storage.exists(uri):
        raise FileNotFoundError(f"there is no predictions file {uri}")
    try:
        file = storage.read(uri) if storage.is_remote(uri) else pa.memory_map(storage.absolute(uri))
        table = pa.ipc.open_file(file).read_all()
        table.validate(full=True)  # else damaged offsets are followed out of the memory
        metadata = (table.schema.metadata or {})[b"mtl_ray"]
        about = read_record(metadata, dict[str, Any], "its description")
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise ValueError(f"{uri} is no whole predictions file: {error}") from error
    if about.get("format") != FORMAT or about.get("version") not in (1, VERSION):
        raise ValueError(
            f"{uri} is a {about.get('format')} of version {about.get('version')}; this program "
            f"reads {FORMAT} of versions up to {VERSION}"
        )
    found = read_record(metadata, _Description, f"the description in {uri}")
    vocabulary = vocabulary_from_json(found.vocabulary)
    heads: dict[str, HeadKind] = {}
    for name, kind in found.heads.items():
        own = found.classes.get(name)
        heads[name] = _STAND_INS.get(kind) or head_of(kind, found.plugins, classes=own)
        head_vocabulary(heads[name], vocabulary, name)  # checks that the vocabulary has its classes
    _check_columns(uri, table.schema, heads)
    return StoredPredictions(
        heads=heads,
        vocabulary=vocabulary,
        by_name=_Table(table, heads),
        complete=True,
        plugins=found.plugins,
    )


@dataclass(frozen=True, kw_only=True)
class _Description:
    """What the metadata of a file say; see ``write_arrow``."""

    heads: Mapping[str, str]
    vocabulary: dict[str, Any]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()


def _check_columns(uri: str, schema: pa.Schema, heads: Mapping[str, HeadKind]) -> None:
    """Raises a ValueError if a file lacks a column that ``_Table`` reads."""
    wanted = {"key": pa.types.is_string, **{f"head:{name}": pa.types.is_struct for name in heads}}
    for name, fits in wanted.items():
        place = schema.get_field_index(name)
        if place < 0 or not fits(schema.field(place).type):
            raise ValueError(f"{uri} is damaged: it has no column {name!r} as it was written")


class _Table(Mapping[str, Predictions]):
    """The predictions of a table by key. They are decoded on access: all class maps may not fit
    into memory.
    """

    def __init__(self, table: pa.Table, heads: Mapping[str, HeadKind]) -> None:
        self._place = {key: row for row, key in enumerate(table["key"].to_pylist())}
        self._tasks = {name: head.task for name, head in heads.items()}
        self._columns = {name: ColumnReader(table[f"head:{name}"]) for name in heads}

    def __getitem__(self, key: str) -> Predictions:
        row = self._place[key]
        try:
            return {
                name: task.from_row(self._columns[name][row]) for name, task in self._tasks.items()
            }
        except KeyError as error:
            raise ValueError(f"the stored predictions of {key!r} have no {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)


class ColumnReader:
    """The values of a column of structs by row. Lists of numbers become arrays: number by number
    takes most of an evaluation's time.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        chunks = column.chunks
        self._ends = list(accumulate(len(chunk) for chunk in chunks))
        self._chunks = [
            {field.name: _field(chunk.field(place)) for place, field in enumerate(chunk.type)}
            for chunk in chunks
        ]

    def __getitem__(self, row: int) -> dict[str, Any]:
        chunk = bisect_right(self._ends, row)
        within = row - (self._ends[chunk - 1] if chunk else 0)
        return {name: value_at(within) for name, value_at in self._chunks[chunk].items()}


def _field(array: pa.Array) -> Callable[[int], Any]:
    """A function that gives the value of a row."""
    plain = pa.types.is_list(array.type) and pa.types.is_primitive(array.type.value_type)
    if not plain or array.null_count or array.values.null_count:
        return lambda row: array[row].as_py()
    values, ends = array.values.to_numpy(), array.offsets.to_numpy().tolist()
    return lambda row: values[ends[row] : ends[row + 1]]


ROWS = 64
"""Encoded predictions that are written together."""


class Spool:
    """A temporary Arrow file of predictions, so that memory does not grow with the samples. The
    table of ``table`` stays readable after the block.

    Args:
        heads: the predicting heads by name.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
        self._folder.cleanup()

    def add(self, sample: Sample, predictions: Predictions) -> None:
        """Adds the predictions of one sample; only its key and the size of its image are kept."""
        self._samples.append(table_row(sample))
        self._rows.append(encode_predictions(predictions, self._heads))
        if len(self._samples) == ROWS:
            self._flush()

    def table(self) -> pa.Table:
        """All rows, in order; nothing can be added afterwards. The file stays mapped until the
        table is deleted.
        """
        self._flush()
        self._writer.close()
        with pa.memory_map(str(self._path)) as mapped:
            return pa.ipc.open_file(mapped).read_all()

    def _flush(self) -> None:
        if self._samples:
            self._writer.write_table(rows_to_table(self._samples, self._rows, self._heads))
        self._samples, self._rows = [], []
