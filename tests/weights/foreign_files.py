"""Weights under the names of other programs, made from a network whose output is known."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random numbers in all tensors, including the statistics of its
    normalisations.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if value.dtype.is_floating_point:
            low, high = (
                (0.5, 1.5)
                if "running_var" in name or (value.ndim == 1 and name.endswith("weight"))
                else (-0.1, 0.1)
            )
            value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return net.eval()


def renamed(state: Mapping[str, Tensor], *rules: tuple[str, str]) -> Tensors:
    """Renames the tensors by all rules, in order."""
    found = {}
    for name, value in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        found[name] = value.clone()
    return found


def caffe2(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A torchvision ResNet as the blobs of Detectron, whose normalisation has only a scale and a
    shift.
    """
    blobs = {}
    kinds = {"weight": "s", "bias": "b"}
    for name, value in state.items():
        if match := re.fullmatch(r"conv1\.weight", name):
            blobs["conv1_w"] = value.numpy()
        elif match := re.fullmatch(r"bn1\.(weight|bias)", name):
            blobs[f"res_conv1_bn_{kinds[match[1]]}"] = value.numpy()
        elif match := re.fullmatch(r"layer(\d)\.(\d+)\.conv(\d)\.weight", name):
            blobs[f"res{int(match[1]) + 1}_{match[2]}_branch2{' abc'[int(match[3])]}_w"] = (
                value.numpy()
            )
        elif match := re.fullmatch(r"layer(\d)\.(\d+)\.bn(\d)\.(weight|bias)", name):
            blobs[
                f"res{int(match[1]) + 1}_{match[2]}_branch2{' abc'[int(match[3])]}_bn_{kinds[match[4]]}"  # noqa: E501
            ] = value.numpy()
        elif match := re.fullmatch(r"layer(\d)\.0\.downsample\.0\.weight", name):
            blobs[f"res{int(match[1]) + 1}_0_branch1_w"] = value.numpy()
        elif match := re.fullmatch(r"layer(\d)\.0\.downsample\.1\.(weight|bias)", name):
            blobs[f"res{int(match[1]) + 1}_0_branch1_bn_{kinds[match[2]]}"] = value.numpy()
    return blobs


def pycls(state: Mapping[str, Tensor]) -> Tensors:
    """timm's RegNet as pycls names it."""
    return renamed(
        state,
        (r"\.downsample\.conv\.", ".proj."),
        (r"\.downsample\.bn\.", ".bn."),
        *((rf"\.conv{i}\.conv\.", f".f.{letter}.") for i, letter in enumerate("abc", 1)),
        *((rf"\.conv{i}\.bn\.", f".f.{letter}_bn.") for i, letter in enumerate("abc", 1)),
        (r"\.se\.fc1\.", ".f.se.f_ex.0."),
        (r"\.se\.fc2\.", ".f.se.f_ex.2."),
    )


def mm_regnet(state: Mapping[str, Tensor]) -> Tensors:
    """timm's RegNet as OpenMMLab names it, blocks counted from 0."""
    found = {}
    for name, value in state.items():
        name = re.sub(r"^s(\d)\.b(\d+)", lambda m: f"layer{m[1]}.{int(m[2]) - 1}", name)
        for pattern, new in (
            (r"^stem\.conv\.", "conv1."),
            (r"^stem\.bn\.", "bn1."),
            (r"downsample\.conv\.", "downsample.0."),
            (r"downsample\.bn\.", "downsample.1."),
            (r"(conv\d)\.conv\.", r"\1."),
            (r"conv(\d)\.bn\.", r"bn\1."),
        ):
            name = re.sub(pattern, new, name)
        found["backbone." + name] = value.clone()
    return found


def mm_swin(state: Mapping[str, Tensor]) -> Tensors:
    """timm's Swin as OpenMMLab names it.

    Patch merging joins neighbours in the order of ``nn.Unfold``.
    """
    found = {}
    for name, value in state.items():
        if match := re.fullmatch(r"layers\.(\d)\.downsample\.(norm|reduction)\.(\w+)", name):
            order = [0, 2, 1, 3]
            if match[2] == "reduction":
                outputs, inputs = value.shape
                value = (
                    value.reshape(outputs, 4, inputs // 4)[:, order]
                    .transpose(1, 2)
                    .reshape(outputs, inputs)
                )
            else:
                value = value.reshape(4, -1)[order].T.reshape(-1)
            name = f"stages.{int(match[1]) - 1}.downsample.{match[2]}.{match[3]}"
        for pattern, new in (
            (r"^layers\.", "stages."),
            (r"patch_embed\.proj", "patch_embed.projection"),
            (r"\.attn\.", ".attn.w_msa."),
            (r"mlp\.fc1", "ffn.layers.0.0"),
            (r"mlp\.fc2", "ffn.layers.1"),
        ):
            name = re.sub(pattern, new, name)
        found["backbone." + name] = value.clone()
    return found


def detectron2(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A torchvision ResNet as Detectron2 names it."""
    rules = (
        (r"^conv1\.", "stem.conv1."),
        (r"^bn1\.", "stem.conv1.norm."),
        *((rf"^layer{i}\.", f"res{i + 1}.") for i in range(1, 5)),
        (r"\.bn(\d)\.", r".conv\1.norm."),
        (r"downsample\.0", "shortcut"),
        (r"downsample\.1", "shortcut.norm"),
        (r"^fc\.", "stem.fc."),
    )
    return {name: value.numpy() for name, value in renamed(state, *rules).items()}


def lukemelas(state: Mapping[str, Tensor]) -> Tensors:
    """timm's EfficientNet as efficientnet_pytorch names it: all blocks in one row."""
    blocks = list(
        dict.fromkeys(
            match[1] for name in state if (match := re.match(r"blocks\.(\d+\.\d+)\.", name))
        )
    )
    expanded = {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    }
    separable = {
        "conv_dw": "_depthwise_conv",
        "bn1": "_bn1",
        "conv_pw": "_project_conv",
        "bn2": "_bn2",
    }
    outside = {
        "conv_stem": "_conv_stem",
        "bn1": "_bn0",
        "conv_head": "_conv_head",
        "bn2": "_bn1",
        "classifier": "_fc",
    }
    found = {}
    for name, value in state.items():
        if match := re.fullmatch(r"blocks\.(\d+\.\d+)\.([\w.]+)\.(\w+)", name):
            parts = expanded if f"blocks.{match[1]}.conv_pwl.weight" in state else separable
            part = (
                match[2].replace("se.conv_", "_se_")
                if match[2].startswith("se.")
                else parts[match[2]]
            )
            name = f"_blocks.{blocks.index(match[1])}.{part}.{match[3]}"
        else:
            part, _, leaf = name.partition(".")
            name = f"{outside[part]}.{leaf}"
        found[name] = value.clone()
    return found


def swin(state: Mapping[str, Tensor]) -> Tensors:
    """timm's Swin as its authors name it: patch merging belongs to the stage before it."""
    downsample = ((rf"^layers\.{i}\.downsample", f"layers.{i - 1}.downsample") for i in range(1, 4))
    return renamed(state, *downsample, (r"^head\.fc\.", "head."))


def mit(state: Mapping[str, Tensor]) -> Tensors:
    """timm's PVT v2 as the authors of MiT name it."""
    rules = [(r"^patch_embed\.", "patch_embed1."), (r"mlp\.dwconv\.", "mlp.dwconv.dwconv.")]
    rules += [(rf"^stages\.{i}\.downsample\.", f"patch_embed{i + 1}.") for i in range(4)]
    rules += [(rf"^stages\.{i}\.blocks\.", f"block{i + 1}.") for i in range(4)] + [
        (rf"^stages\.{i}\.norm", f"norm{i + 1}") for i in range(4)
    ]
    return renamed(state, *rules)


def jax_vit(state: Tensors, heads: int) -> dict[str, np.ndarray]:
    """timm's ViT as the arrays of its authors' program."""
    found = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    for i in range(12):
        block, old = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        for j, number in ((1, 0), (2, 2)):
            found |= {
                f"{block}LayerNorm_{number}/{a}": state[f"{old}norm{j}.{b}"]
                for a, b in (("scale", "weight"), ("bias", "bias"))
            }
        attention = f"{block}MultiHeadDotProductAttention_1/"
        for j, part in enumerate(("query", "key", "value")):
            weight, bias = (
                state[f"{old}attn.qkv.weight"].chunk(3)[j],
                state[f"{old}attn.qkv.bias"].chunk(3)[j],
            )
            found |= {
                f"{attention}{part}/kernel": weight.T.unflatten(1, (heads, -1)),
                f"{attention}{part}/bias": bias.unflatten(0, (heads, -1)),
            }
        found[f"{attention}out/kernel"] = state[f"{old}attn.proj.weight"].T.unflatten(
            0, (heads, -1)
        )
        found[f"{attention}out/bias"] = state[f"{old}attn.proj.bias"]
        for j in range(2):
            found[f"{block}MlpBlock_3/Dense_{j}/kernel"] = state[f"{old}mlp.fc{j + 1}.weight"].T
            found[f"{block}MlpBlock_3/Dense_{j}/bias"] = state[f"{old}mlp.fc{j + 1}.bias"]
    return {name: value.numpy() for name, value in found.items()}
