"""Confusion matrices of stored predictions: of objects, image labels or pixels."""

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.analysis.image_scores import overlaps_float32
from mtl_ray.analysis.paired import Paired, Pairs
from mtl_ray.evaluation.charts import draw_charts
from mtl_ray.tasks.charts import BACKGROUND, Charts, Confusion
from mtl_ray.tasks.detection.columns import (
    ScoredImage,
    detection_columns,
    object_columns,
    reaches_score,
)
from mtl_ray.tasks.detection.confusion import detection_confusion
from mtl_ray.tasks.detection.options import Selection
from mtl_ray.tasks.detection.selection import suppress_boxes
from mtl_ray.tasks.head_classes import HeadClasses, head_metric
from mtl_ray.tasks.lidar.confusion import ConfusionRule
from mtl_ray.tasks.lidar.metric import Detection3dMetric


def object_confusion(
    paired: Paired,
    *,
    min_score: float = 0.3,
    min_iou: float = 0.5,
    nms_iou: float | None = None,
    compat: bool = False,
) -> Confusion:
    """The confusion of boxes, with the background as the last row and column.

    Args:
        paired: predictions and ground truth.
        min_score: detections with a lower score are ignored.
        min_iou: least overlap of a detection and its object.
        nms_iou: first suppress detections that a better one of their class overlaps by more than
            this.
        compat: count like MMDetection (see ``compat_confusion``); otherwise one to one (see
            ``tasks.detection.confusion``).
    """
    if not 0 < min_iou <= 1:
        raise ValueError(f"the IoU threshold is {min_iou:g}; it must be above 0 and at most 1")
    images = (
        paired.images
        if nms_iou is None
        else [_suppressed(image, nms_iou) for image in paired.images]
    )
    rule = compat_confusion if compat else detection_confusion
    return rule(images, paired.names, min_score=min_score, min_iou=min_iou)


def compat_confusion(
    images: Sequence[ScoredImage], names: tuple[str, ...], *, min_score: float, min_iou: float
) -> Confusion:
    """MMDetection 3.x's rule: a detection counts once for each object (also a crowd) that it
    overlaps enough.

    A detection that overlaps no object counts as found in the background. An object that no
    detection of its own class overlaps counts as background, even if another class was counted for
    it. So rows do not add up to the number of objects.
    """
    objects, found = object_columns(images), detection_columns(images)
    shown = reaches_score(images, min_score)
    near = overlaps_float32(found, objects, min_iou)
    kept = shown[near.detection]
    detection, place = near.detection[kept], near.object[kept]
    none = len(names)
    counts = np.zeros((none + 1, none + 1), np.int64)
    np.add.at(counts, (objects.classes[place], found.classes[detection]), 1)
    alone = shown.copy()
    alone[detection] = False
    counts[none, :none] = np.bincount(found.classes[alone], minlength=none)
    missed = np.ones(len(objects.classes), np.bool_)
    missed[place[objects.classes[place] == found.classes[detection]]] = False
    counts[:none, none] = np.bincount(objects.classes[missed], minlength=none)
    note = f"MMDetection's rule, IoU {min_iou:g}, score {min_score:g}"
    return Confusion(names=(*names, BACKGROUND), counts=counts, unit="objects", note=note)


def _suppressed(image: ScoredImage, iou: float) -> ScoredImage:
    found = image.predicted
    rule = Selection(iou_threshold=iou, max_detections=max(1, len(found)))
    boxes, scores = found.boxes_xyxy.astype(np.float32), found.scores.astype(np.float32)
    groups = [np.flatnonzero(found.classes == label) for label in np.unique(found.classes)]
    kept = np.sort(
        np.concatenate(
            [
                np.empty(0, np.int64),
                *(group[suppress_boxes(boxes[group], scores[group], rule)] for group in groups),
            ]
        )
    )
    return image._replace(predicted=found.select(kept))


def head_confusion(pairs: Pairs, name: str) -> Confusion:
    """The confusion of image labels or pixels, from the metric of the head.

    Raises:
        ValueError: if the metric counts none: an image may have several labels, so no label can be
            confused with another, or nothing is predicted that has a class.
    """
    head = pairs.stored.heads[name]
    metric = head_metric(head, pairs.stored.vocabulary)
    for sample, found in pairs:
        if found is not None:
            metric.update(sample, found[name])
    counted = metric.charts().confusion
    if counted is None:
        raise ValueError(
            f"the head {name} ({head.type}) gives an image any number of labels, or none: no class "
            "can be confused with another; see eval-metric"
        )
    return counted


def cloud_confusion(pairs: Pairs, name: str, *, min_score: float, rule: ConfusionRule) -> Confusion:
    """The confusion of objects in point clouds, matched by what they overlap or how near they are
    from above.

    Args:
        pairs: predictions and ground truth.
        name: of the head.
        min_score: detections with a lower score are ignored.
        rule: what matches.
    """
    classes = HeadClasses.of(pairs.stored.heads[name], pairs.stored.vocabulary)
    metric = Detection3dMetric(classes.vocabulary.classes["boxes_3d"])
    for sample, found in pairs:
        if found is not None:
            metric.update(classes.sample(sample), found[name])
    return metric.confusion(min_score, rule)


def write_confusion(out: str, name: str, found: Confusion) -> list[str]:
    """Writes confusion.json, confusion.csv (counts), percent.csv (of each row), classes.csv and
    confusion.png; returns their URIs.

    Args:
        out: folder or URI.
        name: what the figure is called.
        found: the counts.
    """
    percent = row_percent(found.counts)
    files = {
        "confusion.json": (
            json.dumps({"classes": found.names, "counts": found.counts.tolist()}) + "\n"
        ).encode(),
        "confusion.csv": _matrix(
            found.names, [[str(count) for count in row] for row in found.counts.tolist()]
        ),
        "percent.csv": _matrix(
            found.names,
            [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in percent],
        ),
        "classes.csv": _classes(found),
    }
    for chart, picture in draw_charts(
        {name: Charts(confusion=found, precision_recall=None)}
    ).items():
        files[f"{chart.rpartition('/')[2]}.png"] = picture
    for file, content in files.items():
        storage.write(storage.join(out, file), content)
    return [storage.join(out, file) for file in files]


def row_percent(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Percentages of each row, float64 (N, N); NaN in an empty row."""
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * counts / counts.sum(axis=1, keepdims=True), np.float64)


def confusion_table(found: Confusion) -> list[tuple[str, int, int, int, float, float, float]]:
    """A row for each class except the background: name, number annotated, predicted and correct,
    precision, recall, F1; NaN if unknown.
    """
    rows = []
    for place, name in enumerate(found.names):
        if name == BACKGROUND and place == len(found.names) - 1:
            continue
        gt, predicted, right = (
            int(found.counts[place].sum()),
            int(found.counts[:, place].sum()),
            int(found.counts[place, place]),
        )
        rows.append(
            (
                name,
                gt,
                predicted,
                right,
                _share(right, predicted),
                _share(right, gt),
                _share(2 * right, gt + predicted),
            )
        )
    return rows


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _matrix(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    return _csv(
        [
            ["annotated \\ predicted", *names],
            *([name, *row] for name, row in zip(names, rows, strict=True)),
        ]
    )


def _classes(found: Confusion) -> bytes:
    rows = [
        [
            row[0],
            *map(str, row[1:4]),
            *("" if np.isnan(value) else f"{value:.4f}" for value in row[4:]),
        ]
        for row in confusion_table(found)
    ]
    return _csv([["class", "annotated", "predicted", "right", "precision", "recall", "f1"], *rows])


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
