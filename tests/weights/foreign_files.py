"""Weights as other programs name them, made of a network whose answer is known."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random numbers everywhere, in the statistics of its normalisations too."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if value.dtype.is_floating_point:
            low, high = (0.5, 1.5) if "running_var" in name or (value.ndim == 1 and name.endswith("weight")) else (-0.1, 0.1)
            value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return net.eval()


def renamed(state: Mapping[str, Tensor], *rules: tuple[str, str]) -> Tensors:
    """Each name changed by every rule, in turn."""
    found = {}
    for name, value in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        found[name] = value.clone()
    return found


def caffe2(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A torchvision ResNet as the blobs of Detectron, whose normalisation has only a factor and a shift."""
    blobs = {}
    kinds = {"weight": "s", "bias": "b"}
    for name, value in state.items():
        if match := re.fullmatch(r"conv1\.weight", name):
            blobs["conv1_w"] = value.numpy()
        elif match := re.fullmatch(r"bn1\.(weight|bias)", name):
            blobs[f"res_conv1_bn_{kinds[match[1]]}"] = value.numpy()
        elif match := re.fullmatch(r"layer(\d)\.(\d+)\.conv(\d)\.weight", name):
            blobs[f"res{int(match[1]) + 1}_{match[2]}_branch2{' abc'[int(match[3])]}_w"] = value.numpy()
        elif match := re.fullmatch(r"layer(\d)\.(\d+)\.bn(\d)\.(weight|bias)", name):
            blobs[f"res{int(match[1]) + 1}_{match[2]}_branch2{' abc'[int(match[3])]}_bn_{kinds[match[4]]}"] = value.numpy()
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
    """timm's Swin as OpenMMLab names it; patch merging joins neighbours in the order of ``nn.Unfold``."""
    found = {}
    for name, value in state.items():
        if match := re.fullmatch(r"layers\.(\d)\.downsample\.(norm|reduction)\.(\w+)", name):
            order = [0, 2, 1, 3]
            if match[2] == "reduction":
                outputs, inputs = value.shape
                value = value.reshape(outputs, 4, inputs // 4)[:, order].transpose(1, 2).reshape(outputs, inputs)
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
