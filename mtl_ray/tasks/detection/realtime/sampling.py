"""How queries of the real-time heads sample feature maps."""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.tasks.detection.realtime.config import RealTimeOptions


class DeformableSampling(nn.Module):
    """Multi-scale deformable attention (Zhu et al. 2021, https://arxiv.org/abs/2010.04159, eq. 3)
    with a number of points for each level (RT-DETRv2), offsets relative to the query's box.

    Args:
        config: of the head.
        projected: values and output are projected, as in RT-DETRv2.
    """

    def __init__(self, config: RealTimeOptions, projected: bool) -> None:
        super().__init__()
        self.heads, self.points = config.heads, config.level_points
        self.scale, self.discrete = config.offset_scale, config.sampling == "discrete"
        count = sum(self.points)
        self.sampling_offsets = nn.Linear(config.channels, config.heads * count * 2)
        self.attention_weights = nn.Linear(config.channels, config.heads * count)
        name = "n_points_scale" if projected else "num_points_scale"
        parts = torch.tensor([1 / n for n in self.points for _ in range(n)])
        self.register_buffer(name, parts)
        self.parts_name = name
        self.projected = projected
        if projected:
            self.value_proj = nn.Linear(config.channels, config.channels)
            self.output_proj = nn.Linear(config.channels, config.channels)
            for layer in (self.value_proj, self.output_proj):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self._spread()

    def _spread(self) -> None:
        """At the start the points of each head lie in a direction of its own, one by one farther
        away.
        """
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ways = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (heads, 2)
        ways = ways / ways.abs().amax(dim=1, keepdim=True)
        far = torch.cat([torch.arange(1, n + 1) for n in self.points])  # (points,)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((ways[:, None] * far[:, None]).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def forward(self, queries: Tensor, boxes: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Samples the maps around boxes.

        Args:
            queries: (B, N, C).
            boxes: float32 (B, N, 4) centre, width, height as parts of the canvas.
            maps: (B, C, h, w) of each level.

        Returns:
            (B, N, C).
        """
        batch, count, channels = queries.shape
        # (B, N, heads, points, 2) and (B, N, heads, points)
        offsets = self.sampling_offsets(queries).float().reshape(batch, count, self.heads, -1, 2)
        weights = self.attention_weights(queries).float().reshape(batch, count, self.heads, -1)
        weights = weights.softmax(dim=-1).transpose(1, 2).flatten(0, 1)  # (B * heads, N, points)
        parts = getattr(self, self.parts_name)
        box = boxes[:, :, None, None]  # (B, N, 1, 1, 4)
        places = box[..., :2] + offsets * parts[:, None] * box[..., 2:] * self.scale
        places = places.transpose(1, 2).flatten(0, 1)  # (B * heads, N, points, 2) in [0, 1]
        found: Tensor | float = 0.0
        for level, place, weight in zip(
            maps, places.split(self.points, dim=2), weights.split(self.points, dim=2), strict=True
        ):
            values = self._values(level)  # (B * heads, C / heads, h, w)
            sampled = (_nearest if self.discrete else _bilinear)(values, place)
            found = found + (sampled * weight[:, None]).sum(dim=-1)  # (B * heads, C / heads, N)
        assert isinstance(found, Tensor)
        found = found.reshape(batch, channels, count).transpose(1, 2)
        return cast(Tensor, self.output_proj(found)) if self.projected else found

    def _values(self, level: Tensor) -> Tensor:
        if self.projected:
            level = F.conv2d(level, self.value_proj.weight[..., None, None], self.value_proj.bias)
        height, width = level.shape[2:]
        return level.float().reshape(level.shape[0] * self.heads, -1, height, width)


def _bilinear(values: Tensor, places: Tensor) -> Tensor:
    """(B, C, h, w) at places (B, N, points, 2) in [0, 1] -> (B, C, N, points); 0 outside."""
    return F.grid_sample(
        values, 2 * places - 1, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def _nearest(values: Tensor, places: Tensor) -> Tensor:
    """The same with the cell that is nearest to a place, at the border too."""
    height, width = values.shape[2:]
    x = (places[..., 0] * width + 0.5).long().clamp(0, width - 1)
    y = (places[..., 1] * height + 0.5).long().clamp(0, height - 1)
    index = (y * width + x).flatten(1)[:, None].expand(-1, values.shape[1], -1)
    sampled = values.flatten(2).gather(2, index)  # (B, C, N * points)
    return sampled.reshape(*values.shape[:2], *places.shape[1:3])
