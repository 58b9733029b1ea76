"""Layers of YOLOX and RTMDet, under the names of OpenMMLab's."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.csp_config import CspBlock


class NormOptions(NamedTuple):
    """Options of batch normalisation."""

    eps: float
    momentum: float


YOLOX_NORM = NormOptions(1e-3, 0.03)
RTMDET_NORM = NormOptions(1e-5, 0.1)
NORMS: dict[CspBlock, NormOptions] = {"darknet": YOLOX_NORM, "cspnext": RTMDET_NORM}


class ConvUnit(nn.Module):
    """Convolution without bias, batch normalisation, SiLU: (B, inputs, H, W) -> (B, outputs, H /
    stride, W / stride), sizes rounded up.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        norm: NormOptions,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs, eps=norm.eps, momentum=norm.momentum)

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        return F.silu(self.bn(self.conv(values)), inplace=True)


class SeparableConv(nn.Module):
    """A depthwise and a pointwise ``ConvUnit``."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, norm: NormOptions, stride: int = 1
    ) -> None:
        super().__init__()
        self.depthwise_conv = ConvUnit(inputs, inputs, kernel, norm, stride, groups=inputs)
        self.pointwise_conv = ConvUnit(inputs, outputs, 1, norm)

    def forward(self, values: Tensor) -> Tensor:
        """As ``ConvUnit``."""
        out: Tensor = self.pointwise_conv(self.depthwise_conv(values))
        return out


def conv_unit(
    inputs: int, outputs: int, kernel: int, norm: NormOptions, stride: int = 1, *, depthwise: bool
) -> ConvUnit | SeparableConv:
    """A ``ConvUnit``, or with ``depthwise`` a ``SeparableConv``."""
    kind = SeparableConv if depthwise else ConvUnit
    return kind(inputs, outputs, kernel, norm, stride)


class Focus(nn.Module):
    """The stem of YOLOX: (B, 3, H, W) -> (B, outputs, H / 2, W / 2). The four pixels of each 2x2
    cell become channels: top left, bottom left, top right, bottom right, each with its colours.
    Odd sides are padded by a pixel at the right and bottom.
    """

    def __init__(self, outputs: int, norm: NormOptions) -> None:
        super().__init__()
        self.conv = ConvUnit(4 * 3, outputs, 3, norm)

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        odd_h, odd_w = values.shape[2] % 2, values.shape[3] % 2
        if odd_h or odd_w:
            values = F.pad(values, (0, odd_w, 0, odd_h))
        patches = [values[..., y::2, x::2] for x in (0, 1) for y in (0, 1)]
        out: Tensor = self.conv(torch.cat(patches, dim=1))
        return out


class SppBottleneck(nn.Module):
    """Spatial pyramid pooling (He et al. 2014) between two 1x1 convolutions: maxima over 5, 9 and
    13 cells.
    """

    def __init__(self, channels: int, norm: NormOptions) -> None:
        super().__init__()
        self.conv1 = ConvUnit(channels, channels // 2, 1, norm)
        self.conv2 = ConvUnit(channels // 2 * 4, channels, 1, norm)

    def forward(self, values: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels, H, W)."""
        values = self.conv1(values)
        pooled = [values]
        for _ in range(3):  # a maximum over 9 cells is one over 5 of maxima over 5
            pooled.append(F.max_pool2d(pooled[-1], kernel_size=5, stride=1, padding=2))
        out: Tensor = self.conv2(torch.cat(pooled, dim=1))
        return out


class ChannelAttention(nn.Module):
    """A factor for each channel from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, values: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels, H, W)."""
        return values * F.hardsigmoid(self.fc(values.mean(dim=(2, 3), keepdim=True)))


class CspUnit(nn.Module):
    """A block of a CSP layer with as many outputs as inputs; see ``CspBlock``.

    Args:
        channels: of its input and output.
        kind: of block.
        identity: adds the input to the result.
        depthwise: see ``conv_unit``.
    """

    def __init__(self, channels: int, kind: CspBlock, *, identity: bool, depthwise: bool) -> None:
        super().__init__()
        norm = NORMS[kind]
        self.identity = identity
        if kind == "darknet":
            self.conv1: nn.Module = ConvUnit(channels, channels, 1, norm)
            self.conv2: nn.Module = conv_unit(channels, channels, 3, norm, depthwise=depthwise)
        else:
            self.conv1 = conv_unit(channels, channels, 3, norm, depthwise=depthwise)
            self.conv2 = SeparableConv(channels, channels, 5, norm)

    def forward(self, values: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels, H, W)."""
        out: Tensor = self.conv2(self.conv1(values))
        return out + values if self.identity else out


class CspLayer(nn.Module):
    """Cross stage partial layer (Wang et al. 2020, https://arxiv.org/abs/1911.11929): half of the
    channels pass through blocks.

    Args:
        inputs, outputs: channels.
        blocks: their number.
        kind: of the blocks.
        identity: blocks add their input.
        depthwise: see ``conv_unit``.
        attention: ``ChannelAttention`` before the last convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        blocks: int,
        kind: CspBlock,
        *,
        identity: bool,
        depthwise: bool,
        attention: bool = False,
    ) -> None:
        super().__init__()
        norm, half = NORMS[kind], outputs // 2
        self.main_conv = ConvUnit(inputs, half, 1, norm)
        self.short_conv = ConvUnit(inputs, half, 1, norm)
        self.final_conv = ConvUnit(2 * half, outputs, 1, norm)
        self.blocks = nn.Sequential(
            *(CspUnit(half, kind, identity=identity, depthwise=depthwise) for _ in range(blocks))
        )
        self.attention = ChannelAttention(2 * half) if attention else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        short = self.short_conv(values)
        both = torch.cat([self.blocks(self.main_conv(values)), short], dim=1)
        out: Tensor = self.final_conv(self.attention(both))
        return out
