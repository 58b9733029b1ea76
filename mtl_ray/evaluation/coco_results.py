"""COCO's results format for the objects of one head."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.evaluation.coco_file import ANYTHING, read_json, read_mask
from mtl_ray.evaluation.data import image_ids
from mtl_ray.evaluation.predictions_file import COCO_RESULTS_HEAD, ColumnReader, StoredPredictions
from mtl_ray.geometry.boxes import from_xywh
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.sources.json_values import shown
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.task import Task

_NO_BOX = (np.nan,) * 4


NOTHING = Detections(
    boxes_xyxy=np.zeros((0, 4), np.float32),
    scores=np.zeros(0, np.float32),
    classes=np.zeros(0, np.int64),
)
"""The detections of an image without entries."""


def write_coco_results(
    uri: str, table: pa.Table, head: str, task: Task[Any, Any], categories: Sequence[int]
) -> None:
    """Writes the objects of one head as a COCO results file.

    ``image_id`` is the number in the image's file name, else its place; ``file_name`` is its key.

    Args:
        uri: of the file.
        table: see ``to_table``.
        head: its name.
        task: its task, which must have ``to_coco``.
        categories: the category number of each class.
    """
    assert task.to_coco is not None, f"{task.name} has no COCO results format"
    keys = table["key"].to_pylist()
    sizes = table["height"].to_pylist(), table["width"].to_pylist()
    column = ColumnReader(table[f"head:{head}"])
    before = b"["
    with storage.writing(uri) as path, path.open("wb") as file:
        for row, (key, number, height, width) in enumerate(
            zip(keys, image_ids(keys), *sizes, strict=True)
        ):
            found = task.from_row(column[row])
            entries = task.to_coco(found, number, height, width, categories)
            if not all(math.isfinite(entry["score"]) for entry in entries):
                raise ValueError(
                    f"a score of {key} is not finite; a COCO results file cannot hold it"
                )
            for entry in entries:
                entry["file_name"] = key
            if entries:
                file.write(before + ANYTHING.dump_json(entries)[1:-1])
                before = b", "
        file.write((b"[" if before == b"[" else b"") + b"]")


def category_ids(vocabulary: Vocabulary, annotation: Annotation = INSTANCES.name) -> Sequence[int]:
    """The category number of each class of a kind of annotation in COCO files: the source's own, or
    the class index.
    """
    return vocabulary.category_ids.get(annotation) or range(len(vocabulary.classes[annotation]))


def category_ids_of(
    names: Sequence[str], data: Vocabulary, annotation: Annotation = INSTANCES.name
) -> list[int]:
    """The category numbers of classes in ``data``; a class that it does not have gets an unused
    number.
    """
    known = dict(
        zip(data.classes[annotation], category_ids(data, annotation), strict=True)
        if annotation in data.classes
        else ()
    )
    unused = count(max(known.values(), default=-1) + 1)
    return [known[name] if name in known else next(unused) for name in names]


def categories_of(predicted: Vocabulary, data: Vocabulary) -> dict[Annotation, dict[str, int]]:
    """The category number in ``data`` of each class that is predicted, by kind of annotation."""
    return {
        kind: dict(zip(names, category_ids_of(names, data, kind), strict=True))
        for kind, names in predicted.classes.items()
    }


def read_coco_results(
    uri: str, vocabulary: Vocabulary, sizes: Callable[[], Mapping[str, tuple[int, int]]]
) -> StoredPredictions:
    """Reads a COCO results file as the predictions of the head ``boxes``; numbers stay float64,
    unrounded.

    Args:
        uri: a list of entries with image_id, category_id and score, and bbox, segmentation or
            keypoints.
        vocabulary: of the data, whose category numbers the file uses.
        sizes: gives height and width of the images by name; called only if masks are polygons.

    Raises:
        ValueError: if it is no such file, or names a category that the data does not have. If the
            data has its own category numbers, entries of other categories are left out with a note
            instead, as by the reference.
    """
    entries = read_json(uri)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{uri} is no COCO results file: it is not a list of objects")
    everything, strange = _all_boxes(uri, entries, vocabulary)
    sizes_known = (
        sizes() if any(isinstance(entry.get("segmentation"), list) for entry in entries) else {}
    )
    by_name: dict[str, list[int]] = {}
    for row, (entry, number) in enumerate(
        zip(entries, _column(uri, entries, "image_id"), strict=True)
    ):
        by_name.setdefault(str(entry.get("file_name", number)), []).append(row)
    keypoints = _points(uri, entries)
    notes = tuple(
        f"entries of the category {number}, which the data does not have, were left out"
        for number in strange
    )
    found = {
        name: {
            "boxes": _detections(
                uri, everything, entries, rows, sizes_known.get(name, (0, 0)), keypoints
            )
        }
        for name, rows in by_name.items()
    }
    return StoredPredictions(
        heads={"boxes": COCO_RESULTS_HEAD},
        vocabulary=vocabulary,
        by_name=found,
        complete=False,
        notes=notes,
    )


def _all_boxes(
    uri: str, entries: Sequence[Mapping[str, Any]], vocabulary: Vocabulary
) -> tuple[Detections, list[int]]:
    """The boxes of all entries, with class -1 where the data has no such category; and these
    categories.
    """
    categories, scores, boxes = (
        _column(uri, entries, name) for name in ("category_id", "score", "bbox")
    )
    categories = [
        _integer(uri, number, "category_id", value) for number, value in enumerate(categories)
    ]
    class_of = {number: i for i, number in enumerate(category_ids(vocabulary))}
    strange = sorted(set(categories) - class_of.keys())
    if strange and "instances" not in vocabulary.category_ids:
        raise ValueError(
            f"{uri}: entry {categories.index(strange[0])} has the category {strange[0]}, which the "
            "data does not have"
        )
    everything = Detections(
        boxes_xyxy=from_xywh(_numbers(uri, "box", boxes, 4)),
        scores=_numbers(uri, "score", [[score] for score in scores], 1)[:, 0],
        classes=np.array([class_of.get(number, -1) for number in categories], np.int64),
    )
    if not np.isfinite(everything.scores).all():
        raise ValueError(
            f"{uri}: the score of entry {int(np.argmin(np.isfinite(everything.scores)))} is not "
            "finite, so it cannot be ranked"
        )
    return everything, strange


def _column(uri: str, entries: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """The values of one field of all entries; only a box may be missing."""
    if name == "bbox":
        return [_NO_BOX if entry.get("bbox") is None else entry["bbox"] for entry in entries]
    try:
        return [entry[name] for entry in entries]
    except KeyError:
        missing = next(number for number, entry in enumerate(entries) if name not in entry)
        raise ValueError(f"{uri}: entry {missing} has no {name}") from None


def _integer(uri: str, number: int, name: str, value: Any) -> int:
    """An integer, also if it is written as a string or as 3.0."""
    try:
        whole = int(value)
        if isinstance(value, bool) or whole != float(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{uri}: the {name} of entry {number} is {shown(value)}, not a whole number"
        ) from None
    return whole


def _numbers(uri: str, name: str, rows: Sequence[Any], width: int) -> NDArray[Any]:
    """Rows of ``width`` numbers as float64 (N, width)."""
    wrong = next(
        (
            number
            for number, row in enumerate(rows)
            if not isinstance(row, list | tuple) or len(row) != width
        ),
        None,
    )
    if wrong is not None:
        of = f"{len(rows[wrong])} numbers" if isinstance(rows[wrong], list) else shown(rows[wrong])
        raise ValueError(f"{uri}: the {name} of entry {wrong} has {of} instead of {width}")
    try:
        values = np.fromiter(chain.from_iterable(rows), np.float64, width * len(rows)).reshape(
            -1, width
        )
        unknown = np.flatnonzero(np.isnan(values).any(axis=1)).tolist()  # numpy takes null for NaN
    except (TypeError, ValueError, OverflowError):
        unknown = list(range(len(rows)))
    wrong = next((number for number in unknown if not all(map(_is_number, rows[number]))), None)
    if wrong is not None:
        reason = (
            f"no number: {shown(rows[wrong][0])}"
            if width == 1
            else f"{shown(rows[wrong])}, not {width} numbers"
        )
        raise ValueError(f"{uri}: the {name} of entry {wrong} is {reason}")
    return values


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _points(uri: str, entries: Sequence[Mapping[str, Any]]) -> dict[int, NDArray[Any]]:
    """The keypoints (K, 3) of the entries that have some, by the number of the entry; all have the
    same K.
    """
    found = {
        number: entry["keypoints"]
        for number, entry in enumerate(entries)
        if entry.get("keypoints") is not None
    }
    first = next(iter(found.values()), ())
    for number, values in found.items():
        if (
            not isinstance(values, list)
            or len(values) % 3
            or len(values) != len(first)
            or not all(map(_is_number, values))
        ):
            raise ValueError(
                f"{uri}: the keypoints of entry {number} are not x, y and score of the same number "
                "of points as in other entries"
            )
    return {number: np.array(values, np.float64).reshape(-1, 3) for number, values in found.items()}


def _detections(
    uri: str,
    everything: Detections,
    entries: Sequence[Mapping[str, Any]],
    rows: Sequence[int],
    size: tuple[int, int],
    keypoints: Mapping[int, NDArray[np.float64]],
) -> Detections:
    """The detections of one image, of classes that the data has.

    Raises:
        ValueError: if only some of them have a mask or keypoints, or a mask cannot be read.
    """
    mine = np.array(rows, np.int64)
    mine = mine[everything.classes[mine] >= 0]
    if not len(mine):
        return NOTHING
    numbers = mine.tolist()
    masked = [entries[number].get("segmentation") is not None for number in numbers]
    posed = [number in keypoints for number in numbers] if keypoints else [False]
    for name, having in (("segmentation", masked), ("keypoints", posed)):
        if any(having) and not all(having):
            raise ValueError(
                f"{uri}: entry {numbers[having.index(False)]} has no {name}, but other entries of "
                "its image have one"
            )
    return Detections(
        boxes_xyxy=everything.boxes_xyxy[mine],
        scores=everything.scores[mine],
        classes=everything.classes[mine],
        masks=tuple(_mask(uri, number, entries[number]["segmentation"], size) for number in numbers)
        if all(masked)
        else None,
        keypoints=np.array([keypoints[number] for number in numbers]) if all(posed) else None,
    )


def _mask(uri: str, number: int, segmentation: Any, size: tuple[int, int]) -> bytes:
    try:
        return read_mask(segmentation, *size)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{uri}: the segmentation of entry {number} is no mask: {error}"
        ) from error
