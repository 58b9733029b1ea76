"""Error analysis of a detector: seven precision-recall curves, each of which forgives one more kind
of error.

The rule is that of MMDetection's ``coco_error_analysis`` (after the analysis on
cocodataset.org/#detection-eval, by Hoiem et al. 2012):

* C75, C50: IoU 0.75 and 0.5. Loc: IoU 0.1, so localisation errors are forgiven.
* Sim: also ignores detections on objects of other classes of the same supercategory.
* Oth: also ignores detections on objects of any other class.
* BG: also ignores all other false positives. FN: missed objects are forgiven too.

To ignore detections on other classes, their objects become crowds of this class: a detection of
which a tenth lies on a crowd does not count.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import hotcoco
import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.executor import Executor
from mtl_ray.analysis.paired import Likeness, Paired
from mtl_ray.tasks.detection.coco import (
    CocoRules,
    accumulate,
    coco_detections,
    coco_ground_truth,
    ground_truth_masks,
)
from mtl_ray.tasks.detection.columns import ObjectColumns, detection_columns, object_columns

KINDS = ("C75", "C50", "Loc", "Sim", "Oth", "BG", "FN")
AREAS = ("allarea", "small", "medium", "large")
ALL_CLASSES = "allclass"
DEFAULT_AREAS = (1024.0, 9216.0, 1e10)
CLASSES_OF_A_TASK = 8
"""Classes that one task computes; objects are copied for each class."""
Forgiven = Literal["Sim", "Oth"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Errors:
    """The curves.

    Attributes:
        names: of the classes.
        precision: float64 (7, 101, C, 4): kinds, recalls 0 to 1, classes, areas; 0 where there is
            no object to find (FN: 1).
        objects: int64 (C, 4), objects to find by class and area.
    """

    names: tuple[str, ...]
    precision: NDArray[np.float64]
    objects: NDArray[np.int64]

    def averages(self) -> dict[str, dict[str, dict[str, float]]]:
        """The mean precision by class, area and kind.

        ``allclass`` is the mean over all classes, including those without objects.
        """
        means = self.precision.mean(axis=1)
        rows = {
            ALL_CLASSES: means.mean(axis=1),
            **{name: means[:, c] for c, name in enumerate(self.names)},
        }
        return {name: self._cells(row) for name, row in rows.items()}

    def of_present(self) -> dict[str, dict[str, float]]:
        """The mean precision by area and kind over the classes with objects there, like COCO's mAP.

        NaN if no class has any.
        """
        means, present = self.precision.mean(axis=1), self.objects > 0
        with np.errstate(invalid="ignore"):
            return self._cells(np.where(present, means, 0).sum(axis=1) / present.sum(axis=0))

    def _cells(self, values: NDArray[np.float64]) -> dict[str, dict[str, float]]:
        return {
            area: dict(zip(KINDS, values[:, a].tolist(), strict=True))
            for a, area in enumerate(AREAS)
        }


def error_curves(
    paired: Paired,
    executor: Executor,
    *,
    kind: Likeness = "bbox",
    areas: Sequence[float] = DEFAULT_AREAS,
) -> Errors:
    """Evaluates the classes with each kind of error forgiven.

    Args:
        paired: predictions and ground truth, with the supercategories of the classes; a class
            without one is similar to no other.
        executor: runs the work.
        kind: whether boxes or masks are compared.
        areas: upper limits of small, medium and large objects.

    Raises:
        ValueError: if the areas do not increase, or there is nothing to compare.
    """
    small, medium, most = areas
    if not 0 < small < medium < most:
        raise ValueError(f"the areas {small:g} {medium:g} {most:g} do not increase")
    if not paired.names:
        raise ValueError("the data has no classes of objects, so nothing can be wrong")
    if kind == "segm" and all(image.ground_truth.masks is None for image in paired.images):
        raise ValueError("the data has no masks; compare boxes instead")
    bounds = dict(
        zip(AREAS, ((0.0, most), (0.0, small), (small, medium), (medium, most)), strict=True)
    )
    classes = len(paired.names)
    chunks = [
        tuple(range(first, min(first + CLASSES_OF_A_TASK, classes)))
        for first in range(0, classes, CLASSES_OF_A_TASK)
    ]
    forgiving: list[tuple[Forgiven, tuple[int, ...]]] = [
        (rule, chunk) for rule in ("Sim", "Oth") for chunk in chunks
    ]
    parts = executor(partial(_forgiven, paired, kind, bounds), forgiving, "errors")
    found = np.zeros((len(KINDS), 101, classes, len(AREAS)))
    found[:3] = _plain(paired, kind, bounds)
    for (rule, chunk), part in zip(forgiving, parts, strict=True):
        found[KINDS.index(rule)][:, list(chunk)] = part
    found = np.maximum(found, 0)  # -1 where there is no object
    found[5], found[6] = found[4] > 0, 1
    return Errors(
        names=paired.names,
        precision=found,
        objects=_counts(object_columns(paired.images), classes, bounds),
    )


def _plain(
    paired: Paired, kind: Likeness, areas: Mapping[str, tuple[float, float]]
) -> NDArray[np.float64]:
    """C75, C50 and Loc, (3, 101, C, 4)."""
    objects = object_columns(paired.images)
    masks = ground_truth_masks(paired.images) if kind == "segm" else None
    gt = coco_ground_truth(paired.images, objects, len(paired.names), masks)
    rules = CocoRules(thresholds=(0.75, 0.5, 0.1), areas=areas)
    return accumulate(_evaluator(gt, paired, kind), rules).precision[..., 0]


def _evaluator(gt: hotcoco.COCO, paired: Paired, kind: Likeness) -> hotcoco.COCOeval:
    """Areas of masks are those of their boxes, as in the analysis of MMDetection."""
    detections = coco_detections(gt, paired.images, kind, box_areas=True)
    return hotcoco.COCOeval(gt, detections, kind)


def _forgiven(
    paired: Paired,
    kind: Likeness,
    areas: Mapping[str, tuple[float, float]],
    work: tuple[Forgiven, tuple[int, ...]],
) -> NDArray[np.float64]:
    """Of some classes (101, K, 4): their own objects, and those of others as crowds wherever a
    detection of the class could lie on one.
    """
    rule, classes = work
    objects, masks = object_columns(paired.images), ground_truth_masks(paired.images)
    mine = np.isin(objects.classes, classes)
    places, labels = [np.flatnonzero(mine)], [objects.classes[mine]]
    for label, crowd in _crowds(paired, objects, rule, classes):
        places.append(crowd)
        labels.append(np.full(len(crowd), label))
    place = np.concatenate(places)
    copied = np.arange(len(place)) >= len(places[0])
    order = np.argsort(objects.image[place], kind="stable")
    whole = _copied(objects, place[order], np.concatenate(labels)[order], copied[order])
    gt = coco_ground_truth(
        paired.images,
        whole,
        len(paired.names),
        [masks[i] for i in place[order]] if kind == "segm" else None,
    )
    evaluator = _evaluator(gt, paired, kind)
    evaluator.params.cat_ids = [label + 1 for label in classes]
    return accumulate(evaluator, CocoRules(thresholds=(0.1,), areas=areas)).precision[0, ..., 0]


def _crowds(
    paired: Paired, objects: ObjectColumns, rule: Forgiven, classes: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Of each class the places of the objects that are its crowds.

    Without a detection of it in the image they change nothing.
    """
    found = detection_columns(paired.images)
    groups = np.array([paired.groups.index(group) for group in paired.groups])
    for label in classes:
        others = objects.classes != label
        if rule == "Sim":
            others &= groups[objects.classes] == groups[label]
        detected = np.zeros(len(paired.images), np.bool_)
        detected[found.image[found.classes == label]] = True
        yield label, np.flatnonzero(others & detected[objects.image])


def _copied(
    objects: ObjectColumns,
    place: NDArray[np.int64],
    classes: NDArray[np.int64],
    crowd: NDArray[np.bool_],
) -> ObjectColumns:
    return ObjectColumns(
        image=objects.image[place],
        boxes_xyxy=objects.boxes_xyxy[place],
        classes=classes,
        areas=objects.areas[place],
        crowd=objects.crowd[place] | crowd,
        optional=objects.optional[place] | crowd,
    )


def _counts(
    objects: ObjectColumns, classes: int, areas: Mapping[str, tuple[float, float]]
) -> NDArray[np.int64]:
    wanted = ~objects.optional
    columns = []
    for low, high in areas.values():
        inside = wanted & (objects.areas >= low) & (objects.areas <= high)
        columns.append(np.bincount(objects.classes[inside], minlength=classes))
    return np.stack(columns, axis=1)
