"""The mask branch: a mask of the object in each region, for each class."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from mtl_ray.models.head import Term
from mtl_ray.tasks.detection.two_stage.config import MaskOptions
from mtl_ray.tasks.detection.two_stage.matching import ComputedRows
from mtl_ray.tasks.detection.two_stage.roi import Regions
from mtl_ray.tasks.detection.two_stage.rpn import ConvBlock


class MaskHead(nn.Module):
    """A small fully convolutional network on the pooled features of a region (He et al. 2017,
    https://arxiv.org/abs/1703.06870, figure 4, right).

    Args:
        config: of the branch.
        inputs: channels of the features.
        classes: number of classes.
    """

    def __init__(self, config: MaskOptions, inputs: int, classes: int) -> None:
        super().__init__()
        widths = [inputs, *[config.channels] * config.convs]
        self.convs = nn.ModuleList(
            ConvBlock(width, config.channels, config.norm == "batch") for width in widths[:-1]
        )
        self.upsample = nn.ConvTranspose2d(widths[-1], config.channels, 2, stride=2)
        self.conv_logits = nn.Conv2d(config.channels, classes, 1)
        for layer in (self.upsample, self.conv_logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, C, size, size) -> float32 logits (R, classes, 2 size, 2 size)."""
        for conv in self.convs:
            pooled = conv(pooled)
        logits: Tensor = self.conv_logits(F.relu(self.upsample(pooled)))
        return logits.float()


def of_class(logits: Tensor, labels: Tensor) -> Tensor:
    """(R, h, w): the masks of each region's class (R,) among those (R, C, h, w) of all classes."""
    place = labels.clamp(max=logits.shape[1] - 1)[:, None, None, None]
    return logits.gather(1, place.expand(-1, 1, *logits.shape[2:]))[:, 0]


def mask_targets(regions: Regions, masks: Tensor, rows: ComputedRows, size: int) -> Tensor:
    """The masks of the objects in their regions: RoIAlign at the scale of the canvas, at least one
    half.

    Args:
        regions: (B, S).
        masks: uint8 (B, M, H, W) of the objects.
        rows: the regions that are trained.
        size: cells of a side of the result.

    Returns:
        float32 (R, size, size), 0 or 1.
    """
    image = rows.image(masks.device)
    number = rows.pick(regions.object)
    boxes = rows.pick(regions.boxes)
    flat = masks.flatten(0, 1)  # (B * M, H, W)
    if rows.index is not None:
        # Only the masks that are read are made float.
        read, place = torch.unique(image * masks.shape[1] + number, return_inverse=True)
        return _cropped(flat[read], place, boxes, size)
    # One image at a time: the float masks of all would need much memory.
    boxes, number = boxes.view(len(masks), -1, 4), number.view(len(masks), -1)
    parts = [
        _cropped(of_image, place, part, size)
        for of_image, place, part in zip(masks, number, boxes, strict=True)
    ]
    return torch.cat(parts)


def _cropped(masks: Tensor, place: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(R, size, size): the mask (M, H, W) at ``place`` (R,) in each box (R, 4)."""
    rois = torch.cat([place[:, None].to(boxes.dtype), boxes], dim=1)
    cropped: Tensor = roi_align(masks[:, None].to(boxes.dtype), rois, size, 1.0, 0, True)
    return (cropped[:, 0] >= 0.5).to(boxes.dtype)


def mask_loss(
    logits: Tensor,
    regions: Regions,
    rows: ComputedRows,
    targets: Mapping[str, Tensor],
    weight: float,
) -> dict[str, Term]:
    """``mask`` (binary cross entropy of the class of the object, mean over its cells), divided by
    the number of positive regions whose object has a mask.
    """
    classes, size = logits.shape[1], logits.shape[2]
    labels = rows.pick(regions.matched(targets["classes"])).clamp(max=classes - 1)
    wanted = mask_targets(regions, targets["masks"], rows, size)
    loss = F.binary_cross_entropy_with_logits(of_class(logits, labels), wanted, reduction="none")
    known = rows.pick_image(targets["known_classes"]).gather(1, labels[:, None])[:, 0]
    counted = rows.used & rows.pick(regions.matched(targets["has_mask"])) & known
    return {"mask": ((loss.mean(dim=(1, 2)) * counted).sum() * weight, counted.sum().float())}
