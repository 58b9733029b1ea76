"""Tensors that other programs keep in another form, not only under another name."""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mtl_ray.weights.jax_vit import TELLS, vit_of_jax

Tensors = dict[str, Tensor]


def swin_of_openmmlab(tensors: Mapping[str, Tensor]) -> Tensors:
    """OpenMMLab's Swin joins the four neighbours of patch merging in the order of ``nn.Unfold``: channel by channel, row by row.

    The original joins them neighbour by neighbour: above left, below left, above right, below right.
    """
    order = [0, 2, 1, 3]

    def change(name: str, value: Tensor) -> Tensor:
        if re.fullmatch(r"stages\.\d+\.downsample\.reduction\.weight", name):
            outputs, inputs = value.shape
            return value.reshape(outputs, inputs // 4, 4).transpose(1, 2)[:, order].reshape(outputs, inputs)
        if re.fullmatch(r"stages\.\d+\.downsample\.norm\.\w+", name):
            return value.reshape(-1, 4).T[order].reshape(-1)
        return value

    return {name: change(name, value) for name, value in tensors.items()}


def mit_of_openmmlab(tensors: Mapping[str, Tensor]) -> Tensors:
    """OpenMMLab's MiT has its projections in one ``in_proj`` and its linear layers as 1x1 convolutions."""
    found: Tensors = {}
    for name, value in tensors.items():
        if match := re.fullmatch(r"(layers\.\d\.1\.\d+\.attn)\.attn\.in_proj_(weight|bias)", name):
            query, key_value = value[: value.shape[0] // 3], value[value.shape[0] // 3 :]
            found |= {f"{match[1]}.q.{match[2]}": query, f"{match[1]}.kv.{match[2]}": key_value}
        elif match := re.fullmatch(r"(layers\.\d\.1\.\d+\.attn)\.attn\.out_proj\.(weight|bias)", name):
            found[f"{match[1]}.proj.{match[2]}"] = value
        elif re.fullmatch(r"layers\.\d\.1\.\d+\.ffn\.layers\.[04]\.weight", name):
            found[name] = value.flatten(1)
        else:
            found[name] = value
    return found


def resnet_of_detectron(blobs: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
    """A ResNet of Detectron (Caffe2) under the names of torchvision, and the blobs that are none of it.

    Its normalisation is a factor and a shift: a batch normalisation with mean 0 and variance 1. ResNets of any depth.
    """
    found: Tensors = {}
    left: Tensors = {}
    for name, value in blobs.items():
        place = _place_of_blob(name)
        if place is None:
            left[name] = value
        elif isinstance(place, str):
            found[place] = value
        else:
            layer, part = place
            found[f"{layer}.{part}"] = value
            found[f"{layer}.running_mean"], found[f"{layer}.running_var"] = torch.zeros_like(value), torch.ones_like(value)
    return found, left


def _place_of_blob(name: str) -> str | tuple[str, str] | None:
    """The name of a convolution's tensor, or the layer and part of a normalisation."""
    kinds = {"w": "weight", "b": "bias", "s": "weight"}
    if match := re.fullmatch(r"conv1_([wb])", name):
        return f"conv1.{kinds[match[1]]}"
    if match := re.fullmatch(r"(?:res_)?conv1_bn_([sb])", name):
        return "bn1", kinds[match[1]]
    if match := re.fullmatch(r"res([2-5])_(\d+)_branch(1|2[abc])(_bn)?_([wbs])", name):
        stage, block, branch, norm, kind = match.groups()
        place = f"layer{int(stage) - 1}.{block}."
        if branch == "1":
            place += "downsample." + ("1" if norm else "0")
        else:
            place += ("bn" if norm else "conv") + str("abc".index(branch[1]) + 1)
        return (place, kinds[kind]) if norm else f"{place}.{kinds[kind]}"
    return None


def efficientnet_of_lukemelas(tensors: Mapping[str, Tensor]) -> Tensors:
    """efficientnet_pytorch counts all blocks of an EfficientNet in one row; in timm each stage begins anew.

    A stage is as wide as its last convolutions, and each stage has another width. The first stage's blocks have no expansion.
    """
    widths = {
        int(m[1]): value.shape[0] for name, value in tensors.items() if (m := re.fullmatch(r"_blocks\.(\d+)\._project_conv\.weight", name))
    }
    places: dict[int, tuple[int, int]] = {}
    for number in sorted(widths):
        stage, block = places.get(number - 1, (-1, 0))
        places[number] = (stage, block + 1) if widths[number] == widths.get(number - 1) else (stage + 1, 0)
    found: Tensors = {}
    for name, value in tensors.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            expanded = f"_blocks.{match[1]}._expand_conv.weight" in tensors
            parts = _MBCONV if expanded else _SEPARABLE
            stage, block = places.get(int(match[1]), (0, 0))
            name = f"blocks.{stage}.{block}.{parts.get(match[2], match[2])}.{match[3]}"
        found[name] = value
    return found


_MBCONV = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {**_MBCONV, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}

PREPARED: Mapping[str, Callable[[Mapping[str, Tensor]], Tensors]] = {
    r"stages\.0\.blocks\.0\.attn\.w_msa\.qkv\.weight": swin_of_openmmlab,
    r"layers\.0\.1\.0\.attn\.attn\.in_proj_weight": mit_of_openmmlab,
    r"_conv_stem\.weight": efficientnet_of_lukemelas,
    re.escape(TELLS): vit_of_jax,
}
"""What is done before names are translated, by the name that tells the form."""


def prepare(tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors in the form that timm has them in, under the names that they had."""
    for has, change in PREPARED.items():
        if any(re.fullmatch(has, name) for name in tensors):
            return change(tensors)
    return dict(tensors)


def red_first(stem: Tensor) -> Tensor:
    """The first convolution (C, 3, h, w) of a network that was trained on BGR, for RGB."""
    if stem.shape[1] != 3:
        raise ValueError(f"a first convolution of shape {tuple(stem.shape)} does not read three colours")
    return stem.flip(1)
