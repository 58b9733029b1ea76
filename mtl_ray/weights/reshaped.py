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


PREPARED: Mapping[str, Callable[[Mapping[str, Tensor]], Tensors]] = {
    r"stages\.0\.blocks\.0\.attn\.w_msa\.qkv\.weight": swin_of_openmmlab,
    r"layers\.0\.1\.0\.attn\.attn\.in_proj_weight": mit_of_openmmlab,
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
