"""Convolutions on maps seen from above: the stages of SECOND's backbone and its neck.

Parameters have the names of MMDetection3D's ``SECOND`` and ``SECONDFPN``.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mtl_ray.models.head import Features
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.models.lidar_config import SecfpnNeck
from mtl_ray.models.trunk import Neck

EPSILON, MOMENTUM = 1e-3, 0.01
"""Of the batch normalisations of SECOND."""


def make_stages(
    inputs: int, layers: Sequence[int], strides: Sequence[int], channels: Sequence[int]
) -> nn.ModuleList:
    """The stages of a backbone: a strided 3x3 convolution, then ``layers`` of stride 1, each with
    batch normalisation and ReLU.
    """
    stages = nn.ModuleList()
    for count, stride, width in zip(layers, strides, channels, strict=True):
        modules: list[nn.Module] = []
        for index in range(count + 1):
            modules += [
                nn.Conv2d(inputs, width, 3, 1 if index else stride, padding=1, bias=False),
                nn.BatchNorm2d(width, EPSILON, MOMENTUM),
                nn.ReLU(inplace=True),
            ]
            inputs = width
        stages.append(nn.Sequential(*modules))
    initialise(stages)
    return stages


def run_stages(stages: nn.ModuleList, canvas: Tensor) -> dict[str, Tensor]:
    """(B, C, ny, nx) -> B1, B2, ...: the output of each stage."""
    features: dict[str, Tensor] = {}
    for index, stage in enumerate(stages):
        canvas = stage(canvas)
        features[f"B{index + 1}"] = canvas
    return features


def stage_strides(first: int, strides: Sequence[int]) -> dict[str, int]:
    """Cells of the grid per cell of each stage; ``first`` of what the first one reads."""
    found: dict[str, int] = {}
    for index, stride in enumerate(strides):
        first *= stride
        found[f"B{index + 1}"] = first
    return found


def initialise(module: nn.Module) -> None:
    """He et al. 2015, as published: the variance of the gradients is kept."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(each.weight, mode="fan_out", nonlinearity="relu")


class SecFpn(Neck):
    """Maps of a backbone at one size, joined along their channels (Yan et al. 2018, figure 3).

    Args:
        config: the neck.
        channels, strides: of the features so far, by name.

    Raises:
        ValueError: if the maps do not get one size.
    """

    def __init__(
        self, config: SecfpnNeck, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.inputs = config.inputs
        self.name = f"{config.prefix}BEV"
        reached = {
            level: strides[level] / factor
            for level, factor in zip(config.inputs, config.upsample, strict=True)
        }
        if len({round(stride, 3) for stride in reached.values()}) > 1:
            said = ", ".join(f"{level} {stride:g}" for level, stride in reached.items())
            raise ValueError(
                f"joins maps of different strides ({said}). Fix: upsample, so that all are equal"
            )
        self.channels = {self.name: sum(config.channels)}
        self.strides = {self.name: round(reached[config.inputs[0]])}
        self.deblocks = nn.ModuleList(
            nn.Sequential(
                resizing_convolution(
                    channels[level], width, factor, plain_equal=config.plain_equal
                ),
                nn.BatchNorm2d(width, EPSILON, MOMENTUM),
                nn.ReLU(inplace=True),
            )
            for level, factor, width in zip(
                config.inputs, config.upsample, config.channels, strict=True
            )
        )
        initialise(self.deblocks)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Maps (B, C, h, w) -> BEV (B, channels, H, W)."""
        maps = [
            cast(Tensor, block(features[level]))
            for block, level in zip(self.deblocks, self.inputs, strict=True)
        ]
        return {self.name: torch.cat(maps, dim=1)}

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``."""
        if program != "openmmlab":
            return {}
        return renamed(tensors, [Rename(r"(?:pts_)?neck\.(.*)", r"\1")])


def resizing_convolution(
    inputs: int, outputs: int, factor: float, *, plain_equal: bool
) -> nn.Module:
    """A convolution that enlarges a map ``factor`` times, kernel and stride being equal."""
    if factor > 1 or (factor == 1 and not plain_equal):
        size = round(factor)
        return nn.ConvTranspose2d(inputs, outputs, size, size, bias=False)
    size = round(1 / factor)
    return nn.Conv2d(inputs, outputs, size, size, bias=False)
