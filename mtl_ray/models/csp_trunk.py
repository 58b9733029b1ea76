"""Backbones and neck of YOLOX and RTMDet, under the names of OpenMMLab's."""

import itertools
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.csp import (
    NORMS,
    ConvUnit,
    CspLayer,
    Focus,
    NormOptions,
    SppBottleneck,
    conv_unit,
)
from mtl_ray.models.csp_config import (
    CspBlock,
    CspDarknetBackbone,
    CspNextBackbone,
    CspPafpnNeck,
)
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.models.trunk import Backbone, Neck

WIDTHS = (64, 128, 256, 512, 1024)
"""Channels of the stem and the four stages at a width factor of 1."""
DEPTHS: dict[CspBlock, tuple[int, ...]] = {"darknet": (3, 9, 9, 3), "cspnext": (3, 6, 6, 3)}
"""Blocks of the four stages at a depth factor of 1."""
STAGES = {"C2": 1, "C3": 2, "C4": 3, "C5": 4}


class CspBackbone(Backbone):
    """CSP-Darknet (Ge et al. 2021, https://arxiv.org/abs/2107.08430) or CSPNeXt (Lyu et al. 2022,
    https://arxiv.org/abs/2212.07784).

    Four stages of a strided convolution and a CSP layer, the last with pyramid pooling between the
    two. Each feature is (B, channels, H / stride, W / stride), sizes rounded up.
    """

    def __init__(self, config: CspDarknetBackbone | CspNextBackbone, kind: CspBlock) -> None:
        super().__init__()
        self.levels = tuple(sorted(config.levels))
        widths = [int(width * config.widen_factor) for width in WIDTHS]
        depths = [max(round(depth * config.deepen_factor), 1) for depth in DEPTHS[kind]]
        norm = NORMS[kind]
        if min(widths) < 2:
            raise ValueError("model.backbone.widen_factor is too small: the stem has no channels")
        self.stem = Focus(widths[0], norm) if kind == "darknet" else _cspnext_stem(widths[0], norm)
        for stage, depth in enumerate(depths, start=1):
            before, width, last = widths[stage - 1], widths[stage], stage == len(depths)
            self.add_module(
                f"stage{stage}",
                nn.Sequential(
                    conv_unit(before, width, 3, norm, 2, depthwise=config.depthwise),
                    *([SppBottleneck(width, norm)] if last else []),
                    CspLayer(
                        width,
                        width,
                        depth,
                        kind,
                        identity=not last,
                        depthwise=config.depthwise,
                        attention=kind == "cspnext",
                    ),
                ),
            )
        self.channels = {level: widths[STAGES[level]] for level in self.levels}
        self.strides = {level: 2 ** (STAGES[level] + 1) for level in self.levels}

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        """Normalised images float (B, 3, H, W) -> feature maps by name."""
        features = {}
        values = self.stem(values)
        for level, stage in STAGES.items():
            values = self.get_submodule(f"stage{stage}")(values)
            features[level] = values
        return {level: features[level] for level in self.levels}

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``: from OpenMMLab."""
        return _openmmlab("backbone", program, tensors)


def _cspnext_stem(width: int, norm: NormOptions) -> nn.Sequential:
    """(B, 3, H, W) -> (B, width, H / 2, W / 2)."""
    return nn.Sequential(
        ConvUnit(3, width // 2, 3, norm, stride=2),
        ConvUnit(width // 2, width // 2, 3, norm),
        ConvUnit(width // 2, width, 3, norm),
    )


class CspPafpn(Neck):
    """Path aggregation network (Liu et al. 2018, https://arxiv.org/abs/1803.01534) of CSP layers.

    Args:
        config: inputs from fine to coarse, blocks, width.
        channels, strides: of each input feature.
    """

    def __init__(
        self, config: CspPafpnNeck, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> None:
        super().__init__()
        pooled = [name for name in config.inputs if strides[name] == 0]
        if pooled:
            raise ValueError(f"reads feature maps, not pooled features ({', '.join(pooled)})")
        self.inputs = config.inputs
        norm, depthwise = NORMS[config.block], config.depthwise
        widths = [channels[name] for name in self.inputs]

        def layer(inputs: int, outputs: int) -> CspLayer:
            return CspLayer(
                inputs, outputs, config.blocks, config.block, identity=False, depthwise=depthwise
            )

        steps = list(itertools.pairwise(widths))  # (finer, coarser)
        self.reduce_layers = nn.ModuleList(ConvUnit(b, a, 1, norm) for a, b in reversed(steps))
        self.top_down_blocks = nn.ModuleList(layer(2 * a, a) for a, _ in reversed(steps))
        self.downsamples = nn.ModuleList(
            conv_unit(a, a, 3, norm, 2, depthwise=depthwise) for a, _ in steps
        )
        self.bottom_up_blocks = nn.ModuleList(layer(2 * a, b) for a, b in steps)
        self.out_convs = nn.ModuleList(
            ConvUnit(width, config.channels, 1, norm)
            if config.block == "darknet"
            else conv_unit(width, config.channels, 3, norm, depthwise=depthwise)
            for width in widths
        )
        self.names = tuple(f"{config.prefix}P{_number(name)}" for name in self.inputs)
        self.channels = dict.fromkeys(self.names, config.channels)
        self.strides = {
            name: strides[source] for name, source in zip(self.names, self.inputs, strict=True)
        }

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(B, C_i, H_i, W_i) by name -> (B, channels, H_i, W_i) by the names in ``names``."""
        maps = [features[name] for name in self.inputs]
        top_down = zip(self.reduce_layers, self.top_down_blocks, strict=True)
        for i, (reduce, block) in zip(range(len(maps) - 2, -1, -1), top_down, strict=True):
            maps[i + 1] = reduce(maps[i + 1])
            upper = F.interpolate(maps[i + 1], size=maps[i].shape[-2:], mode="nearest")
            maps[i] = block(torch.cat([upper, maps[i]], dim=1))
        bottom_up = zip(self.downsamples, self.bottom_up_blocks, strict=True)
        for i, (down, block) in enumerate(bottom_up):
            maps[i + 1] = block(torch.cat([down(maps[i]), maps[i + 1]], dim=1))
        outputs = [conv(level) for conv, level in zip(self.out_convs, maps, strict=True)]
        return dict(zip(self.names, outputs, strict=True))

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``: from OpenMMLab."""
        return _openmmlab("neck", program, tensors)


def _number(feature: str) -> str:
    digits = re.search(r"\d+$", feature)
    if digits is None:
        raise ValueError(f"reads {feature!r}, whose name does not end with the number of its level")
    return digits[0]


def _openmmlab(part: str, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
    """The tensors of a part whose names are those of OpenMMLab after its prefix."""
    return renamed(tensors, [Rename(rf"{part}\.(.*)", r"\1")] if program == "openmmlab" else [])
