"""Selection of detections among candidates: score threshold, non-maximum suppression, the best K of each image.

Eagerly the suppression is torchvision's; in an exported graph it is ONNX's NonMaxSuppression, which takes a whole batch of
any size. All around it is the same code, so that the two agree.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from mtl_ray.models.head import Candidates
from mtl_ray.tasks.detection.config import Selection


def select(candidates: Candidates, config: Selection, exporting: bool) -> dict[str, Tensor]:
    """The detections of each image, best first.

    Args:
        candidates: all that a head proposes.
        config: thresholds and numbers.
        exporting: use the operator of ONNX instead of torchvision's.

    Returns:
        ``boxes`` float32 (B, K, 4), ``scores`` float32 (B, K), ``classes`` int64 (B, K), K = ``max_detections``; where there are
        fewer, the rest is zero.
    """
    boxes, scores = _best_candidates(candidates, config)
    suppress = _kept_in_onnx if exporting else _kept
    kept = scores * suppress(boxes, scores, config)
    count = scores.shape[2]
    values, places = kept.flatten(1).topk(config.max_detections)
    real = values > 0
    chosen = boxes.gather(1, (places % count)[..., None].expand(-1, -1, 4))
    return {"boxes": chosen * real[..., None], "scores": values, "classes": (places // count) * real}


def _best_candidates(candidates: Candidates, config: Selection) -> tuple[Tensor, Tensor]:
    """Boxes (B, k, 4) and scores (B, C, k) of the k best candidates; scores that are not above the threshold are 0.

    Scores are padded before ``topk``, since a graph with an open size does not know whether there are k candidates.
    """
    scores = candidates["scores"] * candidates["objectness"][..., None]
    k = max(config.candidates, config.max_detections)
    best = F.pad(scores.amax(dim=2), (0, k), value=-1.0)
    value, place = best.topk(k)
    place = place.clamp(max=scores.shape[1] - 1)
    boxes = candidates["boxes"].gather(1, place[..., None].expand(-1, -1, 4))
    scores = scores.gather(1, place[..., None].expand(-1, -1, scores.shape[2]))
    scores = scores * ((scores > config.score_threshold) & (value >= 0)[..., None])
    return boxes, scores.transpose(1, 2).contiguous()


def _kept(boxes: Tensor, scores: Tensor, config: Selection) -> Tensor:
    """(B, C, k) 1 for each box that survives among those of its image and class.

    Each class on its own: ``batched_nms`` shifts boxes by class, which rounds their coordinates, or loops over classes as well.
    """
    kept = torch.zeros_like(scores)
    for image, label in (scores > 0).any(dim=2).nonzero().tolist():
        index = scores[image, label].nonzero().squeeze(1)
        left = nms(boxes[image, index], scores[image, label, index], config.iou_threshold)
        kept[image, label, index[left]] = 1.0
    return kept


def _kept_in_onnx(boxes: Tensor, scores: Tensor, config: Selection) -> Tensor:
    """The same as ``_kept`` by ONNX's operator (https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html).

    It gives rows (image, class, box); their number is only known when it runs, and the declared shape is an upper bound.
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
