"""Finds the backbone of timm for a set of tensors, by their shapes."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
from torch import Tensor

from mtl_ray.weights.targets import features_of

_RESNETS = (
    *(
        "resnet50",
        "resnet18",
        "resnet34",
        "resnet101",
        "resnet152",
        "resnet50c",
        "resnet101c",
        "resnet152c",
    ),
    *(
        "resnet18d",
        "resnet34d",
        "resnet50d",
        "resnet101d",
        "resnet152d",
        "resnext50_32x4d",
        "resnext101_32x4d",
        "resnext101_32x8d",
    ),
    *(
        "resnext101_64x4d",
        "wide_resnet50_2",
        "wide_resnet101_2",
        "resnet26",
        "seresnet50",
        "seresnext50_32x4d",
        "seresnext101_32x4d",
    ),
)
_VIT_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}


@dataclass(frozen=True, slots=True)
class TimmModel:
    """A model of timm with the ``name`` and ``options`` of ``model.backbone``.

    ``features`` are the shapes of its backbone by name.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def open_model(name: str, options: Mapping[str, Any] | None = None) -> TimmModel:
    """A model of timm with the shapes of its backbone.

    Raises:
        ValueError: if timm cannot build a backbone from it.
    """
    made = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in (options or {}).items()
    }
    shapes = {
        key: tuple(value.shape) for key, value in features_of(name, made).state_dict().items()
    }
    return TimmModel(name, dict(options or {}), shapes)


def infer(tensors: Mapping[str, Tensor]) -> TimmModel | None:
    """The first model of timm whose backbone has these tensors (under the names of timm's whole
    model); None if there is none.
    """
    for name, options in _candidates(tensors):
        try:
            model = open_model(name, options)
        except ValueError:
            continue
        if all(fits(tensors, key, shape) for key, shape in model.features.items()):
            return model
    return None


def fits(tensors: Mapping[str, Tensor], feature: str, shape: tuple[int, ...]) -> bool:
    """True if there is a tensor of that shape for an entry of a backbone.

    ``num_batches_tracked`` may be missing.
    """
    name = whole_name(tensors, feature)
    return (
        name.endswith("num_batches_tracked")
        if name not in tensors
        else tuple(tensors[name].shape) == shape
    )


def whole_name(tensors: Mapping[str, Tensor], feature: str) -> str:
    """The name in the whole model of an entry of its backbone. timm renames ``layers.0`` to
    ``layers_0``, and adds a prefix to a ViT.
    """
    named = (
        feature,
        feature.removeprefix("model."),
        re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", feature),
    )
    return next(
        (name for name in named if name in tensors),
        named[-1] if "_" in feature.partition(".")[0] else named[1],
    )


def _candidates(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    if "layer1.0.conv1.weight" in tensors:
        yield from ((name, {}) for name in _resnets(tensors))
    elif "s1.b1.conv1.conv.weight" in tensors:
        squeezed = any(".se." in name for name in tensors)
        yield from (
            (name, {}) for name in timm.list_models("regnety_*" if squeezed else "regnetx_*")
        )
    elif "layers.0.blocks.0.attn.qkv.weight" in tensors:
        yield from _swins(tensors)
    elif "stages.0.blocks.0.mlp.dwconv.weight" in tensors:
        yield "pvt_v2_b0", _mit(tensors)
    elif "conv_stem.weight" in tensors:
        squeezed = any(".se." in name for name in tensors)
        yield from (
            (name, {})
            for name in timm.list_models(
                "tf_efficientnet_b?" if squeezed else "tf_efficientnet_lite?"
            )
        )
    elif "blocks.0.attn.qkv.weight" in tensors and "pos_embed" in tensors:
        yield from _vits(tensors)


def _resnets(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """The ResNets with the right number of blocks in the third stage."""
    depth = _count(tensors, r"layer3\.(\d+)\.")
    for name in _RESNETS:
        number = int(re.findall(r"\d+", name)[0])
        if depth in {18: (2,), 26: (2,), 34: (6,), 50: (6,), 101: (23,), 152: (36,)}[number]:
            yield name


def _swins(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    stages = range(_count(tensors, r"layers\.(\d+)\."))
    tables = [tensors.get(f"layers.{i}.blocks.0.attn.relative_position_bias_table") for i in stages]
    if any(table is None for table in tables):
        return  # Swin v2 has no tables
    window = (math.isqrt(tables[0].shape[0]) + 1) // 2 if tables[0] is not None else 7
    width = tensors["patch_embed.proj.weight"].shape[0]
    depths = [_count(tensors, rf"layers\.{i}\.blocks\.(\d+)\.") for i in stages]
    size = {(96, 6): "tiny", (96, 18): "small", (128, 18): "base", (192, 18): "large"}.get(
        (width, max(depths))
    )
    yield f"swin_{size}_patch4_window{window}_{window * 32}", {"strict_img_size": False}
    heads = [table.shape[1] for table in tables if table is not None]
    options = {
        "embed_dim": width,
        "depths": depths,
        "num_heads": heads,
        "window_size": window,
        "img_size": window * 32,
    }
    yield "swin_tiny_patch4_window7_224", {**options, "strict_img_size": False}


def _mit(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """MiT (Xie et al. 2021, SegFormer) is PVT v2 (Wang et al. 2022) with other widths.

    Heads have 32 or 64 channels, and the first stage has one head.
    """
    stages = range(_count(tensors, r"stages\.(\d+)\."))
    first = [f"stages.{i}.blocks.0." for i in stages]
    widths = [tensors[name + "attn.q.weight"].shape[0] for name in first]
    reduced = [tensors.get(name + "attn.sr.weight") for name in first]
    return {
        "embed_dims": widths,
        "depths": [_count(tensors, rf"stages\.{i}\.blocks\.(\d+)\.") for i in stages],
        "num_heads": [width // widths[0] for width in widths],
        "sr_ratios": [1 if each is None else each.shape[2] for each in reduced],
        "mlp_ratios": [
            tensors[name + "mlp.fc1.weight"].shape[0] // width
            for name, width in zip(first, widths, strict=True)
        ],
    }


def _vits(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    patch, width = tensors["patch_embed.proj.weight"].shape[2], tensors["pos_embed"].shape[2]
    side = math.isqrt(tensors["pos_embed"].shape[1] - (1 if "cls_token" in tensors else 0)) * patch
    yield f"vit_{_VIT_SIZES.get(width)}_patch{patch}_{side}", {"dynamic_img_size": True}
    yield f"deit_{_VIT_SIZES.get(width)}_distilled_patch{patch}_{side}", {"dynamic_img_size": True}
    options = {
        "embed_dim": width,
        "depth": _count(tensors, r"blocks\.(\d+)\."),
        "num_heads": max(1, width // 64),
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "patch_size": patch,
        "img_size": side,
        "class_token": "cls_token" in tensors,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "dynamic_img_size": True,
    }
    yield "vit_base_patch16_224", options


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many different values the first group of a pattern has in the names."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})
