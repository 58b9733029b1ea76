"""Dynamic label assignment as the papers have it, one image, one object and one candidate at a
time, for comparison.
"""

import math

Box = list[float]


def iou(one: Box, other: Box) -> float:
    width = max(min(one[2], other[2]) - max(one[0], other[0]), 0)
    height = max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    shared = width * height
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (one, other)]
    return shared / max(sum(areas) - shared, 1e-6)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def entropy(share: float, label: float) -> float:
    """Binary cross entropy."""
    return -(label * math.log(share) + (1 - label) * math.log(1 - share))


def inside(x: float, y: float, box: Box) -> bool:
    return box[0] < x < box[2] and box[1] < y < box[3]


def sim_ota_cost(
    scores: list[float],
    box: Box,
    x: float,
    y: float,
    stride: int,
    gt: Box,
    label: int,
    radius: float,
) -> float:
    """YOLOX: the cost of a candidate for an object."""
    cx, cy, reach = (gt[0] + gt[2]) / 2, (gt[1] + gt[3]) / 2, radius * stride
    near = inside(x, y, [cx - reach, cy - reach, cx + reach, cy + reach])
    of_class = sum(entropy(share, float(c == label)) for c, share in enumerate(scores))
    overlap = -math.log(iou(box, gt) + 1e-7)
    return of_class + 3 * overlap + (0 if near and inside(x, y, gt) else 1e5)


def sim_ota_possible(x: float, y: float, stride: int, gts: list[Box], radius: float) -> bool:
    """YOLOX: in the box or near the centre of any object."""
    return any(
        inside(x, y, gt)
        or (
            abs(x - (gt[0] + gt[2]) / 2) < radius * stride
            and abs(y - (gt[1] + gt[3]) / 2) < radius * stride
        )
        for gt in gts
    )


def soft_label_cost(
    logits: list[float],
    box: Box,
    x: float,
    y: float,
    stride: int,
    gt: Box,
    label: int,
    centre: tuple[float, float],
    radius: float,
) -> float:
    """RTMDet: the cost of a candidate for an object."""
    overlap = iou(box, gt)
    of_class = 0.0
    for c, logit in enumerate(logits):
        soft, share = overlap if c == label else 0.0, sigmoid(logit)
        of_class += entropy(share, soft) * abs(soft - share) ** 2
    distance = math.hypot(x - centre[0], y - centre[1]) / stride
    return of_class - 3 * math.log(overlap + 1e-7) + 10 ** (distance - radius)


def matched(
    costs: list[list[float]], overlaps: list[list[float]], possible: list[bool], topk: int
) -> list[int | None]:
    """The object of each candidate, of costs and overlaps [object][candidate]."""
    candidates = [i for i, free in enumerate(possible) if free]
    claims: dict[int, list[int]] = {}
    for number, (cost, overlap) in enumerate(zip(costs, overlaps, strict=True)):
        best = sorted((overlap[i] for i in candidates), reverse=True)[:topk]
        count = max(int(sum(best)), 1)
        for i in sorted(candidates, key=lambda i: cost[i])[:count]:
            claims.setdefault(i, []).append(number)
    found: list[int | None] = [None] * len(possible)
    for i, objects in claims.items():
        every = range(len(costs))
        found[i] = objects[0] if len(objects) == 1 else min(every, key=lambda m: costs[m][i])
    return found
