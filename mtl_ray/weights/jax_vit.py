"""Vision transformers of the authors' JAX program (Dosovitskiy et al. 2021), from ``.npz`` files, under timm's names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

TELLS = "Transformer/encoder_norm/scale"
"""A name that such a file has."""

_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(\w+)/(.+)")
_NORMS = {"LayerNorm_0": "norm1", "LayerNorm_1": "norm2", "LayerNorm_2": "norm2"}
_LEAVES = {"scale": "weight", "kernel": "weight", "bias": "bias"}


def vit_of_jax(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as timm has them: kernels turned round, query, key and value in one.

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
    """What is in no block."""
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


def _inside(tensors: Mapping[str, Tensor], name: str, block: str, layer: str, leaf: str, value: Tensor) -> dict[str, Tensor]:
    """What a tensor of a block becomes; nothing for key and value, which go with the query."""
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
    joined = [tensors[each].flatten(1).T if kind == "kernel" else tensors[each].flatten() for each in parts]
    return {f"{block}attn.qkv.{new}": torch.cat(joined)}
