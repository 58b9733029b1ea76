"""A search for anchors: the request, the methods, and the fitted anchors."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtl_ray.experiment import load_experiment
from mtl_ray.inputs.image import Canvas
from mtl_ray.tasks.detection.dense.config import Yolov3Head
from mtl_ray.tuning.anchor_boxes import documented_shapes, shapes_of
from mtl_ray.tuning.anchor_documented import documented_evolution, documented_kmeans
from mtl_ray.tuning.anchor_points import Shapes, nearest_anchors
from mtl_ray.tuning.anchors import (
    AnchorFit,
    by_level,
    crowding,
    evolve_anchors,
    fast_anchors,
    kmeans_anchors,
    level_of,
    measure_anchors,
    measure_on_levels,
    strides_of,
)

SearchMethod = Literal["fast", "kmeans", "de", "optuna"]
YOLOV3_LEVELS = ("P3", "P4", "P5")
_YOLOV3 = (
    (10, 13),
    (16, 30),
    (33, 23),
    (30, 61),
    (62, 45),
    (59, 119),
    (116, 90),
    (156, 198),
    (373, 326),
)
LEAST_GAIN = 0.02
"""Least gain in best possible recall with which anchors are likely to help. A better average IoU
alone does not help: a head that moves and scales anchors learns as much with either, as long as the
anchors reach the boxes."""
MOST_ANSWERS = 5.0
"""Most anchors that match one box, on average. With more, so many compete for a box that short
trainings miss small objects."""


@dataclass(frozen=True, kw_only=True)
class LevelAnchors:
    """Anchors with their levels.

    Attributes:
        name: a description, for messages.
        anchors: (K, 2) canvas pixels.
        strides: (K,) canvas pixels per cell of the level of each.
    """

    name: str
    anchors: Shapes
    strides: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class AnchorRequest:
    """What to fit, and to which boxes.

    Attributes:
        data: URIs of splits or COCO annotation files (.json).
        num: number of anchors of all levels together.
        canvas: the boxes are placed on it.
        method: of the search.
        compat: boxes, k-means and differential evolution follow the documented rules of
            MMDetection.
        seed: of all random numbers.
        head, levels: of the config for which the overlay is written.
        before: the anchors of that head, to compare with; None compares with the published anchors
            of YOLOv3.

    Raises:
        ValueError: if these do not go together.
    """

    data: tuple[str, ...]
    num: int
    canvas: Canvas
    method: SearchMethod = "fast"
    compat: bool = False
    seed: int = 0
    head: str = "boxes"
    levels: tuple[str, ...] = YOLOV3_LEVELS
    before: "LevelAnchors | None" = None

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"--num is {self.num}; at least 1 anchor is needed")
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"--levels {' '.join(self.levels)}: a level is named twice")
        if not all(any(letter.isdigit() for letter in level) for level in self.levels):
            raise ValueError(
                f"--levels {' '.join(self.levels)}: a level is called after its number, such as "
                "P3, whose stride is 8"
            )
        if self.compat and self.method not in ("kmeans", "de"):
            raise ValueError(
                "--compat goes with --method kmeans or de, for which there are documented rules, "
                f"not with {self.method}"
            )


@dataclass(frozen=True, kw_only=True)
class FittedAnchors:
    """Fitted anchors, and how well they fit the boxes.

    Attributes:
        anchors: (K, 2) width and height by area, in canvas pixels, rounded as they are written.
        fit: to all boxes; with ``compat`` before rounding, as MMDetection prints it.
        shapes: (N, 2) of all boxes.
        level: (K,) index of the level of each anchor in the levels of the request.
        compared: the anchors to compare with.
        before, after: how well ``compared`` and the new anchors fit the boxes, on their levels.
        answers, enough: how many anchors match one box, and how few are enough (see ``crowding``).
        index, overlap: (N,) nearest anchor of each box, and their intersection over union.
    """

    request: AnchorRequest
    anchors: Shapes
    fit: AnchorFit
    shapes: Shapes
    level: NDArray[np.int64]
    compared: LevelAnchors
    before: AnchorFit
    after: AnchorFit
    answers: float
    enough: int
    index: NDArray[np.int64]
    overlap: NDArray[np.float64]

    @property
    def distinct(self) -> int:
        """How many anchors differ from each other: fewer than all if the boxes have fewer shapes
        than there are anchors.
        """
        return len(np.unique(self.anchors.round(1), axis=0))

    @property
    def strides(self) -> NDArray[np.int64]:
        """Canvas pixels per cell of the level of each anchor, (K,)."""
        return strides_of(self.request.levels)[self.level]

    def level_name(self, index: int) -> str:
        """The level of an anchor."""
        return self.request.levels[int(self.level[index])]

    @property
    def of_level(self) -> dict[str, list[list[float]]]:
        """The anchors of each level that has some, in the order of the config."""
        return by_level(self.anchors, self.request.levels)

    @property
    def dropped(self) -> list[str]:
        """The levels without anchors."""
        return [level for level in self.request.levels if level not in self.of_level]

    @property
    def helps(self) -> bool:
        """Whether training is likely to find more objects with these anchors than with
        ``compared``: see ``LEAST_GAIN``.
        """
        return self.after.best_possible_recall - self.before.best_possible_recall >= LEAST_GAIN


def anchors_of_config(path: str, head: str) -> tuple[tuple[str, ...], LevelAnchors]:
    """The levels and anchors of a head of a config.

    Raises:
        ValueError, FileNotFoundError: if the config is wrong, or has no such head, or one without
            anchors in pixels.
    """
    heads = load_experiment(path).model.heads
    if not isinstance(found := heads.get(head), Yolov3Head):
        fitting = [name for name, each in heads.items() if isinstance(each, Yolov3Head)]
        other = (
            f"--head {' or '.join(fitting)} has"
            if fitting
            else "no other head has any: anchors are for heads of type yolov3"
        )
        raise ValueError(f"{path}: there is no head {head!r} with anchors in pixels; {other}")
    counts = [len(level) for level in found.anchors]
    anchors = np.array([anchor for level in found.anchors for anchor in level])
    return found.levels, LevelAnchors(
        name=f"those of {path}",
        anchors=anchors,
        strides=np.repeat(strides_of(found.levels), counts),
    )


def shapes_of_request(request: AnchorRequest) -> Shapes:
    """The shapes of the boxes of a request."""
    if request.compat:
        return documented_shapes(request.data, request.canvas.width, request.canvas.height)
    return shapes_of(request.data, request.canvas)


def fit_anchors(request: AnchorRequest, shapes: Shapes) -> Shapes:
    """Fits anchors by a method that runs in this process; (num, 2) by area."""
    if request.method == "kmeans":
        return (documented_kmeans if request.compat else kmeans_anchors)(
            shapes, request.num, seed=request.seed
        )
    if request.method == "de" and request.compat:
        return documented_evolution(
            shapes, request.num, (request.canvas.width, request.canvas.height), seed=request.seed
        )
    assert request.method != "optuna", "distributed.anchors does that"
    return (evolve_anchors if request.method == "de" else fast_anchors)(
        shapes, request.num, seed=request.seed
    )


def evaluate_anchors(request: AnchorRequest, shapes: Shapes, anchors: Shapes) -> FittedAnchors:
    """Rounds anchors and measures them on all boxes."""
    rounded = anchors.round(0 if request.compat else 2)
    fit = measure_anchors(shapes, anchors if request.compat else rounded)
    index, overlap = nearest_anchors(shapes, rounded)
    level = level_of(rounded, request.levels)
    before = request.before or yolov3_anchors(request.canvas)
    answers, enough = crowding(shapes, rounded)
    return FittedAnchors(
        request=request,
        anchors=rounded,
        fit=fit,
        shapes=shapes,
        level=level,
        compared=before,
        before=measure_on_levels(shapes, before.anchors, before.strides),
        after=measure_on_levels(shapes, rounded, strides_of(request.levels)[level]),
        answers=answers,
        enough=enough,
        index=index,
        overlap=overlap,
    )


def yolov3_anchors(canvas: Canvas) -> LevelAnchors:
    """The anchors of YOLOv3 for COCO on 416 x 416 (Redmon and Farhadi 2018, section 2.3), scaled
    to this canvas.
    """
    scale = max(canvas.width, canvas.height) / 416
    return LevelAnchors(
        name="the published anchors of YOLOv3",
        anchors=np.array(_YOLOV3) * scale,
        strides=np.repeat([8, 16, 32], 3),
    )
