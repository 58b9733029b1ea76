"""How far the exported graph may be from torch, and how that is measured.

Arrays are compared by what they are: boxes are matched one to one, class maps pixel by pixel, everything else number by
number. A graph that is too far off, or that does not run at some size, is a ``ParityError``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mtl_ray.export.config import ExportConfig
from mtl_ray.geometry.boxes import iou_matrix

Arrays = Mapping[str, NDArray[Any]]
"""What one head gives for a batch, by name."""

MATCH_IOU = 0.95
"""Boxes of one class that overlap at least this much are taken for the same."""


class ParityError(Exception):
    """The exported graph does not say what torch says; nothing was published."""

    def __init__(self, parity: "Parity") -> None:
        super().__init__(f"the exported graph differs from torch: {'; '.join(parity.failures)}")
        self.parity = parity


@dataclass(frozen=True, kw_only=True)
class Check:
    """One head at one canvas and batch size.

    Attributes:
        head, canvas_hw, batch: what was compared.
        max_abs: largest difference of a box coordinate (canvas pixels), or of a score where there are no boxes.
        max_rel: the same divided by the size of torch's number (numbers below 1 count as 1).
        max_score: largest difference of a score.
        agree: share of boxes that have a partner, or of pixels with the same class, or of images with the same best class.
        count: boxes, pixels or images that were compared.
    """

    head: str
    canvas_hw: tuple[int, int]
    batch: int
    max_abs: float = 0.0
    max_rel: float = 0.0
    max_score: float = 0.0
    agree: float = 1.0
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class MetricPair:
    """One metric of the samples, from torch and from the bundle."""

    head: str
    metric: str
    torch: float
    bundle: float

    @property
    def difference(self) -> float:
        """How far apart they are."""
        return abs(self.torch - self.bundle)


@dataclass(kw_only=True)
class Parity:
    """All that was compared, and what did not hold."""

    layout: str
    samples: int
    checks: list[Check] = field(default_factory=list)
    metrics: list[MetricPair] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The content of ``parity.json``."""
        metrics = [asdict(pair) | {"difference": pair.difference} for pair in self.metrics]
        return {"version": 1, "passed": not self.failures, **asdict(self), "metrics": metrics}


def compare(head: str, expected: Arrays, found: Arrays, canvas_hw: tuple[int, int], config: ExportConfig) -> tuple[Check, list[str]]:
    """Compares what torch and the graph give for the same batch.

    Args:
        head: its name, for the report.
        expected: arrays by name, batch first, from torch.
        found: the same from onnxruntime.
        canvas_hw: pixels.
        config: the tolerances.

    Returns:
        The figures, and a sentence for each tolerance that does not hold.
    """
    shapes = {name: (value.shape, found[name].shape) for name, value in expected.items() if value.shape != found[name].shape}
    batch = next(iter(expected.values())).shape[0]
    where = f"{head} at {canvas_hw[1]}x{canvas_hw[0]}, batch {batch}"
    if shapes:
        return Check(head=head, canvas_hw=canvas_hw, batch=batch, agree=0.0), [f"{where}: shapes differ, {shapes}"]
    check = Check(head=head, canvas_hw=canvas_hw, batch=batch, **_figures(expected, found, max(canvas_hw)))
    return check, [f"{where}: {sentence}" for sentence in _broken(check, config)]


def _figures(expected: Arrays, found: Arrays, reach: float) -> dict[str, Any]:
    if "boxes" in expected:
        return _matched_boxes(expected, found, reach)
    if "candidates" in expected:
        boxes = [np.clip(arrays["candidates"][..., :4], -reach, 2 * reach) for arrays in (expected, found)]
        scores = [arrays["candidates"][..., 4:] for arrays in (expected, found)]
        return {**_apart(*boxes), "max_score": _apart(*scores)["max_abs"], "count": boxes[0].size // 4}
    if "classes" in expected:
        same = expected["classes"] == found["classes"]
        return {"agree": float(same.mean()), "count": same.size}
    scores = [arrays["scores"] for arrays in (expected, found)]
    apart = _apart(*scores)
    agree = float((scores[0].argmax(-1) == scores[1].argmax(-1)).mean())
    return {**apart, "max_score": apart["max_abs"], "agree": agree, "count": len(scores[0])}


def _apart(expected: NDArray[Any], found: NDArray[Any]) -> dict[str, float]:
    if not expected.size:
        return {"max_abs": 0.0, "max_rel": 0.0}
    apart = np.abs(expected.astype(np.float64) - found)
    return {"max_abs": float(apart.max()), "max_rel": float((apart / np.maximum(np.abs(expected), 1)).max())}


def _matched_boxes(expected: Arrays, found: Arrays, reach: float) -> dict[str, Any]:
    pairs: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    boxes_seen = 0
    for image in range(len(expected["boxes"])):
        ours, theirs = (_real(arrays, image) for arrays in (expected, found))
        boxes_seen += len(ours[0]) + len(theirs[0])
        first, second = match(ours, theirs)
        pairs.append((ours[0][first], theirs[0][second], ours[1][first], theirs[1][second]))
    boxes, other, scores, other_scores = (np.concatenate(column) for column in zip(*pairs, strict=True))
    agree = 2 * len(boxes) / boxes_seen if boxes_seen else 1.0
    apart = _apart(np.clip(boxes, -reach, 2 * reach), np.clip(other, -reach, 2 * reach))
    return {**apart, "max_score": _apart(scores, other_scores)["max_abs"], "agree": agree, "count": boxes_seen}


def _real(arrays: Arrays, image: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    kept = arrays["scores"][image] > 0
    return arrays["boxes"][image][kept], arrays["scores"][image][kept], arrays["classes"][image][kept]


def match(ours: tuple[NDArray[Any], ...], theirs: tuple[NDArray[Any], ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs boxes of one class one to one, so that their overlaps add up to the most (Kuhn 1955).

    Args:
        ours: boxes (N, 4) xyxy, scores (N,), classes (N,).
        theirs: the same, M of them.

    Returns:
        Indices into ours and theirs, as many as there are pairs with an overlap of at least ``MATCH_IOU``.
    """
    overlap = iou_matrix(ours[0], theirs[0])
    overlap[ours[2][:, None] != theirs[2][None, :]] = 0
    first, second = linear_sum_assignment(overlap, maximize=True)
    near = overlap[first, second] >= MATCH_IOU
    return first[near], second[near]


def _broken(check: Check, config: ExportConfig) -> Iterator[str]:
    limits = {"max_abs": config.max_abs, "max_score": config.max_score}
    for name, limit in limits.items():
        if not getattr(check, name) <= limit:
            yield f"{name} is {getattr(check, name):.3g}, allowed {limit:g}"
    if not check.agree >= config.min_agree:
        yield f"only {check.agree:.4%} agree, {config.min_agree:.4%} must"
