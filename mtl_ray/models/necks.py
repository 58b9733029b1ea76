"""Necks on a backbone: feature pyramids and pooling. Each neck adds features to those it gets."""

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.config import FpnNeck, PafpnNeck, PoolNeck
from mtl_ray.models.trunk import Neck


def conv_norm_act(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, norm: bool = True, act: bool = True
) -> nn.Sequential:
    """A convolution (B, inputs, H, W) -> (B, outputs, H / stride, W / stride), batch normalisation
    and ReLU.

    ``norm`` and ``act`` switch the last two off. ``nn.SyncBatchNorm.convert_sync_batchnorm``
    converts the normalisation.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not norm)
    ]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    if act:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Fpn(Neck):
    """Feature pyramid network (Lin et al. 2017, https://arxiv.org/abs/1612.03144).

    Args:
        config: inputs from fine to coarse, width, number of further levels.
        channels: channels of each input feature.
        strides: stride of each input feature.
    """

    def __init__(
        self, config: FpnNeck | PafpnNeck, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> None:
        super().__init__()
        _refuse_pooled(config.inputs, strides)
        self.inputs = config.inputs
        width = config.channels
        self.lateral = nn.ModuleList(
            conv_norm_act(channels[name], width, 1, norm=config.norm, act=False)
            for name in self.inputs
        )
        self.smooth = nn.ModuleList(
            conv_norm_act(width, width, 3, norm=config.norm, act=False) for _ in self.inputs
        )
        self.further = nn.ModuleList(
            conv_norm_act(width, width, 3, 2, norm=config.norm, act=False)
            for _ in range(config.extra)
        )
        self.names = _pyramid_names(config)
        self.channels = dict.fromkeys(self.names, width)
        self.strides = _strides(self.inputs, strides, self.names)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(B, C_i, H_i, W_i) by name -> (B, channels, H_i, W_i) by the names in ``names``."""
        maps = self.top_down(features)
        for further in self.further:
            maps.append(further(maps[-1]))
        return dict(zip(self.names, maps, strict=True))

    def top_down(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The pyramid without the further levels, from fine to coarse."""
        maps = [
            lateral(features[name]) for lateral, name in zip(self.lateral, self.inputs, strict=True)
        ]  # (B, channels, H_i, W_i) each
        for i in range(len(maps) - 2, -1, -1):
            maps[i] = maps[i] + F.interpolate(maps[i + 1], size=maps[i].shape[-2:], mode="nearest")
        return [smooth(level) for smooth, level in zip(self.smooth, maps, strict=True)]


class Pafpn(Fpn):
    """Path aggregation network (Liu et al. 2018, https://arxiv.org/abs/1803.01534): a bottom-up
    pathway on an FPN.
    """

    def __init__(
        self, config: PafpnNeck, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> None:
        super().__init__(config, channels, strides)
        width, steps = config.channels, len(config.inputs) - 1
        self.down = nn.ModuleList(
            conv_norm_act(width, width, 3, 2, norm=config.norm, act=False) for _ in range(steps)
        )
        self.merge = nn.ModuleList(
            conv_norm_act(width, width, 3, norm=config.norm, act=False) for _ in range(steps)
        )

    def top_down(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The pyramid after the bottom-up pathway."""
        maps = super().top_down(features)
        for i, (down, merge) in enumerate(zip(self.down, self.merge, strict=True)):
            maps[i + 1] = merge(maps[i + 1] + down(maps[i]))
        return maps


class Pool(Neck):
    """Global pooling as a plain reduction, which can be exported with dynamic sizes."""

    def __init__(
        self, config: PoolNeck, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> None:
        super().__init__()
        _refuse_pooled((config.input,), strides)
        self.input, self.kind = config.input, config.kind
        self.name = f"{config.prefix}G{_level(config.input)}"
        self.channels = {self.name: channels[config.input]}
        self.strides = {self.name: 0}

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(B, C, ...) with any number of further axes -> (B, C) as G<i>."""
        level = features[self.input]
        axes = tuple(range(2, level.dim()))
        return {self.name: level.mean(dim=axes) if self.kind == "mean" else level.amax(dim=axes)}


def _refuse_pooled(names: tuple[str, ...], strides: Mapping[str, int]) -> None:
    pooled = [name for name in names if strides[name] == 0]
    if pooled:
        raise ValueError(f"reads feature maps, not pooled features ({', '.join(pooled)})")


def _pyramid_names(config: FpnNeck | PafpnNeck) -> tuple[str, ...]:
    levels = [_level(name) for name in config.inputs]
    return tuple(
        f"{config.prefix}P{level}"
        for level in [*levels, *range(levels[-1] + 1, levels[-1] + 1 + config.extra)]
    )


def _level(feature: str) -> int:
    """The number at the end of a feature's name: log2 of its stride."""
    digits = re.search(r"\d+$", feature)
    if digits is None:
        raise ValueError(f"reads {feature!r}, whose name does not end with the number of its level")
    return int(digits[0])


def _strides(
    inputs: tuple[str, ...], strides: Mapping[str, int], names: tuple[str, ...]
) -> dict[str, int]:
    known = [strides[name] for name in inputs]
    while len(known) < len(names):
        known.append(known[-1] * 2)
    return dict(zip(names, known, strict=True))


# The layer that necks and heads are made of.
