"""Losses of the real-time heads: classes whose targets are IoUs, boxes, and D-FINE's distributions.

D-FINE: Peng et al. 2024, https://arxiv.org/abs/2410.13842; DEIM: Huang et al. 2024,
https://arxiv.org/abs/2412.04234. All sets of predictions at once: (G, B, N) of G sets.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl_ray.models.head import Term
from mtl_ray.tasks.detection.query.matcher import SetTargets, to_xyxy
from mtl_ray.tasks.detection.query.set_losses import target_boxes, target_classes
from mtl_ray.tasks.detection.realtime.boxes import (
    distillation_loss,
    distribution_loss,
    overlaps,
    shift_targets,
)
from mtl_ray.tasks.detection.realtime.config import DFineHead, RealTimeOptions
from mtl_ray.tasks.detection.realtime.decoder import LayerOutput


class NamedOutput(NamedTuple):
    """The predictions of one set, and the prefix of its terms."""

    prefix: str
    output: LayerOutput


def layer_outputs(outputs: Sequence[LayerOutput]) -> list[NamedOutput]:
    """The layers of a decoder: ``pre_`` for the boxes before any shift, ``d0_``, ..., and no prefix
    for the last.
    """
    first = int(outputs[0].corners is None and outputs[-1].corners is not None)
    layers = len(outputs) - first
    names = ["pre_"] * first + [f"d{i}_" for i in range(layers - 1)] + [""]
    return [NamedOutput(*pair) for pair in zip(names, outputs, strict=True)]


def shifted_outputs(outputs: Sequence[LayerOutput]) -> list[NamedOutput]:
    """The sets of ``DFineForObjectDetection``, ``d0_``, ... for each layer: classes and boxes of
    the layer before, from those before any shift on, with the distributions of the layer.
    """
    return [
        NamedOutput(f"d{i}_", after._replace(logits=before.logits, boxes=before.boxes))
        for i, (before, after) in enumerate(itertools.pairwise(outputs))
    ]


def union_of_matches(matched: Tensor, objects: int) -> Tensor:
    """The union of the matches of all sets (Peng et al. 2024, section 4.2): a query that several
    sets match has the object that most of them give it, the first of equals.

    Args:
        matched: int64 (G, B, N), -1 without an object.
        objects: number M of objects of an image.

    Returns:
        int64 (B, N).
    """
    votes = F.one_hot(matched + 1, objects + 1)[..., 1:].sum(dim=0)  # (B, N, M)
    most = votes.amax(dim=2)
    first = (votes == most[..., None]).long().argmax(dim=2)
    return torch.where(most > 0, first, -1)


def class_terms(
    config: RealTimeOptions,
    sets: Sequence[NamedOutput],
    matched: Tensor,
    targets: SetTargets,
    masks: tuple[Tensor, Tensor],
    objects: Tensor,
) -> dict[str, Term]:
    """``class`` of each set.

    Args:
        config: of the head.
        sets: G sets.
        matched: int64 (G, B, N), the object of each prediction or -1.
        targets: the objects.
        masks: bool (G, B, N), which predictions have a class loss, and bool (B, C), which classes.
        objects: float32 scalar, by which the sums are divided.
    """
    counted, known = masks
    logits, boxes = _logits(sets), _boxes(sets).detach()
    classes = logits.shape[3]
    wanted = F.one_hot(target_classes(matched, targets, classes), classes + 1)[..., :classes]
    iou = overlaps(to_xyxy(boxes), to_xyxy(target_boxes(matched, targets)))[0] * (matched >= 0)
    loss = class_loss(config, logits, wanted.float(), iou[..., None])
    loss = loss.masked_fill(~(counted[..., None] & known[:, None]), 0.0)
    return _terms(sets, "class", loss.sum(dim=(1, 2, 3)) * config.class_weight, objects)


def class_loss(config: RealTimeOptions, logits: Tensor, wanted: Tensor, iou: Tensor) -> Tensor:
    """The class loss (..., C) by the kind of ``config``.

    Args:
        config: kind and constants.
        logits: (..., C).
        wanted: float (..., C), 1 for the class of the object, else 0.
        iou: (..., 1) of the predicted box and the object's.
    """
    score = logits.detach().sigmoid()
    if config.class_loss == "mal":  # DEIM, eq. 3
        target = wanted * iou**config.mal_gamma
        weight = score**config.mal_gamma * (1 - wanted) + wanted
    else:  # Zhang et al. 2021 (https://arxiv.org/abs/2008.13367), eq. 2
        target = wanted * iou
        weight = config.vfl_alpha * score**config.vfl_gamma * (1 - wanted) + target
    return F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")


def box_terms(
    config: RealTimeOptions,
    sets: Sequence[NamedOutput],
    matched: Tensor,
    targets: SetTargets,
    objects: Tensor,
) -> dict[str, Term]:
    """``box`` (L1) and ``iou`` (GIoU) of each set; see ``class_terms``."""
    boxes, wanted, found = _boxes(sets), target_boxes(matched, targets), matched >= 0
    distance = (boxes - wanted).abs().sum(dim=-1)
    generalized = overlaps(to_xyxy(boxes), to_xyxy(wanted))[1]
    box, iou = _sum(distance, found), _sum(1 - generalized, found)
    return _terms(sets, "box", box * config.box_weight, objects) | _terms(
        sets, "iou", iou * config.iou_weight, objects
    )


class Shifts(NamedTuple):
    """What is known of distributions besides their logits: see ``boxes.shift_targets``."""

    steps: Tensor
    curvature: Tensor


def shift_terms(
    config: DFineHead,
    sets: Sequence[NamedOutput],
    matched: Tensor,
    targets: SetTargets,
    objects: Tensor,
    shifts: Shifts,
) -> dict[str, Term]:
    """``fgl``, the fine-grained localization loss of each set (Peng et al. 2024, eq. 6): cross
    entropy with the two bins around the true shift, weighted by the IoU of the box.
    """
    logits, anchors = _corners(sets)
    wanted = to_xyxy(target_boxes(matched, targets))
    with torch.no_grad():
        iou = overlaps(to_xyxy(_boxes(sets)), wanted)[0]
        places = shift_targets(anchors, wanted, *shifts)  # (G, B, N, 4)
    loss = distribution_loss(logits, places).sum(dim=-1) * iou
    return _terms(sets, "fgl", _sum(loss, matched >= 0) * config.fgl_weight, objects)


def distillation_terms(
    config: DFineHead,
    sets: Sequence[NamedOutput],
    teacher: LayerOutput,
    matched: Tensor,
    targets: SetTargets,
    real: Tensor,
) -> dict[str, Term]:
    """``ddf``: the distributions of each set learn the last layer's (Peng et al. 2024, eq. 7).

    Matched predictions weigh as much as their IoU, others as their best score. The means of both
    are weighted by the square roots of their numbers. These are of each image, and images are
    averaged, so that the loss of an image does not depend on its batch; with the criterion
    ``transformers`` they are of the whole batch.

    Args:
        config: of the head.
        sets: G sets.
        teacher: the last layer.
        matched: int64 (G, B, N).
        targets: the objects.
        real: bool (B, N), the predictions that count.
    """
    logits, _ = _corners(sets)
    assert teacher.corners is not None
    found = matched >= 0
    with torch.no_grad():
        iou = overlaps(to_xyxy(_boxes(sets)), to_xyxy(target_boxes(matched, targets)))[0]
        weight = torch.where(found, iou, teacher.logits.sigmoid().amax(dim=-1))  # (G, B, N)
    loss = distillation_loss(logits, teacher.corners, config.temperature).mean(dim=-1) * weight
    if config.criterion == "transformers":  # as if the batch were one image
        loss, found, real = (
            loss.flatten(1)[:, None],
            found.flatten(1)[:, None],
            real.flatten()[None],
        )
    mixed, roots = loss.new_zeros(loss.shape[:2]), loss.new_zeros(loss.shape[:2])
    for part in (found & real, ~found & real):
        root = part.sum(dim=2).float().sqrt()  # (G, B)
        mixed = mixed + loss.masked_fill(~part, 0.0).sum(dim=2) / root.clamp(min=1)
        roots = roots + root
    images = (mixed / roots.clamp(min=1)).sum(dim=1)  # (G,)
    return _terms(sets, "ddf", images * config.ddf_weight, real.any(dim=1).sum().float())


def _logits(sets: Sequence[NamedOutput]) -> Tensor:
    return torch.stack([each.output.logits for each in sets])  # (G, B, N, C)


def _boxes(sets: Sequence[NamedOutput]) -> Tensor:
    return torch.stack([each.output.boxes for each in sets])  # (G, B, N, 4)


def _corners(sets: Sequence[NamedOutput]) -> tuple[Tensor, Tensor]:
    """Logits (G, B, N, 4, bins + 1) and anchors (G, B, N, 4) of the distributions."""
    logits = [each.output.corners for each in sets if each.output.corners is not None]
    anchors = [each.output.anchors for each in sets if each.output.anchors is not None]
    return torch.stack(logits), torch.stack(anchors)


def _sum(loss: Tensor, where: Tensor) -> Tensor:
    """(G, B, N) -> (G,); elsewhere it may be no number."""
    return loss.masked_fill(~where, 0.0).sum(dim=(1, 2))


def _terms(sets: Sequence[NamedOutput], name: str, sums: Tensor, count: Tensor) -> dict[str, Term]:
    return {f"{each.prefix}{name}": (sums[i], count) for i, each in enumerate(sets)}
