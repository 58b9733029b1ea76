"""The neck ``hybrid_encoder`` of real-time DETRs, and the layers that their decoder shares.

Parameters have the names of Hugging Face's ``DFineForObjectDetection``.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.hybrid_config import HybridEncoderNeck
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.models.trunk import Neck

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU, "gelu": nn.GELU}
# Files of before transformers 5 have the older names of the second half of each pair.
_HF = r"model\.encoder\."
_ATTENTION = r"(?:aifi|encoder)\.(\d+)\.layers\.(\d+)\."
HYBRID_RULES = (
    Rename(r"model\.encoder_input_proj\.(.*)", r"input_proj.\1"),
    Rename(
        _HF + _ATTENTION + r"self_attn\.(?:o_proj|out_proj)\.(.*)",
        r"aifi.\1.layers.\2.self_attn.o_proj.\3",
    ),
    Rename(_HF + _ATTENTION + r"(?:mlp\.)?fc1\.(.*)", r"aifi.\1.layers.\2.mlp.layers.0.\3"),
    Rename(_HF + _ATTENTION + r"(?:mlp\.)?fc2\.(.*)", r"aifi.\1.layers.\2.mlp.layers.1.\3"),
    Rename(_HF + _ATTENTION + r"(.*)", r"aifi.\1.layers.\2.\3"),
    Rename(_HF + r"(.*)", r"\1"),
)


class ConvNorm(nn.Module):
    """A convolution (B, inputs, H, W) -> (B, outputs, H / stride, W / stride), batch
    normalisation and an activation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = nn.Identity() if activation is None else ACTIVATIONS[activation]()

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.activation(self.norm(self.conv(values))))


class RepVggBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side (Ding et al. 2021), as they are trained."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3)
        self.conv2 = ConvNorm(channels, channels, 1)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return cast(Tensor, self.activation(self.conv1(values) + self.conv2(values)))


class CspRep(nn.Module):
    """A cross stage partial layer (Wang et al. 2020) with RepVGG blocks."""

    def __init__(self, inputs: int, inner: int, outputs: int, blocks: int, activation: str) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, inner, 1, activation=activation)
        self.conv2 = ConvNorm(inputs, inner, 1, activation=activation)
        self.bottlenecks = nn.Sequential(*(RepVggBlock(inner, activation) for _ in range(blocks)))
        self.conv3: nn.Module = (
            nn.Identity()
            if inner == outputs
            else ConvNorm(inner, outputs, 1, activation=activation)
        )

    def forward(self, values: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        deep = self.bottlenecks(self.conv1(values))
        return cast(Tensor, self.conv3(deep + self.conv2(values)))


class Elan(nn.Module):
    """The fusion of D-FINE (GELAN of Wang et al. 2024 with RepVGG blocks): (B, 2 channels, H, W)
    -> (B, channels, H, W).
    """

    def __init__(self, channels: int, expansion: float, blocks: int, activation: str) -> None:
        super().__init__()
        inner = round(expansion * channels // 2)
        self.conv1 = ConvNorm(2 * channels, 2 * channels, 1, activation=activation)
        self.csp_rep1 = CspRep(channels, inner, inner, blocks, activation)
        self.conv2 = ConvNorm(inner, inner, 3, activation=activation)
        self.csp_rep2 = CspRep(inner, inner, inner, blocks, activation)
        self.conv3 = ConvNorm(inner, inner, 3, activation=activation)
        self.conv4 = ConvNorm(2 * (channels + inner), channels, 1, activation=activation)

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        kept, changed = self.conv1(values).chunk(2, dim=1)
        first = self.conv2(self.csp_rep1(changed))
        second = self.conv3(self.csp_rep2(first))
        return cast(Tensor, self.conv4(torch.cat([kept, changed, first, second], dim=1)))


class SeparableDown(nn.Module):
    """Half the size by a 1x1 and a depthwise 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 1)
        self.conv2 = ConvNorm(channels, channels, 3, 2, groups=channels)

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2), sizes rounded up."""
        return cast(Tensor, self.conv2(self.conv1(values)))


class Perceptron(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(self, widths: Sequence[int], activation: str = "relu") -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in itertools.pairwise(widths)
        )
        self.act = ACTIVATIONS[activation]()

    def forward(self, values: Tensor) -> Tensor:
        """(..., widths[0]) -> (..., widths[-1])."""
        for layer in self.layers[:-1]:
            values = self.act(layer(values))
        return cast(Tensor, self.layers[-1](values))


class SelfAttention(nn.Module):
    """Self-attention whose queries and keys, not values, know positions."""

    def __init__(self, channels: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.k_proj, self.v_proj, self.q_proj, self.o_proj = (
            nn.Linear(channels, channels) for _ in range(4)
        )

    def forward(self, tokens: Tensor, positions: Tensor, visible: Tensor | None = None) -> Tensor:
        """Mixes tokens.

        Args:
            tokens: (B, N, C).
            positions: (1 or B, N, C), added to queries and keys.
            visible: bool (B, 1, N, N), False where a token does not see another.
        """
        batch, count, channels = tokens.shape
        placed = tokens + positions
        query, key, value = (
            project(each).reshape(batch, count, self.heads, -1).transpose(1, 2)
            for project, each in (
                (self.q_proj, placed),
                (self.k_proj, placed),
                (self.v_proj, tokens),
            )
        )  # (B, heads, N, C / heads) each
        mixed = F.scaled_dot_product_attention(
            query, key, value, visible, self.dropout if self.training else 0.0
        )
        return cast(Tensor, self.o_proj(mixed.transpose(1, 2).reshape(batch, count, channels)))


class HybridEncoderLayer(nn.Module):
    """A transformer layer with normalisation after each part."""

    def __init__(self, config: HybridEncoderNeck) -> None:
        super().__init__()
        width = config.channels
        self.self_attn = SelfAttention(width, config.heads, config.dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.mlp = Perceptron((width, config.feedforward, width), "gelu")
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """(B, N, C), (1, N, C) -> (B, N, C)."""
        tokens = self.self_attn_layer_norm(tokens + self.dropout(self.self_attn(tokens, positions)))
        return cast(Tensor, self.final_layer_norm(tokens + self.mlp(tokens)))


class Aifi(nn.Module):
    """Attention within one feature map (Zhao et al. 2023, section 4.2)."""

    def __init__(self, config: HybridEncoderNeck) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.layers = nn.ModuleList(HybridEncoderLayer(config) for _ in range(config.layers))

    def forward(self, level: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        tokens = level.flatten(2).transpose(1, 2)  # (B, H * W, C)
        height, width = level.shape[2:]
        positions = cell_positions(height, width, level.shape[1], self.temperature, level.device)
        for layer in self.layers:
            tokens = layer(tokens, positions)
        return tokens.transpose(1, 2).reshape(level.shape)


def cell_positions(
    height: int, width: int, channels: int, temperature: float, device: torch.device
) -> Tensor:
    """(1, H * W, channels) float32: sine and cosine of y, then of x, in cells."""
    steps = torch.arange(channels // 4, dtype=torch.float64) / (channels // 4)
    rates = (1.0 / temperature**steps).float().to(device)  # (channels / 4,)
    rows = torch.arange(height, device=device).float()[:, None] * rates  # (H, channels / 4)
    columns = torch.arange(width, device=device).float()[:, None] * rates
    y = rows[:, None].expand(-1, width, -1).flatten(0, 1)  # (H * W, channels / 4)
    x = columns[None].expand(height, -1, -1).flatten(0, 1)
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], dim=1)[None]


class HybridEncoder(Neck):
    """See ``HybridEncoderNeck``.

    Args:
        config: inputs from fine to coarse, each of half the size of the one before.
        channels: channels of each input feature.
        strides: stride of each input feature.
    """

    def __init__(
        self, config: HybridEncoderNeck, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> None:
        super().__init__()
        if any(strides[name] == 0 for name in config.inputs):
            raise ValueError("reads feature maps, not pooled features")
        self.inputs, width = config.inputs, config.channels
        steps, blocks = len(self.inputs) - 1, round(3 * config.depth)
        activation = config.activation if config.fusion == "csp" else None

        def fusion() -> nn.Module:
            if config.fusion == "elan":
                return Elan(width, config.expansion, blocks, config.activation)
            inner = int(width * config.expansion)
            return CspRep(2 * width, inner, width, blocks, config.activation)

        def down() -> nn.Module:
            if config.fusion == "elan":
                return SeparableDown(width)
            return ConvNorm(width, width, 3, 2, activation=activation)

        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels[name], width, 1, bias=False), nn.BatchNorm2d(width))
            for name in self.inputs
        )
        self.aifi = nn.ModuleList([Aifi(config)])
        self.lateral_convs = nn.ModuleList(
            ConvNorm(width, width, 1, activation=activation) for _ in range(steps)
        )
        self.fpn_blocks = nn.ModuleList(fusion() for _ in range(steps))
        self.downsample_convs = nn.ModuleList(down() for _ in range(steps))
        self.pan_blocks = nn.ModuleList(fusion() for _ in range(steps))
        self.names = tuple(f"{config.prefix}P{name.lstrip('CP')}" for name in self.inputs)
        self.channels = dict.fromkeys(self.names, width)
        self.strides = {
            name: strides[source] for name, source in zip(self.names, self.inputs, strict=True)
        }

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(B, C_i, H_i, W_i) by name -> (B, channels, H_i, W_i) by the names in ``names``."""
        maps = [
            project(features[name])
            for project, name in zip(self.input_proj, self.inputs, strict=True)
        ]
        maps[-1] = self.aifi[0](maps[-1])
        for i, (lateral, fuse) in enumerate(zip(self.lateral_convs, self.fpn_blocks, strict=True)):
            coarse = len(maps) - 1 - i
            maps[coarse] = lateral(maps[coarse])
            fine = maps[coarse - 1]
            larger = F.interpolate(maps[coarse], size=fine.shape[2:], mode="nearest")
            maps[coarse - 1] = fuse(torch.cat([larger, fine], dim=1))
        for i, (down, fuse) in enumerate(zip(self.downsample_convs, self.pan_blocks, strict=True)):
            maps[i + 1] = fuse(torch.cat([down(maps[i]), maps[i + 1]], dim=1))
        return dict(zip(self.names, maps, strict=True))

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``: of Hugging Face's D-FINE and RT-DETRv2."""
        return renamed(tensors, HYBRID_RULES) if program == "huggingface" else {}
