"""The second stage: features of regions, their classes and boxes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from mtl_ray.models.head import IMPOSSIBLE, Term
from mtl_ray.tasks.detection.two_stage.config import RoiOptions, RoiStage
from mtl_ray.tasks.detection.two_stage.matching import (
    ComputedRows,
    MatchRule,
    Sampling,
    decode_boxes,
    encode_boxes,
    in_crowds,
    match_candidates,
    sample,
)
from mtl_ray.tasks.detection.two_stage.rpn import ConvBlock, learnable_objects, smooth_l1

OBJECT_NUMBERS = 2**30
"""Where the numbers of objects start among those of candidates: the number of a proposal must not
depend on how many objects other images have.
"""


class Regions(NamedTuple):
    """S regions of each of B images, the positive ones first.

    Attributes:
        boxes: (B, S, 4) xyxy in canvas pixels.
        used: bool (B, S); others are padding.
        positive: bool (B, S), those with an object.
        object: int64 (B, S).
        is_object: bool (B, S), those that are the box of an object itself.
    """

    boxes: Tensor
    used: Tensor
    positive: Tensor
    object: Tensor
    is_object: Tensor

    def matched(self, values: Tensor) -> Tensor:
        """The values (B, M, ...) of the object of each region, (B, S, ...)."""
        index = self.object.view(*self.object.shape, *[1] * (values.dim() - 2))
        return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


def pool_regions(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    images: Tensor,
    size: int,
    config: RoiOptions,
    exporting: bool,
) -> Tensor:
    """RoIAlign (He et al. 2017, section 3) on the level that fits the size of each region (Lin et
    al. 2017, eq. 1).

    Args:
        maps: (B, C, H, W) of each level, fine to coarse.
        strides: canvas pixels per cell of each level.
        boxes: (R, 4) xyxy in canvas pixels.
        images: int64 (R,), the image of each region.
        size: cells of a side of the result.
        config: options of RoIAlign.
        exporting: the sizes are symbolic.

    Returns:
        float32 (R, C, size, size).
    """
    level = region_levels(boxes, len(maps), config.finest_px)
    rois = torch.cat([images[:, None].to(boxes.dtype), boxes], dim=1)  # (R, 5)
    arguments = [
        (each.float(), 1 / stride, size, config) for each, stride in zip(maps, strides, strict=True)
    ]
    if exporting or boxes.is_cuda:
        # Every level gets all regions, those of other levels as empty ones, which cost nothing.
        pooled = torch.zeros((), device=boxes.device)
        for number, (values, scale, _, _) in enumerate(arguments):
            here = level == number
            kept = torch.cat([rois[:, :1], rois[:, 1:] * here[:, None]], dim=1)
            part = _aligned(values, kept, scale, size, config)
            pooled = pooled + torch.where(here[:, None, None, None], part, 0.0)
        return pooled
    places = [(level == number).nonzero().squeeze(1) for number in range(len(maps))]
    parts = [
        _aligned(values, rois[place], scale, size, config)
        for (values, scale, _, _), place in zip(arguments, places, strict=True)
    ]
    return torch.cat(parts)[torch.cat(places).argsort()]


def _aligned(values: Tensor, rois: Tensor, scale: float, size: int, config: RoiOptions) -> Tensor:
    pooled: Tensor = roi_align(values, rois, size, scale, config.sampling, config.aligned)
    return pooled


def region_levels(boxes: Tensor, levels: int, finest_px: float) -> Tensor:
    """int64 (R,): the level of each box (R, 4), finer ones for smaller boxes."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.prod(dim=1).clamp(min=0).sqrt()
    return (side / finest_px + 1e-6).log2().floor().clamp(0, levels - 1).long()


class BoxHead(nn.Module):
    """Two outputs of the pooled features of a region: class logits, the background last, and box
    offsets (Girshick 2015).

    Args:
        config: of the stage.
        inputs: channels of the features.
        classes: number of classes.
    """

    def __init__(self, config: RoiOptions, inputs: int, classes: int) -> None:
        super().__init__()
        widths = [inputs, *[config.conv_channels] * config.convs]
        self.shared_convs = nn.ModuleList(
            ConvBlock(width, config.conv_channels, config.norm == "batch") for width in widths[:-1]
        )
        hidden = [widths[-1] * config.size**2, *[config.channels] * config.fcs]
        self.shared_fcs = nn.ModuleList(nn.Linear(width, config.channels) for width in hidden[:-1])
        self.fc_cls = nn.Linear(config.channels, classes + 1)
        self.fc_reg = nn.Linear(config.channels, 4 if config.class_agnostic else 4 * classes)
        for layer in self.shared_fcs:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for output, std in ((self.fc_cls, 0.01), (self.fc_reg, 0.001)):
            nn.init.normal_(output.weight, std=std)
            nn.init.zeros_(output.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, size, size) -> float32 logits (R, classes + 1) and offsets (R, boxes, 4)."""
        for conv in self.shared_convs:
            pooled = conv(pooled)
        hidden = pooled.flatten(1)
        for layer in self.shared_fcs:
            hidden = F.relu(layer(hidden))
        return self.fc_cls(hidden).float(), self.fc_reg(hidden).float().unflatten(1, (-1, 4))


def draw_regions(
    boxes: Tensor,
    valid: Tensor,
    targets: Mapping[str, Tensor],
    config: RoiOptions,
    stage: int,
    step: int,
) -> Regions:
    """The regions that a step trains: drawn proposals and objects.

    Proposals in a crowd region are no background.

    Args:
        boxes: (B, P, 4) proposals, xyxy in canvas pixels.
        valid: (B, P) bool; others are padding.
        targets: of the batch.
        config: of the second stage.
        stage: number of the stage.
        step: of the optimiser.
    """
    wanted, gt_boxes = learnable_objects(targets), targets["boxes"]
    iou = config.stages[stage].iou
    rule = MatchRule(iou, iou, iou if config.low_quality else None)
    found = match_candidates(boxes, valid & targets["annotated"][:, None], gt_boxes, wanted, rule)
    crowd = in_crowds(boxes, gt_boxes, targets["present"] & targets["crowd"])
    own = torch.arange(wanted.shape[1], device=boxes.device)
    positive = torch.cat([found.positive, wanted], dim=1)
    negative = torch.cat([found.negative & ~crowd, torch.zeros_like(wanted)], dim=1)
    numbers = torch.cat([torch.arange(boxes.shape[1], device=boxes.device), own + OBJECT_NUMBERS])
    rule_of_samples = Sampling(config.samples, config.positive_share)
    positive, negative = sample(positive, negative, numbers, rule_of_samples, (step, stage + 1))
    # The slots: first positive, then negative ones, then padding.
    rank = 2 - positive.long() * 2 - negative.long()
    slots = min(config.samples, positive.shape[1])
    index = rank.argsort(dim=1, stable=True)[:, :slots]  # (B, S)
    candidates = torch.cat([boxes, gt_boxes], dim=1)
    object_ = torch.cat([found.object, own.expand(wanted.shape[0], -1)], dim=1)
    used = (positive | negative).gather(1, index)
    return Regions(
        boxes=candidates.gather(1, index[..., None].expand(-1, -1, 4)) * used[..., None],
        used=used,
        positive=positive.gather(1, index),
        object=object_.gather(1, index),
        is_object=used & (index >= boxes.shape[1]),
    )


class RegionTargets(NamedTuple):
    """Of each of R regions: ``labels`` int64 (R,), the number of classes for background, and the
    box of its object (R, 4), its own if it has none.
    """

    labels: Tensor
    boxes: Tensor


def region_targets(regions: Regions, targets: Mapping[str, Tensor], classes: int) -> RegionTargets:
    """What the regions (B, S) are trained to be."""
    labels = torch.where(regions.positive, regions.matched(targets["classes"]), classes)
    boxes = torch.where(
        regions.positive[..., None], regions.matched(targets["boxes"]), regions.boxes
    )
    return RegionTargets(labels, boxes)


def region_losses(
    logits: Tensor,
    offsets: Tensor,
    regions: Regions,
    rows: ComputedRows,
    targets: Mapping[str, Tensor],
    config: RoiOptions,
    stage: RoiStage,
) -> dict[str, Term]:
    """``class`` (cross entropy) and ``box`` (smooth L1 of offsets), both divided by the number of
    regions.

    Classes that the dataset of an image does not annotate are left out of its softmax. A region
    without an object that has one of them as its most likely class is no background.

    Args:
        logits: (R, C + 1).
        offsets: (R, C, 4) or (R, 1, 4).
        regions: (B, S) of which these are rows.
        rows: which ones.
        targets: of the batch.
        config: options of the second stage.
        stage: those of the stage.
    """
    classes = logits.shape[1] - 1
    labels, boxes = (rows.pick(part) for part in region_targets(regions, targets, classes))
    candidates = rows.pick(regions.boxes)
    known = F.pad(rows.pick_image(targets["known_classes"]), (0, 1), value=True)  # (R, C + 1)
    positive = labels < classes
    likely = logits.detach().argmax(dim=1, keepdim=True)
    judged = known.gather(1, torch.where(positive[:, None], labels[:, None], likely))[:, 0]
    logits = logits.masked_fill(~known, IMPOSSIBLE)
    loss = F.cross_entropy(logits, labels, reduction="none")  # (R,)
    loss = torch.where(rows.used & judged, loss, 0.0)
    chosen = chosen_offsets(offsets, labels)
    stds = torch.tensor(stage.stds, device=boxes.device)
    used = positive & rows.used
    empty = torch.tensor([0.0, 0.0, 1.0, 1.0], device=boxes.device)
    candidates, boxes = (torch.where(used[:, None], part, empty) for part in (candidates, boxes))
    wanted = encode_boxes(boxes, candidates, stds)
    box_loss = smooth_l1(chosen, wanted, config.beta).sum(dim=-1) * used
    count = rows.used.sum().float()
    return {
        "class": (loss.sum() * config.class_weight * stage.weight, count),
        "box": (box_loss.sum() * config.box_weight * stage.weight, count),
    }


def chosen_offsets(offsets: Tensor, labels: Tensor) -> Tensor:
    """(R, 4): the offsets (R, C, 4) of each region's class, or those (R, 1, 4) of all classes."""
    place = labels.clamp(max=offsets.shape[1] - 1)[:, None, None].expand(-1, 1, 4)
    return offsets.gather(1, place)[:, 0]


def refined_boxes(offsets: Tensor, logits: Tensor, boxes: Tensor, stage: RoiStage) -> Tensor:
    """The boxes (R, 4) of a stage's regions (R, 4), by the offsets of their most likely class."""
    stds = torch.tensor(stage.stds, device=boxes.device)
    return decode_boxes(chosen_offsets(offsets, logits[:, :-1].argmax(dim=1)), boxes, stds)
