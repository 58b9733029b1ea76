"""The second stage as the papers have it, one image, one region at a time, for comparison.

It starts from the proposals, and trains all of them.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, clip_boxes_to_image, nms, roi_align

Images = list[Tensor]
"""Tensors of different lengths, one for each image."""


def assigned(proposals: Tensor, boxes: Tensor, iou: float, low_quality: bool) -> list[int | None]:
    """The object of each proposal."""
    if not len(boxes):
        return [None] * len(proposals)
    overlaps = box_iou(boxes, proposals)
    found: list[int | None] = []
    for column in overlaps.t():
        best = int(column.argmax())
        found.append(best if column[best] >= iou else None)
    if low_quality:
        for number, row in enumerate(overlaps):
            if row.max() >= iou:
                for place in (row == row.max()).nonzero().flatten().tolist():
                    found[place] = number
    return found


def pooled(
    maps: Sequence[Tensor], strides: Sequence[int], rois: Tensor, size: int, head: Any
) -> Tensor:
    """RoIAlign of regions (R, 5), each on its level."""
    config, parts = head.config.roi, []
    for roi in rois:
        side = float(((roi[3] - roi[1]) * (roi[4] - roi[2])).sqrt())
        level = max(
            0, min(config.levels - 1, int(torch.tensor(side / config.finest_px).log2().floor()))
        )
        parts.append(
            roi_align(
                maps[level], roi[None], size, 1 / strides[level], config.sampling, config.aligned
            )
        )
    return torch.cat(parts)


def numbered(boxes: Images) -> Tensor:
    """(R, 5): image and box."""
    return torch.cat(
        [torch.cat([torch.full((len(each), 1), float(i)), each], 1) for i, each in enumerate(boxes)]
    )


def coder(stds: Sequence[float]) -> BoxCoder:
    return BoxCoder(weights=tuple(1 / std for std in stds))


def branch(head: Any, name: str, stage: int) -> Any:
    module = getattr(head.roi_head, name)
    return module[stage] if len(head.config.roi.stages) > 1 else module


def slow_losses(
    head: Any, maps: Sequence[Tensor], targets: dict[str, Tensor], proposals: Images, valid: Tensor
) -> dict[str, Tensor]:
    """The losses of the second stage by name, as OpenMMLab averages them."""
    config, strides, losses = head.config, head.strides, {}
    present = [targets["present"][i] for i in range(len(proposals))]
    gt = [targets["boxes"][i][kept] for i, kept in enumerate(present)]
    for number, stage in enumerate(config.roi.stages):
        candidates = [torch.cat(pair) for pair in zip(gt, proposals, strict=True)]
        matches = [
            [*range(len(own)), *assigned(each, own, stage.iou, config.roi.low_quality)]
            for own, each in zip(gt, proposals, strict=True)
        ]
        labels = torch.tensor(
            [
                head.classes if match is None else int(targets["classes"][i][present[i]][match])
                for i, of_image in enumerate(matches)
                for match in of_image
            ]
        )
        rois = numbered(candidates)
        logits, offsets = branch(head, "bbox_head", number)(
            pooled(maps, strides, rois, config.roi.size, head)
        )
        prefix = f"s{number}_" if len(config.roi.stages) > 1 else ""
        losses[f"{prefix}class"] = F.cross_entropy(logits, labels) * stage.weight
        wanted = torch.cat(
            [
                torch.stack([gt[i][match or 0] for match in of_image])
                for i, of_image in enumerate(matches)
            ]
        )
        encoded = coder(stage.stds).encode_single(wanted, rois[:, 1:])
        positive = labels < head.classes
        own = torch.stack(
            [row[min(int(c), len(row) - 1)] for row, c in zip(offsets, labels, strict=True)]
        )
        losses[f"{prefix}box"] = (
            F.smooth_l1_loss(
                own[positive], encoded[positive], reduction="sum", beta=config.roi.beta
            )
            / len(rois)
            * stage.weight
        )
        if head.mask is not None:
            losses[f"{prefix}mask"] = stage.weight * slow_mask_loss(
                head, maps, targets, rois, matches, labels, number
            )
        proposals = refined(offsets, logits, rois, stage.stds, valid, [len(each) for each in gt])
    return losses


def slow_mask_loss(
    head: Any,
    maps: Sequence[Tensor],
    targets: dict[str, Tensor],
    rois: Tensor,
    matches: list[list[int | None]],
    labels: Tensor,
    stage: int,
) -> Tensor:
    """The mean of the cells of all positive regions whose object has a mask."""
    size = head.mask.size
    flat = [(i, match) for i, of_image in enumerate(matches) for match in of_image]
    losses = []
    for row, (image, match) in enumerate(flat):
        if match is None or not targets["has_mask"][image, match]:
            continue
        mask = targets["masks"][image, match][None, None].float()
        box = torch.cat([torch.zeros(1), rois[row, 1:]])[None]
        wanted = (roi_align(mask, box, 2 * size, 1.0, 0, True)[0, 0] >= 0.5).float()
        features = pooled(maps, head.strides, rois[row][None], size, head)
        logits = branch(head, "mask_head", stage)(features)[0, labels[row]]
        losses.append(F.binary_cross_entropy_with_logits(logits, wanted))
    return torch.stack(losses).mean()


def refined(
    offsets: Tensor,
    logits: Tensor,
    rois: Tensor,
    stds: Sequence[float],
    valid: Tensor,
    skip: list[int],
) -> Images:
    """The boxes of the regions of each image after a stage, without the first ones."""
    best = logits[:, :-1].argmax(1)
    own = torch.stack(
        [row[min(int(c), len(row) - 1)] for row, c in zip(offsets, best, strict=True)]
    )
    boxes = coder(stds).decode_single(own.detach(), rois[:, 1:])
    return [
        clip_boxes_to_image(boxes[rois[:, 0] == i], tuple(valid[i].tolist()))[first:]
        for i, first in enumerate(skip)
    ]


def slow_detections(
    head: Any, maps: Sequence[Tensor], proposals: Images, valid: Tensor
) -> list[list[tuple[float, int, list[float]]]]:
    """(score, class, box) of each image, best first."""
    stages, config = head.config.roi.stages, head.config.select
    logits = []
    for number, stage in enumerate(stages):
        rois = numbered(proposals)
        features = pooled(maps, head.strides, rois, head.config.roi.size, head)
        outputs = branch(head, "bbox_head", number)(features)
        logits.append(outputs[0])
        if number < len(stages) - 1:
            none = [0] * len(proposals)
            proposals = refined(outputs[1], outputs[0], rois, stage.stds, valid, none)
    scores = torch.stack(logits).mean(0).softmax(1)
    found = []
    for i in range(len(proposals)):
        rows, pairs = rois[:, 0] == i, []
        for label in range(head.classes):
            offsets = outputs[1][rows, min(label, outputs[1].shape[1] - 1)]
            boxes = coder(stages[-1].stds).decode_single(offsets, rois[rows, 1:])
            boxes = clip_boxes_to_image(boxes, tuple(valid[i].tolist()))
            score = scores[rows, label]
            kept = (score > config.score_threshold).nonzero().flatten()
            kept = kept[nms(boxes[kept], score[kept], config.iou_threshold)]
            pairs += [(float(score[k]), label, boxes[k].tolist()) for k in kept]
        found.append(sorted(pairs, reverse=True)[: config.max_detections])
    return found
