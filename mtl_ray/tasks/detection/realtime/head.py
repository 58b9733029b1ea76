"""What the real-time heads ``dfine`` and ``rtdetr_v2`` share.

The best tokens of the neck's maps are the queries of a decoder (Zhao et al. 2023, RT-DETR,
https://arxiv.org/abs/2304.08069, section 4.3); each query is one object, so that nothing is
suppressed. Parameters have the names of Hugging Face's detectors after ``model.``.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.head import IMPOSSIBLE, Context, Features, HeadModule, Term
from mtl_ray.models.hybrid_encoder import Perceptron
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.tasks.detection.query.matcher import (
    MatchCosts,
    SetTargets,
    match_queries,
    matching_costs,
    to_xyxy,
)
from mtl_ray.tasks.detection.query.set_losses import counted_queries, target_boxes, target_classes
from mtl_ray.tasks.detection.realtime.boxes import canvas_targets, token_anchors
from mtl_ray.tasks.detection.realtime.config import DFineHead, RtDetrV2Head
from mtl_ray.tasks.detection.realtime.decoder import (
    DFineDecoder,
    LayerOutput,
    RtDetrDecoder,
    class_layer,
    still,
)
from mtl_ray.tasks.detection.realtime.denoising import (
    NoisyQueries,
    noisy_queries,
    visible_queries,
)
from mtl_ray.tasks.detection.realtime.losses import (
    NamedOutput,
    box_terms,
    class_terms,
    layer_outputs,
)

_LAYER = r"model\.decoder\.layers\.(\d+)\."
HEAD_RULES = (
    Rename(
        _LAYER + r"self_attn\.(?:o_proj|out_proj)\.(.*)", r"decoder.layers.\1.self_attn.o_proj.\2"
    ),
    Rename(_LAYER + r"(?:mlp\.)?fc1\.(.*)", r"decoder.layers.\1.mlp.layers.0.\2"),
    Rename(_LAYER + r"(?:mlp\.)?fc2\.(.*)", r"decoder.layers.\1.mlp.layers.1.\2"),
    Rename(r"model\.((?:decoder|enc_|denoising_).*)", r"\1"),
)
_SHARED = ("class_embed.", "bbox_embed.")


class Decoded(NamedTuple):
    """What the decoder predicts: of its queries, of the tokens that they start from, and of the
    denoising queries before them.
    """

    layers: list[LayerOutput]
    encoder: LayerOutput
    noisy: list[LayerOutput]


class SetGroup(NamedTuple):
    """Sets of predictions of the same queries.

    Attributes:
        sets: G sets.
        teacher: the last layer.
        matched: int64 (G, B, N), the object of each prediction or -1.
        real: bool (B, N), the queries that count.
        masks: see ``class_terms``.
        noisy: these are denoising queries.
    """

    sets: list[NamedOutput]
    teacher: LayerOutput
    matched: Tensor
    real: Tensor
    masks: tuple[Tensor, Tensor]
    noisy: bool

    def objects(self, targets: SetTargets) -> Tensor:
        """What sums are divided by: the number of objects, or of restored queries."""
        return ((self.matched[0] >= 0) if self.noisy else targets.present).sum().float()


class RealTimeDetr(HeadModule):
    """What the two heads share.

    Args:
        config: of the head.
        channels: of the trunk's features.
        classes: their number.
        decoder: of the head.
        projected: maps are projected before the decoder even if they have its width.
    """

    def __init__(
        self,
        config: DFineHead | RtDetrV2Head,
        channels: Mapping[str, int],
        classes: int,
        decoder: DFineDecoder | RtDetrDecoder,
        projected: bool,
    ) -> None:
        super().__init__(config)
        self.config, self.classes, width = config, classes, config.channels
        self.costs = MatchCosts(
            kind="focal",
            class_weight=config.matching.class_cost,
            box_weight=config.matching.box_cost,
            iou_weight=config.matching.iou_cost,
            alpha=config.matching.alpha,
            gamma=config.matching.gamma,
            eps=1e-8,
        )
        self.decoder_input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels[level], width, 1, bias=False), nn.BatchNorm2d(width))
            if projected or channels[level] != width
            else nn.Identity()
            for level in self.levels
        )
        self.enc_output = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.enc_score_head = class_layer(width, classes)
        self.enc_bbox_head = still(Perceptron((width, width, width, 4)))
        if config.denoising.queries:
            # the last row is that of places without a query
            self.denoising_class_embed = nn.Embedding(classes + 1, width, padding_idx=classes)
        self.decoder = decoder

    def decode(
        self, features: Features, noisy: NoisyQueries | None = None, last_only: bool = False
    ) -> Decoded:
        """The predictions of the layers, with denoising queries before the others if any."""
        maps = [
            project(features[level])
            for project, level in zip(self.decoder_input_proj, self.levels, strict=True)
        ]
        queries, encoder = self._best_tokens(maps)
        boxes, visible, split = encoder.boxes.detach(), None, 0
        if noisy is not None:
            split = noisy.classes.shape[1]
            queries = torch.cat([self.denoising_class_embed(noisy.classes), queries], dim=1)
            boxes = torch.cat([noisy.boxes, boxes], dim=1)
            visible = visible_queries(noisy, boxes.shape[1] - split)
        layers = self.decoder(queries, boxes, maps, visible, last_only)
        return Decoded(
            [_cut(each, slice(split, None)) for each in layers],
            encoder,
            [_cut(each, slice(0, split)) for each in layers] if split else [],
        )

    def _best_tokens(self, maps: Sequence[Tensor]) -> tuple[Tensor, LayerOutput]:
        """The queries (B, N, C), without gradient, and what is predicted of their tokens.

        Scores are padded before ``topk``, since a graph with dynamic sizes may have fewer tokens
        than queries; the last token is then there several times.
        """
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        anchors, valid = token_anchors([(m.shape[2], m.shape[3]) for m in maps], tokens.device)
        memory = self.enc_output(tokens * valid.to(tokens.dtype))  # (B, T, C)
        logits = self.enc_score_head(memory).float()  # (B, T, classes)
        count = self.config.queries
        best = F.pad(logits.detach().amax(dim=2), (0, count), value=IMPOSSIBLE)
        place = best.topk(count, dim=1).indices.clamp(max=tokens.shape[1] - 1)[..., None]
        chosen = memory.gather(1, place.expand(-1, -1, memory.shape[2]))
        start = anchors.expand(tokens.shape[0], -1, -1).gather(1, place.expand(-1, -1, 4))
        boxes = (self.enc_bbox_head(chosen).float() + start).sigmoid()
        picked = logits.gather(1, place.expand(-1, -1, logits.shape[2]))
        return chosen.detach(), LayerOutput(picked, boxes)

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``class``, ``box`` (L1) and ``iou`` (GIoU) of each decoder layer (``d0_``, ..., the last
        without prefix), of the encoder's tokens (``enc_``) and of the denoising queries
        (``dn_d0_``, ...), divided by the number of objects.

        Classes that the dataset of an image does not know have no loss, nor have predictions
        without an object whose centre lies in a crowd region.
        """
        objects = canvas_targets(targets, context)
        noisy = None
        if self.training and self.config.denoising.queries:
            noisy = noisy_queries(self.config.denoising, objects, self.classes, context.step)
        decoded = self.decode(features, noisy)
        sets = [*self.sets(decoded.layers), NamedOutput("enc_", self.limited(decoded.encoder))]
        logits = torch.stack([each.output.logits for each in sets])
        boxes = torch.stack([each.output.boxes for each in sets])
        costs = matching_costs(logits, boxes, objects, self.costs)
        (matched,) = match_queries([costs], objects.present)  # (G, B, N)
        counted = counted_queries(boxes, matched, targets, objects.size)
        real = targets["annotated"][:, None].expand_as(matched[0])
        known = targets["known_classes"]
        group = SetGroup(sets, decoded.layers[-1], matched, real, (counted, known), False)
        terms = self.set_terms(group, objects)
        if noisy is not None:
            own = torch.where(noisy.positive, noisy.object, -1)
            sets = self.sets(decoded.noisy, noisy=True)
            matched = own.expand(len(sets), -1, -1)
            boxes = torch.stack([each.output.boxes for each in sets])
            counted = counted_queries(boxes, matched, targets, objects.size) & noisy.real
            last = decoded.noisy[-1]
            group = SetGroup(sets, last, matched, noisy.real, (counted, known), True)
            more = self.set_terms(group, objects)
            terms |= {f"dn_{name}": term for name, term in more.items()}
        return terms

    def sets(self, outputs: Sequence[LayerOutput], noisy: bool = False) -> list[NamedOutput]:
        """The sets of predictions that have losses, of the queries or the noisy ones."""
        return layer_outputs([self.limited(each) for each in outputs])

    def limited(self, output: LayerOutput) -> LayerOutput:
        """The output as losses take it."""
        return output

    def set_terms(self, group: "SetGroup", objects: SetTargets) -> dict[str, Term]:
        """The terms of some sets."""
        count = group.objects(objects)
        return class_terms(
            self.config, group.sets, group.matched, objects, group.masks, count
        ) | box_terms(self.config, group.sets, group.matched, objects, count)

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``boxes`` (B, K, 4) xyxy in canvas pixels, ``scores`` (B, K), ``classes`` int64 (B, K):
        the best pairs of a query and a class, best first.
        """
        last = self.decode(features, last_only=True).layers[-1]
        scores = last.logits.sigmoid().flatten(1)  # (B, N * classes)
        values, places = scores.topk(min(self.config.max_detections, scores.shape[1]), dim=1)
        query = (places // self.classes)[..., None].expand(-1, -1, 4)
        height, width = context.canvas_hw
        left, top, right, bottom = to_xyxy(last.boxes.gather(1, query)).unbind(dim=-1)
        return {
            "boxes": torch.stack([left * width, top * height, right * width, bottom * height], -1),
            "scores": values,
            "classes": places % self.classes,
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``logits{i}`` (B, N, C), ``boxes{i}`` (B, N, 4) centre, width, height as parts of the
        canvas, and ``corners{i}`` (B, N, 4 * (bins + 1)) of each layer; ``pre_`` and ``enc_``
        before the layers.
        """
        decoded = self.decode(features)
        named = [*layer_outputs(decoded.layers), NamedOutput("enc_", decoded.encoder)]
        found: dict[str, Tensor] = {}
        last = len(self.decoder.layers) - 1
        for prefix, output in named:
            before, i = (prefix, "") if prefix in ("pre_", "enc_") else ("", prefix[1:-1] or last)
            found[f"{before}logits{i}"] = output.logits
            found[f"{before}boxes{i}"] = output.boxes
            if output.corners is not None:
                found[f"corners{i}"] = output.corners.flatten(2)
        return found

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``InspectedHead``: the matches of the last layer."""
        objects = canvas_targets(targets, context)
        last = self.limited(self.decode(features, last_only=True).layers[-1])
        costs = matching_costs(last.logits[None], last.boxes[None], objects, self.costs)
        (matched,) = match_queries([costs], objects.present)
        return {
            "target_labels": target_classes(matched, objects, self.classes)[0],
            "target_boxes": to_xyxy(target_boxes(matched, objects))[0] * objects.size[:, None],
        }

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``. Hugging Face's files have the tensors of the last layers of the
        decoder under one name, or the same ones under two. A network that was trained without
        denoising has no embedding for it; that stays random, since only training reads it.
        """
        if program != "huggingface":
            return {}
        outer = {name for name in tensors if name.startswith(_SHARED)}
        inner = {f"model.decoder.{name}": name for name in outer}
        single = {name: value for name, value in tensors.items() if name not in outer}
        alone = {full: tensors[name] for full, name in inner.items() if full not in tensors}
        found = renamed(single | alone, HEAD_RULES)
        own = self.state_dict()
        unread = {
            name: Imported(value, ())
            for name, value in own.items()
            if found and name.startswith("denoising_class_embed.")
        }
        return unread | {
            name: Imported(value, _sources(sources[0], tensors, inner))
            for name, (value, sources) in found.items()
            if name in own
        }


def _cut(output: LayerOutput, queries: slice) -> LayerOutput:
    return LayerOutput(
        output.logits[:, queries],
        output.boxes[:, queries],
        None if output.corners is None else output.corners[:, queries],
        None if output.anchors is None else output.anchors[:, queries],
    )


def _sources(name: str, tensors: Mapping[str, Tensor], inner: Mapping[str, str]) -> tuple[str, ...]:
    """The names in a file of a tensor that is in the decoder, outside of it, or both."""
    return tuple(each for each in dict.fromkeys((name, inner.get(name, name))) if each in tensors)
