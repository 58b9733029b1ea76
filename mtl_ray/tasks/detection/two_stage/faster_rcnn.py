"""The detection heads ``faster_rcnn``, ``cascade_rcnn`` and ``mask_rcnn``."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mtl_ray.models.head import Context, Features, HeadModule, Term
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.tasks.detection.candidates import clip_boxes, select_pairs
from mtl_ray.tasks.detection.two_stage.branches import RoiHead, torchvision_rules
from mtl_ray.tasks.detection.two_stage.config import TwoStageHead
from mtl_ray.tasks.detection.two_stage.mask import mask_loss, of_class
from mtl_ray.tasks.detection.two_stage.matching import ComputedRows, decode_boxes
from mtl_ray.tasks.detection.two_stage.roi import (
    Regions,
    draw_regions,
    pool_regions,
    refined_boxes,
    region_losses,
    region_targets,
)
from mtl_ray.tasks.detection.two_stage.rpn import AnchorOutputs, RpnHead


class Classified(NamedTuple):
    """What the second stage says of P proposals of each image: ``boxes`` (B, P, C, 4) or (B, P, 1,
    4) xyxy in canvas pixels, ``scores`` (B, P, C), 0 of padding.
    """

    boxes: Tensor
    scores: Tensor


class FasterRcnn(HeadModule):
    """Faster R-CNN (Ren et al. 2015, https://arxiv.org/abs/1506.01497) on a feature pyramid (Lin et
    al. 2017, https://arxiv.org/abs/1612.03144), with further stages Cascade R-CNN (Cai and
    Vasconcelos 2018, https://arxiv.org/abs/1712.00726), with a mask branch Mask R-CNN (He et al.
    2017, https://arxiv.org/abs/1703.06870).

    Its parameters have the names of OpenMMLab's detectors.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    def __init__(
        self,
        config: TwoStageHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
    ) -> None:
        super().__init__(config)
        self.config, self.classes = config, classes
        self.mask = config.mask_branch
        self.strides = tuple(strides[level] for level in config.levels)
        width = channels[config.levels[0]]
        self.rpn_head = RpnHead(config.rpn, width, self.strides)
        self.roi_head = RoiHead(config, width, classes)

    def _maps(self, features: Features) -> list[Tensor]:
        return [features[level] for level in self.levels]

    def _compact(self, device: torch.device, context: Context) -> bool:
        """Whether padding is left out of the second stage, for which a GPU would have to be waited
        for. Batch normalisation must not see padding.
        """
        normed = self.config.roi.norm == "batch" or (self.mask and self.mask.norm == "batch")
        return not context.exporting and (device.type != "cuda" or bool(normed and self.training))

    def _pool(
        self, maps: Sequence[Tensor], boxes: Tensor, rows: ComputedRows, size: int, context: Context
    ) -> Tensor:
        """(R, C, size, size) of the rows of boxes (R, 4)."""
        count = self.config.roi.levels
        images = rows.image(boxes.device)
        return pool_regions(
            maps[:count],
            self.strides[:count],
            boxes,
            images,
            size,
            self.config.roi,
            context.exporting,
        )

    def _box_outputs(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,
        rows: ComputedRows,
        stage: int,
        context: Context,
    ) -> tuple[Tensor, Tensor]:
        """Logits (R, C + 1) and offsets (R, C, 4) or (R, 1, 4) of the rows of boxes (R, 4)."""
        pooled = self._pool(maps, boxes, rows, self.config.roi.size, context)
        outputs: tuple[Tensor, Tensor] = self.roi_head.of_stage("bbox_head", stage)(pooled)
        return outputs

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``rpn_class`` and ``rpn_box``, then ``class``, ``box`` and ``mask`` of the second stage,
        with the prefix ``s0_``, ``s1_``, ... of its stage if there are several.
        """
        maps = self._maps(features)
        outputs = self.rpn_head.flatten(self.rpn_head(maps))
        found = self.rpn_head.targets(outputs, targets, context)
        terms = self.rpn_head.losses(outputs, found, targets)
        stages = self.config.roi.stages
        boxes, scores = self.rpn_head.proposals(outputs, context, training=True)
        valid = scores > 0
        for number, stage in enumerate(stages):
            regions = draw_regions(boxes, valid, targets, self.config.roi, number, context.step)
            rows = ComputedRows(regions.used, self._compact(boxes.device, context))
            at = rows.pick(regions.boxes)
            logits, offsets = self._box_outputs(maps, at, rows, number, context)
            found_terms = region_losses(
                logits, offsets, regions, rows, targets, self.config.roi, stage
            )
            if self.mask is not None:
                found_terms |= self._mask_loss(maps, regions, number, targets, context)
            prefix = f"s{number}_" if len(stages) > 1 else ""
            terms |= {f"{prefix}{name}": term for name, term in found_terms.items()}
            with torch.no_grad():
                refined = rows.put(refined_boxes(offsets, logits, at, stage))
                boxes = clip_boxes(refined, context.valid_hw)
                valid = regions.used & ~regions.is_object
        return terms

    def _mask_loss(
        self,
        maps: Sequence[Tensor],
        regions: Regions,
        stage: int,
        targets: Mapping[str, Tensor],
        context: Context,
    ) -> dict[str, Term]:
        """The term ``mask`` of the positive regions, which come first."""
        assert self.mask is not None
        most = int(self.config.roi.samples * self.config.roi.positive_share)
        regions = Regions(*(part[:, :most] for part in regions))
        rows = ComputedRows(regions.positive, self._compact(regions.boxes.device, context))
        pooled = self._pool(maps, rows.pick(regions.boxes), rows, self.mask.size, context)
        logits = self.roi_head.of_stage("mask_head", stage)(pooled)
        weight = self.mask.weight * self.config.roi.stages[stage].weight
        return mask_loss(logits, regions, rows, targets, weight)

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``boxes`` (B, K, 4) xyxy in canvas pixels, ``scores`` (B, K), ``classes`` int64 (B, K)
        and, with a mask branch, ``masks`` float32 (B, K, h, w), probabilities in a grid over each
        box; unused rows are 0.
        """
        maps = self._maps(features)
        outputs = self.rpn_head.flatten(self.rpn_head(maps))
        proposals, scores = self.rpn_head.proposals(outputs, context, training=False)
        found = self._classify(maps, proposals, scores > 0, context)
        boxes = found.boxes.expand(-1, -1, self.classes, -1).flatten(1, 2)  # (B, P * C, 4)
        labels = torch.arange(self.classes, device=boxes.device).repeat(proposals.shape[1])
        chosen = select_pairs(
            boxes,
            found.scores.flatten(1),
            labels.expand(boxes.shape[0], -1),
            self.classes,
            self.config.select,
            context.exporting,
        )
        arrays = {"boxes": chosen.boxes, "scores": chosen.scores, "classes": chosen.classes}
        if self.mask is not None:
            arrays["masks"] = self._masks(
                maps, chosen.boxes, chosen.classes, chosen.scores > 0, context
            )
        return arrays

    def _classify(
        self, maps: Sequence[Tensor], boxes: Tensor, valid: Tensor, context: Context
    ) -> Classified:
        """Runs all stages on proposals (B, P, 4); the logits of the stages are averaged."""
        rows = ComputedRows(valid, self._compact(boxes.device, context))
        stages = self.config.roi.stages
        at, limit = rows.pick(boxes), rows.pick_image(context.valid_hw)
        every: list[Tensor] = []
        for number, stage in enumerate(stages):
            logits, offsets = self._box_outputs(maps, at, rows, number, context)
            every.append(logits)
            if number < len(stages) - 1:
                refined = refined_boxes(offsets, logits, at, stage)
                at = clip_boxes(refined[:, None], limit)[:, 0]
        stds = torch.tensor(stages[-1].stds, device=boxes.device)
        scores = torch.stack(every).mean(dim=0).softmax(dim=1)[:, :-1]  # (R, C)
        found = clip_boxes(decode_boxes(offsets, at[:, None], stds), limit)  # (R, C, 4)
        size = found[..., 2:] - found[..., :2]
        scores = scores * (size >= self.config.roi.min_box_px).all(dim=-1) * rows.used[:, None]
        return Classified(rows.put(found), rows.put(scores))

    def _masks(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,
        classes: Tensor,
        valid: Tensor,
        context: Context,
    ) -> Tensor:
        """The masks (B, K, h, w) of detections (B, K); a cascade gives the mean of its stages."""
        assert self.mask is not None
        rows = ComputedRows(valid, self._compact(boxes.device, context))
        pooled = self._pool(maps, rows.pick(boxes), rows, self.mask.size, context)
        labels = rows.pick(classes)
        every = [
            of_class(self.roi_head.of_stage("mask_head", stage)(pooled), labels).sigmoid()
            for stage in range(self.roi_head.stages)
        ]
        masks = torch.stack(every).mean(dim=0) * rows.used[:, None, None]
        return rows.put(masks)

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """See ``InspectedHead``: ``rpn_cls0``, ``rpn_reg0``, ...; ``prop0_boxes``, ``prop0_scores``
        of each image; ``rois`` (R, 5) as image and box, ``roi_feat`` of the first eight,
        ``roi_cls`` and ``roi_reg``, with ``s0_``, ... before the names of a cascade; ``mask_pred``
        of the regions if there is a mask branch.
        """
        maps = self._maps(features)
        levels = self.rpn_head(maps)
        arrays: dict[str, Tensor] = {}
        for number, (logits, offsets) in enumerate(levels):
            arrays |= {f"rpn_cls{number}": logits, f"rpn_reg{number}": offsets}
        outputs = self.rpn_head.flatten(levels)
        boxes, scores = self.rpn_head.proposals(outputs, context, training=False)
        for number, (of_image, score) in enumerate(zip(boxes, scores, strict=True)):
            arrays[f"prop{number}_boxes"] = of_image[score > 0]
            arrays[f"prop{number}_scores"] = score[score > 0]
        rows = ComputedRows(scores > 0, compact=True)
        at, limit = rows.pick(boxes), rows.pick_image(context.valid_hw)
        stages = self.config.roi.stages
        for number, stage in enumerate(stages):
            prefix = f"s{number}_" if len(stages) > 1 else ""
            pooled = self._pool(maps, at, rows, self.config.roi.size, context)
            logits, offsets = self.roi_head.of_stage("bbox_head", number)(pooled)
            images = rows.image(at.device)[:, None].to(at.dtype)
            arrays |= {
                f"{prefix}rois": torch.cat([images, at], dim=1),
                f"{prefix}roi_feat": pooled[:8],
                f"{prefix}roi_cls": logits,
                f"{prefix}roi_reg": offsets.flatten(1),
            }
            if self.mask is not None:
                pooled = self._pool(maps, at, rows, self.mask.size, context)
                arrays[f"{prefix}mask_pred"] = self.roi_head.of_stage("mask_head", number)(pooled)
            at = clip_boxes(refined_boxes(offsets, logits, at, stage)[:, None], limit)[:, 0]
        return arrays

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``InspectedHead``: of the regions that the first stage of the second step trains;
        ``rpn_target_labels`` (0 object, 1 background, -1 not drawn) and ``rpn_target_boxes`` of
        the anchors.
        """
        outputs: AnchorOutputs = self.rpn_head.flatten(self.rpn_head(self._maps(features)))
        anchors = self.rpn_head.targets(outputs, targets, context)
        place = anchors.object[..., None].expand(-1, -1, 4)
        boxes, scores = self.rpn_head.proposals(outputs, context, training=True)
        regions = draw_regions(boxes, scores > 0, targets, self.config.roi, 0, context.step)
        labels, matched = region_targets(regions, targets, self.classes)
        background = torch.where(anchors.negative, 1, -1)
        return {
            "rpn_target_labels": torch.where(anchors.positive, 0, background),
            "rpn_target_boxes": targets["boxes"].gather(1, place) * anchors.positive[..., None],
            "target_rois": regions.boxes,
            "target_labels": torch.where(regions.used, labels, -1),
            "target_boxes": matched * regions.positive[..., None],
        }

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``. torchvision's networks have the background first: it moves to the end
        of the class logits, and its boxes and masks are left out.
        """
        if program == "openmmlab":
            return renamed(tensors, [Rename(r"((?:rpn_head|roi_head)\..*)", r"\1")])
        if program == "torchvision":
            return renamed(tensors, torchvision_rules(self.config))
        return {}
