"""Attention of the heads that predict from queries, and the position encodings that it needs.

Parameters have the names of OpenMMLab's modules: ``attn.in_proj_weight``, ``sampling_offsets``, ...
Sequences are batch first: (B, tokens, width).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TokenSizes = Sequence[tuple[int, int]]
"""(height, width) in cells of each level of a sequence of tokens."""


class FusedAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) with one matrix for query, key and
    value.

    Args:
        width: of the tokens.
        heads: of the attention.
        dropout: of the attention's weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, ignored: Tensor | None) -> Tensor:
        """Query (B, Q, width), key and value (B, K, width) -> (B, Q, width); keys (B, K) that are
        ``ignored`` have no weight.
        """
        width = self.in_proj_weight.shape[1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key:
            q, k = F.linear(query, weight[: 2 * width], bias[: 2 * width]).chunk(2, dim=-1)
        else:
            q = F.linear(query, weight[:width], bias[:width])
            k = F.linear(key, weight[width : 2 * width], bias[width : 2 * width])
        v = F.linear(value, weight[2 * width :], bias[2 * width :])
        q, k, v = (each.view(*each.shape[:2], self.heads, -1).transpose(1, 2) for each in (q, k, v))
        attended = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if ignored is None else ~ignored[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )  # (B, heads, Q, width / heads)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class MultiheadAttention(nn.Module):
    """Attention with a residual connection; positions are added to queries and keys, not to values
    (Carion et al. 2020, appendix A.3).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attn = FusedAttention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        ignored: Tensor | None = None,
    ) -> Tensor:
        """Queries (B, Q, width) attend to the keys (B, K, width), or to themselves.

        Args:
            query: the tokens that are updated.
            key: the tokens that are read; without it the queries.
            query_pos: added to the queries.
            key_pos: added to the keys; of self-attention ``query_pos`` is used.
            ignored: bool (B, K), keys without weight.
        """
        placed = query if query_pos is None else query + query_pos
        if key is None:
            attended = self.attn(placed, placed, query, ignored)
        else:
            attended = self.attn(placed, key if key_pos is None else key + key_pos, key, ignored)
        out: Tensor = query + self.dropout(attended)
        return out


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (Zhu et al. 2021, https://arxiv.org/abs/2010.04159, eq. 3)
    with a residual connection.

    Args:
        width: of the tokens.
        heads: of the attention.
        levels: feature maps that the values come from.
        points: sampled in each level by each head.
        dropout: of the result.
    """

    def __init__(
        self, width: int, heads: int = 8, levels: int = 4, points: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The published start: each head looks along a direction of its own, all samples count the
        same.
        """
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(
                first_offsets(self.heads, (self.points,) * self.levels).flatten()
            )
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor | None,
        value: Tensor,
        references: Tensor,
        sizes: TokenSizes,
        ignored: Tensor | None = None,
    ) -> Tensor:
        """Queries (B, Q, width) attend to a few sampled places of the values.

        Args:
            query: the tokens that are updated.
            query_pos: added to the queries.
            value: (B, N, width), the cells of all levels.
            references: (B, Q, levels, 2) points, or (B, Q, levels, 4) boxes cxcywh, in parts of
                each level's map.
            sizes: of the levels.
            ignored: bool (B, N), values that are read as 0.
        """
        placed = query if query_pos is None else query + query_pos
        values = self.value_proj(value)
        if ignored is not None:
            values = values.masked_fill(ignored[..., None], 0.0)
        shape = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(placed).float().view(*placed.shape[:2], *shape, 2)
        weights = self.attention_weights(placed).float().view(*placed.shape[:2], self.heads, -1)
        sampled = sample_levels(
            values.view(*values.shape[:2], self.heads, -1),
            sizes,
            sampling_places(offsets, references, sizes).flatten(3, 4),
            weights.softmax(dim=-1),
            (self.points,) * self.levels,
        )
        out: Tensor = query + self.dropout(self.output_proj(sampled.to(query.dtype)))
        return out


def first_offsets(heads: int, points: Sequence[int]) -> Tensor:
    """(heads, sum of points, 2): the directions of the heads divide the circle, the k-th point of a
    level lies k cells away (Zhu et al. 2021, appendix A.3).
    """
    angle = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
    direction = direction / direction.abs().amax(dim=-1, keepdim=True)
    steps = torch.cat([torch.arange(1.0, count + 1) for count in points])
    return direction[:, None] * steps[:, None]


def sampling_places(offsets: Tensor, references: Tensor, sizes: TokenSizes) -> Tensor:
    """(B, Q, heads, levels, points, 2): x, y in parts of each level's map.

    Args:
        offsets: (B, Q, heads, levels, points, 2), in cells from a point, or in parts of half a
            box for each point of a head.
        references: (B, Q, levels, 2) points or (B, Q, levels, 4) boxes.
        sizes: of the levels.
    """
    centre = references[:, :, None, :, None, :2]  # (B, Q, 1, levels, 1, 2)
    if references.shape[-1] == 4:
        side = references[:, :, None, :, None, 2:]
        return centre + offsets / offsets.shape[4] * side * 0.5
    # (levels, 1, 2); a tensor made of open sizes would be a constant of an exported graph
    cells = torch.stack(
        [
            torch.stack([offsets.new_full((1,), side) for side in (width, height)], dim=-1)
            for height, width in sizes
        ]
    )
    return centre + offsets / cells


def sample_levels(
    values: Tensor, sizes: TokenSizes, places: Tensor, weights: Tensor, points: Sequence[int]
) -> Tensor:
    """The weighted sum of bilinear samples of all levels, in float32: half precision would round
    places and overflow.

    Args:
        values: (B, N, heads, channels), the cells of all levels.
        sizes: of the levels.
        places: (B, Q, heads, P, 2) x, y in parts of a level's map; outside of it values are 0.
        weights: (B, Q, heads, P).
        points: how many of the P places are of each level.

    Returns:
        (B, Q, heads * channels).
    """
    batch, _, heads, channels = values.shape
    # Places before queries: sums over an axis that is not the last are twice as fast on a CPU.
    # (B * heads, P, Q, 2) in [-1, 1] and (B * heads, 1, P, Q)
    grid = (2 * places.float() - 1).permute(0, 2, 3, 1, 4).flatten(0, 1)
    share = weights.float().permute(0, 2, 3, 1).flatten(0, 1)[:, None]
    levels = zip(
        torch.split(values.float(), [height * width for height, width in sizes], dim=1),
        sizes,
        torch.split(grid, list(points), dim=1),
        torch.split(share, list(points), dim=2),
        strict=True,
    )
    total: Tensor | None = None
    for level, (height, width), at, weight in levels:
        cells = level.flatten(2).transpose(1, 2).reshape(batch * heads, channels, height, width)
        samples = F.grid_sample(cells, at, padding_mode="zeros", align_corners=False)
        part = (samples * weight).sum(dim=2)  # (B * heads, channels, Q)
        total = part if total is None else total + part
    assert total is not None
    return total.reshape(batch, heads * channels, -1).transpose(1, 2)


def sine_features(places: Tensor, features: int, temperature: float = 10000.0) -> Tensor:
    """Places (...) as angles -> (..., features): sines and cosines in turn (Vaswani et al. 2017,
    section 3.5).
    """
    steps = torch.arange(features // 2, dtype=torch.float32, device=places.device)
    angles = places[..., None] / temperature ** (2 * steps / features)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def valid_rows_columns(
    valid_hw: Tensor, canvas_hw: tuple[int, int], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Which rows (B, h) and columns (B, w) of a feature map show the image, bool: those whose first
    pixel does. Row and column 0 always do.

    Args:
        valid_hw: (B, 2), height and width of the image on each canvas.
        canvas_hw: of the canvas, in pixels.
        size: (h, w) of the map.
    """
    axes = []
    for axis, (pixels, cells) in enumerate(zip(canvas_hw, size, strict=True)):
        index = torch.arange(cells, device=valid_hw.device)
        first = torch.div(index * pixels, cells, rounding_mode="trunc")
        axes.append(first < valid_hw[:, axis : axis + 1].clamp(min=1))
    return axes[0], axes[1]


def sine_positions(rows: Tensor, columns: Tensor, width: int, offset: float = 0.0) -> Tensor:
    """The fixed position encoding of the cells of a map, (B, h * w, width): half of it for y, half
    for x, both relative to the image without padding (Carion et al. 2020, appendix A.4).

    Args:
        rows: bool (B, h), those that show the image.
        columns: bool (B, w).
        width: of the encoding.
        offset: of the centre of a cell from its number, which starts at 1.
    """
    axes = []
    for valid in (rows, columns):
        place = valid.float().cumsum(dim=1)  # a bool cannot be summed in ONNX
        angle = (place + offset) / (place[:, -1:] + 1e-6) * (2 * math.pi)
        axes.append(sine_features(angle, width // 2))  # (B, h or w, width / 2)
    y, x = axes
    y = y[:, :, None].expand(-1, -1, x.shape[1], -1)
    x = x[:, None].expand(-1, y.shape[1], -1, -1)
    return torch.cat([y, x], dim=-1).flatten(1, 2)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of x, which is kept ``eps`` away from 0 and 1."""
    x = x.clamp(min=0, max=1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
