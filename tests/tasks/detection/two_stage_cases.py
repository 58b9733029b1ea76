"""Small two-stage heads, with features and targets as a trunk and a dataset would give them."""

from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from mtl_ray.models.head import Context
from mtl_ray.tasks.detection.two_stage.config import (
    TwoStageHead,
)
from mtl_ray.tasks.detection.two_stage.faster_rcnn import FasterRcnn

CANVAS_HW, CLASSES, LEVELS = (96, 128), 3, ("P2", "P3", "P4")
STRIDES = dict(zip(LEVELS, (4, 8, 16), strict=True))
SMALL: dict[str, Any] = {
    "levels": LEVELS,
    "rpn": {"channels": 8, "anchor_scales": [4.0], "train_proposals": 30, "proposals": 24},
    "roi": {"levels": 2, "finest_px": 16.0, "size": 3, "channels": 16, "samples": 10**6},
}


def small_head(kind: type[TwoStageHead], seed: int = 0, **options: Any) -> FasterRcnn:
    """A head of 8 channels with outputs that vary."""
    torch.manual_seed(seed)
    config = TypeAdapter(kind).validate_python({"type": kind.type, **SMALL, **options})
    head = FasterRcnn(config, dict.fromkeys(LEVELS, 8), STRIDES, CLASSES)
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    head.rpn_head.rpn_reg.weight.data.mul_(0.3)
    return head.eval()


def features(count: int = 2, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        level: torch.randn(count, 8, CANVAS_HW[0] // s, CANVAS_HW[1] // s, generator=draw)
        for level, s in STRIDES.items()
    }


def context(count: int = 2, step: int = 0) -> Context:
    """All canvases but the last are full."""
    valid = torch.tensor([CANVAS_HW] * (count - 1) + [(80, 100)], dtype=torch.int32)
    return Context(
        inputs={"image": torch.zeros(count, 3, *CANVAS_HW), "valid_hw": valid}, step=step
    )


def targets(count: int = 2, objects: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """Random boxes, each filled by an ellipse but for the last, which has no mask; the second image
    has one fewer.
    """
    draw = torch.Generator().manual_seed(seed)
    size = torch.rand(count, objects, 2, generator=draw) * 40 + 12
    centre = torch.rand(count, objects, 2, generator=draw) * torch.tensor([100.0, 80.0])
    limit = torch.tensor([100.0, 80.0, 100.0, 80.0])
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=2).clamp(min=0).minimum(limit)
    y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in CANVAS_HW), indexing="ij")
    half = ((boxes[..., 2:] - boxes[..., :2]) / 2)[..., None, None]
    middle = ((boxes[..., 2:] + boxes[..., :2]) / 2)[..., None, None]
    far = ((x - middle[:, :, 0]) / half[:, :, 0]) ** 2 + (
        (y - middle[:, :, 1]) / half[:, :, 1]
    ) ** 2
    present = torch.ones(count, objects, dtype=torch.bool)
    present[1:2, -1] = False
    has_mask = present.clone()
    has_mask[0, -1] = False
    return {
        "boxes": boxes,
        "classes": torch.randint(0, CLASSES, (count, objects), generator=draw),
        "present": present,
        "crowd": torch.zeros_like(present),
        "annotated": torch.ones(count, dtype=torch.bool),
        "known_classes": torch.ones(count, CLASSES, dtype=torch.bool),
        "masks": (far <= 1).to(torch.uint8),
        "has_mask": has_mask,
    }


def proposals_of(
    head: FasterRcnn, maps: dict[str, Tensor], ctx: Context, training: bool
) -> list[Tensor]:
    """The proposals of each image, without padding."""
    outputs = head.rpn_head.flatten(head.rpn_head(list(maps.values())))
    boxes, scores = head.rpn_head.proposals(outputs, ctx, training)
    return [each[score > 0] for each, score in zip(boxes, scores, strict=True)]
