"""Candidates of a detection head: their cells on the feature maps, and the selection of detections.

In torch the suppression is torchvision's; in an exported graph it is ONNX's NonMaxSuppression,
which takes a batch of any size. The rest of the code is shared.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from mtl_ray.models.head import Candidates
from mtl_ray.tasks.detection.options import Selection


def cell_corners(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    anchors: int | Sequence[int],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The cell of each candidate; candidates are ordered by level, row, column, anchor.

    Args:
        sizes: (height, width) of each level's feature map, in cells.
        strides: canvas pixels per cell of each level.
        anchors: anchors on each cell, one number for all levels or one for each.
        device: of the result.

    Returns:
        The top left corner (N, 2) as x, y and the stride (N, 1) of each candidate's cell, float32
        canvas pixels.
    """
    corners, widths = [], []
    for (height, width), stride, count in zip(
        sizes, strides, _of_each(anchors, len(sizes)), strict=True
    ):
        # (height, width) each, then (height * width * anchors, 2) x, y in canvas px
        y, x = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        cells = (
            torch.stack([x, y], dim=-1)
            .reshape(-1, 1, 2)
            .expand(-1, count, 2)
            .reshape(-1, 2)
            .float()
            * stride
        )
        corners.append(cells)
        widths.append(torch.full_like(cells[:, :1], stride))
    return torch.cat(corners), torch.cat(widths)


def flatten_levels(maps: Sequence[Tensor], anchors: int | Sequence[int]) -> Tensor:
    """Levels (B, anchors * V, H, W) -> (B, N, V) float32 in the order of ``cell_corners``."""
    each = zip(maps, _of_each(anchors, len(maps)), strict=True)
    flat = [
        level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, level.shape[1] // count)
        for level, count in each
    ]
    return torch.cat(flat, dim=1).float()


def _of_each(anchors: int | Sequence[int], levels: int) -> Sequence[int]:
    return [anchors] * levels if isinstance(anchors, int) else anchors


def in_crowd(centres: Tensor, boxes: Tensor, crowd: Tensor) -> Tensor:
    """Which candidates are in a crowd region, where a prediction is neither correct nor wrong.

    Args:
        centres: (N, 2) x, y in canvas pixels.
        boxes: (B, M, 4) xyxy.
        crowd: (B, M) bool, the crowd regions.

    Returns:
        (B, N) bool.
    """
    inside = torch.zeros(crowd.shape[0], centres.shape[0], dtype=torch.bool, device=boxes.device)
    if not crowd.is_cuda and not crowd.any():  # on a GPU this would synchronise
        return inside
    x, y = centres.t().contiguous()
    # one object of each image: (B, 4), (B,)
    for corners, is_crowd in zip(boxes.unbind(dim=1), crowd.unbind(dim=1), strict=True):
        left, top, right, bottom = corners[..., None].unbind(dim=1)  # each (B, 1)
        inside |= (x > left) & (y > top) & (x < right) & (y < bottom) & is_crowd[:, None]
    return inside


def select_detections(
    candidates: Candidates, config: Selection, exporting: bool
) -> dict[str, Tensor]:
    """The detections of each image, best first.

    Args:
        candidates: of a head.
        config: thresholds and limits.
        exporting: use the operator of ONNX instead of torchvision's.

    Returns:
        ``boxes`` float32 (B, K, 4), ``scores`` float32 (B, K), ``classes`` int64 (B, K), K =
        ``max_detections``; unused rows are zero.
    """
    boxes, scores = _best_candidates(candidates, config)
    suppress = _kept_in_onnx if exporting else _kept
    kept = scores * suppress(boxes, scores, config)  # (B, C, k), 0 where suppressed
    count = scores.shape[2]
    values, places = kept.flatten(1).topk(config.max_detections)  # (B, K)
    real = values > 0
    chosen = boxes.gather(1, (places % count)[..., None].expand(-1, -1, 4))
    return {
        "boxes": chosen * real[..., None],
        "scores": values,
        "classes": (places // count) * real,
    }


def _best_candidates(candidates: Candidates, config: Selection) -> tuple[Tensor, Tensor]:
    """Boxes (B, k, 4) and scores (B, C, k) of the k best candidates; scores up to the threshold are
    0.

    Scores are padded before ``topk``, since a graph with dynamic sizes may have fewer than k
    candidates.
    """
    scores = candidates["scores"] * candidates["objectness"][..., None]  # (B, N, C)
    k = max(config.candidates, config.max_detections)
    best = F.pad(scores.amax(dim=2), (0, k), value=-1.0)  # (B, N + k)
    value, place = best.topk(k)
    place = place.clamp(max=scores.shape[1] - 1)
    boxes = candidates["boxes"].gather(1, place[..., None].expand(-1, -1, 4))
    scores = scores.gather(1, place[..., None].expand(-1, -1, scores.shape[2]))
    scores = scores * ((scores > config.score_threshold) & (value >= 0)[..., None])
    return boxes, scores.transpose(1, 2).contiguous()


def _kept(boxes: Tensor, scores: Tensor, config: Selection) -> Tensor:
    """(B, C, k): 1 for each box that is not suppressed by a box of its image and class.

    Classes are processed one by one: ``batched_nms`` shifts boxes by class, which rounds
    coordinates, or also loops over classes.
    """
    kept = torch.zeros_like(scores)
    for image, label in (scores > 0).any(dim=2).nonzero().tolist():
        index = scores[image, label].nonzero().squeeze(1)
        left = nms(boxes[image, index], scores[image, label, index], config.iou_threshold)
        kept[image, label, index[left]] = 1.0
    return kept


def _kept_in_onnx(boxes: Tensor, scores: Tensor, config: Selection) -> Tensor:
    """The same as ``_kept`` by ONNX's operator
    (https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html).

    It gives rows (image, class, box); their number is known at run time only, the declared shape is
    an upper bound.
    """
    limit = torch.tensor([config.max_detections], dtype=torch.int64)
    iou = torch.tensor([config.iou_threshold], dtype=torch.float32)
    lowest = torch.tensor([config.score_threshold], dtype=torch.float32)
    rows = torch.onnx.ops.symbolic(
        "NonMaxSuppression",
        (boxes, scores, limit, iou, lowest),
        dtype=torch.int64,
        shape=(boxes.shape[0] * config.max_detections, 3),
        version=11,
    )
    ones = torch.ones_like(rows[:, 0], dtype=scores.dtype)
    return torch.zeros_like(scores).index_put((rows[:, 0], rows[:, 1], rows[:, 2]), ones)
