"""Candidates of a detection head: their cells on the feature maps, and the selection of detections.

``selection.py`` has the same selection in numpy.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl_ray.models.head import Candidates, Context, Features
from mtl_ray.tasks.detection.options import Selection
from mtl_ray.tasks.detection.suppression import (
    ScoredBoxes,
    Selected,
    best_class,
    suppress_candidates,
)


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


def level_masks(sizes: Sequence[int], device: torch.device) -> Tensor:
    """Which of the N candidates belong to each of L levels of these sizes, bool (L, N).

    It is the entry ``levels`` of the candidates of a head whose pairs are ranked level by level.
    """
    level = torch.cat(
        [torch.full((size,), i, device=device, dtype=torch.int64) for i, size in enumerate(sizes)]
    )
    return level[None] == torch.arange(len(sizes), device=device)[:, None]


def clip_boxes(boxes: Tensor, valid_hw: Tensor) -> Tensor:
    """Boxes (B, N, 4) xyxy clipped to the valid part (B, 2) height, width of each canvas."""
    hw = valid_hw.to(boxes.dtype)
    height, width = hw[:, :1], hw[:, 1:]
    # neither flip nor repeat: ncnn has none of them
    limit = torch.cat([width, height, width, height], dim=1)[:, None]  # (B, 1, 4) x, y, x, y
    return boxes.clamp(min=0).minimum(limit)


class DenseModule:
    """What dense heads share: ``predict`` selects the best of ``candidates`` by ``selection``."""

    selection: Selection

    def candidates(self, features: Features, context: Context) -> Candidates:
        """See ``DenseHead``."""
        raise NotImplementedError

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``boxes`` (B, K, 4) xyxy in canvas pixels, ``scores`` (B, K), ``classes`` int64 (B, K);
        see ``select_detections``.
        """
        return self.select(self.candidates(features, context), context.exporting)

    def select(self, candidates: Candidates, exporting: bool) -> dict[str, Tensor]:
        """See ``select_detections``."""
        return select_detections(candidates, self.selection, exporting)


def select_detections(
    candidates: Candidates, config: Selection, exporting: bool
) -> dict[str, Tensor]:
    """The detections of each image, best first.

    Args:
        candidates: of a head; with ``levels`` (``level_masks``) if pairs are ranked by level.
        config: thresholds and limits.
        exporting: use the operator of ONNX instead of torchvision's.

    Returns:
        ``boxes`` float32 (B, K, 4), ``scores`` float32 (B, K), ``classes`` int64 (B, K), K =
        ``max_detections``; unused rows are zero.
    """
    found = select_indexed(candidates, config, exporting)
    return {"boxes": found.boxes, "scores": found.scores, "classes": found.classes}


def select_indexed(candidates: Candidates, config: Selection, exporting: bool) -> Selected:
    """``select_detections``, and the index (B, K) of the candidate of each detection."""
    if config.candidates is None:
        pool = _all_candidates(candidates, config)
    elif config.rank == "candidate":
        pool = _best_candidates(candidates, config)
    else:
        pool = _best_pairs(candidates, config, exporting)
    return suppress_candidates(pool, config, exporting)


def select_pairs(
    boxes: Tensor, scores: Tensor, classes: Tensor, count: int, config: Selection, exporting: bool
) -> Selected:
    """The same for pairs that have boxes of their own, as those of heads with a box for each class.

    Args:
        boxes: (B, P, 4) xyxy in canvas pixels.
        scores: (B, P).
        classes: int64 (B, P).
        count: number of classes.
        config: thresholds and limits; ``candidates`` are the most pairs of an image.
        exporting: as in ``select_detections``.

    Returns:
        The detections; their index is that of the pair.
    """
    ranked = scores * (scores > config.score_threshold)
    limit = ranked.shape[1] if config.candidates is None else config.candidates
    k = max(limit, config.max_detections)
    values, index = F.pad(ranked, (0, k)).topk(k)  # (B, k)
    index = index.clamp(max=scores.shape[1] - 1)
    own = torch.arange(count, device=boxes.device)[:, None] == classes.gather(1, index)[:, None]
    pool = ScoredBoxes(
        boxes.gather(1, index[..., None].expand(-1, -1, 4)), values[:, None] * own, index
    )  # scores (B, C, k)
    return suppress_candidates(pool, config, exporting)


def _scores(candidates: Candidates, config: Selection) -> Tensor:
    """(B, N, C), the score of each pair."""
    scores = candidates["scores"] * candidates["objectness"][..., None]
    return scores if config.score == "product" else scores.sqrt()


def _all_candidates(candidates: Candidates, config: Selection) -> ScoredBoxes:
    """All candidates, and padding for detections; scores up to the threshold are 0."""
    scores = _scores(candidates, config)
    ranked = scores if config.threshold_on == "score" else candidates["scores"]
    padding = (0, 0, 0, config.max_detections)
    scores = F.pad(scores * (ranked > config.score_threshold), padding)  # (B, N + K, C)
    index = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape[0], -1)
    return ScoredBoxes(
        F.pad(candidates["boxes"], padding), scores.transpose(1, 2).contiguous(), index
    )


def _best_candidates(candidates: Candidates, config: Selection) -> ScoredBoxes:
    """The k best candidates; scores up to the threshold are 0.

    Scores are padded before ``topk``, since a graph with dynamic sizes may have fewer than k
    candidates.
    """
    assert config.candidates is not None
    scores = _scores(candidates, config)  # (B, N, C)
    ranked = scores if config.threshold_on == "score" else candidates["scores"]
    k = max(config.candidates, config.max_detections)
    best = F.pad(ranked.amax(dim=2), (0, k), value=-1.0)  # (B, N + k)
    value, place = best.topk(k)
    place = place.clamp(max=scores.shape[1] - 1)
    boxes = candidates["boxes"].gather(1, place[..., None].expand(-1, -1, 4))
    rows = place[..., None].expand(-1, -1, scores.shape[2])
    real = (ranked.gather(1, rows) > config.score_threshold) & (value >= 0)[..., None]
    scores = scores.gather(1, rows) * real
    return ScoredBoxes(boxes, scores.transpose(1, 2).contiguous(), place)


def _best_pairs(candidates: Candidates, config: Selection, exporting: bool) -> ScoredBoxes:
    """The candidates of the k best pairs of each level; the scores of all other pairs, and of
    boxes without area (outside of the valid part of the canvas), are 0.

    The k best pairs of a level belong to the k candidates with the best classes, so that only k * C
    pairs have to be sorted.
    """
    scores, boxes = _scores(candidates, config), candidates["boxes"]
    ranked = scores if config.threshold_on == "score" else candidates["scores"]
    if config.best_class:
        ranked = ranked * best_class(ranked, dim=2)  # (B, N, C)
    best = ranked.amax(dim=2)  # (B, N)
    best = best * (best > config.score_threshold)
    levels = candidates["levels"].unbind() if "levels" in candidates else (torch.ones_like(best),)
    count, classes = scores.shape[1], scores.shape[2]
    assert config.candidates is not None
    most = config.candidates if exporting else min(config.candidates, count)
    places, parts = [], []
    for level in levels:
        value, place = F.pad(best * level, (0, most)).topk(most)  # (B, k), 0 where there are fewer
        place = place.clamp(max=count - 1)
        rows = place[..., None].expand(-1, -1, classes)
        pairs = ranked.gather(1, rows)  # (B, k, C)
        real = (pairs > config.score_threshold) & (value > 0)[..., None]
        pairs = (pairs * real).flatten(1)  # (B, k * C)
        top = pairs.topk(min(config.candidates, most * classes))
        kept = torch.zeros_like(pairs).scatter(1, top.indices, (top.values > 0).to(pairs.dtype))
        places.append(place)
        parts.append(scores.gather(1, rows) * kept.view(rows.shape))
    index = torch.cat(places, dim=1)  # (B, L * k)
    index = F.pad(index, (0, config.max_detections))
    scores = F.pad(torch.cat(parts, dim=1), (0, 0, 0, config.max_detections))
    boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    has_area = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1, keepdim=True)  # (B, L * k, 1)
    scores = scores * has_area
    return ScoredBoxes(boxes, scores.transpose(1, 2).contiguous(), index)
