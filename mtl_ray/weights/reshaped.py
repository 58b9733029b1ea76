"""Converts tensors that other programs store in another layout, not only under another name."""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def swin_of_openmmlab(tensors: Mapping[str, Tensor]) -> Tensors:
    """Reorders patch merging of OpenMMLab's Swin, which concatenates the four neighbours like
    ``nn.Unfold``: channel by channel.

    The original concatenates them neighbour by neighbour: top left, bottom left, top right, bottom
    right.
    """
    order = [0, 2, 1, 3]

    def change(name: str, value: Tensor) -> Tensor:
        if re.fullmatch(r"stages\.\d+\.downsample\.reduction\.weight", name):
            outputs, inputs = value.shape
            return (
                value.reshape(outputs, inputs // 4, 4)
                .transpose(1, 2)[:, order]
                .reshape(outputs, inputs)
            )
        if re.fullmatch(r"stages\.\d+\.downsample\.norm\.\w+", name):
            return value.reshape(-1, 4).T[order].reshape(-1)
        return value

    return {name: change(name, value) for name, value in tensors.items()}


def mit_of_openmmlab(tensors: Mapping[str, Tensor]) -> Tensors:
    """Splits the ``in_proj`` of OpenMMLab's MiT, and turns its 1x1 convolutions into linear
    layers.
    """
    found: Tensors = {}
    for name, value in tensors.items():
        if match := re.fullmatch(r"(layers\.\d\.1\.\d+\.attn)\.attn\.in_proj_(weight|bias)", name):
            query, key_value = value[: value.shape[0] // 3], value[value.shape[0] // 3 :]
            found |= {f"{match[1]}.q.{match[2]}": query, f"{match[1]}.kv.{match[2]}": key_value}
        elif match := re.fullmatch(
            r"(layers\.\d\.1\.\d+\.attn)\.attn\.out_proj\.(weight|bias)", name
        ):
            found[f"{match[1]}.proj.{match[2]}"] = value
        elif re.fullmatch(r"layers\.\d\.1\.\d+\.ffn\.layers\.[04]\.weight", name):
            found[name] = value.flatten(1)
        else:
            found[name] = value
    return found


def resnet_of_detectron(blobs: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
    """A ResNet of Detectron (Caffe2), of any depth, under the names of torchvision, and the other
    blobs.

    Its normalisation is a scale and a shift: a batch normalisation with mean 0 and variance 1.
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
            found[f"{layer}.running_mean"], found[f"{layer}.running_var"] = (
                torch.zeros_like(value),
                torch.ones_like(value),
            )
    return found, left


def _place_of_blob(name: str) -> str | tuple[str, str] | None:
    """The name for a tensor of a convolution, or the layer and the parameter of a normalisation."""
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
    """Renumbers the blocks of efficientnet_pytorch, which counts them through.

    Timm counts them in each stage. The width of the last convolution is the same in all blocks of a
    stage, and differs between stages. The blocks of the first stage have no expansion.
    """
    widths = {
        int(m[1]): value.shape[0]
        for name, value in tensors.items()
        if (m := re.fullmatch(r"_blocks\.(\d+)\._project_conv\.weight", name))
    }
    places: dict[int, tuple[int, int]] = {}
    for number in sorted(widths):
        stage, block = places.get(number - 1, (-1, 0))
        places[number] = (
            (stage, block + 1) if widths[number] == widths.get(number - 1) else (stage + 1, 0)
        )
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

JAX_NAME = "Transformer/encoder_norm/scale"
"""A name that identifies a file of the JAX program."""

_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(\w+)/(.+)")
_NORMS = {"LayerNorm_0": "norm1", "LayerNorm_1": "norm2", "LayerNorm_2": "norm2"}
_LEAVES = {"scale": "weight", "kernel": "weight", "bias": "bias"}


def vit_of_jax(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Vision transformers of the authors' JAX program (Dosovitskiy et al. 2021, ``.npz``) under
    timm's names.

    Kernels are transposed; query, key and value are joined.

    Raises:
        ValueError: if a part of an attention is missing.
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        plain = _outside(name, value)
        if plain is not None:
            found[plain[0]] = plain[1]
        elif match := _BLOCK.fullmatch(name):
            found |= _inside(tensors, name, f"blocks.{match[1]}.", match[2], match[3], value)
        else:
            found[name] = value
    return found


def _outside(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    """Name and value of a tensor outside the blocks; None for a tensor of a block."""
    if name == "embedding/kernel":
        return "patch_embed.proj.weight", value.permute(3, 2, 0, 1)
    if name == "head/kernel":
        return "head.weight", value.T
    names = {
        "cls": "cls_token",
        "embedding/bias": "patch_embed.proj.bias",
        "Transformer/posembed_input/pos_embedding": "pos_embed",
        "Transformer/encoder_norm/scale": "norm.weight",
        "Transformer/encoder_norm/bias": "norm.bias",
        "head/bias": "head.bias",
    }
    return (names[name], value) if name in names else None


def _inside(
    tensors: Mapping[str, Tensor], name: str, block: str, layer: str, leaf: str, value: Tensor
) -> dict[str, Tensor]:
    """The converted tensor of a block; empty for key and value, which are joined with the query."""
    part, _, kind = leaf.rpartition("/")
    new = _LEAVES.get(kind, kind)
    if layer in _NORMS:
        return {f"{block}{_NORMS[layer]}.{new}": value}
    if layer.startswith("MlpBlock"):
        return {f"{block}mlp.fc{int(part[-1]) + 1}.{new}": value.T if kind == "kernel" else value}
    if part == "out":
        return {f"{block}attn.proj.{new}": value.flatten(0, 1).T if kind == "kernel" else value}
    if part != "query":
        return {}
    parts = [name.replace("/query/", f"/{each}/") for each in ("query", "key", "value")]
    if missing := [each for each in parts if each not in tensors]:
        raise ValueError(f"{missing[0]} is missing")
    joined = [
        tensors[each].flatten(1).T if kind == "kernel" else tensors[each].flatten()
        for each in parts
    ]
    return {f"{block}attn.qkv.{new}": torch.cat(joined)}


CHANGES: Mapping[str, Callable[[Mapping[str, Tensor]], Tensors]] = {
    r"stages\.0\.blocks\.0\.attn\.w_msa\.qkv\.weight": swin_of_openmmlab,
    r"layers\.0\.1\.0\.attn\.attn\.in_proj_weight": mit_of_openmmlab,
    r"_conv_stem\.weight": efficientnet_of_lukemelas,
    re.escape(JAX_NAME): vit_of_jax,
}
"""Conversions before the names are translated, by a pattern of a name that identifies the
layout."""


def prepare(tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors in the layout of timm, under names that the rules of a family know."""
    for has, change in CHANGES.items():
        if any(re.fullmatch(has, name) for name in tensors):
            return change(tensors)
    return dict(tensors)


def red_first(stem: Tensor) -> Tensor:
    """Converts the first convolution (C, 3, h, w) from BGR to RGB."""
    if stem.shape[1] != 3:
        raise ValueError(
            f"a first convolution of shape {tuple(stem.shape)} does not have three input channels"
        )
    return stem.flip(1)
