"""Candidates (anchors or regions) and objects: offsets between them, which belong together, which
of them a step learns from, and which are computed.

Shapes are the same for any number of objects, and nothing waits for the device.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""Limit of an offset of log width or log height."""
_AT_ONCE = {"cpu": 2**20}
_AT_ONCE_ON_A_GPU = 2**25
"""Overlaps that are computed at a time: they bound the memory."""


def encode_boxes(boxes: Tensor, candidates: Tensor, stds: Tensor) -> Tensor:
    """Offsets (..., 4) from candidates to boxes (..., 4) xyxy, in units of ``stds`` (4,); Girshick
    et al. 2014, appendix C, eq. 6 to 9.
    """
    size, gt_size = candidates[..., 2:] - candidates[..., :2], boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + boxes[..., 2:] - candidates[..., :2] - candidates[..., 2:]) / 2
    return torch.cat([shift / size, (gt_size / size).log()], dim=-1) / stds


def decode_boxes(offsets: Tensor, candidates: Tensor, stds: Tensor) -> Tensor:
    """The inverse of ``encode_boxes`` (eq. 1 to 4); log sizes are limited."""
    offsets = offsets * stds
    size = candidates[..., 2:] - candidates[..., :2]
    centre = (candidates[..., :2] + candidates[..., 2:]) * 0.5 + offsets[..., :2] * size
    half = offsets[..., 2:].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() * size * 0.5
    return torch.cat([centre - half, centre + half], dim=-1)


class MatchRule(NamedTuple):
    """IoU from which a candidate is ``positive``, below which it is ``negative``, and from which
    the best candidates of an object are positive (None: that rule is off).
    """

    positive: float
    negative: float
    least: float | None


class CandidateMatches(NamedTuple):
    """For each of N candidates of B images: its object int64 (B, N), and whether it is positive or
    negative, bool (B, N).
    """

    object: Tensor
    positive: Tensor
    negative: Tensor


def match_candidates(
    candidates: Tensor, valid: Tensor, boxes: Tensor, wanted: Tensor, rule: MatchRule
) -> CandidateMatches:
    """Matches candidates to the object that they overlap most, and objects to their best candidates
    (Ren et al. 2015, section 3.1.2).

    Args:
        candidates: (B, N, 4) xyxy, or (1, N, 4) for all images.
        valid: (B, N) bool, candidates that count; others are neither positive nor negative.
        boxes: (B, M, 4) xyxy of the objects.
        wanted: (B, M) bool, the objects to learn.
        rule: of IoU. Among objects that have a candidate as their best, the last gets it.
    """
    objects, shape = wanted.shape[1], valid.shape
    best = torch.full(shape, -1.0, device=boxes.device)
    match, forced = torch.zeros((2, *shape), dtype=torch.int64, device=boxes.device)
    for part in _parts(valid, objects):
        usable = wanted[:, part, None] & valid[:, None]  # (B, m, N)
        overlap = _overlaps(boxes[:, part], candidates).masked_fill(~usable, -1.0)
        value, place = overlap.max(dim=1)  # (B, N)
        match = torch.where(value > best, place + part.start, match)
        best = torch.maximum(best, value)
        if rule.least is not None:
            top = overlap.amax(dim=2, keepdim=True)  # (B, m, 1)
            number = torch.arange(part.start + 1, part.stop + 1, device=boxes.device)[:, None]
            is_best = (overlap == top) & (top >= rule.least)
            forced = torch.maximum(forced, (is_best * number).amax(dim=1))
    positive = ((best >= rule.positive) | (forced > 0)) & valid
    match = torch.where(forced > 0, forced - 1, match)
    return CandidateMatches(match, positive, (best < rule.negative) & valid & ~positive)


def in_crowds(candidates: Tensor, boxes: Tensor, crowd: Tensor) -> Tensor:
    """Candidates in a region where objects are not annotated one by one: their centre is in it, or
    more than half of them.

    Args:
        candidates: (B, N, 4) xyxy, or (1, N, 4) for all images.
        boxes: (B, M, 4) xyxy.
        crowd: (B, M) bool, the boxes that are such regions.

    Returns:
        (B, N) bool.
    """
    inside = torch.zeros(
        (crowd.shape[0], candidates.shape[1]), dtype=torch.bool, device=boxes.device
    )
    if not crowd.is_cuda and not crowd.any():  # on a GPU this would wait for it
        return inside
    size = candidates[..., 2:] - candidates[..., :2]
    area = size.prod(dim=-1)[:, None]  # (B, 1, N)
    centre = ((candidates[..., :2] + candidates[..., 2:]) / 2)[:, None]  # (B, 1, N, 2)
    for part in _parts(inside, crowd.shape[1]):
        low, high = boxes[:, part, None, :2], boxes[:, part, None, 2:]  # (B, m, 1, 2)
        hit = ((centre >= low) & (centre <= high)).all(dim=-1)  # (B, m, N)
        hit |= _intersections(boxes[:, part], candidates) > 0.5 * area
        inside |= (hit & crowd[:, part, None]).any(dim=1)
    return inside


def _parts(like: Tensor, objects: int) -> list[slice]:
    """The objects in parts for which the memory suffices; ``like`` is (B, N)."""
    most = _AT_ONCE.get(like.device.type, _AT_ONCE_ON_A_GPU)
    step = max(1, most // max(like.numel(), 1))
    return [slice(start, min(start + step, objects)) for start in range(0, objects, step)]


def _overlaps(boxes: Tensor, candidates: Tensor) -> Tensor:
    """IoU (B, m, N) of boxes (B, m, 4) and candidates (B, N, 4)."""
    shared = _intersections(boxes, candidates)
    areas = [(each[..., 2:] - each[..., :2]).prod(dim=-1) for each in (boxes, candidates)]
    union = areas[0][:, :, None] + areas[1][:, None] - shared
    return shared / union.clamp(min=1e-6)


def _intersections(boxes: Tensor, candidates: Tensor) -> Tensor:
    """Areas (B, m, N) that boxes (B, m, 4) and candidates (B, N, 4) share."""
    left, top, right, bottom = boxes[..., None].unbind(dim=2)  # each (B, m, 1)
    x1, y1, x2, y2 = candidates[:, None].unbind(dim=3)  # each (B, 1, N)
    width = torch.minimum(right, x2).sub_(torch.maximum(left, x1)).clamp_(min=0)
    height = torch.minimum(bottom, y2).sub_(torch.maximum(top, y1)).clamp_(min=0)
    return width.mul_(height)


class Sampling(NamedTuple):
    """How many candidates of an image a step learns from, and the share of positive ones."""

    samples: int
    positive_share: float

    @property
    def positives(self) -> int:
        """The most positive candidates of an image."""
        return int(self.samples * self.positive_share)


def sample(
    positive: Tensor, negative: Tensor, numbers: Tensor, rule: Sampling, counter: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Draws positive candidates up to their share, and negative ones for the rest (Ren et al. 2015,
    section 3.1.3); all of them if there are fewer.

    The order of preference is a hash of the numbers of the candidates and of the counter: an image
    gets the same samples in any batch and on any rank.

    Args:
        positive: (B, N) bool, candidates with an object.
        negative: (B, N) bool, background.
        numbers: int64 (N,), different for each candidate.
        rule: how many.
        counter: the step, and the stage of the head.

    Returns:
        The drawn ones of each, bool (B, N).
    """
    order = _hashed(numbers, *counter).argsort(stable=True)
    back = order.argsort()
    first = positive[:, order]
    first = first & (first.cumsum(dim=1) <= rule.positives)
    rest = negative[:, order]
    rest = rest & (rest.cumsum(dim=1) <= rule.samples - first.sum(dim=1, keepdim=True))
    return first[:, back], rest[:, back]


def _hashed(numbers: Tensor, step: int, stage: int) -> Tensor:
    """Numbers int64 (N,) of 32 bits in an order that looks random (Wellons 2018, "Prospecting for
    hash functions", lowbias32).
    """
    low = 0xFFFFFFFF
    value = (numbers * 0x9E3779B1 + (step * 0x85EBCA77 + stage * 0xC2B2AE3D) % (low + 1)) & low
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & low
    value = ((value ^ (value >> 15)) * 0x846CA68B) & low
    return value ^ (value >> 16)


class ComputedRows:
    """The rows of (B, S) regions that are computed: the used ones, or all, so that nothing waits
    for the device or depends on values.

    Args:
        used: (B, S) bool.
        compact: only the used ones.
    """

    def __init__(self, used: Tensor, compact: bool) -> None:
        self.shape = used.shape
        self.index = used.flatten().nonzero().squeeze(1) if compact else None
        self.used = self.pick(used)

    def pick(self, values: Tensor) -> Tensor:
        """(B, S, ...) -> (R, ...)."""
        flat = values.flatten(0, 1)
        return flat if self.index is None else flat[self.index]

    def pick_image(self, values: Tensor) -> Tensor:
        """(B, ...), the values of each image -> (R, ...), those of the image of each row."""
        return values[self.image(values.device)]

    def image(self, device: torch.device) -> Tensor:
        """int64 (R,), the image of each row."""
        images = torch.arange(self.shape[0], device=device)[:, None]
        return self.pick(images.expand(-1, self.shape[1]))

    def put(self, values: Tensor) -> Tensor:
        """(R, ...) -> (B, S, ...), 0 in the other rows."""
        if self.index is not None:
            whole = values.new_zeros(self.shape[0] * self.shape[1], *values.shape[1:])
            values = whole.index_copy(0, self.index, values)
        return values.reshape(-1, self.shape[1], *values.shape[1:])
