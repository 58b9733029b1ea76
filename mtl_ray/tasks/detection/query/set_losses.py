"""Losses of predicted sets: all decoder layers at once, (G, B, Q) predictions of G layers."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from mtl_ray.models.head import IMPOSSIBLE, Context, Term
from mtl_ray.tasks.detection.query.matcher import SetTargets, generalized_iou, to_xyxy


class LayerTerm(NamedTuple):
    """One loss of G layers: the sum of each and what it is divided by, float32 (G,)."""

    total: Tensor
    divisor: Tensor


def set_targets(targets: Mapping[str, Tensor], context: Context) -> SetTargets:
    """The objects of a batch in parts of the image without padding; crowd regions and images that
    are not annotated have none.
    """
    size = image_size(context)
    left_top, right_bottom = (targets["boxes"] / size[:, None]).chunk(2, dim=-1)
    return SetTargets(
        classes=targets["classes"],
        boxes=torch.cat([(left_top + right_bottom) / 2, right_bottom - left_top], dim=-1),
        present=targets["present"] & ~targets["crowd"] & targets["annotated"][:, None],
        size=size,
    )


def image_size(context: Context) -> Tensor:
    """Float32 (B, 4): width, height, width, height of the image on each canvas, in pixels."""
    return context.valid_hw.flip(1).clamp(min=1).float().repeat(1, 2)


def counted_queries(
    boxes: Tensor, matched: Tensor, targets: Mapping[str, Tensor], size: Tensor
) -> Tensor:
    """Which predictions have a class loss, bool (G, B, Q): those of annotated images, but for
    predictions without an object whose centre is in a crowd region.

    Args:
        boxes: (G, B, Q, 4) cxcywh in parts of the image.
        matched: int64 (G, B, Q), see ``matcher.match_queries``.
        targets: of the batch.
        size: see ``image_size``.
    """
    counted = targets["annotated"][:, None].expand_as(matched)
    crowd = targets["present"] & targets["crowd"]  # (B, M)
    if not crowd.is_cuda and not crowd.any():  # on a GPU this would synchronise
        return counted
    x, y = (boxes.detach()[..., :2] * size[:, None, :2]).unbind(dim=-1)  # (G, B, Q) canvas px
    inside = torch.zeros_like(counted)
    # one object of each image: (B, 4), (B,)
    for edges, is_crowd in zip(targets["boxes"].unbind(dim=1), crowd.unbind(dim=1), strict=True):
        left, top, right, bottom = edges[..., None].unbind(dim=1)  # each (B, 1)
        inside |= (x > left) & (y > top) & (x < right) & (y < bottom) & is_crowd[:, None]
    return counted & ~(inside & (matched < 0))


def target_classes(matched: Tensor, targets: SetTargets, background: int) -> Tensor:
    """The class of each prediction's object, int64 (G, B, Q), or ``background``."""
    classes = targets.classes.expand(matched.shape[0], -1, -1).gather(2, matched.clamp(min=0))
    return torch.where(matched >= 0, classes, background)


def target_boxes(matched: Tensor, targets: SetTargets) -> Tensor:
    """The box of each prediction's object, (G, B, Q, 4) cxcywh in parts of the image; without an
    object any.
    """
    index = matched.clamp(min=0)[..., None].expand(-1, -1, -1, 4)
    return targets.boxes.expand(matched.shape[0], -1, -1, -1).gather(2, index)


def known_logits(logits: Tensor, known: Tensor) -> Tensor:
    """Logits (G, B, Q, C) or (G, B, Q, C + 1), the background last, of which classes (B, C) that
    are not known are excluded from a softmax.
    """
    excluded = F.pad(~known, (0, logits.shape[3] - known.shape[1]))
    return logits.float().masked_fill(excluded[:, None], IMPOSSIBLE)


def softmax_loss(
    logits: Tensor, classes: Tensor, counted: Tensor, background_weight: float
) -> LayerTerm:
    """Cross entropy with a low weight of the background, divided by the sum of the weights (Carion
    et al. 2020, section 3.1 and appendix A.2).

    Args:
        logits: (G, B, Q, C + 1), the background last; see ``known_logits``.
        classes: int64 (G, B, Q), C for the background.
        counted: bool (G, B, Q).
        background_weight: of predictions without an object.
    """
    weight = torch.where(classes == logits.shape[3] - 1, background_weight, 1.0) * counted
    log_p = logits.float().log_softmax(dim=-1).gather(3, classes[..., None])[..., 0]
    return LayerTerm(-(log_p * weight).sum(dim=(1, 2)), weight.sum(dim=(1, 2)))


def query_focal_loss(logits: Tensor, classes: Tensor, counted: Tensor, known: Tensor) -> LayerTerm:
    """Focal loss (alpha .25, gamma 2), divided by the number of predictions with an object (Zhu et
    al. 2021, appendix A.4).

    Args:
        logits: (G, B, Q, C).
        classes: int64 (G, B, Q), C for the background.
        counted: bool (G, B, Q).
        known: bool (B, C), the classes with a loss.
    """
    count = logits.shape[3]
    wanted = F.one_hot(classes, count + 1)[..., :count].float()
    loss = sigmoid_focal_loss(logits.float(), wanted, alpha=0.25, gamma=2.0)
    loss = loss.masked_fill(~(counted[..., None] & known[:, None]), 0.0)
    positive = ((classes < count) & counted).sum(dim=(1, 2)).float()
    return LayerTerm(loss.sum(dim=(1, 2, 3)), positive)


def box_losses(boxes: Tensor, matched: Tensor, targets: SetTargets) -> dict[str, LayerTerm]:
    """``box`` (L1 of cxcywh) and ``iou`` (GIoU), both divided by the number of matched objects
    (Carion et al. 2020, eq. 2 and appendix A.2).

    Args:
        boxes: (G, B, Q, 4) cxcywh in parts of the image.
        matched: int64 (G, B, Q), see ``matcher.match_queries``.
        targets: the objects.
    """
    boxes, wanted = boxes.float(), target_boxes(matched, targets)
    positive = matched >= 0
    size = targets.size[:, None]  # (B, 1, 4)
    distance = (boxes - wanted).abs().sum(dim=-1)
    iou = generalized_iou(to_xyxy(boxes) * size, to_xyxy(wanted) * size)
    count = positive.sum(dim=(1, 2)).float()
    return {
        "box": LayerTerm(distance.masked_fill(~positive, 0.0).sum(dim=(1, 2)), count),
        "iou": LayerTerm((1 - iou).masked_fill(~positive, 0.0).sum(dim=(1, 2)), count),
    }


def layer_terms(
    losses: Mapping[str, LayerTerm], weights: Mapping[str, float], prefixes: list[str]
) -> dict[str, Term]:
    """The terms of each layer, named by its prefix, multiplied by their weights."""
    return {
        f"{prefix}{name}": (loss.total[layer] * weights[name], loss.divisor[layer])
        for layer, prefix in enumerate(prefixes)
        for name, loss in losses.items()
    }


def layer_prefixes(layers: int) -> list[str]:
    """``d0_``, ``d1_``, ..., and no prefix for the last of G decoder layers."""
    return [*(f"d{layer}_" for layer in range(layers - 1)), ""]


def layer_targets(
    matched: Tensor, counted: Tensor, targets: SetTargets, background: int, prefixes: list[str]
) -> dict[str, Tensor]:
    """What the losses of each layer compare with, its name after its prefix: ``target_labels``
    int64 (B, Q), ``background`` without an object and -1 without a loss; ``target_boxes`` (B, Q, 4)
    xyxy in canvas pixels, 0 without an object.
    """
    labels = target_classes(matched, targets, background).masked_fill(~counted, -1)
    boxes = to_xyxy(target_boxes(matched, targets)) * targets.size[:, None]
    boxes = boxes * (matched >= 0)[..., None]
    arrays: dict[str, Tensor] = {}
    for layer, prefix in enumerate(prefixes):
        arrays[f"{prefix}target_labels"] = labels[layer]
        arrays[f"{prefix}target_boxes"] = boxes[layer]
    return arrays


def canvas_boxes(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes (B, K, 4) cxcywh in parts of the image -> xyxy in canvas pixels, clipped to the image.

    Args:
        boxes: predicted.
        size: see ``image_size``.
    """
    return torch.minimum((to_xyxy(boxes) * size[:, None]).clamp(min=0), size[:, None])
