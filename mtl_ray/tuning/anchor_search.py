"""A search for anchors: what is wanted, how it is looked for, and what was found."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtl_ray.experiment import load_experiment
from mtl_ray.inputs.image import Canvas
from mtl_ray.tasks.detection.config import Yolov3Head
from mtl_ray.tuning.anchor_boxes import documented_shapes, shapes_of
from mtl_ray.tuning.anchor_documented import documented_evolution, documented_kmeans
from mtl_ray.tuning.anchor_points import Shapes, nearest
from mtl_ray.tuning.anchors import Fit, by_level, crowding, evolve, fast, kmeans, level_of, measure, measure_on_levels, strides_of

Method = Literal["fast", "kmeans", "de", "optuna"]
YOLOV3_LEVELS = ("P3", "P4", "P5")
_YOLOV3 = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
LEAST_GAIN = 0.02
"""Of best possible recall, by which anchors are likely to help. A better average IoU alone is not: where anchors reach the boxes at all, a
head that moves and scales them learns as much with either."""
MOST_ANSWERS = 5.0
"""Anchors that answer for one box on average: more of them compete for it, which keeps short trainings on small objects from finding it."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Anchors on their levels.

    Attributes:
        name: what they are, for people.
        anchors: (K, 2) canvas pixels.
        strides: (K,) canvas pixels per cell of the level of each.
    """

    name: str
    anchors: Shapes
    strides: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to fit to what.

    Attributes:
        data: URIs of splits or COCO annotation files (.json).
        num: of anchors, over all levels.
        canvas: upon which the boxes lie.
        method: how to look for them.
        compat: whether boxes and k-means or differential evolution follow the documented rules of MMDetection.
        seed: of whatever is drawn.
        head, levels: in the config that the overlay is for.
        before: what that head has so far, to compare with; None compares with the published anchors of YOLOv3.

    Raises:
        ValueError: if these do not go together.
    """

    data: tuple[str, ...]
    num: int
    canvas: Canvas
    method: Method = "fast"
    compat: bool = False
    seed: int = 0
    head: str = "boxes"
    levels: tuple[str, ...] = YOLOV3_LEVELS
    before: "Placed | None" = None

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"--num is {self.num}; at least 1 anchor is needed")
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"--levels {' '.join(self.levels)}: a level is named twice")
        if not all(any(letter.isdigit() for letter in level) for level in self.levels):
            raise ValueError(f"--levels {' '.join(self.levels)}: a level is called after its number, such as P3, whose stride is 8")
        if self.compat and self.method not in ("kmeans", "de"):
            raise ValueError(f"--compat goes with --method kmeans or de, for which there are documented rules, not with {self.method}")


@dataclass(frozen=True, kw_only=True)
class Found:
    """Anchors and how well they suit.

    Attributes:
        anchors: (K, 2) width and height by area, in canvas pixels, rounded as they are written.
        fit: upon all boxes; of ``compat`` before rounding, as MMDetection prints it.
        shapes: (N, 2) of all boxes.
        level: of each anchor, (K,) indices into the levels of the request.
        compared: the anchors of before.
        before, after: how well the boxes suit those and the new anchors, on their levels.
        answers, enough: how many anchors answer for one box, and how few would do (see ``crowding``).
        index, overlap: of each box the nearest anchor and their intersection over union, (N,).
    """

    request: Request
    anchors: Shapes
    fit: Fit
    shapes: Shapes
    level: NDArray[np.int64]
    compared: Placed
    before: Fit
    after: Fit
    answers: float
    enough: int
    index: NDArray[np.int64]
    overlap: NDArray[np.float64]

    @property
    def distinct(self) -> int:
        """How many anchors differ from each other, which is fewer than all where boxes have fewer shapes than there are anchors."""
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
        """The levels that no anchor belongs to."""
        return [level for level in self.request.levels if level not in self.of_level]

    @property
    def helps(self) -> bool:
        """Whether training is likely to find more with these anchors than with the ones before: see ``LEAST_GAIN``."""
        return self.after.best_possible_recall - self.before.best_possible_recall >= LEAST_GAIN


def anchors_of_config(path: str, head: str) -> tuple[tuple[str, ...], Placed]:
    """The levels and anchors of a head of a config.

    Raises:
        ValueError, FileNotFoundError: if the config is wrong, or has no such head, or one without anchors in pixels.
    """
    heads = load_experiment(path).model.heads
    if not isinstance(found := heads.get(head), Yolov3Head):
        fitting = [name for name, each in heads.items() if isinstance(each, Yolov3Head)]
        other = f"--head {' or '.join(fitting)} has" if fitting else "no other head has any: anchors are for heads of type yolov3"
        raise ValueError(f"{path}: there is no head {head!r} with anchors in pixels; {other}")
    counts = [len(level) for level in found.anchors]
    anchors = np.array([anchor for level in found.anchors for anchor in level])
    return found.levels, Placed(name=f"those of {path}", anchors=anchors, strides=np.repeat(strides_of(found.levels), counts))


def shapes_for(request: Request) -> Shapes:
    """The shapes of the boxes that a request speaks of."""
    if request.compat:
        return documented_shapes(request.data, request.canvas.width, request.canvas.height)
    return shapes_of(request.data, request.canvas)


def fit_anchors(request: Request, shapes: Shapes) -> Shapes:
    """Anchors by any method that works in this process, (num, 2) by area."""
    if request.method == "kmeans":
        return (documented_kmeans if request.compat else kmeans)(shapes, request.num, seed=request.seed)
    if request.method == "de" and request.compat:
        return documented_evolution(shapes, request.num, (request.canvas.width, request.canvas.height), seed=request.seed)
    assert request.method != "optuna", "that goes through distributed.anchors"
    return (evolve if request.method == "de" else fast)(shapes, request.num, seed=request.seed)


def judge(request: Request, shapes: Shapes, anchors: Shapes) -> Found:
    """Measures anchors on all boxes, as they will be written."""
    rounded = anchors.round(0 if request.compat else 2)
    fit = measure(shapes, anchors if request.compat else rounded)
    index, overlap = nearest(shapes, rounded)
    level = level_of(rounded, request.levels)
    before = request.before or published(request.canvas)
    answers, enough = crowding(shapes, rounded)
    return Found(
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


def published(canvas: Canvas) -> Placed:
    """The anchors of YOLOv3 for COCO on 416 x 416 (Redmon and Farhadi 2018, section 2.3), as large on this canvas as they are on that."""
    scale = max(canvas.width, canvas.height) / 416
    return Placed(name="the published anchors of YOLOv3", anchors=np.array(_YOLOV3) * scale, strides=np.repeat([8, 16, 32], 3))
