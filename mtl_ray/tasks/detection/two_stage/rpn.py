"""The first stage: which anchors are objects, and the proposals that the second stage looks at."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.head import Context, Term
from mtl_ray.tasks.detection.candidates import (
    cell_corners,
    clip_boxes,
    flatten_levels,
    level_masks,
)
from mtl_ray.tasks.detection.options import Selection
from mtl_ray.tasks.detection.suppression import ScoredBoxes, suppress_candidates
from mtl_ray.tasks.detection.two_stage.config import RpnOptions
from mtl_ray.tasks.detection.two_stage.matching import (
    MatchRule,
    Sampling,
    decode_boxes,
    encode_boxes,
    in_crowds,
    match_candidates,
    sample,
)

PAD_MULTIPLE = 32
"""Anchors count on the valid part of a canvas, rounded up to this many pixels: OpenMMLab pads each
image to it before it looks which cells an image has.
"""


class ConvBlock(nn.Module):
    """A 3x3 convolution, batch normalisation if asked for, and ReLU: (B, C, H, W) -> (B, outputs,
    H, W).
    """

    def __init__(self, inputs: int, outputs: int, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norm)
        if norm:
            self.bn = nn.BatchNorm2d(outputs)
        self.normed = norm
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        out = self.conv(maps)
        return F.relu(self.bn(out) if self.normed else out)


class AnchorOutputs(NamedTuple):
    """Of all N anchors, in the order of ``cell_corners``: ``logits`` (B, N), ``offsets`` (B, N, 4),
    ``anchors`` (N, 4) xyxy in canvas pixels; and how many anchors each level has.
    """

    logits: Tensor
    offsets: Tensor
    anchors: Tensor
    sizes: tuple[int, ...]


class AnchorTargets(NamedTuple):
    """``object`` int64 (B, N) of each anchor, and the positive and negative anchors that are
    trained, bool (B, N).
    """

    object: Tensor
    positive: Tensor
    negative: Tensor


class RpnHead(nn.Module):
    """Region proposal network (Ren et al. 2015, https://arxiv.org/abs/1506.01497, section 3.1).

    Args:
        config: of the network.
        inputs: channels of the levels.
        strides: canvas pixels per cell of each level.
    """

    shapes: Tensor
    stds: Tensor

    def __init__(self, config: RpnOptions, inputs: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.config, self.strides = config, tuple(strides)
        self.register_buffer("shapes", anchor_corners(config, strides), persistent=False)
        self.register_buffer("stds", torch.ones(4), persistent=False)
        self.anchors = self.shapes.shape[1]
        if config.convs == 1:
            self.rpn_conv: nn.Module = nn.Conv2d(inputs, config.channels, 3, padding=1)
        else:
            widths = [inputs, *[config.channels] * (config.convs - 1)]
            self.rpn_conv = nn.Sequential(*(ConvBlock(each, config.channels) for each in widths))
        self.rpn_cls = nn.Conv2d(config.channels, self.anchors, 1)
        self.rpn_reg = nn.Conv2d(config.channels, self.anchors * 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Logits (B, A, H, W) and offsets (B, A * 4, H, W) of each level (B, C, H, W)."""
        hidden = [F.relu(self.rpn_conv(level)) for level in maps]
        return [(self.rpn_cls(level), self.rpn_reg(level)) for level in hidden]

    def flatten(self, levels: Sequence[tuple[Tensor, Tensor]]) -> AnchorOutputs:
        """The outputs of ``forward`` and their anchors."""
        logits = flatten_levels([logits for logits, _ in levels], self.anchors)[..., 0]
        offsets = flatten_levels([offsets for _, offsets in levels], self.anchors)
        anchors = []
        for (level, _), stride, shapes in zip(levels, self.strides, self.shapes, strict=True):
            size = (level.shape[2], level.shape[3])
            corners, _ = cell_corners([size], [stride], 1, logits.device)  # (H * W, 2)
            anchors.append((corners.repeat(1, 2)[:, None] + shapes).reshape(-1, 4))
        sizes = tuple(part.shape[0] for part in anchors)
        return AnchorOutputs(logits, offsets, torch.cat(anchors), sizes)

    def targets(
        self, outputs: AnchorOutputs, targets: Mapping[str, Tensor], context: Context
    ) -> AnchorTargets:
        """The objects of the anchors, and which anchors this step trains.

        Anchors of cells outside of the valid part of a canvas (``PAD_MULTIPLE``) are not trained.
        Nor are negative ones in a crowd region, and, if the dataset of an image does not annotate
        all classes, those that the network takes for an object.
        """
        anchors, rule = outputs.anchors[None], self.config
        valid = self._inside(outputs.anchors, context.valid_hw) & targets["annotated"][:, None]
        found = match_candidates(
            anchors,
            valid,
            targets["boxes"],
            learnable_objects(targets),
            MatchRule(rule.positive_iou, rule.negative_iou, rule.least_iou),
        )
        ignored = in_crowds(anchors, targets["boxes"], targets["present"] & targets["crowd"])
        all_known = targets["known_classes"].all(dim=1, keepdim=True)
        negative = found.negative & ~ignored & (all_known | (outputs.logits.detach() <= 0))
        numbers = torch.arange(anchors.shape[1], device=anchors.device)
        drawn = sample(
            found.positive,
            negative,
            numbers,
            Sampling(rule.samples, rule.positive_share),
            (context.step, 0),
        )
        return AnchorTargets(found.object, *drawn)

    def _inside(self, anchors: Tensor, valid_hw: Tensor) -> Tensor:
        """(B, N): anchors that count on canvases with these valid parts (B, 2)."""
        limit = valid_hw.flip(1)[:, None].float()  # (B, 1, 2) x, y
        padded = (limit / PAD_MULTIPLE).ceil() * PAD_MULTIPLE
        # The centre of an anchor is the corner of its cell, a whole pixel but for rounding.
        inside = ((anchors[:, :2] + anchors[:, 2:]) / 2 < padded - 0.5).all(dim=-1)
        if self.config.border_px is not None:
            border = self.config.border_px
            inside = inside & (anchors[:, :2] >= -border).all(dim=-1)
            inside = inside & (anchors[:, 2:] < limit + border).all(dim=-1)
        return inside

    def losses(
        self, outputs: AnchorOutputs, found: AnchorTargets, targets: Mapping[str, Tensor]
    ) -> dict[str, Term]:
        """``rpn_class`` (binary cross entropy) and ``rpn_box`` (smooth L1), both divided by the
        number of anchors that are trained.

        As in OpenMMLab, an image without positive (or negative) anchors counts one.
        """
        drawn = found.positive | found.negative
        loss = F.binary_cross_entropy_with_logits(
            outputs.logits, found.positive.float(), reduction="none"
        )
        place = found.object[..., None].expand(-1, -1, 4)
        # The object of an anchor without one may be an empty box, whose offsets are not finite.
        boxes = torch.where(
            found.positive[..., None], targets["boxes"].gather(1, place), outputs.anchors
        )
        offsets = encode_boxes(boxes, outputs.anchors, self.stds)
        box_loss = smooth_l1(outputs.offsets, offsets, self.config.beta).sum(dim=-1)
        counts = [part.sum(dim=1).clamp(min=1) for part in (found.positive, found.negative)]
        count = ((counts[0] + counts[1]) * targets["annotated"]).sum().float()
        return {
            "rpn_class": ((loss * drawn).sum() * self.config.class_weight, count),
            "rpn_box": ((box_loss * found.positive).sum() * self.config.box_weight, count),
        }

    @torch.no_grad()
    def proposals(
        self, outputs: AnchorOutputs, context: Context, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, P, 4) xyxy in canvas pixels and scores (B, P), best first.

        P is the number of proposals of the config in any batch; rows with score 0 are padding.
        """
        rule = self.config
        most = rule.train_candidates if training else rule.candidates
        wanted = rule.train_proposals if training else rule.proposals
        scores, places, sizes = [], [], []
        start = 0
        for level in outputs.logits.sigmoid().split_with_sizes(list(outputs.sizes), dim=1):
            size = level.shape[1]
            if context.exporting:  # the size is not known: there may be fewer
                value, place = F.pad(level, (0, most)).topk(most)
                place = place.clamp(max=size - 1)
            else:
                value, place = level.topk(min(most, size))
            scores.append(value)
            places.append(place + start)
            sizes.append(value.shape[1])
            start = start + size
        score, index = torch.cat(scores, dim=1), torch.cat(places, dim=1)  # (B, n)
        rows = index[..., None].expand(-1, -1, 4)
        boxes = decode_boxes(outputs.offsets.gather(1, rows), outputs.anchors[index], self.stds)
        boxes = clip_boxes(boxes, context.valid_hw)
        score = score * ((boxes[..., 2:] - boxes[..., :2]) > rule.min_box_px).all(dim=-1)
        by_level = score[:, None] * level_masks(sizes, score.device)  # (B, L, n)
        missing = wanted - sum(sizes)
        if missing > 0:
            boxes, by_level = F.pad(boxes, (0, 0, 0, missing)), F.pad(by_level, (0, missing))
            index = F.pad(index, (0, missing))
        selection = Selection(
            score_threshold=0.0, iou_threshold=rule.iou_threshold, max_detections=wanted
        )
        found = suppress_candidates(
            ScoredBoxes(boxes, by_level, index), selection, context.exporting
        )
        return found.boxes, found.scores


def anchor_corners(config: RpnOptions, strides: Sequence[int]) -> Tensor:
    """(L, A, 4): corners of the anchors of each level relative to the top left corner of their
    cell, which is their centre, in canvas pixels.
    """
    stride = torch.tensor(strides, dtype=torch.float32)[:, None, None]
    scales, ratios = torch.tensor(config.anchor_scales), torch.tensor(config.ratios)
    root = ratios.sqrt()[:, None]  # (R, 1)
    width = (stride / root * scales).flatten(1)  # (L, R * S)
    height = (stride * root * scales).flatten(1)
    corners = torch.stack([-width, -height, width, height], dim=-1) / 2
    return corners.round() if config.rounded_anchors else corners


def learnable_objects(targets: Mapping[str, Tensor]) -> Tensor:
    """(B, M) bool: the objects to learn; those without area have no offsets."""
    boxes = targets["boxes"]
    size = boxes[..., 2:] - boxes[..., :2]
    real = targets["present"] & ~targets["crowd"] & (size > 0).all(dim=-1)
    return real & targets["annotated"][:, None]


def smooth_l1(pred: Tensor, target: Tensor, beta: float) -> Tensor:
    """Smooth L1 loss (Girshick 2015, eq. 3) with its transition at ``beta``; L1 if that is 0."""
    return F.smooth_l1_loss(pred, target, reduction="none", beta=beta)
