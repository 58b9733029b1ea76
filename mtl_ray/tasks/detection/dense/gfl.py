"""The detection head ``gfl``."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_ray.models.head import Candidates, Context, Features, Term, numbered
from mtl_ray.tasks.detection.candidates import clip_boxes, flatten_levels
from mtl_ray.tasks.detection.dense.boxes import around, distances
from mtl_ray.tasks.detection.dense.config import GflHead
from mtl_ray.tasks.detection.dense.grid import (
    AdaptiveGrid,
    matched,
    positives,
)
from mtl_ray.tasks.detection.dense.layers import start
from mtl_ray.tasks.detection.dense.losses import (
    box_iou_loss,
    distribution_focal_loss,
    paired_iou,
    quality_focal_loss,
)


class Integral(nn.Module):
    """The mean of a distribution over 0, 1, ..., ``largest`` (Li et al. 2020, eq. 5)."""

    project: Tensor

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.register_buffer("project", torch.linspace(0, largest, largest + 1))

    def forward(self, logits: Tensor) -> Tensor:
        """(..., bins) -> (...)."""
        return (logits.softmax(dim=-1) * self.project).sum(dim=-1)


class GflOutputs(NamedTuple):
    """Outputs: class logits (B, N, C), logits of the bins of each side (B, N, 4, bins), points (N,
    2) and the strides (N, 1) of their cells, in canvas pixels.
    """

    logits: Tensor
    bins: Tensor
    points: Tensor
    strides: Tensor


class Gfl(AdaptiveGrid):
    """Generalized focal loss (Li et al. 2020, https://arxiv.org/abs/2006.04388): class scores that
    are the quality of the box, and a distribution over the distance to each side; assigned as ATSS.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    config: GflHead

    def __init__(
        self,
        config: GflHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
    ) -> None:
        super().__init__(config, channels, strides, classes)
        self.config = config
        self.dfl_weight = config.dfl_weight
        self.gfl_cls = nn.Conv2d(config.channels, classes, 3, padding=1)
        self.gfl_reg = nn.Conv2d(config.channels, 4 * (config.reg_max + 1), 3, padding=1)
        self.integral = Integral(config.reg_max)
        start(self, self.gfl_cls)

    def outputs(self, features: Features) -> tuple[list[Tensor], list[Tensor]]:
        """Of each level class logits (B, C, H, W) and logits of the bins (B, 4 * bins, H, W)."""
        logits, bins = [], []
        for level, scale in zip(self.maps(features), self.scales, strict=True):
            logits.append(self.gfl_cls(self.cls_convs(level)))
            bins.append(scale(self.gfl_reg(self.reg_convs(level))).float())
        return logits, bins

    def raw(self, features: Features) -> GflOutputs:
        """The outputs of all points."""
        logits, bins = (flatten_levels(maps, 1) for maps in self.outputs(features))
        points, strides = self.corners(features)
        bins = bins.reshape(*bins.shape[:2], 4, self.config.reg_max + 1)
        return GflOutputs(logits, bins, points, strides)

    def boxes(self, raw: GflOutputs) -> Tensor:
        """Predicted boxes (B, N, 4) xyxy in canvas pixels."""
        return around(raw.points, self.integral(raw.bins) * raw.strides)

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``class`` (quality focal loss), divided by the number of positive points, at least one
        for each image, and ``box`` (GIoU) and ``dfl`` (distribution focal loss), weighted by the
        best class score and divided by the sum of those weights.

        ``class`` is ignored for classes that the dataset of an image does not know, and they give
        no weight.
        """
        raw = self.raw(features)
        match, positive, labels, judged = self.assigned(features, targets, context)
        known = targets["known_classes"]
        scores = raw.logits.detach().sigmoid().masked_fill(~known[:, None], 0)
        weight = scores.amax(dim=2) * positive  # (B, N)
        boxes = self.boxes(raw)
        gt_boxes = torch.where(
            positive[..., None], matched(targets["boxes"], match), boxes.detach()
        )
        quality = torch.where(positive, paired_iou(boxes.detach(), gt_boxes), 0.0)  # (B, N)
        class_loss = quality_focal_loss(raw.logits, labels, quality, known) * judged
        box_loss = box_iou_loss(boxes, gt_boxes, "giou") * weight
        sides = distances(raw.points, gt_boxes) / raw.strides  # (B, N, 4) strides
        sides = sides.clamp(min=0, max=self.config.reg_max - 0.1)
        dfl_loss = distribution_focal_loss(raw.bins, sides).mean(dim=2) * weight
        count, share = positives(positive, targets["annotated"]), weight.sum()
        return {
            "class": (class_loss.sum() * self.class_weight, count),
            "box": (box_loss.sum() * self.box_weight, share),
            "dfl": (dfl_loss.sum() * self.dfl_weight, share),
        }

    def candidates(self, features: Features, context: Context) -> Candidates:
        """All points before suppression: ``boxes`` (B, N, 4) within the valid part of the canvas,
        ``objectness`` (B, N), which is 1, ``scores`` (B, N, C).
        """
        raw = self.raw(features)
        return {
            "boxes": clip_boxes(self.boxes(raw), context.valid_hw),
            "objectness": torch.ones_like(raw.logits[..., 0]),
            "scores": raw.logits.sigmoid(),
            "levels": self.level_masks(features),
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """See ``InspectedHead``: ``cls0`` and ``reg0`` of each level."""
        classes, bins = self.outputs(features)
        return numbered(cls=classes, reg=bins)
