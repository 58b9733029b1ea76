"""Every head upon a tiny trunk, and batches that it can learn: what the contract of heads is
tested with.
"""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.loading.batch import Batch
from mtl_ray.models.model import Model
from mtl_ray.samples import IGNORE_INDEX, Vocabulary

VOCABULARY = Vocabulary(
    classes={"labels": ("a", "b", "c"), "instances": ("a", "b"), "semantic": ("a", "b", "c", "d")},
    exclusive_labels=True,
)
CANVAS_HW = (64, 96)
REGIONS: dict[str, Any] = {
    "levels": ["P3", "P4"],
    "rpn": {
        "channels": 16,
        "anchor_scales": [2.0],
        "samples": 64,
        "train_candidates": 100,
        "train_proposals": 48,
        "candidates": 100,
        "proposals": 40,
    },
    "roi": {"levels": 2, "finest_px": 16.0, "size": 3, "channels": 32, "samples": 32},
    "select": {"score_threshold": 0.02, "max_detections": 50},
}
"""Of the two-stage heads: few proposals."""
GRID = {"channels": 16, "convs": 1, "norm_groups": 4}
HEADS: dict[str, dict[str, Any]] = {
    "yolov3": {
        "type": "yolov3",
        "levels": ["P3", "P4"],
        "anchors": [[[8, 8], [16, 16]], [[24, 24], [32, 40]]],
        "channels": 16,
    },
    "uneven": {
        "type": "yolov3",
        "levels": ["P3", "P4"],
        "anchors": [[[8, 8], [16, 16], [12, 20]], [[32, 40]]],
        "channels": 16,
    },
    "retinanet": {
        "type": "retinanet",
        "levels": ["P3", "P4"],
        "channels": 16,
        "convs": 1,
        "anchor_scale": 2.0,
    },
    "faster_rcnn": {"type": "faster_rcnn", **REGIONS},
    "cascade_rcnn": {"type": "cascade_rcnn", **REGIONS},
    "mask_rcnn": {"type": "mask_rcnn", **REGIONS, "mask": {"size": 4, "convs": 1, "channels": 16}},
    "retinanet_published": {
        "type": "retinanet",
        "levels": ["P3", "P4"],
        "channels": 16,
        "convs": 1,
        "anchor_scale": 2.0,
        "anchor_order": "ratio",
        "anchor_offset": 0.0,
        "norm": "none",
        "box_loss": "l1",
        "box_weight": 1.0,
        "forced_to": "last",
        "ignore_padding": True,
        "select": {"score_threshold": 0.05, "rank": "pair", "threshold_on": "class"},
    },
    "fcos": {"type": "fcos", "levels": ["P3", "P4"], **GRID},
    "fcos_tricks": {
        "type": "fcos",
        "levels": ["P3", "P4"],
        **GRID,
        "center_sampling": True,
        "norm_on_bbox": True,
        "centerness_on_reg": True,
        "conv_bias": True,
        "box_loss": "giou",
    },
    "atss": {"type": "atss", "levels": ["P3", "P4"], "anchor_scale": 4.0, **GRID},
    "gfl": {"type": "gfl", "levels": ["P3", "P4"], "anchor_scale": 4.0, "reg_max": 8, **GRID},
    "fcn": {"type": "fcn", "levels": ["P3", "P4"], "channels": 16, "convs": 1, "dropout": 0.0},
    "auxiliary": {
        "type": "fcn",
        "levels": ["C4"],
        "channels": 16,
        "convs": 0,
        "dropout": 0.0,
        "train_only": True,
    },
    "linear": {"type": "linear", "levels": ["G4"]},
    "multilabel": {"type": "multilabel", "levels": ["G4"]},
}


CLASS_GRADIENTS: dict[str, Callable[[Any], list[Tensor]]] = {
    "yolov3": lambda head: [
        each.bias.grad.view(count, -1)[:, 5:]
        for each, count in zip(head.outputs, head.anchors, strict=True)
    ],
    "uneven": lambda head: [
        each.bias.grad.view(count, -1)[:, 5:]
        for each, count in zip(head.outputs, head.anchors, strict=True)
    ],
    "retinanet": lambda head: [head.class_tower.output.bias.grad.view(head.anchors, -1)],
    "faster_rcnn": lambda head: [head.roi_head.bbox_head.fc_cls.bias.grad[None, :-1]],
    "cascade_rcnn": lambda head: [
        each.fc_cls.bias.grad[None, :-1] for each in head.roi_head.bbox_head
    ],
    "mask_rcnn": lambda head: [head.roi_head.bbox_head.fc_cls.bias.grad[None, :-1]],
    "retinanet_published": lambda head: [head.class_tower.output.bias.grad.view(head.anchors, -1)],
    "fcos": lambda head: [head.conv_cls.bias.grad[None]],
    "fcos_tricks": lambda head: [head.conv_cls.bias.grad[None]],
    "atss": lambda head: [head.atss_cls.bias.grad[None]],
    "gfl": lambda head: [head.gfl_cls.bias.grad[None]],
    "fcn": lambda head: [head.classify.bias.grad[None]],
    "auxiliary": lambda head: [head.classify.bias.grad[None]],
    "linear": lambda head: [head.linear.bias.grad[None]],
    "multilabel": lambda head: [head.linear.bias.grad[None]],
}
"""Of each head the gradients of the biases of its class logits, each (k, classes): those of the
logits, summed.
"""


def model_of(*names: str, seed: int = 0, **options: Any) -> Model:
    """A small network with the named heads, each with further options."""
    torch.manual_seed(seed)
    config = {
        "backbone": {
            "name": "resnet18",
            "levels": ["C3", "C4"],
            "options": {
                "layers": [1, 1, 1],
                "channels": [8, 16, 32],
                "stem_type": "deep",
                "stem_width": 8,
            },
        },
        "necks": {
            "pyramid": {"type": "fpn", "inputs": ["C3", "C4"], "channels": 16},
            "pool": {"type": "pool", "input": "C4"},
        },
        "heads": {name: HEADS[name] | options for name in names},
    }
    return build_model(TypeAdapter(ModelConfig).validate_python(config), VOCABULARY)


def scattered(model: Model, seed: int = 0) -> Model:
    """The model with weights and statistics far from their start, so that every output varies;
    in evaluation mode.
    """
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    for module in model.heads.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model.eval()


def images(count: int, hw: tuple[int, int] = CANVAS_HW, seed: int = 0) -> Tensor:
    """uint8 (count, 3, H, W) of coloured noise."""
    return torch.randint(
        0, 256, (count, 3, *hw), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def known(count: int, classes: int) -> Tensor:
    """All classes known, bool (count, classes)."""
    return torch.ones(count, classes, dtype=torch.bool)


def batch_of(count: int, seed: int = 0) -> Batch:
    """Dark canvases, on each a bright square: its box, its pixels, and labels that follow from
    its place.
    """
    draw = torch.Generator().manual_seed(seed)
    height, width = CANVAS_HW
    image = images(count, seed=seed) // 4
    boxes = torch.zeros(count, 3, 4)
    present = torch.zeros(count, 3, dtype=torch.bool)
    classes = torch.zeros(count, 3, dtype=torch.int64)
    semantic = torch.zeros(count, height, width, dtype=torch.uint8)
    masks = torch.zeros(count, 3, height, width, dtype=torch.uint8)
    labels = torch.zeros(count, 3)
    for row in range(count):
        x, y, side, kind = (
            int(torch.randint(low, high, (), generator=draw))
            for low, high in ((0, 60), (0, 30), (20, 34), (0, 2))
        )
        image[row, kind, y : y + side, x : x + side] = 255
        boxes[row, 0] = torch.tensor([x, y, x + side, y + side])
        present[row, 0], classes[row, 0] = True, kind
        masks[row, 0, y : y + side, x : x + side] = 1
        semantic[row, y : y + side, x : x + side] = kind + 1
        labels[row, kind] = 1
    semantic[:, -4:] = IGNORE_INDEX
    annotated = torch.ones(count, dtype=torch.bool)
    return Batch(
        inputs={"image": image, "valid_hw": torch.tensor([CANVAS_HW] * count, dtype=torch.int32)},
        targets={
            "instances": {
                "boxes": boxes,
                "classes": classes,
                "crowd": torch.zeros_like(present),
                "present": present,
                "masks": masks,
                "has_mask": present.clone(),
                "annotated": annotated.clone(),
                "known_classes": known(count, 2),
            },
            "semantic": {
                "classes": semantic,
                "annotated": annotated.clone(),
                "known_classes": known(count, 4),
            },
            "labels": {
                "present": labels,
                "annotated": annotated.clone(),
                "known_classes": known(count, 3),
            },
        },
        keys=(),
    )


def total(terms: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    """The loss as the trainer makes it of the terms of one process."""
    return torch.stack([value / count.clamp(min=1) for value, count in terms.values()]).sum()


def inputs_of(image: Tensor, valid_hw: tuple[int, int]) -> dict[str, Tensor]:
    """What a model takes, of canvases that are all filled up to the same height and width."""
    return {"image": image, "valid_hw": torch.tensor([valid_hw] * len(image), dtype=torch.int32)}
