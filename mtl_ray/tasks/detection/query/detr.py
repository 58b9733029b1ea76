"""The detection head ``detr``."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.head import Context, Features, HeadModule, Term
from mtl_ray.models.imports import Imported, Program
from mtl_ray.tasks.detection.query.attention import (
    MultiheadAttention,
    sine_positions,
    valid_rows_columns,
)
from mtl_ray.tasks.detection.query.config import DetrHead
from mtl_ray.tasks.detection.query.matcher import MatchCosts, match_queries, matching_costs
from mtl_ray.tasks.detection.query.published import imported_detr
from mtl_ray.tasks.detection.query.set_losses import (
    box_losses,
    canvas_boxes,
    counted_queries,
    image_size,
    known_logits,
    layer_prefixes,
    layer_targets,
    layer_terms,
    set_targets,
    softmax_loss,
    target_classes,
)


class FeedForward(nn.Module):
    """Two linear layers with a residual connection."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, tokens, width) of both."""
        out: Tensor = tokens + self.layers(tokens)
        return out


class DetrEncoderLayer(nn.Module):
    """Self-attention of the cells of a map, normalised after each step (Carion et al. 2020, figure
    10).
    """

    def __init__(self, config: DetrHead) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(config.channels, config.heads, config.dropout)
        self.ffn = FeedForward(config.channels, config.feedforward, config.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in range(2))

    def forward(self, tokens: Tensor, positions: Tensor, ignored: Tensor) -> Tensor:
        """Tokens (B, N, width) of both; ``ignored`` bool (B, N) are not attended to."""
        tokens = self.norms[0](self.self_attn(tokens, query_pos=positions, ignored=ignored))
        out: Tensor = self.norms[1](self.ffn(tokens))
        return out


class DetrDecoderLayer(nn.Module):
    """Queries attend to each other, then to the cells of the map."""

    def __init__(self, config: DetrHead) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(config.channels, config.heads, config.dropout)
        self.cross_attn = MultiheadAttention(config.channels, config.heads, config.dropout)
        self.ffn = FeedForward(config.channels, config.feedforward, config.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in range(3))

    def forward(self, query: Tensor, query_pos: Tensor, memory: "Memory") -> Tensor:
        """Queries (B, Q, width) of both."""
        query = self.norms[0](self.self_attn(query, query_pos=query_pos))
        query = self.norms[1](
            self.cross_attn(query, memory.tokens, query_pos, memory.positions, memory.ignored)
        )
        out: Tensor = self.norms[2](self.ffn(query))
        return out


class Memory(NamedTuple):
    """What the decoder reads: tokens and their positions, both (B, N, width), and which of them
    show padding, bool (B, N).
    """

    tokens: Tensor
    positions: Tensor
    ignored: Tensor


class Encoder(nn.Module):
    """The layers of the encoder."""

    def __init__(self, config: DetrHead) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DetrEncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, cells: Memory) -> Memory:
        """The cells with encoded tokens."""
        tokens = cells.tokens
        for layer in self.layers:
            tokens = layer(tokens, cells.positions, cells.ignored)
        return cells._replace(tokens=tokens)


class Decoder(nn.Module):
    """The layers of the decoder and the norm before the predictions of each."""

    def __init__(self, config: DetrHead) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DetrDecoderLayer(config) for _ in range(config.decoder_layers))
        self.post_norm = nn.LayerNorm(config.channels)

    def forward(self, query_pos: Tensor, memory: Memory) -> Tensor:
        """The queries after each layer, normalised: (layers, B, Q, width)."""
        query = torch.zeros_like(query_pos)
        states = []
        for layer in self.layers:
            query = layer(query, query_pos, memory)
            states.append(self.post_norm(query))
        return torch.stack(states)


class QueryPredictor(nn.Module):
    """Class logits and boxes of queries; the background is the last class."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.fc_cls = nn.Linear(width, classes + 1)
        self.reg_ffn = FeedForward(width, width, 0.0)
        self.fc_reg = nn.Linear(width, 4)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(..., width) -> float32 logits (..., classes + 1), boxes (..., 4) cxcywh in parts of the
        image.
        """
        boxes = self.fc_reg(F.relu(self.reg_ffn.layers(states)))
        return self.fc_cls(states).float(), boxes.float().sigmoid()


class Detr(HeadModule):
    """DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872).

    Boxes are relative to the image without padding, and cells that show padding are not attended
    to. Parameters have OpenMMLab's names.

    Args:
        config: the head.
        classes: number of classes.
    """

    def __init__(self, config: DetrHead, classes: int) -> None:
        super().__init__(config)
        self.classes, self.max_detections = classes, config.max_detections
        self.background_weight = config.background_weight
        self.loss_weights = {
            "class": config.class_weight,
            "box": config.box_weight,
            "iou": config.iou_weight,
        }
        self.costs = MatchCosts(
            kind="softmax",
            class_weight=config.match_class_weight,
            box_weight=config.match_box_weight,
            iou_weight=config.match_iou_weight,
        )
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.query_embedding = nn.Embedding(config.queries, config.channels)
        self.bbox_head = QueryPredictor(config.channels, classes)
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def states(self, features: Features, context: Context) -> Tensor:
        """The queries after each decoder layer, (layers, B, Q, width)."""
        level = features[self.levels[0]]
        size = (level.shape[2], level.shape[3])
        rows, columns = valid_rows_columns(context.valid_hw, context.canvas_hw, size)
        cells = Memory(
            tokens=level.permute(0, 2, 3, 1).flatten(1, 2),
            positions=sine_positions(rows, columns, level.shape[1]),
            ignored=~(rows[:, :, None] & columns[:, None]).flatten(1),
        )
        query_pos = self.query_embedding.weight.expand(level.shape[0], -1, -1)
        states: Tensor = self.decoder(query_pos, self.encoder(cells))
        return states

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """Of each decoder layer ``class`` (cross entropy, divided by the sum of its weights),
        ``box`` (L1) and ``iou`` (GIoU), both divided by the number of matched objects.

        The softmax is over the background and the classes that the dataset of the image knows.
        Queries without an object whose centre is in a crowd region have no class loss.
        """
        logits, boxes = self.bbox_head(self.states(features, context))
        logits = known_logits(logits, targets["known_classes"])
        objects = set_targets(targets, context)
        (matched,) = match_queries(
            [matching_costs(logits, boxes, objects, self.costs)], objects.present
        )  # (layers, B, Q)
        losses = {
            "class": softmax_loss(
                logits,
                target_classes(matched, objects, self.classes),
                counted_queries(boxes, matched, targets, objects.size),
                self.background_weight,
            ),
            **box_losses(boxes, matched, objects),
        }
        return layer_terms(losses, self.loss_weights, layer_prefixes(logits.shape[0]))

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``boxes`` (B, K, 4) xyxy in canvas pixels, ``scores`` (B, K), ``classes`` int64 (B, K):
        of the queries that are least background their best class.
        """
        logits, boxes = self.bbox_head(self.states(features, context)[-1])
        scores, classes = logits.softmax(dim=-1)[..., :-1].max(dim=-1)  # (B, Q)
        scores, query = scores.topk(self.max_detections)
        chosen = boxes.gather(1, query[..., None].expand(-1, -1, 4))
        return {
            "boxes": canvas_boxes(chosen, image_size(context)),
            "scores": scores,
            "classes": classes.gather(1, query),
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """Of each decoder layer ``cls0`` (B, Q, classes + 1), ... and ``reg0`` (B, Q, 4), ..., the
        boxes cxcywh in parts of the image.
        """
        logits, boxes = self.bbox_head(self.states(features, context))
        return {f"cls{layer}": value for layer, value in enumerate(logits)} | {
            f"reg{layer}": value for layer, value in enumerate(boxes)
        }

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``set_losses.layer_targets``."""
        logits, boxes = self.bbox_head(self.states(features, context))
        logits = known_logits(logits, targets["known_classes"])
        objects = set_targets(targets, context)
        (matched,) = match_queries(
            [matching_costs(logits, boxes, objects, self.costs)], objects.present
        )
        counted = counted_queries(boxes, matched, targets, objects.size)
        return layer_targets(
            matched, counted, objects, self.classes, layer_prefixes(logits.shape[0])
        )

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``; also from the original repository's checkpoints."""
        return imported_detr(program, tensors)
