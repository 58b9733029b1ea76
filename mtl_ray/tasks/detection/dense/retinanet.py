"""The detection head ``retinanet``."""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from mtl_ray.models.head import Candidates, Context, Features, HeadModule, Term, numbered
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.tasks.detection.candidates import (
    DenseModule,
    cell_corners,
    clip_boxes,
    flatten_levels,
    level_masks,
)
from mtl_ray.tasks.detection.dense.assign import valid_cells
from mtl_ray.tasks.detection.dense.boxes import decode_offsets, encode_offsets
from mtl_ray.tasks.detection.dense.config import RetinaNetHead
from mtl_ray.tasks.detection.dense.grid import (
    counted,
    floored_corners,
    foreground,
    labels_of,
    matched,
    wanted_boxes,
)
from mtl_ray.tasks.detection.dense.layers import start
from mtl_ray.tasks.detection.dense.matching import AnchorMatches, match_anchors


class Tower(nn.Module):
    """Convolutions shared by all levels. With batch normalisation each level has its own, since
    statistics differ; a group normalisation is shared, too.
    """

    def __init__(self, inputs: int, config: RetinaNetHead, outputs: int, levels: int) -> None:
        super().__init__()
        widths = [inputs, *[config.channels] * config.convs]
        bias = config.norm == "none"
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=bias) for a, b in itertools.pairwise(widths)
        )
        count = {"batch": levels, "group": 1, "none": 0}[config.norm]
        self.norms = nn.ModuleList(
            nn.ModuleList(
                nn.BatchNorm2d(config.channels)
                if config.norm == "batch"
                else nn.GroupNorm(config.norm_groups, config.channels)
                for _ in range(config.convs)
            )
            for _ in range(count)
        )
        self.output = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, level: Tensor, index: int) -> Tensor:
        """(B, inputs, H, W) of the level number ``index`` -> (B, outputs, H, W)."""
        norms = self.norms[min(index, len(self.norms) - 1)] if len(self.norms) else None
        assert norms is None or isinstance(norms, nn.ModuleList)
        for i, conv in enumerate(self.convs):
            level = conv(level)
            level = F.relu(level if norms is None else norms[i](level))
        out: Tensor = self.output(level)
        return out


class RetinaNet(DenseModule, HeadModule):
    """RetinaNet (Lin et al. 2017, https://arxiv.org/abs/1708.02002): dense anchors and a focal
    loss.

    By default the box loss is GIoU (Rezatofighi et al. 2019, algorithm 2) on the decoded box
    instead of smooth L1 on its offsets.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    shapes: Tensor

    def __init__(
        self,
        config: RetinaNetHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
    ) -> None:
        super().__init__(config)
        self.box_weight, self.class_weight = config.box_weight, config.class_weight
        self.selection, self.config, self.classes = config.select, config, classes
        self.strides = tuple(strides[level] for level in config.levels)
        self.register_buffer("shapes", anchor_shapes(config), persistent=False)
        self.anchors = self.shapes.shape[0]
        width, levels = channels[config.levels[0]], len(config.levels)
        self.class_tower = Tower(width, config, self.anchors * classes, levels)
        self.box_tower = Tower(width, config, self.anchors * 4, levels)
        if config.norm == "batch":
            assert self.class_tower.output.bias is not None
            nn.init.normal_(self.class_tower.output.weight, std=0.01)
            # section 4.1, prior 0.01: objects are rare
            nn.init.constant_(self.class_tower.output.bias, math.log(0.01 / 0.99))
        else:
            start(self, self.class_tower.output)

    def outputs(self, features: Features) -> tuple[list[Tensor], list[Tensor]]:
        """Of each level class logits (B, A * C, H, W) and offsets (B, A * 4, H, W)."""
        maps = [features[level] for level in self.levels]
        logits = [self.class_tower(level, i) for i, level in enumerate(maps)]
        return logits, [self.box_tower(level, i) for i, level in enumerate(maps)]

    def raw(self, features: Features, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (B, N, classes), box offsets (B, N, 4), anchors (N, 4) xyxy in canvas
        pixels.
        """
        logits, offsets = (flatten_levels(maps, self.anchors) for maps in self.outputs(features))
        anchors = self.anchor_boxes(self.sizes(features), context.canvas_hw, logits.device)
        return logits, offsets, anchors

    def sizes(self, features: Features) -> list[tuple[int, int]]:
        """(height, width) of each level in cells."""
        return [(features[level].shape[2], features[level].shape[3]) for level in self.levels]

    def anchor_boxes(
        self, sizes: Sequence[tuple[int, int]], canvas_hw: tuple[int, int], device: torch.device
    ) -> Tensor:
        """Anchors (N, 4) xyxy in canvas pixels."""
        corners, cell = cell_corners(sizes, self.strides, self.anchors, device)
        # (N, 2) canvas px
        half = self.shapes.repeat(corners.shape[0] // self.anchors, 1) * cell / 2
        centre = corners + cell * self.config.anchor_offset  # (N, 2) x, y, canvas px
        if self.config.anchor_rule == "torchvision":
            half = torch.cat(
                [
                    rounded_sides(self.config, stride, device).repeat(height * width, 1) / 2
                    for stride, (height, width) in zip(self.strides, sizes, strict=True)
                ]
            )
            centre = floored_corners(sizes, canvas_hw, self.anchors, device)
        return torch.cat([centre - half, centre + half], dim=-1)

    def assign(
        self, anchors: Tensor, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> tuple[AnchorMatches, Tensor]:
        """The object of each anchor, and which anchors (B, N) have a class loss."""
        valid = None
        if self.config.ignore_padding:
            cells = valid_cells(self.sizes(features), self.strides, context.valid_hw)
            valid = cells.repeat_interleave(self.anchors, dim=1)
        matches = match_anchors(
            anchors,
            targets["boxes"],
            wanted_boxes(targets),
            valid=valid,
            forced_to=self.config.forced_to,
        )
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        judged = counted(targets, matches.positive, centres)
        return matches, judged & (matches.positive | matches.negative)

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``box`` and ``class`` (focal), both divided by the number of positive anchors.

        ``class`` is ignored for classes that the dataset of an image does not know: the image may
        show their objects.
        """
        # (B, N, C), (B, N, 4), (N, 4) xyxy, canvas px
        logits, offsets, anchors = self.raw(features, context)
        (match, positive, _), judged = self.assign(anchors, features, targets, context)
        # (B, N)
        matched_classes = matched(targets["classes"], match).clamp(min=0)
        gt_classes = F.one_hot(matched_classes, logits.shape[2]).float() * positive[..., None]
        # (B, N, C); eq. 5
        class_loss = sigmoid_focal_loss(logits, gt_classes, alpha=0.25, gamma=2.0)
        class_loss = class_loss.masked_fill(~targets["known_classes"][:, None], 0).sum(dim=2)
        # The match of an anchor without an object may be an empty box, whose loss is NaN.
        gt_boxes = torch.where(
            positive[..., None], matched(targets["boxes"], match), anchors
        )  # (B, N, 4) xyxy, canvas px
        box_loss = self.box_loss(offsets, anchors, gt_boxes)  # (B, N)
        count = positive.sum().float()
        return {
            "box": ((box_loss * positive).sum() * self.box_weight, count),
            "class": ((class_loss * judged).sum() * self.class_weight, count),
        }

    def box_loss(self, offsets: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """(B, N) of offsets (B, N, 4) from anchors (N, 4) and the boxes (B, N, 4) of their
        objects.
        """
        stds = self.config.box_stds
        if self.config.box_loss == "giou":
            losses: Tensor = generalized_box_iou_loss(
                decode_offsets(offsets, anchors, stds), gt_boxes
            )
            return losses
        target = encode_offsets(gt_boxes, anchors, stds)
        if self.config.box_loss == "l1":
            return F.l1_loss(offsets, target, reduction="none").sum(dim=2)
        beta = 1 / 9  # Girshick 2015 has 1, RetinaNet's authors (Detectron) 1/9
        return F.smooth_l1_loss(offsets, target, reduction="none", beta=beta).sum(dim=2)

    def candidates(self, features: Features, context: Context) -> Candidates:
        """All anchors before suppression: ``boxes`` (B, N, 4), ``objectness`` (B, N), which is
        1, ``scores`` (B, N, classes).
        """
        logits, offsets, anchors = self.raw(features, context)
        found = {
            "boxes": decode_offsets(offsets, anchors, self.config.box_stds),
            "objectness": torch.ones_like(logits[..., 0]),
            "scores": logits.sigmoid(),
        }
        if self.selection.rank == "candidate":
            return found
        counts = [height * width * self.anchors for height, width in self.sizes(features)]
        return {
            **found,
            "boxes": clip_boxes(found["boxes"], context.valid_hw),
            "levels": level_masks(counts, logits.device),
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """See ``InspectedHead``: ``cls0`` and ``reg0`` of each level."""
        classes, offsets = self.outputs(features)
        return numbered(cls=classes, reg=offsets)

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``InspectedHead``; ``target_offsets`` of anchors that are not positive are 0."""
        _, _, anchors = self.raw(features, context)
        (match, positive, _), judged = self.assign(anchors, features, targets, context)
        labels = labels_of(targets, match, positive, self.classes)
        boxes = torch.where(positive[..., None], matched(targets["boxes"], match), anchors)
        return {
            "target_labels": torch.where(judged, labels, -1),
            "target_boxes": boxes * positive[..., None],
            "target_offsets": encode_offsets(boxes, anchors, self.config.box_stds),
            "anchors": anchors,
        }

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``: the published head has no normalisation (``norm: none``), and
        torchvision's second version has a group normalisation. Both order anchors by ratio, then by
        size.
        """
        prefix = {
            "openmmlab": (r"bbox_head\.cls_convs", r"bbox_head\.reg_convs"),
            "torchvision": (r"head\.classification_head\.conv", r"head\.regression_head\.conv"),
        }.get(program)
        if prefix is None:
            return {}
        last = {
            "openmmlab": (r"bbox_head\.retina_cls", r"bbox_head\.retina_reg"),
            "torchvision": (
                r"head\.classification_head\.cls_logits",
                r"head\.regression_head\.bbox_reg",
            ),
        }[program]

        def class_rows(value: Tensor) -> Tensor:
            return self._order(foreground(value, self.anchors, self.classes))

        rules = [
            rule
            for tower, name in zip(("class_tower", "box_tower"), prefix, strict=True)
            for rule in (
                Rename(rf"{name}\.(\d+)\.(?:conv|0)\.(.*)", rf"{tower}.convs.\1.\2"),
                Rename(rf"{name}\.(\d+)\.(?:gn|1)\.(.*)", rf"{tower}.norms.0.\1.\2"),
            )
        ]
        return renamed(
            tensors,
            [
                *rules,
                Rename(rf"{last[0]}\.(.*)", r"class_tower.output.\1", class_rows),
                Rename(rf"{last[1]}\.(.*)", r"box_tower.output.\1", self._order),
            ],
        )

    def _order(self, value: Tensor) -> Tensor:
        """Rows of a last layer in the order of this head's anchors."""
        if self.config.anchor_order == "ratio" or value.shape[0] % self.anchors:
            return value
        ratios, octaves = len(self.config.ratios), self.config.octaves
        rows = value.reshape(ratios, octaves, -1, *value.shape[1:])
        return rows.transpose(0, 1).flatten(0, 2)


def anchor_shapes(config: RetinaNetHead) -> Tensor:
    """(A, 2) width and height of the anchors in strides of their level."""
    sizes = [
        config.anchor_scale * 2 ** (octave / config.octaves) for octave in range(config.octaves)
    ]
    shapes = [[(size, ratio) for ratio in config.ratios] for size in sizes]
    if config.anchor_order == "ratio":
        shapes = [[(size, ratio) for size in sizes] for ratio in config.ratios]
    return torch.tensor(
        [
            [size / math.sqrt(ratio), size * math.sqrt(ratio)]
            for group in shapes
            for size, ratio in group
        ]
    )


def rounded_sides(config: RetinaNetHead, stride: int, device: torch.device) -> Tensor:
    """(A, 2) width and height in canvas pixels of torchvision's anchors of a level: sizes are cut
    and half sides are rounded to whole pixels.
    """
    sizes = [
        int(config.anchor_scale * stride * 2 ** (octave / config.octaves))
        for octave in range(config.octaves)
    ]
    pairs = [(size, ratio) for ratio in config.ratios for size in sizes]
    if config.anchor_order == "size":
        pairs = [(size, ratio) for size in sizes for ratio in config.ratios]
    sides = [[size / math.sqrt(ratio), size * math.sqrt(ratio)] for size, ratio in pairs]
    return (torch.tensor(sides, device=device) / 2).round() * 2
