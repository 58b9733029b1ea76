"""The decoders of ``dfine`` and ``rtdetr_v2``: self-attention among queries, sampling of the
feature maps around each query's box, and refinement of the box.

Parameters have the names of Hugging Face's ``DFineForObjectDetection`` and
``RTDetrV2ForObjectDetection``.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mtl_ray.models.hybrid_encoder import Perceptron, SelfAttention
from mtl_ray.tasks.detection.realtime.boxes import (
    expected_shifts,
    logits_of,
    shift_steps,
    shifted_boxes,
)
from mtl_ray.tasks.detection.realtime.config import DFineHead, RealTimeOptions, RtDetrV2Head
from mtl_ray.tasks.detection.realtime.sampling import DeformableSampling

PRIOR = 0.01
"""Probability of a class at the start of training (Lin et al. 2017, section 4.1)."""
FINITE = 65504.0
"""The largest number of half precision."""


class LayerOutput(NamedTuple):
    """What a decoder layer predicts of N queries, float32.

    Attributes:
        logits: (B, N, C) of the classes.
        boxes: (B, N, 4) centre, width, height as parts of the canvas.
        corners: (B, N, 4, bins + 1) logits of the shifts of the edges of ``anchors``; None where
            boxes are four numbers.
        anchors: (B, N, 4), without gradient.
    """

    logits: Tensor
    boxes: Tensor
    corners: Tensor | None = None
    anchors: Tensor | None = None


def class_layer(channels: int, classes: int) -> nn.Linear:
    """The last layer of a classifier, which starts with probability ``PRIOR``."""
    layer = nn.Linear(channels, classes)
    nn.init.constant_(layer.bias, math.log(PRIOR / (1 - PRIOR)))
    return layer


def still(perceptron: Perceptron) -> Perceptron:
    """The same, with zeros as output at the start."""
    for parameter in perceptron.layers[-1].parameters():
        nn.init.zeros_(parameter)
    return perceptron


class ResidualGate(nn.Module):
    """A gate between what queries knew and what they sampled, in place of a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * channels, 2 * channels)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.norm = nn.LayerNorm(channels)

    def forward(self, known: Tensor, sampled: Tensor) -> Tensor:
        """(B, N, C) twice -> (B, N, C)."""
        gates = self.gate(torch.cat([known, sampled], dim=-1)).sigmoid()
        keep, take = gates.chunk(2, dim=-1)
        return cast(Tensor, self.norm(keep * known + take * sampled))


class RealtimeDecoderLayer(nn.Module):
    """A decoder layer with normalisation after each part.

    Args:
        config: of the head.
        gated: as in D-FINE, with a ``ResidualGate``; else with a residual connection.
    """

    def __init__(self, config: RealTimeOptions, gated: bool) -> None:
        super().__init__()
        width = config.channels
        self.gated = gated
        self.self_attn = SelfAttention(width, config.heads, config.dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = DeformableSampling(config, projected=not gated)
        if gated:
            self.gateway = ResidualGate(width)
        else:
            self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.mlp = Perceptron((width, config.feedforward, width))
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        queries: Tensor,
        positions: Tensor,
        boxes: Tensor,
        maps: Sequence[Tensor],
        visible: Tensor | None,
    ) -> Tensor:
        """Queries (B, N, C) after the layer; see ``SelfAttention`` and ``DeformableSampling``."""
        attended = self.dropout(self.self_attn(queries, positions, visible))
        queries = self.self_attn_layer_norm(queries + attended)
        sampled = self.dropout(self.encoder_attn(queries + positions, boxes, maps))
        if self.gated:
            queries = self.gateway(queries, sampled)
            queries = (queries + self.mlp(queries)).clamp(-FINITE, FINITE)
        else:
            queries = self.encoder_attn_layer_norm(queries + sampled)
            queries = queries + self.mlp(queries)
        return cast(Tensor, self.final_layer_norm(queries))


class Quality(nn.Module):
    """How sharp the distributions of a box are, as a number that is added to its class logits
    (Peng et al. 2024, appendix; Li et al. 2021, GFLv2).
    """

    def __init__(self, config: DFineHead) -> None:
        super().__init__()
        self.best = config.quality_bins
        inner = [config.quality_channels] * (config.quality_layers - 1)
        self.reg_conf = still(Perceptron((4 * (self.best + 1), *inner, 1)))

    def forward(self, corners: Tensor) -> Tensor:
        """(B, N, 4, bins + 1) logits -> (B, N, 1)."""
        best = corners.softmax(dim=-1).topk(self.best, dim=-1).values  # (B, N, 4, best)
        shape = torch.cat([best, best.mean(dim=-1, keepdim=True)], dim=-1)
        return cast(Tensor, self.reg_conf(shape.flatten(2)))


class DFineDecoder(nn.Module):
    """The decoder of D-FINE: the first layer predicts boxes, and all layers one sum of logits of
    the shifts of their edges.
    """

    up: Tensor
    reg_scale: Tensor

    def __init__(self, config: DFineHead, classes: int) -> None:
        super().__init__()
        width, self.bins = config.channels, config.bins
        self.layers = nn.ModuleList(
            RealtimeDecoderLayer(config, gated=True) for _ in range(config.layers)
        )
        self.query_pos_head = Perceptron((4, 2 * width, width))
        self.pre_bbox_head = still(Perceptron((width, width, width, 4)))
        self.class_embed = nn.ModuleList(class_layer(width, classes) for _ in self.layers)
        self.bbox_embed = nn.ModuleList(
            still(Perceptron((width, width, width, 4 * (config.bins + 1)))) for _ in self.layers
        )
        self.lqe_layers = nn.ModuleList(Quality(config) for _ in self.layers)
        self.register_buffer("up", torch.tensor([config.largest_shift]))
        self.register_buffer("reg_scale", torch.tensor([config.curvature]))

    def steps(self) -> Tensor:
        """See ``shift_steps``."""
        return shift_steps(self.bins, self.up, self.reg_scale)

    def forward(
        self,
        queries: Tensor,
        boxes: Tensor,
        maps: Sequence[Tensor],
        visible: Tensor | None = None,
        last_only: bool = False,
    ) -> list[LayerOutput]:
        """The predictions of the first layer before any shift, then of each layer.

        Args:
            queries: (B, N, C).
            boxes: float32 (B, N, 4) where they start.
            maps: (B, C, h, w) of each level.
            visible: see ``SelfAttention``.
            last_only: only the predictions of the last layer.
        """
        steps, found = self.steps(), list[LayerOutput]()
        before = torch.zeros_like(queries)
        total = queries.new_zeros(4, self.bins + 1, dtype=torch.float32)
        anchors = boxes
        for i, layer in enumerate(self.layers):
            positions = self.query_pos_head(boxes).clamp(-10, 10)
            queries = layer(queries, positions, boxes, maps, visible)
            if i == 0:
                first = (self.pre_bbox_head(queries).float() + logits_of(boxes)).sigmoid()
                anchors = first.detach()
            change = self.bbox_embed[i](queries + before).float()
            total = change.unflatten(-1, (4, self.bins + 1)) + total
            refined = shifted_boxes(anchors, expected_shifts(total, steps), self.reg_scale)
            boxes, before = refined.detach(), queries.detach()
            if last_only and i < len(self.layers) - 1:
                continue
            logits = self.class_embed[i](queries).float()
            if i == 0 and not last_only:
                found.append(LayerOutput(logits, first))
            quality = self.lqe_layers[i](total).float()
            found.append(LayerOutput(logits + quality, refined, total, anchors))
        return found


class RtDetrDecoder(nn.Module):
    """The decoder of RT-DETRv2: each layer changes the logits of the boxes before it."""

    def __init__(self, config: RtDetrV2Head, classes: int) -> None:
        super().__init__()
        width = config.channels
        self.layers = nn.ModuleList(
            RealtimeDecoderLayer(config, gated=False) for _ in range(config.layers)
        )
        self.query_pos_head = Perceptron((4, 2 * width, width))
        self.class_embed = nn.ModuleList(class_layer(width, classes) for _ in self.layers)
        self.bbox_embed = nn.ModuleList(
            still(Perceptron((width, width, width, 4))) for _ in self.layers
        )

    def forward(
        self,
        queries: Tensor,
        boxes: Tensor,
        maps: Sequence[Tensor],
        visible: Tensor | None = None,
        last_only: bool = False,
    ) -> list[LayerOutput]:
        """The predictions of each layer, see ``DFineDecoder``."""
        found = list[LayerOutput]()
        for i, layer in enumerate(self.layers):
            queries = layer(queries, self.query_pos_head(boxes), boxes, maps, visible)
            refined = (self.bbox_embed[i](queries).float() + logits_of(boxes)).sigmoid()
            boxes = refined.detach()
            if not last_only or i == len(self.layers) - 1:
                found.append(LayerOutput(self.class_embed[i](queries).float(), refined))
        return found
