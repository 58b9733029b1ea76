"""The detection head ``yolox``."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.csp import YOLOX_NORM, conv_unit
from mtl_ray.models.head import Candidates, Context, Features, HeadModule, Term, numbered
from mtl_ray.models.imports import Imported, Program, below
from mtl_ray.tasks.detection.candidates import (
    DenseModule,
    cell_corners,
    flatten_levels,
    in_crowd,
)
from mtl_ray.tasks.detection.dynamic import matching
from mtl_ray.tasks.detection.dynamic.assign import assign_sim_ota
from mtl_ray.tasks.detection.dynamic.config import YoloxHead
from mtl_ray.tasks.detection.dynamic.matching import (
    AssignedCandidates,
    CandidatePoints,
    box_overlaps,
    matched_boxes,
    matched_classes,
)


class YoloxOutputs(NamedTuple):
    """The outputs for N candidates: class logits (B, N, C), offsets (B, N, 4) x, y, log width, log
    height in strides, objectness logits (B, N); corners of the cells (N, 2) x, y in canvas pixels
    and strides (N, 1).
    """

    logits: Tensor
    offsets: Tensor
    objectness: Tensor
    corners: Tensor
    strides: Tensor

    def boxes(self) -> Tensor:
        """(B, N, 4) xyxy in canvas pixels; offsets count from the corner of the cell."""
        centre = self.offsets[..., :2] * self.strides + self.corners
        half = self.offsets[..., 2:].exp() * self.strides / 2
        return torch.cat([centre - half, centre + half], dim=-1)


class Yolox(DenseModule, HeadModule):
    """YOLOX (Ge et al. 2021, https://arxiv.org/abs/2107.08430): one candidate on each cell, towers
    of each level, SimOTA.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    def __init__(
        self,
        config: YoloxHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
    ) -> None:
        super().__init__(config)
        self.config, self.classes = config, classes
        self.selection = config.select
        self.box_weight, self.class_weight = config.box_weight, config.class_weight
        self.objectness_weight, self.l1_weight = config.objectness_weight, config.l1_weight
        self.strides = tuple(strides[level] for level in config.levels)
        width = config.channels

        def tower(level: str) -> nn.Sequential:
            widths = [channels[level], *[width] * config.convs]
            return nn.Sequential(
                *(
                    conv_unit(before, width, 3, YOLOX_NORM, depthwise=config.depthwise)
                    for before in widths[:-1]
                )
            )

        self.multi_level_cls_convs = nn.ModuleList(tower(level) for level in config.levels)
        self.multi_level_reg_convs = nn.ModuleList(tower(level) for level in config.levels)
        last = {level: width if config.convs else channels[level] for level in config.levels}
        self.multi_level_conv_cls = nn.ModuleList(
            nn.Conv2d(last[level], classes, 1) for level in config.levels
        )
        self.multi_level_conv_reg = nn.ModuleList(
            nn.Conv2d(last[level], 4, 1) for level in config.levels
        )
        self.multi_level_conv_obj = nn.ModuleList(
            nn.Conv2d(last[level], 1, 1) for level in config.levels
        )
        for output in (*self.multi_level_conv_cls, *self.multi_level_conv_obj):
            assert isinstance(output.bias, Tensor)
            # Lin et al. 2017, focal loss, section 4.1: objects are rare
            nn.init.constant_(output.bias, math.log(0.01 / 0.99))

    def maps(self, features: Features) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of each level class logits (B, C, H, W), offsets (B, 4, H, W), objectness (B, 1, H,
        W).
        """
        found: tuple[list[Tensor], list[Tensor], list[Tensor]] = [], [], []
        for i, level in enumerate(self.levels):
            of_class = self.multi_level_cls_convs[i](features[level])
            of_box = self.multi_level_reg_convs[i](features[level])
            found[0].append(self.multi_level_conv_cls[i](of_class))
            found[1].append(self.multi_level_conv_reg[i](of_box))
            found[2].append(self.multi_level_conv_obj[i](of_box))
        return found

    def outputs(self, features: Features) -> YoloxOutputs:
        """The outputs in float32, levels joined."""
        logits, offsets, objectness = self.maps(features)
        sizes = [(level.shape[2], level.shape[3]) for level in logits]
        corners, strides = cell_corners(sizes, self.strides, 1, logits[0].device)
        return YoloxOutputs(
            flatten_levels(logits, 1),
            flatten_levels(offsets, 1),
            flatten_levels(objectness, 1).squeeze(2),
            corners,
            strides,
        )

    def assign(self, outputs: YoloxOutputs, targets: Mapping[str, Tensor]) -> AssignedCandidates:
        """See ``assign_sim_ota``."""
        config = self.config
        with torch.no_grad():
            scores = outputs.logits.sigmoid() * outputs.objectness.sigmoid()[..., None]
            return assign_sim_ota(
                scores.sqrt(),
                outputs.boxes(),
                CandidatePoints(outputs.corners + outputs.strides * 0.5, outputs.strides[:, 0]),
                targets,
                radius=config.center_radius,
                topk=config.assign_topk,
                overlap_cost=config.overlap_cost,
                class_cost=config.class_cost,
            )

    def counted(
        self, outputs: YoloxOutputs, assigned: AssignedCandidates, targets: Mapping[str, Tensor]
    ) -> Tensor:
        """(B, N) whether a candidate has an objectness loss: not in a crowd, nor where a class that
        the dataset does not annotate is the most likely one.
        """
        crowd = targets["present"] & targets["crowd"]
        middles = outputs.corners + outputs.strides / 2
        known = targets["known_classes"].gather(1, outputs.logits.detach().argmax(dim=2))
        free = known & ~in_crowd(middles, targets["boxes"], crowd)
        return (assigned.positive | free) & targets["annotated"][:, None]

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``class`` and ``objectness`` (binary cross entropies), ``box`` (1 - IoU^2) and, from the
        step ``l1_from``, ``l1`` on the offsets; all divided by the number of positive candidates.

        The class target of a positive candidate is its overlap. Logits of classes that the dataset
        of an image does not know get no gradient.
        """
        outputs = self.outputs(features)
        assigned = self.assign(outputs, targets)
        positive, count = assigned.positive, assigned.positive.sum().float()
        boxes, gt_boxes = outputs.boxes(), matched_boxes(assigned, targets)
        # without an object a box is compared with itself, so that nothing can overflow
        iou, _ = box_overlaps(torch.where(positive[..., None], boxes, gt_boxes), gt_boxes)
        box_loss = torch.where(positive, 1 - iou.clamp(min=1e-16).square(), 0.0)
        quality = matched_classes(assigned, targets, self.classes) * assigned.overlap[..., None]
        class_loss = F.binary_cross_entropy_with_logits(outputs.logits, quality, reduction="none")
        learnt = positive[..., None] & targets["known_classes"][:, None]  # (B, N, C)
        class_loss = torch.where(learnt, class_loss, 0.0)
        objectness_loss = F.binary_cross_entropy_with_logits(
            outputs.objectness, positive.float(), reduction="none"
        )
        objectness_loss = objectness_loss * self.counted(outputs, assigned, targets)
        terms = {
            "box": (box_loss.sum() * self.box_weight, count),
            "class": (class_loss.sum() * self.class_weight, count),
            "objectness": (objectness_loss.sum() * self.objectness_weight, count),
        }
        if self.config.l1_from is not None:
            wanted = offset_targets(gt_boxes, outputs.corners, outputs.strides)
            distance = (outputs.offsets - wanted).abs().sum(dim=2)
            on = float(context.step >= self.config.l1_from)
            l1_loss = torch.where(positive, distance, 0.0).sum()
            terms["l1"] = (l1_loss * (self.l1_weight * on), count)
        return terms

    def candidates(self, features: Features, context: Context) -> Candidates:
        """All candidates before suppression: ``boxes`` (B, N, 4), which may reach beyond the
        canvas, ``objectness`` (B, N), ``scores`` (B, N, classes).
        """
        outputs = self.outputs(features)
        return {
            "boxes": outputs.boxes(),
            "objectness": outputs.objectness.sigmoid(),
            "scores": outputs.logits.sigmoid(),
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """See ``InspectedHead``."""
        classes, boxes, objectness = self.maps(features)
        return numbered(cls=classes, reg=boxes, obj=objectness)

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``InspectedHead``; ``target_scores`` (B, N) are the overlaps of positives."""
        outputs = self.outputs(features)
        assigned = self.assign(outputs, targets)
        counted = self.counted(outputs, assigned, targets)
        return matching.target_arrays(assigned, targets, self.classes, counted)

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``: from OpenMMLab."""
        return below("bbox_head.", tensors) if program == "openmmlab" else {}


def offset_targets(gt_boxes: Tensor, corners: Tensor, strides: Tensor) -> Tensor:
    """The offsets (B, N, 4) that give the boxes (B, N, 4) xyxy."""
    centre = ((gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2 - corners) / strides
    size = (gt_boxes[..., 2:] - gt_boxes[..., :2]).clamp(min=0) / strides
    return torch.cat([centre, (size + 1e-8).log()], dim=-1)
