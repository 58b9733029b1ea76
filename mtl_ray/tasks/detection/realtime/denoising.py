"""Contrastive denoising queries (Zhang et al. 2022, DINO, https://arxiv.org/abs/2203.03605,
section 3.3): objects with noise, which the decoder restores or rejects.

Random numbers are a hash of the step, the object and the place of the query, so that an image gets
the same queries wherever it is in a batch and on whatever rank.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mtl_ray.tasks.detection.query.matcher import SetTargets, to_xyxy
from mtl_ray.tasks.detection.realtime.boxes import SMALLEST, centred
from mtl_ray.tasks.detection.realtime.config import Denoising

_WORD = 0xFFFFFFFF


class NoisyQueries(NamedTuple):
    """N queries of each image, the restored ones first.

    Attributes:
        classes: int64 (B, N), the number of classes where there is no query.
        boxes: float32 (B, N, 4) centre, width, height as parts of the canvas.
        object: int64 (B, N), the object that a query is made of.
        positive: bool (B, N), restored.
        real: bool (B, N), False where there is no query.
        group: int64 (B, N); queries see those of their own group only.
    """

    classes: Tensor
    boxes: Tensor
    object: Tensor
    positive: Tensor
    real: Tensor
    group: Tensor


def noisy_queries(config: Denoising, targets: SetTargets, classes: int, step: int) -> NoisyQueries:
    """Denoising queries of a batch.

    An image with n objects has as many groups of n restored and n rejected queries as there is room
    for; the original has the number of groups of the image with the most objects.

    Args:
        config: how many, and their noise.
        targets: the objects.
        classes: number of classes.
        step: of the optimiser.
    """
    boxes, wanted = targets.boxes, targets.present
    half = max(config.queries, wanted.shape[1])
    slot = torch.arange(half, device=boxes.device)[None]  # (1, half)
    count = wanted.sum(dim=1, keepdim=True)  # (B, 1)
    each = count.clamp(min=1)
    groups = (config.queries // each).clamp(min=1)
    order = (~wanted).long().argsort(dim=1, stable=True)  # objects to learn first
    picked = order.gather(1, slot % each).repeat(1, 2)  # (B, N)
    real = (slot < count * groups).repeat(1, 2)
    positive = real & (torch.arange(2 * half, device=boxes.device) < half)
    group = torch.where(real, (slot // each).repeat(1, 2), -1)
    box = boxes.gather(1, picked[..., None].expand(-1, -1, 4))
    label = targets.classes.gather(1, picked).clamp(0, classes - 1)
    draws = _uniform(box, 10, step)  # (B, N, 10)
    noisy = torch.where(
        draws[..., 8] < config.label_noise / 2, (draws[..., 9] * classes).long(), label
    )
    shift = torch.where(positive[..., None], draws[..., :4], draws[..., :4] + 1)
    shift = torch.where(draws[..., 4:8] < 0.5, -shift, shift) * config.box_noise
    edges = (to_xyxy(box) + shift * box[..., 2:].repeat(1, 1, 2) / 2).clamp(0, 1)
    return NoisyQueries(
        classes=torch.where(real, noisy, classes),
        boxes=torch.where(real[..., None], centred(edges).clamp(SMALLEST, 1 - SMALLEST), 0.5),
        object=picked,
        positive=positive,
        real=real,
        group=group,
    )


def visible_queries(noisy: NoisyQueries, queries: int) -> Tensor:
    """Bool (B, 1, N + queries, N + queries), whom each query sees: denoising queries their group
    and all others, the others only each other.
    """
    batch, count = noisy.group.shape
    same = noisy.group[:, :, None] == noisy.group[:, None]  # (B, N, N)
    hidden = same.new_zeros(batch, queries, count)
    above = torch.cat([same, same.new_ones(batch, count, queries)], dim=2)
    below = torch.cat([hidden, same.new_ones(batch, queries, queries)], dim=2)
    return torch.cat([above, below], dim=1)[:, None]


def _uniform(boxes: Tensor, draws: int, step: int) -> Tensor:
    """(B, N, draws) in [0, 1) for N queries by their boxes (B, N, 4) and places."""
    # 1 / 65536 of the canvas is below any difference of real boxes.
    cells = (boxes * 65536).round().long()
    state = torch.full_like(cells[..., 0], step & _WORD)
    for number in (*cells.unbind(dim=-1), torch.arange(boxes.shape[1], device=boxes.device)):
        state = _mixed(state ^ (number & _WORD))
    every = torch.arange(draws, device=boxes.device) * 0x9E3779B9
    return (_mixed((state[..., None] + every) & _WORD) >> 8).float() / 2**24


def _mixed(word: Tensor) -> Tensor:
    """A bijection of 32-bit words that mixes all bits (C. Wellons, lowbias32), in int64."""
    word = ((word ^ (word >> 16)) * 0x7FEB352D) & _WORD
    word = ((word ^ (word >> 15)) * 0x846CA68B) & _WORD
    return word ^ (word >> 16)
