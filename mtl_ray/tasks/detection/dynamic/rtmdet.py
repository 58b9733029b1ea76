"""The detection head ``rtmdet``."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.csp import RTMDET_NORM, ConvUnit
from mtl_ray.models.head import Candidates, Context, Features, HeadModule, Term, numbered
from mtl_ray.models.imports import Imported, Program, below
from mtl_ray.tasks.detection.candidates import (
    DenseModule,
    cell_corners,
    clip_boxes,
    flatten_levels,
    in_crowd,
    level_masks,
)
from mtl_ray.tasks.detection.dynamic import matching
from mtl_ray.tasks.detection.dynamic.assign import assign_soft_labels
from mtl_ray.tasks.detection.dynamic.config import RtmdetHead, RtmdetInsHead
from mtl_ray.tasks.detection.dynamic.matching import (
    AssignedCandidates,
    CandidatePoints,
    binary_quality_focal_loss,
    box_overlaps,
    matched_boxes,
    matched_classes,
)

SHARED = re.compile(r"(cls|reg)_convs\.(\d+)\.(\d+)\.conv\.weight")
"""Names of shared convolutions in the files of OpenMMLab: tower, level, number."""


class RtmdetOutputs(NamedTuple):
    """The outputs for N candidates: class logits (B, N, C), boxes (B, N, 4) xyxy in canvas pixels,
    points (N, 2) x, y in canvas pixels, strides (N, 1), and the number of candidates of each level.
    """

    logits: Tensor
    boxes: Tensor
    points: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]


class RtmdetBase(HeadModule):
    """What ``rtmdet`` and ``rtmdet_ins`` share (Lyu et al. 2022): towers whose convolutions all
    levels share, with a normalisation of each level; dynamic soft label assignment.

    A shared convolution is in ``cls_convs.0`` and ``reg_convs.0``, not once more in each level as
    in OpenMMLab's files.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    def __init__(
        self,
        config: RtmdetHead | RtmdetInsHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
    ) -> None:
        super().__init__(config)
        self.options, self.classes = config, classes
        self.box_weight, self.class_weight = config.box_weight, config.class_weight
        self.strides = tuple(strides[level] for level in config.levels)
        self.inputs, self.width = channels[config.levels[0]], config.channels
        levels = len(config.levels)
        self.cls_convs = self.tower()
        self.reg_convs = None if config.one_tower else self.tower()
        last = self.width if config.convs else self.inputs
        self.rtm_cls = nn.ModuleList(nn.Conv2d(last, classes, 1) for _ in range(levels))
        self.rtm_reg = nn.ModuleList(nn.Conv2d(last, 4, 1) for _ in range(levels))
        self.start()

    def tower(self) -> nn.ModuleList:
        """A tower: for each level its units, of which those of the first have the convolutions."""
        widths = [self.inputs, *[self.width] * self.options.convs]
        first = nn.ModuleList(ConvUnit(a, self.width, 3, RTMDET_NORM) for a in widths[:-1])
        further = (
            nn.ModuleList(
                nn.ModuleDict(
                    {
                        "bn": nn.BatchNorm2d(
                            self.width, eps=RTMDET_NORM.eps, momentum=RTMDET_NORM.momentum
                        )
                    }
                )
                for _ in first
            )
            for _ in self.strides[1:]
        )
        return nn.ModuleList([first, *further])

    def start(self) -> None:
        """Weights of a new head: small ones; objects are rare (Lin et al. 2017, section 4.1)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for output in self.rtm_cls:
            assert isinstance(output.bias, Tensor)
            nn.init.constant_(output.bias, math.log(0.01 / 0.99))

    def distances(self, raw: Tensor) -> Tensor:
        """From the output of ``rtm_reg`` to distances in strides."""
        raise NotImplementedError

    def maps(self, features: Features) -> tuple[list[Tensor], list[Tensor]]:
        """Of each level class logits (B, C, H, W), and distances (B, 4, H, W) of the left, top,
        right and bottom side from the point, in canvas pixels.
        """
        logits, distances = [], []
        for i, level in enumerate(self.levels):
            of_class = apply_tower(self.cls_convs, i, features[level])
            of_box = (
                of_class
                if self.reg_convs is None
                else apply_tower(self.reg_convs, i, features[level])
            )
            logits.append(self.rtm_cls[i](of_class))
            distances.append(self.distances(self.rtm_reg[i](of_box).float()) * self.strides[i])
        return logits, distances

    def outputs(self, features: Features) -> RtmdetOutputs:
        """The outputs in float32, levels joined."""
        logits, distances = self.maps(features)
        sizes = [(level.shape[2], level.shape[3]) for level in logits]
        points, strides = cell_corners(sizes, self.strides, 1, logits[0].device)
        sides = flatten_levels(distances, 1)  # (B, N, 4)
        boxes = torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=-1)
        counts = tuple(height * width for height, width in sizes)
        return RtmdetOutputs(flatten_levels(logits, 1), boxes, points, strides, counts)

    def centres(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B, M, 2) x, y of the objects, near which their candidates are."""
        return (targets["boxes"][..., :2] + targets["boxes"][..., 2:]) / 2

    def assign(self, outputs: RtmdetOutputs, targets: Mapping[str, Tensor]) -> AssignedCandidates:
        """See ``assign_soft_labels``."""
        return assign_soft_labels(
            outputs.logits.detach(),
            outputs.boxes.detach(),
            CandidatePoints(outputs.points, outputs.strides[:, 0]),
            targets,
            self.centres(targets),
            radius=self.options.center_radius,
            topk=self.options.assign_topk,
            overlap_cost=self.options.overlap_cost,
        )

    def counted(
        self, outputs: RtmdetOutputs, assigned: AssignedCandidates, targets: Mapping[str, Tensor]
    ) -> Tensor:
        """(B, N) whether a candidate has a class loss: not in a crowd. The padding of a canvas is
        background.
        """
        crowd = targets["present"] & targets["crowd"]
        free = ~in_crowd(outputs.points, targets["boxes"], crowd)
        return (assigned.positive | free) & targets["annotated"][:, None]

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``class`` (quality focal loss) and ``box`` (GIoU, weighted by the overlap), both divided
        by the sum of the overlaps of positive candidates with their objects.

        Logits of classes that the dataset of an image does not know get no gradient.
        """
        outputs = self.outputs(features)
        assigned = self.assign(outputs, targets)
        return self.terms(outputs, assigned, targets)

    def terms(
        self, outputs: RtmdetOutputs, assigned: AssignedCandidates, targets: Mapping[str, Tensor]
    ) -> dict[str, Term]:
        """``class`` and ``box``; see ``losses``."""
        count = assigned.overlap.sum()
        quality = matched_classes(assigned, targets, self.classes) * assigned.overlap[..., None]
        class_loss = binary_quality_focal_loss(
            outputs.logits, quality, self.options.beta
        )  # (B, N, C)
        learnt = self.counted(outputs, assigned, targets)[..., None]
        learnt = learnt & targets["known_classes"][:, None]
        class_loss = torch.where(learnt, class_loss, 0.0)
        gt_boxes = matched_boxes(assigned, targets)
        # without an object a box is compared with itself, so that nothing can overflow
        boxes = torch.where(assigned.positive[..., None], outputs.boxes, gt_boxes)
        box_loss = (1 - box_overlaps(boxes, gt_boxes)[1]) * assigned.overlap
        return {
            "box": (box_loss.sum() * self.box_weight, count),
            "class": (class_loss.sum() * self.class_weight, count),
        }

    def proposed(self, outputs: RtmdetOutputs, context: Context) -> Candidates:
        """All candidates before suppression: ``boxes`` (B, N, 4), ``objectness`` (B, N), 0 where a
        box is empty and else 1, ``scores`` (B, N, classes), ``levels`` bool (L, N).
        """
        boxes = clip_boxes(outputs.boxes, context.valid_hw)
        return {
            "boxes": boxes,
            "objectness": (boxes[..., 2:] > boxes[..., :2]).all(dim=2).float(),
            "scores": outputs.logits.sigmoid(),
            "levels": level_masks(outputs.level_sizes, boxes.device),
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """See ``InspectedHead``."""
        classes, boxes = self.maps(features)
        return numbered(cls=classes, reg=boxes)

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``InspectedHead``; ``target_scores`` (B, N) are the overlaps of positives."""
        outputs = self.outputs(features)
        assigned = self.assign(outputs, targets)
        counted = self.counted(outputs, assigned, targets)
        return matching.target_arrays(assigned, targets, self.classes, counted)

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``: from OpenMMLab, whose files have a shared convolution once for each
        level.

        Raises:
            ValueError: if the levels of the file do not share their convolutions.
        """
        if program != "openmmlab":
            return {}
        found = below("bbox_head.", tensors)
        for name in [*found]:
            first = SHARED.sub(r"\1_convs.0.\3.conv.weight", name)
            if self.reg_convs is None:
                first = first.replace("reg_convs.", "cls_convs.")
            if first == name:
                continue
            copy = found.pop(name)
            if first not in found or not torch.equal(found[first].value, copy.value):
                raise ValueError(f"{copy.sources[0]} is not the same as {first}, which it must be")
            found[first] = Imported(found[first].value, found[first].sources + copy.sources)
        return found


class Rtmdet(DenseModule, RtmdetBase):
    """RTMDet (Lyu et al. 2022, https://arxiv.org/abs/2212.07784)."""

    def __init__(
        self,
        config: RtmdetHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
    ) -> None:
        super().__init__(config, channels, strides, classes)
        self.exp_on_reg, self.selection = config.exp_on_reg, config.select

    def distances(self, raw: Tensor) -> Tensor:
        """From the output of ``rtm_reg`` to distances in strides."""
        return raw.exp() if self.exp_on_reg else raw

    def candidates(self, features: Features, context: Context) -> Candidates:
        """See ``proposed``."""
        return self.proposed(self.outputs(features), context)


def apply_tower(tower: nn.ModuleList, level: int, values: Tensor) -> Tensor:
    """(B, inputs, H, W) of the level number ``level`` -> (B, channels, H, W)."""
    shared, own = tower[0], tower[level]
    assert isinstance(shared, nn.ModuleList)
    assert isinstance(own, nn.ModuleList)
    for unit, norm in zip(shared, own, strict=True):
        values = F.silu(norm.get_submodule("bn")(unit.get_submodule("conv")(values)), inplace=True)
    return values
