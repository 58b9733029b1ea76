"""The difference between the objects of two predictions of one image: matched one to one, then
compared.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mtl_ray.geometry.boxes import iou_matrix
from mtl_ray.geometry.masks import area, ious
from mtl_ray.inputs.frame import Frame
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.difference import (
    Comparison,
    Difference,
    Fields,
    Sides,
    field_faults,
    fields_of,
)

PER_OBJECT = ("boxes", "scores", "classes", "masks", "keypoints")
"""The fields that have a row for each object."""
CUT = 1e-6
"""Difference of two scores that are equal but for rounding."""
MATCH_IOU = 0.95
"""Least IoU of two boxes of one class, or of their masks, that count as the same."""
SAME_PX = 1.0
"""How far the corners of two boxes without area may be apart for them to be the same."""
FEW_PIXELS = 0.01
"""Masks also count as the same if at most this share of the pixels of their box differs: of a mask
of few pixels, rounding changes a large share.
"""


def prediction_difference(first: Detections, second: Detections, how: Comparison) -> Difference:
    """The difference of two predictions; objects without a partner are reported if their score
    reaches the threshold.
    """
    fields = _on_canvas(first, how.frame), _on_canvas(second, how.frame)
    reach = max(how.frame.canvas_height, how.frame.canvas_width)
    scores = [each.get("scores", np.zeros(0)) for each in fields]
    may_be_cut = how.cut and len(scores[0]) == len(scores[1]) > 0
    cut = min(float(each.min()) for each in scores) + CUT if may_be_cut else -1.0
    apart, partners = _objects_difference(*fields, reach, how.sides, how.frame, cut)
    if apart.incomparable:
        return apart
    alone: list[str] = []
    for prediction, matched, side in zip((first, second), partners, how.sides, strict=True):
        for index in np.setdiff1d(
            np.flatnonzero(prediction.scores >= how.score_threshold), matched
        ):
            box = ", ".join(f"{value:.1f}" for value in prediction.boxes_xyxy[index])
            alone.append(
                f"only {side} has class {prediction.classes[index]} with score "
                f"{prediction.scores[index]:.3f} at {box}"
            )
    return replace(apart, alone=tuple(alone))


def array_difference(first: Fields, second: Fields, how: Comparison) -> Difference:
    """The difference of network outputs: objects without padding, or all candidates of the layout
    ``raw`` in order.
    """
    reach = max(how.frame.canvas_height, how.frame.canvas_width)
    if "candidates" not in first:
        kept, cut = (_unpadded(first), _unpadded(second)), max(_cut(first), _cut(second))
        return _objects_difference(*kept, reach, how.sides, cut=cut)[0]
    problems = field_faults(first, second, ("candidates",), how.sides)
    if problems:
        return Difference(unit="candidates", incomparable=problems)
    ours, theirs = first["candidates"], second["candidates"]
    apart = Difference(unit="candidates", compared=len(ours)).with_positions(
        ours[..., :4], theirs[..., :4], reach
    )
    return apart.with_scores(ours[..., 4:], theirs[..., 4:]).with_agreeing(len(ours), len(ours))


def _cut(fields: Fields) -> float:
    """The score at which the objects of an image were cut off: the lowest one if no row is padding,
    below 0 if all objects were kept.

    Objects with nearly this score may be kept or not: equal scores, as of cells in a plain part of
    the canvas, have no order.
    """
    scores = fields.get("scores", np.zeros(0))
    return float(scores.min()) + CUT if len(scores) and (scores > 0).all() else -1.0


def _unpadded(fields: Fields) -> Fields:
    """The objects of one image without padding, which has the score 0."""
    if "boxes" not in fields or "scores" not in fields:
        return fields
    kept = fields["scores"] > 0
    return {
        name: values[kept] if values.shape[:1] == kept.shape else values
        for name, values in fields.items()
    }


def _on_canvas(prediction: Detections, frame: Frame) -> Fields:
    """The fields of a prediction, with boxes and keypoints in pixels of the canvas, and masks as an
    array of encodings.
    """
    fields = fields_of(prediction)
    if "boxes_xyxy" in fields:
        fields["boxes"] = frame.boxes_to_canvas(fields.pop("boxes_xyxy"))
    if "keypoints" in fields:
        points = fields["keypoints"]
        fields["keypoints"] = np.concatenate(
            [frame.points_to_canvas(points[..., :2]), points[..., 2:]], axis=-1
        )
    if "masks" in fields and prediction.masks is not None:
        fields["masks"] = np.array([*prediction.masks, None], object)[:-1]  # never fixed-size bytes
    return fields


def _objects_difference(
    first: Fields,
    second: Fields,
    reach: float,
    sides: Sides,
    frame: Frame | None = None,
    cut: float = -1.0,
) -> tuple[Difference, tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Objects are matched by box and class. With a frame masks are encodings on its image, and
    pairs must have similar ones; otherwise they are probabilities, compared like scores.
    If there are pairs, objects without a partner whose score is at most ``cut`` do not count. Also
    returns the pairs' indices.
    """
    none = np.empty(0, np.intp), np.empty(0, np.intp)
    problems = field_faults(first, second, PER_OBJECT, sides, PER_OBJECT)
    missing = tuple(
        f"neither has {name!r}"
        for name in PER_OBJECT[:3]
        if name not in first and name not in second
    )
    if problems or missing:
        return Difference(unit="boxes", incomparable=problems + missing), none
    ours, theirs = match_boxes(
        *((side["boxes"], side["scores"], side["classes"]) for side in (first, second))
    )
    masked = "masks" in first and "masks" in second
    if masked and frame is not None:
        alike = _alike(first, second, (ours, theirs), frame)
        ours, theirs = ours[alike], theirs[alike]
    if not len(ours):
        cut = -1.0  # without a pair nothing shows that the rest of the lists is the same
    alone = sum(
        int((~(np.delete(side["scores"], matched) <= cut)).sum())
        for side, matched in ((first, ours), (second, theirs))
    )
    apart = Difference(unit="boxes", compared=len(ours)).with_agreeing(
        2 * len(ours), 2 * len(ours) + alone
    )
    apart = apart.with_positions(first["boxes"][ours], second["boxes"][theirs], reach)
    apart = apart.with_scores(first["scores"][ours], second["scores"][theirs])
    if masked and frame is None:
        apart = apart.with_scores(first["masks"][ours], second["masks"][theirs])
    if "keypoints" in first and "keypoints" in second:
        points, others = first["keypoints"][ours], second["keypoints"][theirs]
        apart = apart.with_positions(points[..., :2], others[..., :2], reach).with_scores(
            points[..., 2:], others[..., 2:]
        )
    return apart, (ours, theirs)


def _alike(
    first: Fields,
    second: Fields,
    pairs: tuple[NDArray[np.intp], NDArray[np.intp]],
    frame: Frame,
) -> NDArray[np.bool_]:
    """Which pairs have similar masks: almost the same pixels, or few different ones for the size of
    the box.
    """
    height, width = frame.height, frame.width
    alike = []
    for mine, other in zip(*(index.tolist() for index in pairs), strict=True):
        masks = first["masks"][mine], second["masks"][other]
        box = first["boxes"][mine].astype(np.float64)
        pixels = (box[2:] - box[:2]).prod() / (frame.scale_x * frame.scale_y)
        total = sum(area(mask, height, width) for mask in masks)
        iou = ious([masks[0]], [masks[1]], height, width)[0, 0] if all(masks) else 0.0
        different = total * (1 - iou) / (1 + iou)  # |A xor B|, since |A| + |B| = (1 + iou) |A or B|
        alike.append(iou >= MATCH_IOU or different <= FEW_PIXELS * pixels)
    return np.array(alike, np.bool_)


def match_boxes(
    first: tuple[NDArray[Any], ...], second: tuple[NDArray[Any], ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Matches boxes of one class one to one with the largest sum of IoU (Kuhn 1955).

    A box without area, such as one whose right side lies left of its left one, overlaps nothing;
    two of them match if no corner is ``SAME_PX`` apart.

    Args:
        first: boxes (N, 4) xyxy, scores (N,), classes (N,).
        second: the same, M of them.

    Returns:
        Indices into first and second of the pairs with an IoU of at least ``MATCH_IOU``.
    """
    overlap = iou_matrix(first[0], second[0])  # (N, M)
    flat, others = (
        np.flatnonzero(~(each[:, 2:] > each[:, :2]).all(axis=1)) for each in (first[0], second[0])
    )
    apart = np.abs(first[0][flat, None] - second[0][others])  # (F, G, 4)
    overlap[np.ix_(flat, others)] = (apart < SAME_PX).all(axis=-1)
    overlap[first[2][:, None] != second[2][None, :]] = 0
    ours, theirs = linear_sum_assignment(overlap, maximize=True)
    near = overlap[ours, theirs] >= MATCH_IOU
    return ours[near], theirs[near]
