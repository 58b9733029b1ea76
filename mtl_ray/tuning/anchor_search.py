"""A search for anchors: what is wanted, how it is looked for, and what was found."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.placement import PlacementRule
from mtl_ray.tuning.anchor_boxes import documented_shapes, shapes_of
from mtl_ray.tuning.anchor_documented import documented_evolution, documented_kmeans
from mtl_ray.tuning.anchor_points import Shapes, nearest
from mtl_ray.tuning.anchors import Fit, evolve, fast, kmeans, measure

Method = Literal["fast", "kmeans", "de", "optuna"]


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
        head, levels: in the config that the overlay is for; each level gets as many anchors as the others.

    Raises:
        ValueError: if these do not go together.
    """

    data: tuple[str, ...]
    num: int
    canvas: PlacementRule
    method: Method = "fast"
    compat: bool = False
    seed: int = 0
    head: str = "boxes"
    levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"--num is {self.num}; at least 1 anchor is needed")
        if self.levels and self.num % len(self.levels):
            raise ValueError(f"--num {self.num} anchors cannot be shared evenly by the levels {', '.join(self.levels)}")
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
        levels: names, as many as share the anchors evenly, in the order of the config.
        index, overlap: of each box the nearest anchor and their intersection over union, (N,).
    """

    request: Request
    anchors: Shapes
    fit: Fit
    shapes: Shapes
    levels: tuple[str, ...]
    index: NDArray[np.int64]
    overlap: NDArray[np.float64]

    def level_of(self, index: int) -> str:
        """The level of an anchor: small ones belong to the level with the smallest stride."""
        return self.order[index * len(self.levels) // len(self.anchors)]

    @property
    def order(self) -> list[str]:
        """The levels from the smallest stride to the largest."""
        return sorted(self.levels, key=_number)


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
    levels = request.levels or _levels_for(request.num)
    return Found(request=request, anchors=rounded, fit=fit, shapes=shapes, levels=levels, index=index, overlap=overlap)


def _levels_for(num: int) -> tuple[str, ...]:
    """Those of YOLOv3 and its smaller kin, as far as they share the anchors evenly."""
    return ("P3", "P4", "P5") if num % 3 == 0 else ("P4", "P5") if num % 2 == 0 else ("P5",)


def _number(level: str) -> int:
    return int("".join(letter for letter in level if letter.isdigit()))
