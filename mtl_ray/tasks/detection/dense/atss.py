"""The detection head ``atss``."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.head import Candidates, Context, Features, Term, numbered
from mtl_ray.tasks.detection.candidates import clip_boxes, flatten_levels
from mtl_ray.tasks.detection.dense.boxes import centerness, decode_offsets, distances
from mtl_ray.tasks.detection.dense.config import AtssHead
from mtl_ray.tasks.detection.dense.grid import (
    AdaptiveGrid,
    matched,
    positives,
)
from mtl_ray.tasks.detection.dense.layers import start
from mtl_ray.tasks.detection.dense.losses import box_iou_loss, focal_loss


class AtssOutputs(NamedTuple):
    """Outputs: class logits (B, N, C), deltas (B, N, 4), centerness logits (B, N), anchors (N, 4)
    xyxy in canvas pixels.
    """

    logits: Tensor
    deltas: Tensor
    centre: Tensor
    anchors: Tensor


class Atss(AdaptiveGrid):
    """ATSS (Zhang et al. 2020, https://arxiv.org/abs/1912.02424): one anchor on each cell, whose
    object is found by statistics of IoUs.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    config: AtssHead

    def __init__(
        self,
        config: AtssHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
    ) -> None:
        super().__init__(config, channels, strides, classes)
        self.config = config
        self.centerness_weight = config.centerness_weight
        self.atss_cls = nn.Conv2d(config.channels, classes, 3, padding=1)
        self.atss_reg = nn.Conv2d(config.channels, 4, 3, padding=1)
        self.atss_centerness = nn.Conv2d(config.channels, 1, 3, padding=1)
        start(self, self.atss_cls)

    def outputs(self, features: Features) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of each level class logits (B, C, H, W), deltas (B, 4, H, W) and centerness logits (B, 1,
        H, W).
        """
        logits, deltas, centres = [], [], []
        for level, scale in zip(self.maps(features), self.scales, strict=True):
            boxes = self.reg_convs(level)
            logits.append(self.atss_cls(self.cls_convs(level)))
            deltas.append(scale(self.atss_reg(boxes)).float())
            centres.append(self.atss_centerness(boxes))
        return logits, deltas, centres

    def raw(self, features: Features) -> AtssOutputs:
        """The outputs of all anchors."""
        logits, deltas, centres = (flatten_levels(maps, 1) for maps in self.outputs(features))
        return AtssOutputs(logits, deltas, centres[..., 0], self.anchors(features))

    def boxes(self, raw: AtssOutputs) -> Tensor:
        """Predicted boxes (B, N, 4) xyxy in canvas pixels."""
        return decode_offsets(raw.deltas, raw.anchors, self.config.box_stds)

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``class`` (focal) and ``centerness`` (binary cross entropy), divided by the number of
        positive anchors, at least one for each image, and ``box`` (GIoU), weighted by the
        centerness of the targets and divided by the sum of those weights.

        ``class`` is ignored for classes that the dataset of an image does not know.
        """
        raw = self.raw(features)
        match, positive, labels, judged = self.assigned(features, targets, context)
        class_loss = focal_loss(raw.logits, labels, targets["known_classes"]) * judged  # (B, N)
        gt_boxes = torch.where(
            positive[..., None], matched(targets["boxes"], match), raw.anchors
        )  # (B, N, 4)
        points, _ = self.corners(features)
        share = centerness(distances(points, gt_boxes)) * positive  # (B, N)
        box_loss = box_iou_loss(self.boxes(raw), gt_boxes, "giou") * share
        centre_loss = F.binary_cross_entropy_with_logits(raw.centre, share, reduction="none")
        count = positives(positive, targets["annotated"])
        return {
            "class": (class_loss.sum() * self.class_weight, count),
            "box": (box_loss.sum() * self.box_weight, share.sum()),
            "centerness": ((centre_loss * positive).sum() * self.centerness_weight, count),
        }

    def candidates(self, features: Features, context: Context) -> Candidates:
        """All anchors before suppression: ``boxes`` (B, N, 4) within the valid part of the canvas,
        ``objectness`` (B, N), the centerness, ``scores`` (B, N, C).
        """
        raw = self.raw(features)
        return {
            "boxes": clip_boxes(self.boxes(raw), context.valid_hw),
            "objectness": raw.centre.sigmoid(),
            "scores": raw.logits.sigmoid(),
            "levels": self.level_masks(features),
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """See ``InspectedHead``: ``cls0``, ``reg0`` and ``ctr0`` of each level."""
        classes, deltas, centres = self.outputs(features)
        return numbered(cls=classes, reg=deltas, ctr=centres)
