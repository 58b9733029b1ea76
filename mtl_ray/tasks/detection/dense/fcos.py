"""The detection head ``fcos``."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.head import Candidates, Context, Features, Term, numbered
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.tasks.detection.candidates import clip_boxes, flatten_levels
from mtl_ray.tasks.detection.dense.assign import Matches, assign_points
from mtl_ray.tasks.detection.dense.boxes import around, centerness, distances
from mtl_ray.tasks.detection.dense.config import FcosHead
from mtl_ray.tasks.detection.dense.grid import (
    Grid,
    counted,
    floored_corners,
    foreground,
    labels_of,
    matched,
    wanted_boxes,
)
from mtl_ray.tasks.detection.dense.layers import start
from mtl_ray.tasks.detection.dense.losses import box_iou_loss, focal_loss


class FcosOutputs(NamedTuple):
    """Outputs: class logits (B, N, C), distances to the sides (B, N, 4) in canvas pixels,
    centerness logits (B, N), points (N, 2), and the strides (N, 1) of their cells.
    """

    logits: Tensor
    sides: Tensor
    centre: Tensor
    points: Tensor
    strides: Tensor


class Fcos(Grid):
    """FCOS (Tian et al. 2019, https://arxiv.org/abs/1904.01355): each point predicts classes, the
    distances to the sides of its object, and how central it is in it.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    def __init__(
        self,
        config: FcosHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
    ) -> None:
        super().__init__(config, channels, strides, classes, config.conv_bias)
        self.centerness_weight = config.centerness_weight
        self.config = config
        self.conv_cls = nn.Conv2d(config.channels, classes, 3, padding=1)
        self.conv_reg = nn.Conv2d(config.channels, 4, 3, padding=1)
        self.conv_centerness = nn.Conv2d(config.channels, 1, 3, padding=1)
        start(self, self.conv_cls)

    def outputs(self, features: Features) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of each level class logits (B, C, H, W), sides (B, 4, H, W) in canvas pixels and
        centerness logits (B, 1, H, W).
        """
        logits, sides, centres = [], [], []
        for level, scale, stride in zip(
            self.maps(features), self.scales, self.strides, strict=True
        ):
            classes, boxes = self.cls_convs(level), self.reg_convs(level)
            logits.append(self.conv_cls(classes))
            centres.append(
                self.conv_centerness(boxes if self.config.centerness_on_reg else classes)
            )
            value = scale(self.conv_reg(boxes)).float()
            # section 3.2 has exp; its successor predicts multiples of the stride
            sides.append(value.clamp(min=0) * stride if self.config.norm_on_bbox else value.exp())
        return logits, sides, centres

    def raw(self, features: Features, context: Context) -> FcosOutputs:
        """The outputs of all points."""
        logits, sides, centres = (flatten_levels(maps, 1) for maps in self.outputs(features))
        corners, strides = self.corners(features)
        points = corners + strides / 2
        if self.config.points == "torchvision":
            sizes = self.sizes(features)
            points = floored_corners(sizes, context.canvas_hw, 1, corners.device)
        return FcosOutputs(logits, sides, centres[..., 0], points, strides)

    def assign(
        self, raw: FcosOutputs, features: Features, targets: Mapping[str, Tensor]
    ) -> Matches:
        """The object of each point."""
        limits = torch.tensor(self.limits(), device=raw.points.device)  # (L, 2)
        counts = torch.tensor([height * width for height, width in self.sizes(features)])
        ranges = limits.repeat_interleave(counts.to(limits.device), 0, output_size=len(raw.points))
        reach = raw.strides[:, 0] * self.config.center_radius
        if not self.config.center_sampling:
            reach = torch.full_like(reach, torch.inf)
        return assign_points(raw.points, reach, ranges, targets["boxes"], wanted_boxes(targets))

    def limits(self) -> list[tuple[float, float]]:
        """Least and largest distance in canvas pixels to the farthest side, of each level."""
        inner = self.config.limits or tuple(8.0 * stride for stride in self.strides[:-1])
        return list(zip((-1.0, *inner), (*inner, float("inf")), strict=True))

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``class`` (focal) and ``centerness`` (binary cross entropy), divided by the number of
        positive points, and ``box`` (IoU), weighted by the centerness of the targets and divided by
        the sum of those weights.

        ``class`` is ignored for classes that the dataset of an image does not know.
        """
        raw = self.raw(features, context)
        match, positive = self.assign(raw, features, targets)
        labels = labels_of(targets, match, positive, self.classes)
        class_loss = focal_loss(raw.logits, labels, targets["known_classes"])  # (B, N)
        sides = distances(raw.points, matched(targets["boxes"], match))  # (B, N, 4)
        sides = torch.where(positive[..., None], sides, 1.0)
        share = centerness(sides) * positive  # (B, N); eq. 3
        predicted, target = around(raw.points, raw.sides), around(raw.points, sides)
        box_loss = box_iou_loss(predicted, target, self.config.box_loss) * share
        centre_loss = F.binary_cross_entropy_with_logits(raw.centre, share, reduction="none")
        count = positive.sum().float()
        class_loss = class_loss * counted(targets, positive, raw.points)
        return {
            "class": (class_loss.sum() * self.class_weight, count),
            "box": (box_loss.sum() * self.box_weight, share.sum()),
            "centerness": ((centre_loss * positive).sum() * self.centerness_weight, count),
        }

    def candidates(self, features: Features, context: Context) -> Candidates:
        """All points before suppression: ``boxes`` (B, N, 4) within the valid part of the canvas,
        ``objectness`` (B, N), the centerness, ``scores`` (B, N, C).
        """
        raw = self.raw(features, context)
        return {
            "boxes": clip_boxes(around(raw.points, raw.sides), context.valid_hw),
            "objectness": raw.centre.sigmoid(),
            "scores": raw.logits.sigmoid(),
            "levels": self.level_masks(features),
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """See ``InspectedHead``: ``cls0``, ``reg0`` (canvas pixels) and ``ctr0`` of each level."""
        classes, sides, centres = self.outputs(features)
        return numbered(cls=classes, reg=sides, ctr=centres)

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``InspectedHead``; ``target_ltrb`` are distances as the network predicts them."""
        raw = self.raw(features, context)
        match, positive = self.assign(raw, features, targets)
        labels = labels_of(targets, match, positive, self.classes)
        labels = torch.where(counted(targets, positive, raw.points), labels, -1)
        boxes = matched(targets["boxes"], match)
        sides = distances(raw.points, boxes)
        if self.config.norm_on_bbox:
            sides = sides / raw.strides
        arrays = {"target_labels": labels, "target_boxes": boxes, "target_ltrb": sides}
        return {**self.by_level(arrays, self.sizes(features)), "points": raw.points}

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``. torchvision's head has no scales: theirs is 1."""
        if program != "torchvision":
            return super().imported(program, tensors)
        rules = [
            Rename(rf"head\.{theirs}\.conv\.{3 * i + step}\.(.*)", rf"{ours}.{i}.{part}.\1")
            for theirs, ours in TOWERS.items()
            for i in range(len(self.cls_convs))
            for step, part in enumerate(("conv", "gn"))
        ]
        found = renamed(
            tensors,
            [
                *rules,
                Rename(
                    r"head\.classification_head\.cls_logits\.(.*)",
                    r"conv_cls.\1",
                    lambda value: foreground(value, 1, self.classes),
                ),
                Rename(r"head\.regression_head\.bbox_reg\.(.*)", r"conv_reg.\1"),
                Rename(r"head\.regression_head\.bbox_ctrness\.(.*)", r"conv_centerness.\1"),
            ],
        )
        ones = {
            f"scales.{i}.scale": Imported(torch.tensor(1.0), ()) for i in range(len(self.scales))
        }
        return {**found, **ones} if found else {}


TOWERS = {"classification_head": "cls_convs", "regression_head": "reg_convs"}
