"""Every head upon a tiny trunk, and batches that it can learn: what the contract of heads is
tested with.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.inputs.input import placed
from mtl_ray.inputs.point_cloud import PointCloud
from mtl_ray.inputs.points import PointCanvas
from mtl_ray.loading.batch import Batch
from mtl_ray.models.model import Model
from mtl_ray.samples import IGNORE_INDEX, Vocabulary

VOCABULARY = Vocabulary(
    classes={
        "labels": ("a", "b", "c"),
        "instances": ("a", "b"),
        "semantic": ("a", "b", "c", "d"),
        "boxes_3d": ("a", "b"),
    },
    exclusive_labels=True,
)
CANVAS_HW = (64, 96)
GRID = {"channels": 16, "convs": 1, "norm_groups": 4}
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
SELECT = {"score_threshold": 0.01, "rank": "pair", "candidates": 100, "max_detections": 50}
"""Of the heads with dynamic assignment: few candidates."""
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
    "faster_rcnn": {"type": "faster_rcnn", **REGIONS},
    "cascade_rcnn": {"type": "cascade_rcnn", **REGIONS},
    "mask_rcnn": {"type": "mask_rcnn", **REGIONS, "mask": {"size": 4, "convs": 1, "channels": 16}},
    "yolox": {
        "type": "yolox",
        "levels": ["P3", "P4"],
        "channels": 16,
        "convs": 1,
        "l1_from": 0,
        "select": SELECT,
    },
    "rtmdet": {
        "type": "rtmdet",
        "levels": ["P3", "P4"],
        "channels": 16,
        "convs": 1,
        "select": SELECT,
    },
    "rtmdet_ins": {
        "type": "rtmdet_ins",
        "levels": ["P3", "P4"],
        "channels": 16,
        "convs": 1,
        "feature_convs": 1,
        "select": SELECT,
    },
    "detr": {
        "type": "detr",
        "levels": ["P4"],
        "queries": 20,
        "channels": 16,
        "heads": 4,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "feedforward": 32,
        "dropout": 0.0,
        "max_detections": 20,
    },
    "deformable_detr": {
        "type": "deformable_detr",
        "levels": ["P3", "P4"],
        "queries": 20,
        "channels": 16,
        "heads": 4,
        "points": 2,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "feedforward": 32,
        "dropout": 0.0,
        "max_detections": 20,
    },
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
HEADS["two_stage_detr"] = HEADS["deformable_detr"] | {"refine": True, "two_stage": True}
_QUERIES = {
    "levels": ["P3", "P4"],
    "channels": 32,
    "queries": 20,
    "layers": 2,
    "heads": 2,
    "feedforward": 32,
    "points": 2,
    "denoising": {"queries": 6, "label_noise": 0.2, "box_noise": 0.4},
}
HEADS |= {name: {"type": name} | _QUERIES for name in ("dfine", "rtdetr_v2")}
CLOUD_HEADS: dict[str, dict[str, Any]] = {
    "anchor_3d": {
        "type": "anchor_3d",
        "anchors": [
            {"size": [3, 1.5, 1.5], "bottom": -1.7, "positive": 0.5, "negative": 0.3},
            {"size": [1.5, 1, 1.5], "bottom": -1.7, "positive": 0.5, "negative": 0.3},
        ],
        "select": {"candidates": 60, "score_threshold": 0.02, "iou_threshold": 0.3},
    },
    "center_point": {
        "type": "center_point",
        "shared_channels": 16,
        "branch_channels": 16,
        "select": {"candidates": 40, "score_threshold": 0.02},
    },
}
"""Heads of point clouds, on a trunk of their own."""
EVERY_HEAD = HEADS | CLOUD_HEADS
CLOUD_CANVAS = PointCanvas(
    type="points",
    minimum=(0, -6.4, -3),
    maximum=(12.8, 6.4, 1),
    voxel=(0.8, 0.8, 4),
    max_points=6,
    max_voxels=200,
)
CLOUD_TRUNK: dict[str, Any] = {
    "backbone": {
        "type": "pillars",
        "point_channels": [16],
        "layers": [1, 1],
        "strides": [1, 2],
        "channels": [16, 16],
    },
    "necks": {
        "map": {
            "type": "secfpn",
            "inputs": ["B1", "B2"],
            "upsample": [1, 2],
            "channels": [16, 16],
        }
    },
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
    "retinanet_published": lambda head: [head.class_tower.output.bias.grad.view(head.anchors, -1)],
    "fcos": lambda head: [head.conv_cls.bias.grad[None]],
    "fcos_tricks": lambda head: [head.conv_cls.bias.grad[None]],
    "atss": lambda head: [head.atss_cls.bias.grad[None]],
    "gfl": lambda head: [head.gfl_cls.bias.grad[None]],
    "faster_rcnn": lambda head: [head.roi_head.bbox_head.fc_cls.bias.grad[None, :-1]],
    "cascade_rcnn": lambda head: [
        each.fc_cls.bias.grad[None, :-1] for each in head.roi_head.bbox_head
    ],
    "mask_rcnn": lambda head: [head.roi_head.bbox_head.fc_cls.bias.grad[None, :-1]],
    "yolox": lambda head: [each.bias.grad[None] for each in head.multi_level_conv_cls],
    "rtmdet": lambda head: [each.bias.grad[None] for each in head.rtm_cls],
    "rtmdet_ins": lambda head: [each.bias.grad[None] for each in head.rtm_cls],
    # the last is the background
    "detr": lambda head: [head.bbox_head.fc_cls.bias.grad[None, :-1]],
    "deformable_detr": lambda head: [
        branch.bias.grad[None] for branch in head.bbox_head.cls_branches
    ],
    # the last scores proposals of any class
    "two_stage_detr": lambda head: [
        branch.bias.grad[None] for branch in head.bbox_head.cls_branches[:-1]
    ],
    "fcn": lambda head: [head.classify.bias.grad[None]],
    "auxiliary": lambda head: [head.classify.bias.grad[None]],
    "linear": lambda head: [head.linear.bias.grad[None]],
    "multilabel": lambda head: [head.linear.bias.grad[None]],
    "anchor_3d": lambda head: [head.conv_cls.bias.grad.view(head.kinds, -1)],
    "center_point": lambda head: [
        torch.cat([maps["heatmap"][1].bias.grad for maps in head.task_heads])[None]
    ],
} | dict.fromkeys(
    ("dfine", "rtdetr_v2"),
    lambda head: [
        layer.bias.grad[None] for layer in (head.enc_score_head, *head.decoder.class_embed)
    ],
)
"""Of each head the gradients of the biases of its class logits, each (k, classes): those of the
logits, summed.
"""


def model_of(*names: str, seed: int = 0, **options: Any) -> Model:
    """A small network with the named heads, each with further options."""
    torch.manual_seed(seed)
    if set(names) <= CLOUD_HEADS.keys():
        heads = {name: CLOUD_HEADS[name] | options for name in names}
        return build_model(
            TypeAdapter(ModelConfig).validate_python({**CLOUD_TRUNK, "heads": heads}),
            VOCABULARY,
            CLOUD_CANVAS,
        )
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


def clouds(seeds: list[int], boxes: Tensor | None = None) -> dict[str, Tensor]:
    """The arrays of clouds with a flat ground, and with points in a box (7,) of each."""
    found = []
    for row, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        ground = rng.uniform((0, -6.4, -1.8), (12.8, 6.4, -1.7), (300, 3))
        parts = [ground]
        if boxes is not None:
            x, y, z, length, width, height, yaw = boxes[row].tolist()
            inside = rng.uniform(-0.5, 0.5, (200, 3)) * (length, width, height)
            turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
            inside[:, :2] = inside[:, :2] @ turn
            parts.append(inside + np.array((x, y, z)))
        xyz = np.concatenate(parts)
        points = np.column_stack([xyz, rng.uniform(0, 1, len(xyz))]).astype(np.float32)
        found.append(PointCloud(points=points))
    arrays, _ = placed(found, CLOUD_CANVAS)
    return {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in arrays.items()}


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
    boxes_3d = torch.zeros(count, 3, 7)
    for row in range(count):
        place = torch.rand(3, generator=draw)
        size = [3.0, 1.5, 1.5] if classes[row, 0] == 0 else [1.5, 1.0, 1.5]
        boxes_3d[row, 0] = torch.tensor(
            [2 + 8 * place[0], 8 * place[1] - 4, -0.95, *size, 6 * place[2] - 3]
        )
    velocity = torch.rand(count, 3, 2, generator=draw)
    annotated = torch.ones(count, dtype=torch.bool)
    return Batch(
        inputs={
            "image": image,
            "valid_hw": torch.tensor([CANVAS_HW] * count, dtype=torch.int32),
            **clouds([seed + row for row in range(count)], boxes_3d[:, 0]),
        },
        targets={
            "boxes_3d": {
                "boxes": boxes_3d,
                "classes": classes.clone(),
                "velocity": velocity,
                "has_velocity": present.clone(),
                "present": present.clone(),
                "annotated": annotated.clone(),
                "known_classes": known(count, 2),
            },
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
    """What a model takes, of canvases that are all filled up to the same height and width; a cloud
    for each image is made of its pixels.
    """
    return {
        "image": image,
        "valid_hw": torch.tensor([valid_hw] * len(image), dtype=torch.int32),
        **clouds([int(each.long().sum()) for each in image]),
    }
