"""Predictions in files: one Arrow file for all heads, and COCO's results format for the objects of one head."""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.evaluation.coco_file import ANYTHING, read_json, read_mask
from mtl_ray.evaluation.data import image_ids
from mtl_ray.experiment import task_part
from mtl_ray.geometry.boxes import from_xywh
from mtl_ray.inference.heads import head_of
from mtl_ray.inference.predictor import Predictions
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.store import to_coco
from mtl_ray.vocabulary import vocabulary_from_json, vocabulary_to_json

FORMAT = "mtl_ray predictions"
VERSION = 1


@dataclass(frozen=True)
class CocoResultsHead:
    """Stands for the head of a COCO results file, of which nothing more is known."""

    type: ClassVar[str] = "coco_results"
    task: ClassVar[str] = "detection"
    annotation: ClassVar[str] = "instances"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Predictions that were read from a file.

    Attributes:
        heads, vocabulary: as of the predictor that made them.
        by_name: what was predicted, by the sample's key, or by what a results file calls the image.
        complete: False where an image without an entry is one on which nothing was found.
        notes: what the reader of the figures should know.
    """

    heads: Mapping[str, Any]
    vocabulary: Vocabulary
    by_name: Mapping[str, Predictions]
    complete: bool
    notes: tuple[str, ...] = ()


def to_table(samples: Sequence[Sample], found: Sequence[Predictions], heads: Mapping[str, Any]) -> pa.Table:
    """A row for each sample: its key, height and width, and a struct for each head."""
    columns: dict[str, Any] = {
        "key": pa.array([sample.key for sample in samples], pa.string()),
        "height": pa.array([sample.height for sample in samples], pa.int32()),
        "width": pa.array([sample.width for sample in samples], pa.int32()),
    }
    for name, head in heads.items():
        store = task_part(head, "store")
        columns[f"head:{name}"] = pa.array([store.to_row(predictions[name]) for predictions in found], store.TYPE)
    return pa.table(columns)


def write_arrow(uri: str, table: pa.Table, heads: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    """Writes an Arrow IPC file; the types of the heads and the vocabulary travel in the metadata of its schema."""
    types = {name: head.type for name, head in heads.items()}
    about = {"format": FORMAT, "version": VERSION, "heads": types, "vocabulary": vocabulary_to_json(vocabulary)}
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema.with_metadata({"mtl_ray": json.dumps(about)})) as writer:
        writer.write_table(table)
    storage.write(uri, buffer.getvalue())


def read_arrow(uri: str) -> Stored:
    """The way back of ``write_arrow``.

    Raises:
        ValueError: if it is no such file.
    """
    try:
        table = pa.ipc.open_file(storage.read(uri)).read_all()
        about = json.loads((table.schema.metadata or {})[b"mtl_ray"])
    except (pa.ArrowInvalid, KeyError) as error:
        raise ValueError(f"{uri} is no whole predictions file: {error}") from error
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        raise ValueError(
            f"{uri} is a {about.get('format')} of version {about.get('version')}; this program reads {FORMAT} of version {VERSION}"
        )
    heads = {name: CocoResultsHead if kind == CocoResultsHead.type else head_of(kind) for name, kind in about["heads"].items()}
    stores = {name: task_part(head, "store") for name, head in heads.items()}
    found = {name: map(store.from_row, _rows(table[f"head:{name}"])) for name, store in stores.items()}
    by_name = {key: {name: next(each) for name, each in found.items()} for key in table["key"].to_pylist()}
    return Stored(heads=heads, vocabulary=vocabulary_from_json(about["vocabulary"]), by_name=by_name, complete=True)


def write_coco(uri: str, table: pa.Table, head: str, categories: Sequence[int]) -> None:
    """Writes the objects of one head as a COCO results file.

    An image is called by the number in its file name, else by its place, and always by its key as ``file_name``.

    Args:
        uri: of the file.
        table: see ``to_table``.
        head: its name.
        categories: the category number of each class.
    """
    store = task_part(CocoResultsHead, "store")
    keys = table["key"].to_pylist()
    sizes = table["height"].to_pylist(), table["width"].to_pylist()
    parts: list[bytes] = []
    for key, number, height, width, row in zip(keys, image_ids(keys), *sizes, _rows(table[f"head:{head}"]), strict=True):
        found = store.from_row(row)
        if not np.isfinite(found.scores).all():
            raise ValueError(f"a score of {key} is no number, which a results file cannot hold")
        entries = to_coco(found, number, height, width, categories)
        for entry in entries:
            entry["file_name"] = key
        parts += [ANYTHING.dump_json(entries)[1:-1]] if entries else []
    storage.write(uri, b"[" + b", ".join(parts) + b"]")


def _rows(column: pa.ChunkedArray) -> Iterator[dict[str, Any]]:
    """The values of a column of structs, numbers in lists as arrays: a number at a time they take most of the time of an evaluation."""
    for chunk in column.chunks:
        fields = {field.name: _field(chunk.field(place)) for place, field in enumerate(chunk.type)}
        for row in range(len(chunk)):
            yield {name: values[row] for name, values in fields.items()}


def _field(array: pa.Array) -> Sequence[Any]:
    plain = pa.types.is_list(array.type) and pa.types.is_primitive(array.type.value_type)
    if not plain or array.null_count or array.values.null_count:
        return list(array.to_pylist())
    values, ends = array.values.to_numpy(), array.offsets.to_numpy()
    return [values[start:stop] for start, stop in pairwise(ends.tolist())]


def category_ids(vocabulary: Vocabulary) -> Sequence[int]:
    """The category number of each class of objects in COCO files: the source's own, or the class index."""
    return vocabulary.category_ids.get("instances") or range(len(vocabulary.classes["instances"]))


def category_ids_of(names: Sequence[str], data: Vocabulary) -> list[int]:
    """The numbers by which ``data`` calls classes of these names; a class that it does not know gets one that it does not use."""
    known = dict(zip(data.classes.get("instances", ()), category_ids(data) if "instances" in data.classes else (), strict=True))
    unused = count(max(known.values(), default=-1) + 1)
    return [known[name] if name in known else next(unused) for name in names]


def read_coco(uri: str, vocabulary: Vocabulary, sizes: Callable[[], Mapping[str, tuple[int, int]]]) -> Stored:
    """Reads a COCO results file as the predictions of the head ``boxes``; numbers stay float64, so that nothing is rounded.

    Args:
        uri: a list of entries with image_id, category_id and score, and bbox, segmentation or keypoints.
        vocabulary: of the data that it is measured on, whose category numbers it uses.
        sizes: gives height and width of the images by name; asked only where masks are polygons.

    Raises:
        ValueError: if it is no such file, or names a category that the data does not have. Where the data has category numbers of
            its own, entries of another are left out and noted instead, as the reference leaves them out.
    """
    entries = read_json(uri)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{uri} is no COCO results file: that is a list of objects")
    categories, scores, boxes = (_column(uri, entries, name) for name in ("category_id", "score", "bbox"))
    class_of = {number: i for i, number in enumerate(category_ids(vocabulary))}
    strange = sorted(set(categories) - class_of.keys())
    if strange and "instances" not in vocabulary.category_ids:
        raise ValueError(f"{uri}: entry {categories.index(strange[0])} has the category {strange[0]}, which the data does not have")
    everything = Detections(
        boxes_xyxy=from_xywh(_numbers(uri, boxes)),
        scores=np.array(scores, np.float64),
        classes=np.array([class_of.get(number, -1) for number in categories], np.int64),
    )
    if not np.isfinite(everything.scores).all():
        raise ValueError(f"{uri}: the score of entry {int(np.argmin(np.isfinite(everything.scores)))} is no number, so it has no rank")
    sizes_known = sizes() if any(isinstance(entry.get("segmentation"), list) for entry in entries) else {}
    by_name: dict[str, list[int]] = {}
    for row, (entry, number) in enumerate(zip(entries, _column(uri, entries, "image_id"), strict=True)):
        by_name.setdefault(str(entry.get("file_name", number)), []).append(row)
    notes = tuple(f"entries of the category {number}, which the data does not have, were left out" for number in strange)
    found = {name: {"boxes": _detections(everything, entries, rows, sizes_known.get(name, (0, 0)))} for name, rows in by_name.items()}
    return Stored(heads={"boxes": CocoResultsHead}, vocabulary=vocabulary, by_name=found, complete=False, notes=notes)


def _column(uri: str, entries: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """What all entries have; a box may be missing."""
    if name == "bbox":
        return [entry.get("bbox") or _NO_BOX for entry in entries]
    try:
        return [entry[name] for entry in entries]
    except KeyError:
        missing = next(number for number, entry in enumerate(entries) if name not in entry)
        raise ValueError(f"{uri}: entry {missing} has no {name}") from None


def _numbers(uri: str, boxes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    if wrong := next((number for number, box in enumerate(boxes) if len(box) != 4), None):
        raise ValueError(f"{uri}: the box of entry {wrong} has {len(boxes[wrong])} numbers instead of four")
    return np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)


_NO_BOX = (np.nan,) * 4
NOTHING = Detections(boxes_xyxy=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), classes=np.zeros(0, np.int64))
"""What was found on an image that a results file does not name."""


def _detections(everything: Detections, entries: Sequence[Mapping[str, Any]], rows: Sequence[int], size: tuple[int, int]) -> Detections:
    """Those of one image: the rows that are of a class which the data has."""
    mine = np.array(rows, np.int64)
    mine = mine[everything.classes[mine] >= 0]
    if not len(mine):
        return NOTHING
    of_image = [entries[row] for row in mine.tolist()] if entries[mine[0]].keys() & {"segmentation", "keypoints"} else ()
    keypoints: Any = None
    if of_image and "keypoints" in of_image[0]:
        keypoints = np.array([entry["keypoints"] for entry in of_image], np.float64).reshape(len(mine), -1, 3)
    masks = of_image and "segmentation" in of_image[0]
    return Detections(
        boxes_xyxy=everything.boxes_xyxy[mine],
        scores=everything.scores[mine],
        classes=everything.classes[mine],
        masks=tuple(read_mask(entry["segmentation"], *size) for entry in of_image) if masks else None,
        keypoints=keypoints,
    )
