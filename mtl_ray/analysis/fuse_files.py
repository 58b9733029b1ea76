"""Fuses the prediction files of several models on one dataset."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mtl_ray import storage
from mtl_ray.analysis.executor import Executor
from mtl_ray.analysis.paired import Pairs
from mtl_ray.evaluation.coco_file import ANYTHING
from mtl_ray.evaluation.coco_results import NOTHING, category_ids_of
from mtl_ray.evaluation.data import CocoData, image_ids
from mtl_ray.evaluation.predictions_file import COCO_RESULTS_HEAD, to_table, write_arrow
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.fuse import Fusion, fuse
from mtl_ray.tasks.detection.task import DETECTION, predicts_objects
from mtl_ray.tasks.head_classes import head_vocabulary

IMAGES_OF_A_TASK = 200
HEAD = "boxes"


@dataclass(frozen=True, kw_only=True, eq=False)
class Fused:
    """Fused predictions.

    Attributes:
        samples: all samples of the data, in its order, without images.
        found: detections on each sample, with the class numbers of ``vocabulary``.
        vocabulary: the classes of the data, and those that only a model knows.
        by_data: whether keys of samples are image ids of an annotation file.
        before: number of boxes in each file.
        notes: remarks for the reader.
    """

    samples: tuple[Sample, ...]
    found: tuple[Detections, ...]
    vocabulary: Vocabulary
    by_data: bool
    before: tuple[int, ...]
    notes: tuple[str, ...]


def fuse_files(opened: Sequence[Pairs], rule: Fusion, executor: Executor) -> Fused:
    """Fuses the predictions of several files.

    If a file lacks an image, its model found nothing there.

    Args:
        opened: predictions of each model, all on the same data.
        rule: with a weight for each model.
        executor: runs the work.

    Raises:
        ValueError: if a file finds no objects, or has predictions of images that the data does not
            have.
    """
    names = list(opened[0].data.vocabulary.classes.get("instances", ()))
    for pairs in opened:
        names += [name for name in _finder(pairs)[1] if name not in names]
    columns = [_columns(pairs, names) for pairs in opened]
    notes = [
        note
        for pairs, (_, own) in zip(opened, columns, strict=True)
        for note in (*pairs.notes, *own)
    ]
    masked = [any(each.masks is not None for each in found) for found, _ in columns]
    if any(masked) and not all(masked):
        columns = [([replace(each, masks=None) for each in found], own) for found, own in columns]
        notes.append("not all files have masks, so the fused boxes have none")
    images = [tuple(each) for each in zip(*(found for found, _ in columns), strict=True)]
    parts = [
        images[start : start + IMAGES_OF_A_TASK]
        for start in range(0, len(images), IMAGES_OF_A_TASK)
    ]
    fused = executor(partial(_fuse_all, rule), parts, "fuse")
    data = opened[0].data
    return Fused(
        samples=tuple(data.samples(0, len(data), images=False)),
        found=tuple(each for part in fused for each in part),
        vocabulary=Vocabulary(
            classes={"instances": tuple(names)},
            category_ids={"instances": tuple(category_ids_of(names, data.vocabulary))},
        ),
        by_data=isinstance(data, CocoData),
        before=tuple(sum(len(each) for each in found) for found, _ in columns),
        notes=tuple(dict.fromkeys(notes)),
    )


def _finder(pairs: Pairs) -> tuple[str, tuple[str, ...]]:
    """The first head that finds objects, and its classes."""
    head = next((name for name, each in pairs.stored.heads.items() if predicts_objects(each)), None)
    if head is None:
        raise ValueError(
            f"a file has no head that finds objects; it has {', '.join(pairs.stored.heads)}"
        )
    return head, head_vocabulary(pairs.stored.heads[head], pairs.stored.vocabulary).classes[
        "instances"
    ]


def _columns(pairs: Pairs, names: Sequence[str]) -> tuple[list[Detections], list[str]]:
    """What was found on each image, in common class numbers, and what is to be said of it."""
    head, own = _finder(pairs)
    number = np.array([names.index(name) for name in own], np.int64)
    columns: list[Detections] = []
    missing = 0
    for _, found in pairs:
        missing += found is None
        each: Detections = NOTHING if found is None else found[head]
        if np.isnan(each.boxes_xyxy).any():
            raise ValueError("a file has masks or keypoints without boxes; boxes are what is fused")
        columns.append(replace(each, classes=number[each.classes], keypoints=None))
    return columns, [
        f"{missing} images are not in one of the files: nothing was found on them there"
    ] if missing else []


def _fuse_all(rule: Fusion, images: Sequence[Sequence[Detections]]) -> list[Detections]:
    return [fuse(models, rule) for models in images]


def write_fused(uri: str, fused: Fused) -> None:
    """Writes a COCO results file (.json), or a predictions file of this project (.arrow).

    Raises:
        ValueError: if the ending is unknown.
    """
    writer = writer_of(uri)
    writer(uri, fused)


def writer_of(uri: str) -> Callable[[str, Fused], None]:
    """The function that writes a file with this ending.

    Raises:
        ValueError: if the ending is unknown.
    """
    writers: Mapping[str, Callable[[str, Fused], None]] = {
        ".json": _write_json,
        ".arrow": _write_arrow,
    }
    for ending, writer in writers.items():
        if uri.endswith(ending):
            return writer
    raise ValueError(
        f"{uri}: the ending of the name sets the format: .json (COCO results) or .arrow"
    )


def _write_json(uri: str, fused: Fused) -> None:
    storage.write(uri, ANYTHING.dump_json(list(_entries(fused))))


def _entries(fused: Fused) -> Iterator[dict[str, Any]]:
    categories = fused.vocabulary.category_ids["instances"]
    keys = [sample.key for sample in fused.samples]
    for sample, number, found in zip(fused.samples, image_ids(keys), fused.found, strict=True):
        for entry in DETECTION.to_coco(found, number, sample.height, sample.width, categories):
            yield entry if fused.by_data else {**entry, "file_name": sample.key}


def _write_arrow(uri: str, fused: Fused) -> None:
    heads = {HEAD: COCO_RESULTS_HEAD}
    write_arrow(
        uri,
        to_table(fused.samples, [{HEAD: found} for found in fused.found], heads),
        heads,
        fused.vocabulary,
    )
