"""The layers of dense heads under the names of OpenMMLab's: towers with a normalisation shared by
all levels, and a learned factor of each level.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PRIOR = 0.01
"""The score of a new head: objects are rare (Lin et al. 2017, focal loss, section 4.1)."""


class ConvGn(nn.Module):
    """A 3x3 convolution, group normalisation and ReLU.

    Args:
        inputs: channels.
        outputs: channels.
        groups: of the normalisation.
        bias: of the convolution, which the normalisation does not need.
    """

    def __init__(self, inputs: int, outputs: int, groups: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
        self.gn = nn.GroupNorm(groups, outputs)

    def forward(self, level: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return F.relu(self.gn(self.conv(level)))


class Scale(nn.Module):
    """A learned factor, since regression of the levels has different magnitudes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, values: Tensor) -> Tensor:
        """Any shape, the same shape."""
        return values * self.scale


def tower(inputs: int, channels: int, convs: int, groups: int, bias: bool = False) -> nn.Sequential:
    """``convs`` blocks, shared by all levels."""
    widths = [inputs, *[channels] * convs]
    return nn.Sequential(*(ConvGn(a, b, groups, bias) for a, b in itertools.pairwise(widths)))


def start(head: nn.Module, *rare: nn.Conv2d) -> None:
    """Initialises the convolutions of a head as published; those of ``rare`` give the score
    ``PRIOR``.
    """
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for output in rare:
        assert output.bias is not None
        nn.init.constant_(output.bias, -math.log((1 - PRIOR) / PRIOR))
