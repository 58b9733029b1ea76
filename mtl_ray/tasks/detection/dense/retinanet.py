"""The detection head ``retinanet``."""

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from mtl_ray.models.head import Candidates, Context, Features, HeadModule, Term
from mtl_ray.tasks.detection.candidates import (
    cell_corners,
    flatten_levels,
    in_crowd,
    select_detections,
)
from mtl_ray.tasks.detection.dense.config import RetinaNetHead

MAX_LOG_SCALE = math.log(1000 / 16)


class Tower(nn.Module):
    """Convolutions shared by all levels; each level has its own batch normalisation, since
    statistics differ.
    """

    def __init__(self, inputs: int, channels: int, convs: int, outputs: int, levels: int) -> None:
        super().__init__()
        widths = [inputs, *[channels] * convs]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(convs)) for _ in range(levels)
        )
        self.output = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, level: Tensor, index: int) -> Tensor:
        """(B, inputs, H, W) of the level number ``index`` -> (B, outputs, H, W)."""
        norms = self.norms[index]
        assert isinstance(norms, nn.ModuleList)
        for conv, norm in zip(self.convs, norms, strict=True):
            level = F.relu(norm(conv(level)))
        out: Tensor = self.output(level)
        return out


class RetinaNet(HeadModule):
    """RetinaNet (Lin et al. 2017, https://arxiv.org/abs/1708.02002): dense anchors and a focal
    loss.

    The box loss is GIoU (Rezatofighi et al. 2019, algorithm 2) on the decoded box instead of smooth
    L1 on its offsets.

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
        self.selection = config.select
        self.strides = tuple(strides[level] for level in config.levels)
        self.register_buffer("shapes", anchor_shapes(config), persistent=False)
        self.anchors = self.shapes.shape[0]
        width, levels = channels[config.levels[0]], len(config.levels)
        self.class_tower = Tower(
            width, config.channels, config.convs, self.anchors * classes, levels
        )
        self.box_tower = Tower(width, config.channels, config.convs, self.anchors * 4, levels)
        assert self.class_tower.output.bias is not None
        nn.init.normal_(self.class_tower.output.weight, std=0.01)
        # section 4.1, prior 0.01: objects are rare
        nn.init.constant_(self.class_tower.output.bias, math.log(0.01 / 0.99))

    def raw(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (B, N, classes), box offsets (B, N, 4), anchors (N, 4) xyxy in canvas
        pixels.
        """
        maps = [features[level] for level in self.levels]
        logits = flatten_levels(
            [self.class_tower(level, i) for i, level in enumerate(maps)], self.anchors
        )
        offsets = flatten_levels(
            [self.box_tower(level, i) for i, level in enumerate(maps)], self.anchors
        )
        sizes = [(level.shape[2], level.shape[3]) for level in maps]
        corners, cell = cell_corners(sizes, self.strides, self.anchors, logits.device)
        # (N, 2) canvas px
        half = self.shapes.repeat(corners.shape[0] // self.anchors, 1) * cell / 2
        centre = corners + cell / 2  # (N, 2) x, y, canvas px
        return logits, offsets, torch.cat([centre - half, centre + half], dim=-1)

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``box`` (GIoU) and ``class`` (focal), both divided by the number of positive anchors.

        ``class`` is ignored for classes that the dataset of an image does not know: the image may
        show their objects.
        """
        # (B, N, C), (B, N, 4), (N, 4) xyxy, canvas px
        logits, offsets, anchors = self.raw(features)
        wanted = targets["present"] & ~targets["crowd"] & targets["annotated"][:, None]  # (B, M)
        match, positive, negative = match_anchors(anchors, targets["boxes"], wanted)
        ignored = in_crowd(
            (anchors[:, :2] + anchors[:, 2:]) / 2,
            targets["boxes"],
            targets["present"] & targets["crowd"],
        )
        counted = (positive | (negative & ~ignored)) & targets["annotated"][:, None]  # (B, N)
        matched_classes = targets["classes"].gather(1, match).clamp(min=0)  # (B, N)
        gt_classes = F.one_hot(matched_classes, logits.shape[2]).float() * positive[..., None]
        # (B, N, C); eq. 5
        class_loss = sigmoid_focal_loss(logits, gt_classes, alpha=0.25, gamma=2.0)
        class_loss = class_loss.masked_fill(~targets["known_classes"][:, None], 0).sum(dim=2)
        # (B, N, 4) xyxy, canvas px
        gt_boxes = targets["boxes"].gather(1, match[..., None].expand(-1, -1, 4))
        # The match of an anchor without an object may be an empty box, whose loss is NaN.
        gt_boxes = torch.where(positive[..., None], gt_boxes, anchors)
        box_loss = generalized_box_iou_loss(decode_offsets(offsets, anchors), gt_boxes)  # (B, N)
        count = positive.sum().float()
        return {
            "box": ((box_loss * positive).sum() * self.box_weight, count),
            "class": ((class_loss * counted).sum() * self.class_weight, count),
        }

    def candidates(self, features: Features, context: Context) -> Candidates:
        """All anchors before suppression: ``boxes`` (B, N, 4), ``objectness`` (B, N), which is
        1, ``scores`` (B, N, classes).
        """
        logits, offsets, anchors = self.raw(features)
        return {
            "boxes": decode_offsets(offsets, anchors),
            "objectness": torch.ones_like(logits[..., 0]),
            "scores": logits.sigmoid(),
        }

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``boxes`` (B, K, 4) xyxy in canvas pixels, ``scores`` (B, K), ``classes`` int64 (B, K);
        see ``candidates.select_detections``.
        """
        return self.select(self.candidates(features, context), context.exporting)

    def select(self, candidates: Candidates, exporting: bool) -> dict[str, Tensor]:
        """See ``candidates.select_detections``."""
        return select_detections(candidates, self.selection, exporting)


def anchor_shapes(config: RetinaNetHead) -> Tensor:
    """(A, 2) width and height of the anchors in strides of their level."""
    sizes = [
        config.anchor_scale * 2 ** (octave / config.octaves) for octave in range(config.octaves)
    ]
    return torch.tensor(
        [
            [size / math.sqrt(ratio), size * math.sqrt(ratio)]
            for size in sizes
            for ratio in config.ratios
        ]
    )


def decode_offsets(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Offsets (B, N, 4) relative to anchors (N, 4) xyxy -> boxes (B, N, 4) xyxy (Girshick et al.
    2014, appendix C, eq. 1 to 4).
    """
    size = anchors[:, 2:] - anchors[:, :2]  # (N, 2) width, height
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2 + offsets[..., :2] * size  # (B, N, 2); eq. 1, 2
    half = offsets[..., 2:].clamp(max=MAX_LOG_SCALE).exp() * size / 2  # (B, N, 2); eq. 3, 4
    return torch.cat([centre - half, centre + half], dim=-1)


class AnchorMatches(NamedTuple):
    """For each of N anchors of B images: its object int64 (B, N), and whether it is positive or
    negative, bool (B, N).
    """

    object: Tensor
    positive: Tensor
    negative: Tensor


def match_anchors(
    anchors: Tensor, boxes: Tensor, wanted: Tensor, high: float = 0.5, low: float = 0.4
) -> AnchorMatches:
    """Matches anchors to the objects that they overlap enough, and each object to its best anchors
    (Lin et al. 2017, section 4).

    One object of each image at a time is compared with all anchors, so that no (B, N, M) tensor is
    needed.

    Args:
        anchors: (N, 4) xyxy.
        boxes: (B, M, 4) xyxy of the same units.
        wanted: (B, M) bool, the boxes to learn.
        high: IoU from which an anchor is positive.
        low: IoU below which it is negative; between the two it is ignored.
    """
    shape, device = (wanted.shape[0], anchors.shape[0]), boxes.device
    # All (B, N): the best IoU so far and its object; whether an object forces the anchor, and
    # which.
    best = torch.full(shape, -torch.inf, dtype=boxes.dtype, device=device)
    match, forced_match = torch.zeros((2, *shape), dtype=torch.int32, device=device)
    forced, chosen, new = torch.zeros((3, *shape), dtype=torch.bool, device=device)
    overlaps = AnchorOverlaps(anchors, shape[0])
    for place, (box, is_wanted) in enumerate(
        zip(boxes.unbind(dim=1), wanted.unbind(dim=1), strict=True)
    ):
        overlap = overlaps(box).masked_fill_(~is_wanted[:, None], -1.0)  # (B, N)
        # the first object of equal overlaps
        match.masked_fill_(torch.gt(overlap, best, out=chosen), place)
        torch.maximum(overlap, best, out=best)
        top = overlap.amax(dim=1, keepdim=True)  # (B, 1)
        torch.eq(overlap, top.masked_fill_(top <= 0, torch.inf), out=chosen)
        # chosen and not yet forced
        forced_match.masked_fill_(torch.gt(chosen, forced, out=new), place)
        forced.logical_or_(chosen)
    positive = (best >= high) | forced
    return AnchorMatches(
        torch.where(forced, forced_match, match).long(), positive, (best < low) & ~positive
    )


class AnchorOverlaps:
    """IoU of N anchors and one box of each of B images, bit for bit equal to torchvision's
    ``box_iou``.

    Three (B, N) buffers are used again for each object: on a CPU, new ones would cost several times
    as much as the arithmetic.
    """

    def __init__(self, anchors: Tensor, batch: int) -> None:
        self.left, self.top, self.right, self.bottom = anchors.t().contiguous()
        self.areas = (self.right - self.left) * (self.bottom - self.top)
        self.width, self.height, self.other = torch.empty(
            (3, batch, anchors.shape[0]), dtype=anchors.dtype, device=anchors.device
        )

    def __call__(self, boxes: Tensor) -> Tensor:
        """(B, 4) xyxy -> (B, N), valid until the next call."""
        left, top, right, bottom = boxes[..., None].unbind(dim=1)  # each (B, 1)
        width = torch.minimum(self.right, right, out=self.width)
        width.sub_(torch.maximum(self.left, left, out=self.other)).clamp_(min=0)
        height = torch.minimum(self.bottom, bottom, out=self.height)
        height.sub_(torch.maximum(self.top, top, out=self.other)).clamp_(min=0)
        shared = width.mul_(height)  # (B, N), the area of the intersection
        return shared.div_(
            torch.add(self.areas, (right - left) * (bottom - top), out=self.other).sub_(shared)
        )
