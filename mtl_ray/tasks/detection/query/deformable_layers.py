"""Layers of ``deformable_detr``, and the cells of several feature maps that they work on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_ray.models.head import Context
from mtl_ray.tasks.detection.query.attention import (
    DeformableAttention,
    MultiheadAttention,
    TokenSizes,
    sine_positions,
    valid_rows_columns,
)
from mtl_ray.tasks.detection.query.config import DeformableDetrHead
from mtl_ray.tasks.detection.query.detr import FeedForward


class Cells(NamedTuple):
    """The cells of all levels, one after another.

    Attributes:
        tokens: (B, N, width).
        positions: (B, N, width), added to queries.
        ignored: bool (B, N), cells that show padding.
        centres: float32 (B, N, 2) x, y in parts of the image; above 1 in the padding.
        ratios: float32 (B, levels, 2), the part of each level's width and height that shows the
            image.
        sizes: of the levels.
    """

    tokens: Tensor
    positions: Tensor
    ignored: Tensor
    centres: Tensor
    ratios: Tensor
    sizes: TokenSizes


def flattened(maps: Sequence[Tensor], level_embed: Tensor, context: Context) -> Cells:
    """The cells of all levels.

    Args:
        maps: (B, width, h, w) of each level.
        level_embed: (levels, width), added to the positions.
        context: of the batch.
    """
    tokens, positions, ignored, centres, ratios = [], [], [], [], []
    for level, embedding in zip(maps, level_embed, strict=True):
        size = (level.shape[2], level.shape[3])
        rows, columns = valid_rows_columns(context.valid_hw, context.canvas_hw, size)
        tokens.append(level.permute(0, 2, 3, 1).flatten(1, 2))
        # from the centres of cells, unlike DETR
        place = sine_positions(rows, columns, level.shape[1], offset=-0.5)
        positions.append(place + embedding)
        ignored.append(~(rows[:, :, None] & columns[:, None]).flatten(1))
        centres.append(_centres(rows, columns))
        ratios.append(torch.stack([columns.float().mean(dim=1), rows.float().mean(dim=1)], -1))
    return Cells(
        tokens=torch.cat(tokens, dim=1),
        positions=torch.cat(positions, dim=1),
        ignored=torch.cat(ignored, dim=1),
        centres=torch.cat(centres, dim=1),
        ratios=torch.stack(ratios, dim=1),
        sizes=[(level.shape[2], level.shape[3]) for level in maps],
    )


def _centres(rows: Tensor, columns: Tensor) -> Tensor:
    """Centres (B, h * w, 2) x, y of the cells, in parts of the rows (B, h) and columns (B, w) that
    show the image.
    """
    y, x = (
        (torch.arange(valid.shape[1], device=valid.device) + 0.5)
        / valid.float().sum(dim=1, keepdim=True)
        for valid in (rows, columns)
    )
    grid = torch.stack(
        [x[:, None].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])], dim=-1
    )
    return grid.flatten(1, 2)


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention of the cells of all levels."""

    def __init__(self, config: DeformableDetrHead) -> None:
        super().__init__()
        self.self_attn = _deformable(config)
        self.ffn = FeedForward(config.channels, config.feedforward, config.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in range(2))

    def forward(self, tokens: Tensor, cells: Cells, references: Tensor) -> Tensor:
        """Tokens (B, N, width) of both."""
        tokens = self.norms[0](
            self.self_attn(tokens, cells.positions, tokens, references, cells.sizes, cells.ignored)
        )
        out: Tensor = self.norms[1](self.ffn(tokens))
        return out


class DeformableDecoderLayer(nn.Module):
    """Queries attend to each other, then to sampled places of the levels."""

    def __init__(self, config: DeformableDetrHead) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(config.channels, config.heads, config.dropout)
        self.cross_attn = _deformable(config)
        self.ffn = FeedForward(config.channels, config.feedforward, config.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in range(3))

    def forward(self, query: Tensor, query_pos: Tensor, cells: Cells, references: Tensor) -> Tensor:
        """Queries (B, Q, width) of both."""
        query = self.norms[0](self.self_attn(query, query_pos=query_pos))
        query = self.norms[1](
            self.cross_attn(query, query_pos, cells.tokens, references, cells.sizes, cells.ignored)
        )
        out: Tensor = self.norms[2](self.ffn(query))
        return out


def _deformable(config: DeformableDetrHead) -> DeformableAttention:
    return DeformableAttention(
        config.channels, config.heads, len(config.levels), config.points, config.dropout
    )


class Layers(nn.Module):
    """The layers of the encoder or of the decoder."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class LayerBranches(nn.Module):
    """Classifiers and box layers: one pair for all decoder layers, or one for each and one for the
    proposals of the encoder.
    """

    def __init__(self, config: DeformableDetrHead, classes: int) -> None:
        super().__init__()
        width, count = config.channels, 1
        if config.refine:
            count = config.decoder_layers + int(config.two_stage)
        self.cls_branches = nn.ModuleList(nn.Linear(width, classes) for _ in range(count))
        self.reg_branches = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, 4),
            )
            for _ in range(count)
        )
        for linear in self.cls_branches:
            assert isinstance(linear, nn.Linear)
            # prior 0.01: objects are rare
            nn.init.constant_(linear.bias, math.log(0.01 / 0.99))
        for place, branch in enumerate(self.reg_branches):
            assert isinstance(branch, nn.Sequential)
            last = branch[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            if place == 0 and not config.two_stage:  # boxes start small
                nn.init.constant_(last.bias[2:], -2.0)

    def logits(self, states: Tensor, layer: int) -> Tensor:
        """Float32 (B, Q, classes) of the states (B, Q, width) after a layer."""
        branch = self.cls_branches[min(layer, len(self.cls_branches) - 1)]
        out: Tensor = branch(states).float()
        return out

    def offsets(self, states: Tensor, layer: int) -> Tensor:
        """Float32 (B, Q, 4), what is added to the logits of the reference."""
        branch = self.reg_branches[min(layer, len(self.reg_branches) - 1)]
        out: Tensor = branch(states).float()
        return out
