"""Necks on a backbone: feature pyramids and pooling. Each neck adds features to those it gets."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.config import ChannelMapperNeck, FpnNeck, PafpnNeck, PoolNeck
from mtl_ray.models.imports import Imported, Program, Rename, renamed
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
        options = config if isinstance(config, FpnNeck) else FpnNeck()
        self.pools, self.relu = options.pool_extra, options.relu_before_extra
        self.from_input = options.extra_input == "input"
        self.extra = config.extra
        first = channels[self.inputs[-1]] if self.from_input else width
        self.further = nn.ModuleList(
            conv_norm_act(first if i == 0 else width, width, 3, 2, norm=config.norm, act=False)
            for i in range(0 if self.pools else config.extra)
        )
        self.names = _pyramid_names(config)
        self.channels = dict.fromkeys(self.names, width)
        self.strides = _strides(self.inputs, strides, self.names)
        _start_plain(self)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(B, C_i, H_i, W_i) by name -> (B, channels, H_i, W_i) by the names in ``names``."""
        maps = self.top_down(features)
        for i, further in enumerate(self.further):
            source = features[self.inputs[-1]] if i == 0 and self.from_input else maps[-1]
            maps.append(further(F.relu(source) if i > 0 and self.relu else source))
        if self.pools:
            for _ in range(self.extra):
                maps.append(F.max_pool2d(maps[-1], 1, stride=2))
        return dict(zip(self.names, maps, strict=True))

    def top_down(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The pyramid without the further levels, from fine to coarse."""
        maps = [
            lateral(features[name]) for lateral, name in zip(self.lateral, self.inputs, strict=True)
        ]  # (B, channels, H_i, W_i) each
        for i in range(len(maps) - 2, -1, -1):
            maps[i] = maps[i] + F.interpolate(maps[i + 1], size=maps[i].shape[-2:], mode="nearest")
        return [smooth(level) for smooth, level in zip(self.smooth, maps, strict=True)]

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``. Both programs number the convolutions as here; OpenMMLab counts the
        further levels on after the others.
        """
        if program == "openmmlab":
            levels = [("smooth", i) for i in range(len(self.inputs))]
            levels += [("further", i) for i in range(self.extra)]
            part = {"conv": 0, "bn": 1}
            return renamed(
                tensors,
                [
                    Rename(
                        rf"neck\.(?:0\.)?lateral_convs\.(\d+)\.{name}\.(.*)", rf"lateral.\1.{i}.\2"
                    )
                    for name, i in part.items()
                ]
                + [
                    Rename(rf"neck\.(?:0\.)?fpn_convs\.{n}\.{name}\.(.*)", rf"{own}.{level}.{i}.\1")
                    for n, (own, level) in enumerate(levels)
                    for name, i in part.items()
                ],
            )
        if program == "torchvision":
            return renamed(
                tensors,
                (
                    # 0 is the convolution, 1 its normalisation; older files have neither number
                    Rename(r"backbone\.fpn\.inner_blocks\.(\d+)\.(\d\.\w+)", r"lateral.\1.\2"),
                    Rename(r"backbone\.fpn\.inner_blocks\.(\d+)\.(\w+)", r"lateral.\1.0.\2"),
                    Rename(r"backbone\.fpn\.layer_blocks\.(\d+)\.(\d\.\w+)", r"smooth.\1.\2"),
                    Rename(r"backbone\.fpn\.layer_blocks\.(\d+)\.(\w+)", r"smooth.\1.0.\2"),
                    Rename(r"backbone\.fpn\.extra_blocks\.p6\.(.*)", r"further.0.0.\1"),
                    Rename(r"backbone\.fpn\.extra_blocks\.p7\.(.*)", r"further.1.0.\1"),
                ),
            )
        return {}


def _start_plain(neck: nn.Module) -> None:
    """Initialises the convolutions without normalisation so that maps keep their scale (Glorot and
    Bengio 2010, as in the published pyramids): that of torch makes each a third as large.
    """
    for module in neck.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


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
        _start_plain(self)

    def top_down(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The pyramid after the bottom-up pathway."""
        maps = super().top_down(features)
        for i, (down, merge) in enumerate(zip(self.down, self.merge, strict=True)):
            maps[i + 1] = merge(maps[i + 1] + down(maps[i]))
        return maps


class ChannelMapper(Neck):
    """One convolution for each feature map, and further levels, each normalised by itself (Zhu et
    al. 2021, Deformable DETR, https://arxiv.org/abs/2010.04159, section 4.1).

    Args:
        config: inputs from fine to coarse, width, number of further levels.
        channels: channels of each input feature.
        strides: stride of each input feature.
    """

    def __init__(
        self, config: ChannelMapperNeck, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> None:
        super().__init__()
        _refuse_pooled(config.inputs, strides)
        if config.groups and config.channels % config.groups:
            raise ValueError(f"cannot divide {config.channels} channels in {config.groups} groups")
        self.inputs = config.inputs
        width, last = config.channels, channels[config.inputs[-1]]
        self.convs = nn.ModuleList(
            _mapped(channels[name], config, config.kernel, 1) for name in self.inputs
        )
        self.extra_convs = nn.ModuleList(
            _mapped(last if i == 0 else width, config, 3, 2) for i in range(config.extra)
        )
        self.names = _pyramid_names(config)
        self.channels = dict.fromkeys(self.names, width)
        self.strides = _strides(self.inputs, strides, self.names)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(B, C_i, H_i, W_i) by name -> (B, channels, H_i, W_i) by the names in ``names``."""
        maps = [conv(features[name]) for conv, name in zip(self.convs, self.inputs, strict=True)]
        for i, conv in enumerate(self.extra_convs):
            maps.append(conv(features[self.inputs[-1]] if i == 0 else maps[-1]))
        return dict(zip(self.names, maps, strict=True))

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``."""
        levels = [f"convs.{i}" for i in range(len(self.convs))]
        levels += [f"extra_convs.{i}" for i in range(len(self.extra_convs))]
        return renamed(
            tensors,
            [
                Rename(r"neck\.((?:convs|extra_convs)\.\d+\.(?:conv|gn)\..*)", r"\1"),
                # DETR's authors and Hugging Face
                Rename(r"input_proj\.(weight|bias)", r"convs.0.conv.\1"),
                Rename(r"model\.input_projection\.(.*)", r"convs.0.conv.\1"),
                *(
                    Rename(rf"(?:model\.)?input_proj\.{n}\.{i}\.(.*)", rf"{level}.{part}.\1")
                    for n, level in enumerate(levels)
                    for i, part in enumerate(("conv", "gn"))
                ),
            ],
        )


def _mapped(
    inputs: int, config: ChannelMapperNeck, kernel: Literal[1, 3], stride: int
) -> nn.Sequential:
    bias = config.bias or config.groups == 0
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(inputs, config.channels, kernel, stride, kernel // 2, bias=bias)
    }
    if config.groups:
        layers["gn"] = nn.GroupNorm(config.groups, config.channels)
    return nn.Sequential(OrderedDict(layers))


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


def _pyramid_names(config: FpnNeck | PafpnNeck | ChannelMapperNeck) -> tuple[str, ...]:
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
