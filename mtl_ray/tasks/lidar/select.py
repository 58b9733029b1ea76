"""From the candidates of a network to the objects of a cloud: thresholds, limits and suppression,
and the options for them. It runs in numpy, so that a server needs no torch.
"""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.geometry.boxes_3d import wrap_angle
from mtl_ray.geometry.rotated_iou import circle_nms, rotated_nms
from mtl_ray.tasks.difference import Fields
from mtl_ray.tasks.lidar.decode import Detections3d

Radius = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnchorSelection:
    """How the objects of ``anchor_3d`` are selected, by default as published for KITTI."""

    candidates: int = Field(default=100, ge=1)
    """Anchors of a cloud that the network gives, those with the best class scores."""
    score_threshold: float = Field(default=0.1, ge=0, lt=1)
    """Scores of a class must be above it."""
    iou_threshold: float = Field(default=0.01, ge=0, le=1)
    """Boxes with more IoU (from above) to a better box of their class are suppressed."""
    max_detections: int = Field(default=50, ge=1)
    """Most objects of a cloud."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CentreSelection:
    """How the objects of ``center_point`` are selected, by default as published for nuScenes with
    rotated boxes.
    """

    candidates: int = Field(default=500, ge=1)
    """Cells of each group of classes that the network gives, those with the best scores."""
    score_threshold: float = Field(default=0.1, ge=0, lt=1)
    """Scores must be above it."""
    limits: tuple[float, float, float, float, float, float] | None = None
    """Least x, y, z and greatest x, y, z of a centre in metres; published for nuScenes: [-61.2,
    -61.2, -10, 61.2, 61.2, 10]. null: anywhere.
    """
    suppression: Literal["rotate", "circle"] = "rotate"
    """rotate: by the IoU of boxes from above. circle: by the distance of centres."""
    iou_threshold: float = Field(default=0.2, ge=0, le=1)
    """Of rotate."""
    radii: tuple[Radius, ...] = (4.0, 12.0, 10.0, 1.0, 0.85, 0.175)
    """Of circle: what the squared distance of two centres must exceed, for each group of classes or
    one number for all. The published values are those of nuScenes' six groups.
    """
    max_detections: int = Field(default=83, ge=1)
    """Most objects of each group."""


def select_anchors(arrays: Fields, options: AnchorSelection) -> Detections3d:
    """The objects of ``anchor_3d``: classes do not suppress each other.

    Args:
        arrays: ``boxes`` (K, 7) and ``scores`` (K, C).
        options: thresholds and limits.
    """
    boxes, scores = arrays["boxes"], arrays["scores"]
    finite = np.isfinite(boxes).all(axis=1)
    rows: list[NDArray[np.int64]] = []
    for column in range(scores.shape[1]):
        above = np.flatnonzero(finite & (scores[:, column] > options.score_threshold))
        kept = rotated_nms(boxes[above], scores[above, column], options.iou_threshold)
        rows.append(above[kept])
    classes = np.repeat(np.arange(scores.shape[1]), [len(each) for each in rows])
    which = np.concatenate([*rows, np.zeros(0, np.int64)])
    return _ordered(boxes[which], scores[which, classes], classes, None, options.max_detections)


def select_centres(arrays: Fields, options: CentreSelection) -> Detections3d:
    """The objects of ``center_point``: the classes of a group suppress each other.

    Args:
        arrays: ``boxes`` (T * candidates, 7), ``scores`` and ``classes`` (T * candidates,), and
            ``velocity`` (T * candidates, 2) where it is predicted, group by group.
        options: thresholds and limits.

    Raises:
        ValueError: if ``radii`` has another number of groups.
    """
    boxes, scores = arrays["boxes"], arrays["scores"]
    groups = len(scores) // options.candidates
    radii = options.radii * groups if len(options.radii) == 1 else options.radii
    if options.suppression == "circle" and len(radii) != groups:
        raise ValueError(
            f"select.radii has {len(radii)} numbers, and there are {groups} groups of classes. "
            "Fix: one for each, or one for all"
        )
    usable = np.isfinite(boxes).all(axis=1) & (scores > options.score_threshold)
    if options.limits is not None:
        low, high = np.split(np.array(options.limits, np.float32), 2)
        usable &= ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(axis=1)
    kept: list[NDArray[np.int64]] = []
    for group in range(groups):
        first = group * options.candidates
        rows = first + np.flatnonzero(usable[first : first + options.candidates])
        if options.suppression == "circle":
            chosen = circle_nms(boxes[rows], scores[rows], radii[group], options.max_detections)
        else:
            chosen = rotated_nms(
                boxes[rows], scores[rows], options.iou_threshold, options.max_detections
            )
        kept.append(rows[chosen])
    which = np.concatenate([*kept, np.zeros(0, np.int64)])
    velocity = arrays.get("velocity")
    return _ordered(
        boxes[which],
        scores[which],
        arrays["classes"][which],
        None if velocity is None else velocity[which],
        len(which),
    )


def _ordered(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64],
    velocity: NDArray[np.float32] | None,
    limit: int,
) -> Detections3d:
    """The best ``limit`` of them, best first; their yaw in [-pi, pi)."""
    order = np.argsort(-scores, kind="stable")[:limit]
    found = boxes[order].astype(np.float32)
    found[:, 6] = wrap_angle(found[:, 6])
    return Detections3d(
        boxes=found,
        scores=scores[order].astype(np.float32),
        classes=classes[order].astype(np.int64),
        velocity=None if velocity is None else velocity[order].astype(np.float32),
    )
