"""The rules of the KITTI metric one after another, object by object: slow, and easy to check."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.rotated_iou import bev_iou, iou_3d
from mtl_ray.tasks.lidar.kitti.columns import KittiColumns, KittiFrame

HEIGHTS, OCCLUSIONS, TRUNCATIONS = (40, 25, 25), (0, 1, 2), (0.15, 0.3, 0.5)
NEIGHBOUR = {"car": "van", "pedestrian": "person_sitting"}


def reference_ap(
    frames: Sequence[KittiFrame], name: str, area: str, level: int, least: float
) -> tuple[list[float], list[float]]:
    """Precision and orientation at 41 recalls."""
    states = [_states(frame, name, level) for frame in frames]
    overlaps = [_overlaps(frame, area) for frame in frames]
    total = sum(gt.count(0) for gt, _ in states)
    scores: list[float] = []
    for frame, (gt, found), overlap in zip(frames, states, overlaps, strict=True):
        scores += _first_pass(frame, gt, found, overlap, least)
    thresholds = _thresholds(sorted(scores, reverse=True), total)
    precision, orientation = [0.0] * 41, [0.0] * 41
    for place, threshold in enumerate(thresholds):
        right = wrong = 0
        similarity = 0.0
        for frame, (gt, found), overlap in zip(frames, states, overlaps, strict=True):
            counted = _second_pass(frame, gt, found, overlap, least, threshold, area)
            right, wrong = right + counted[0], wrong + counted[1]
            similarity += counted[2]
        precision[place] = right / (right + wrong)
        orientation[place] = similarity / (right + wrong)
    count = len(thresholds)
    return (
        [max(precision[place:count], default=0.0) for place in range(41)],
        [max(orientation[place:count], default=0.0) for place in range(41)],
    )


def _states(frame: KittiFrame, name: str, level: int) -> tuple[list[int], list[int]]:
    gt, found = [], []
    for g in range(len(frame.gt)):
        own = str(frame.gt.names[g]).lower()
        box = frame.gt.boxes_2d[g]
        hard = (
            frame.gt.occlusion[g] > OCCLUSIONS[level]
            or frame.gt.truncation[g] > TRUNCATIONS[level]
            or box[3] - box[1] <= HEIGHTS[level]
        )
        if own == name.lower():
            gt.append(1 if hard else 0)
        else:
            gt.append(1 if NEIGHBOUR.get(name.lower()) == own else -1)
    for d in range(len(frame.found)):
        box = frame.found.boxes_2d[d]
        if abs(box[3] - box[1]) < HEIGHTS[level]:
            found.append(1)
        else:
            found.append(0 if str(frame.found.names[d]).lower() == name.lower() else -1)
    return gt, found


def _overlaps(frame: KittiFrame, area: str) -> NDArray[np.float64]:
    if area != "2D":
        return (bev_iou if area == "BEV" else iou_3d)(frame.found.boxes, frame.gt.boxes)
    values = np.zeros((len(frame.found), len(frame.gt)))
    for d, box in enumerate(frame.found.boxes_2d):
        for g, other in enumerate(frame.gt.boxes_2d):
            common = _common(box, other)
            values[d, g] = common / (_area(box) + _area(other) - common)
    return values


def _common(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return float(width * height) if width > 0 and height > 0 else 0.0


def _area(box: NDArray[np.float64]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _first_pass(
    frame: KittiFrame,
    gt: Sequence[int],
    found: Sequence[int],
    overlap: NDArray[np.float64],
    least: float,
) -> list[float]:
    taken: set[int] = set()
    scores = []
    for g, state in enumerate(gt):
        free = [
            d
            for d, other in enumerate(found)
            if state != -1 and other != -1 and d not in taken and overlap[d, g] > least
        ]
        if free:
            best = max(free, key=lambda d: (frame.found.scores[d], -d))
            taken.add(best)
            if state == 0 and found[best] == 0:
                scores.append(float(frame.found.scores[best]))
    return scores


def _thresholds(scores: Sequence[float], total: int) -> list[float]:
    taken: list[float] = []
    recall = 0.0
    for place, score in enumerate(scores):
        last = place == len(scores) - 1
        left = (place + 1) / total
        right = left if last else (place + 2) / total
        if not last and right - recall < recall - left:
            continue
        taken.append(score)
        recall += 1 / 40
    return taken


def _second_pass(
    frame: KittiFrame,
    gt: Sequence[int],
    found: Sequence[int],
    overlap: NDArray[np.float64],
    least: float,
    threshold: float,
    area: str,
) -> tuple[int, int, float]:
    taken: set[int] = set()
    right, similarity = 0, 0.0
    shown = [d for d, s in enumerate(found) if s != -1 and frame.found.scores[d] >= threshold]
    for g, state in enumerate(gt):
        if state == -1:
            continue
        free = [d for d in shown if d not in taken and overlap[d, g] > least]
        whole = [d for d in free if found[d] == 0]
        if not free:
            continue
        best = max(whole, key=lambda d: (overlap[d, g], -d)) if whole else free[0]
        taken.add(best)
        if state == 0 and found[best] == 0:
            right += 1
            turn = frame.gt.alpha[g] - frame.found.alpha[best]
            similarity += (1 + math.cos(turn)) / 2
    wrong = [d for d in shown if d not in taken and found[d] == 0]
    if area == "2D":
        regions = _regions(frame.gt)
        wrong = [
            d
            for d in wrong
            if not any(
                _common(frame.found.boxes_2d[d], region) / _area(frame.found.boxes_2d[d]) > least
                for region in regions
            )
        ]
    return right, len(wrong), similarity


def _regions(gt: KittiColumns) -> NDArray[np.float64]:
    return np.asarray(gt.boxes_2d[gt.names == "DontCare"], np.float64)
