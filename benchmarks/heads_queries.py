"""The detectors of Hugging Face's transformers that ``benchmarks.heads`` compares with, and the
``model`` sections that their weights fill.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 90
BYTES = {"mean": [0.0, 0.0, 0.0], "std": [255.0, 255.0, 255.0]}
LEVELS = ["C3", "C4", "C5"]


def _detector(kind: str, **options: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **options)
    net: nn.Module = getattr(transformers, f"{kind}ForObjectDetection")(config)
    return net


def _resnet50(*stages: str) -> dict[str, Any]:
    from transformers import ResNetConfig

    backbone = ResNetConfig(out_features=list(stages))
    off = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    return {**off, "backbone_config": backbone, "dropout": 0.0, "auxiliary_loss": True}


def _d_fine() -> nn.Module:
    from transformers import HGNetV2Config

    backbone = HGNetV2Config(
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_numb_of_layers=[3, 3, 3, 3],
        hidden_sizes=[64, 256, 512, 1024],
        depths=[1, 1, 2, 1],
        embedding_size=16,
        use_learnable_affine_block=True,
        out_features=["stage2", "stage3", "stage4"],
    )
    return _detector(
        "DFine",
        backbone_config=backbone,
        encoder_in_channels=[256, 512, 1024],
        decoder_n_points=[3, 6, 3],
        decoder_layers=3,
        depth_mult=0.34,
        hidden_expansion=0.5,
    )


def _rt_detr_v2() -> nn.Module:
    from transformers import RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return _detector(
        "RTDetrV2",
        backbone_config=backbone,
        encoder_in_channels=[128, 256, 512],
        decoder_layers=3,
        hidden_expansion=0.5,
    )


ORIGINALS: Mapping[str, Callable[[], nn.Module]] = {
    "dfine": _d_fine,
    "rtdetr_v2": _rt_detr_v2,
    "detr": lambda: _detector("Detr", **_resnet50("stage4")),
    "deformable_detr": lambda: _detector(
        "DeformableDetr", **_resnet50("stage2", "stage3", "stage4"), with_box_refine=True
    ),
}
RESNET = {
    "type": "resnet",
    "depth": 50,
    "frozen_stages": 4,
    "norm_eval": True,
}  # as in transformers
MODELS: Mapping[str, Mapping[str, Any]] = {
    "dfine": {
        **BYTES,
        "backbone": {"type": "hgnetv2", "name": "b0", "frozen_norm": True},
        "necks": {"encoder": {"type": "hybrid_encoder", "depth": 0.34, "expansion": 0.5}},
        "heads": {"boxes": {"type": "dfine", "layers": 3, "criterion": "transformers"}},
    },
    "rtdetr_v2": {
        **BYTES,
        "backbone": {
            "type": "resnet",
            "depth": 18,
            "stem": "deep",
            "shortcut": "presnet",
            "norm_eval": True,
        },
        "necks": {"encoder": {"type": "hybrid_encoder", "fusion": "csp", "expansion": 0.5}},
        "heads": {"boxes": {"type": "rtdetr_v2", "layers": 3}},
    },
    "detr": {
        "backbone": {**RESNET, "levels": ["C5"]},
        "necks": {"mapper": {"type": "channel_mapper", "inputs": ["C5"], "groups": 0}},
        "heads": {"boxes": {"type": "detr", "dropout": 0.0}},
    },
    "deformable_detr": {
        "backbone": {**RESNET, "levels": LEVELS},
        "necks": {"mapper": {"type": "channel_mapper", "extra": 1, "groups": 32, "bias": True}},
        "heads": {"boxes": {"type": "deformable_detr", "refine": True, "dropout": 0.0}},
    },
}


def config_tree(name: str, size: int) -> dict[str, Any]:
    """A config whose network has the sizes of the original ``name``."""
    canvas = {"kind": "letterbox", "height": size, "width": size}
    return {
        "model": MODELS[name],
        "data": {"train": {"uri": "nowhere"}, "val": {"uri": "nowhere"}, "canvas": canvas},
        "schedule": {"steps": 1},
        "runtime": {"name": name, "storage": "runs"},
    }


def step(model: Any, images: Tensor, boxes: Tensor) -> None:
    """A training step of an original without the optimizer; boxes (B, M, 4) xyxy pixels."""
    model.train()
    size = images.shape[-1]
    labels = []
    for row, each in enumerate(boxes):
        centred = torch.cat([(each[:, :2] + each[:, 2:]) / 2, each[:, 2:] - each[:, :2]], 1) / size
        classes = torch.arange(len(each)) + len(each) * row
        labels.append({"class_labels": classes, "boxes": centred})
    model(images, labels=labels).loss.backward()
    model.zero_grad()
