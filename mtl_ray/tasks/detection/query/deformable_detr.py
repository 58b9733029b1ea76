"""The detection head ``deformable_detr``."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.head import Context, Features, HeadModule, Term
from mtl_ray.models.imports import Imported, Program
from mtl_ray.tasks.detection.query.attention import (
    DeformableAttention,
    inverse_sigmoid,
    sine_features,
)
from mtl_ray.tasks.detection.query.config import DeformableDetrHead
from mtl_ray.tasks.detection.query.deformable_layers import (
    Cells,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
    LayerBranches,
    Layers,
    flattened,
)
from mtl_ray.tasks.detection.query.matcher import (
    MatchCosts,
    SetTargets,
    match_queries,
    matching_costs,
)
from mtl_ray.tasks.detection.query.published import imported_deformable_detr
from mtl_ray.tasks.detection.query.set_losses import (
    box_losses,
    canvas_boxes,
    counted_queries,
    image_size,
    layer_prefixes,
    layer_targets,
    layer_terms,
    query_focal_loss,
    set_targets,
    target_classes,
)


class Proposals(NamedTuple):
    """Predictions of the encoder on every cell: logits (B, N, classes), of which the first says
    whether there is an object, and boxes (B, N, 4) cxcywh in parts of the image.
    """

    logits: Tensor
    boxes: Tensor


class Start(NamedTuple):
    """What the decoder starts with: queries and their positions, both (B, Q, width), references
    (B, Q, 2) points or (B, Q, 4) boxes, and the proposals, if any, that they come from.
    """

    query: Tensor
    query_pos: Tensor
    references: Tensor
    proposals: Proposals | None


class LayerPredictions(NamedTuple):
    """Predictions of G layers and what they are compared with.

    Attributes:
        logits: (G, B, Q, classes).
        boxes: (G, B, Q, 4) cxcywh in parts of the image.
        objects: of the batch.
        known: bool (B, classes), the classes with a loss.
        prefixes: of the names of the layers' terms.
    """

    logits: Tensor
    boxes: Tensor
    objects: SetTargets
    known: Tensor
    prefixes: list[str]


class DecoderOutputs(NamedTuple):
    """Of each decoder layer logits (B, Q, classes) and boxes (B, Q, 4) cxcywh in parts of the
    image, both (layers, ...); and the proposals of the encoder, if any.
    """

    logits: Tensor
    boxes: Tensor
    proposals: Proposals | None

    def parts(self, objects: SetTargets, known: Tensor) -> list[LayerPredictions]:
        """Those of the decoder, and the proposals, for which class 0 is any object."""
        parts = [
            LayerPredictions(
                self.logits, self.boxes, objects, known, layer_prefixes(self.logits.shape[0])
            )
        ]
        if self.proposals is not None:
            logits, boxes = (each[None] for each in self.proposals)
            blind = objects._replace(classes=torch.zeros_like(objects.classes))
            parts.append(LayerPredictions(logits, boxes, blind, torch.ones_like(known), ["enc_"]))
        return parts


class DeformableDetr(HeadModule):
    """Deformable DETR (Zhu et al. 2021, https://arxiv.org/abs/2010.04159).

    Boxes are relative to the image without padding; values of padding are 0. Parameters have
    OpenMMLab's names; box layers that all decoder layers share are there once, with the number 0.

    Args:
        config: the head.
        classes: number of classes.
    """

    def __init__(self, config: DeformableDetrHead, classes: int) -> None:
        super().__init__(config)
        self.classes, self.max_detections = classes, config.max_detections
        self.queries, self.refine, self.two_stage = config.queries, config.refine, config.two_stage
        self.loss_weights = {
            "class": config.class_weight,
            "box": config.box_weight,
            "iou": config.iou_weight,
        }
        self.costs = MatchCosts(
            kind="focal",
            class_weight=config.match_class_weight,
            box_weight=config.match_box_weight,
            iou_weight=config.match_iou_weight,
        )
        self.encoder = Layers(
            [DeformableEncoderLayer(config) for _ in range(config.encoder_layers)]
        )
        self.decoder = Layers(
            [DeformableDecoderLayer(config) for _ in range(config.decoder_layers)]
        )
        width = config.channels
        self.level_embed = nn.Parameter(torch.randn(len(config.levels), width))
        if config.two_stage:
            self.memory_trans_fc = nn.Linear(width, width)
            self.memory_trans_norm = nn.LayerNorm(width)
            self.pos_trans_fc = nn.Linear(2 * width, 2 * width)
            self.pos_trans_norm = nn.LayerNorm(2 * width)
        else:
            self.query_embedding = nn.Embedding(config.queries, 2 * width)
            self.reference_points_fc = nn.Linear(width, 2)
        self.bbox_head = LayerBranches(config, classes)
        self._initialise()

    def _initialise(self) -> None:
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.reset_parameters()
        if self.two_stage:
            nn.init.xavier_uniform_(self.memory_trans_fc.weight)
            nn.init.xavier_uniform_(self.pos_trans_fc.weight)
        else:
            nn.init.xavier_uniform_(self.reference_points_fc.weight)
            nn.init.zeros_(self.reference_points_fc.bias)

    def cells(self, features: Features, context: Context) -> Cells:
        """The cells of all levels, not encoded."""
        return flattened([features[level] for level in self.levels], self.level_embed, context)

    def encode(self, cells: Cells) -> Cells:
        """The cells with encoded tokens; each one's reference is its centre, on all levels."""
        references = cells.centres[:, :, None] * cells.ratios[:, None]  # (B, N, levels, 2)
        tokens = cells.tokens
        for layer in self.encoder.layers:
            tokens = layer(tokens, cells, references)
        return cells._replace(tokens=tokens)

    def start(self, cells: Cells) -> Start:
        """Learned queries, or the best proposals of the encoder."""
        if self.two_stage:
            return self._start_from(*self.propose(cells))
        batch = cells.tokens.shape[0]
        query_pos, query = self.query_embedding.weight.expand(batch, -1, -1).chunk(2, dim=-1)
        references = self.reference_points_fc(query_pos).float().sigmoid()
        return Start(query, query_pos, references, None)

    def propose(self, cells: Cells) -> tuple[Tensor, Tensor]:
        """Logits of classes (B, N, classes) and of boxes (B, N, 4) on every cell (Zhu et al. 2021,
        appendix A.4). Cells in the padding and those whose box would leave the image have boxes of
        infinite logits and no content.
        """
        sides = torch.cat(
            [
                cells.centres.new_full((1, height * width, 2), 0.05 * 2.0**level)
                for level, (height, width) in enumerate(cells.sizes)
            ],
            dim=1,
        )
        boxes = torch.cat([cells.centres, sides.expand_as(cells.centres)], dim=-1)  # (B, N, 4)
        inside = ((boxes > 0.01) & (boxes < 0.99)).all(dim=-1, keepdim=True)
        usable = inside & ~cells.ignored[..., None]  # (B, N, 1)
        safe = torch.where(usable, boxes, 0.5)
        start = torch.log(safe / (1 - safe)).masked_fill(~usable, torch.inf)
        memory = self.memory_trans_norm(
            self.memory_trans_fc(cells.tokens.masked_fill(~usable, 0.0))
        )
        last = len(self.decoder.layers)
        return self.bbox_head.logits(memory, last), self.bbox_head.offsets(memory, last) + start

    def _start_from(self, logits: Tensor, boxes: Tensor) -> Start:
        """The proposals with the highest first logit become queries.

        Args:
            logits: (B, N, classes).
            boxes: (B, N, 4), logits.
        """
        # a graph with open sizes may have fewer cells than queries
        scores = F.pad(logits[..., 0].detach(), (0, self.queries), value=-torch.inf)
        best = scores.topk(self.queries, dim=1).indices.clamp(max=logits.shape[1] - 1)
        references = boxes.detach().gather(1, best[..., None].expand(-1, -1, 4)).sigmoid()
        width = self.memory_trans_fc.in_features
        embedded = sine_features(references * (2 * math.pi), width // 2).flatten(2)
        query_pos, query = self.pos_trans_norm(self.pos_trans_fc(embedded)).chunk(2, dim=-1)
        return Start(query, query_pos, references, Proposals(logits, boxes.sigmoid()))

    def decode(self, cells: Cells, every: bool = True) -> DecoderOutputs:
        """The predictions of every decoder layer, or of the last alone.

        Args:
            cells: encoded.
            every: layer predicts classes.
        """
        start = self.start(cells)
        query, references = start.query, start.references
        logits, boxes = [], []
        for place, layer in enumerate(self.decoder.layers):
            ratios = cells.ratios.repeat(1, 1, references.shape[-1] // 2)
            query = layer(query, start.query_pos, cells, references[:, :, None] * ratios[:, None])
            offsets = self.bbox_head.offsets(query, place)
            logit = inverse_sigmoid(references)
            box = (offsets + F.pad(logit, (0, 4 - logit.shape[-1]))).sigmoid()
            if self.refine:
                references = box.detach()
            if every or place == len(self.decoder.layers) - 1:
                logits.append(self.bbox_head.logits(query, place))
                boxes.append(box)
        return DecoderOutputs(torch.stack(logits), torch.stack(boxes), start.proposals)

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """Of each decoder layer ``class`` (focal), ``box`` (L1) and ``iou`` (GIoU), all divided by
        the number of matched objects; of the proposals the same as ``enc_class``, ...

        ``class`` is ignored for classes that the dataset of an image does not know. Queries without
        an object whose centre is in a crowd region have no class loss.
        """
        terms: dict[str, Term] = {}
        for part, matched, counted in self._matched(features, targets, context):
            classes = target_classes(matched, part.objects, self.classes)
            losses = {
                "class": query_focal_loss(part.logits, classes, counted, part.known),
                **box_losses(part.boxes, matched, part.objects),
            }
            terms |= layer_terms(losses, self.loss_weights, part.prefixes)
        return terms

    def _matched(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> list[tuple[LayerPredictions, Tensor, Tensor]]:
        """Each part with its matches int64 (G, B, Q) and whether queries have a class loss, bool
        (G, B, Q). All are matched in one transfer.
        """
        found = self.decode(self.encode(self.cells(features, context)))
        objects = set_targets(targets, context)
        parts = found.parts(objects, targets["known_classes"])
        costs = [
            matching_costs(part.logits, part.boxes, part.objects, self.costs) for part in parts
        ]
        return [
            (part, matched, counted_queries(part.boxes, matched, targets, objects.size))
            for part, matched in zip(parts, match_queries(costs, objects.present), strict=True)
        ]

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``boxes`` (B, K, 4) xyxy in canvas pixels, ``scores`` (B, K), ``classes`` int64 (B, K):
        the best pairs of a query and a class.
        """
        found = self.decode(self.encode(self.cells(features, context)), every=False)
        scores, place = found.logits[-1].sigmoid().flatten(1).topk(self.max_detections)
        query = torch.div(place, self.classes, rounding_mode="trunc")
        chosen = found.boxes[-1].gather(1, query[..., None].expand(-1, -1, 4))
        return {
            "boxes": canvas_boxes(chosen, image_size(context)),
            "scores": scores,
            "classes": place - query * self.classes,
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """Of each decoder layer ``cls0`` (B, Q, classes), ... and ``reg0`` (B, Q, 4), ..., the
        boxes cxcywh in parts of the image; of the proposals ``enc_cls`` and ``enc_reg``.
        """
        found = self.decode(self.encode(self.cells(features, context)))
        outputs = {f"cls{layer}": value for layer, value in enumerate(found.logits)} | {
            f"reg{layer}": value for layer, value in enumerate(found.boxes)
        }
        if found.proposals is not None:
            outputs |= {"enc_cls": found.proposals.logits, "enc_reg": found.proposals.boxes}
        return outputs

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``set_losses.layer_targets``."""
        arrays: dict[str, Tensor] = {}
        for part, matched, counted in self._matched(features, targets, context):
            arrays |= layer_targets(matched, counted, part.objects, self.classes, part.prefixes)
        return arrays

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``; also from the original repository's checkpoints."""
        return imported_deformable_detr(program, tensors, len(self.bbox_head.cls_branches))
