"""How far the exported graph may be from torch, and how that is measured.

What both give is compared by what it is: objects are matched one to one, class maps pixel by pixel, everything else number by
number. A graph that is too far off, that gives a field which nobody here can compare, or that does not run at some size, is a
``ParityError``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mtl_ray.export.config import ExportConfig
from mtl_ray.geometry.boxes import iou_matrix
from mtl_ray.geometry.masks import decode
from mtl_ray.geometry.placement import Placement

Arrays = Mapping[str, NDArray[Any]]
"""What one head gives for a batch, by name."""
Fields = Mapping[str, NDArray[Any]]
"""What one head gives for one image, by name."""
PER_OBJECT = ("boxes", "scores", "classes", "masks", "keypoints")
"""The fields that have a row for each object, where there are boxes."""
FIELDS = (*PER_OBJECT, "candidates", "exclusive")
"""All that can be compared; a head that gives anything else cannot be exported before it is compared here."""

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
        max_abs: largest difference of a box or keypoint coordinate (canvas pixels), or of a score where there are no boxes.
        max_rel: the same divided by the size of torch's number (numbers below 1 count as 1).
        max_score: largest difference of a score.
        agree: share of objects that have a partner (of the same class, box and mask), of pixels with the same class, or of images with
            the same best class.
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

    @property
    def where(self) -> str:
        """What was compared, in words."""
        return f"{self.head} at {self.canvas_hw[1]}x{self.canvas_hw[0]}, batch {self.batch}"


def joined(checks: Sequence[Check]) -> Check:
    """One check of all that several checks of the same head, canvas and batch compared."""
    count = sum(check.count for check in checks)
    return replace(
        checks[0],
        max_abs=_most([check.max_abs for check in checks]),
        max_rel=_most([check.max_rel for check in checks]),
        max_score=_most([check.max_score for check in checks]),
        agree=sum(check.agree * check.count for check in checks) / count if count else min(check.agree for check in checks),
        count=count,
    )


def _most(differences: Sequence[float]) -> float:
    """The largest of them; NaN, unlike with ``max``, if any is."""
    return float(np.max(differences))


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
    """Compares the arrays of torch and of the graph for the same batch.

    Args:
        head: its name, for the report.
        expected: arrays by name, batch first, from torch.
        found: the same from the engine.
        canvas_hw: pixels.
        config: the tolerances.

    Returns:
        The figures, and a sentence for each tolerance that does not hold, or for what cannot be compared.
    """
    check = Check(head=head, canvas_hw=canvas_hw, batch=len(next(iter(expected.values()))))
    shapes = {name: (value.shape, found[name].shape) for name, value in expected.items() if name in found}
    if shapes := {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}:
        return replace(check, agree=0.0), [f"{check.where}: shapes differ, {shapes}"]
    ours, theirs = ([_unpadded(arrays, image) for image in range(check.batch)] for arrays in (expected, found))
    return _judged(check, ours, theirs, config)


def compare_predictions(
    check: Check, expected: Sequence[Any], found: Sequence[Any], placements: Sequence[Placement], config: ExportConfig
) -> tuple[Check, list[str]]:
    """Compares the Predictions of one head for the same images, every field of them.

    Args:
        check: what is compared; its figures are not read.
        expected: a Prediction for each image, from torch.
        found: the same from the engine.
        placements: where each image lies on the canvas, so that differences are in canvas pixels.
        config: the tolerances.

    Returns:
        As ``compare``.
    """
    types = {type(prediction).__name__ for prediction in (*expected, *found)}
    if len(types) > 1:
        return replace(check, agree=0.0), [f"{check.where}: the predictions are of different types, {', '.join(sorted(types))}"]
    ours, theirs = ([_on_canvas(*pair) for pair in zip(side, placements, strict=True)] for side in (expected, found))
    return _judged(check, ours, theirs, config)


def _judged(check: Check, ours: Sequence[Fields], theirs: Sequence[Fields], config: ExportConfig) -> tuple[Check, list[str]]:
    """The figures of a check on the fields of each image."""
    pairs = list(zip(ours, theirs, strict=True))
    if faults := list(dict.fromkeys(fault for pair in pairs for fault in _incomparable(*pair))):
        return replace(check, agree=0.0), [f"{check.where}: {fault}" for fault in faults]
    apart = [_apart(first, second, max(check.canvas_hw)) for first, second in pairs]
    count = sum(each.count for each in apart)
    check = replace(
        check,
        max_abs=_most([each.max_abs for each in apart]),
        max_rel=_most([each.max_rel for each in apart]),
        max_score=_most([each.max_score for each in apart]),
        agree=sum(each.agreeing for each in apart) / count if count else 1.0,
        count=count,
    )
    return check, [f"{check.where}: {sentence}" for sentence in _broken(check, config)]


def _unpadded(arrays: Arrays, image: int) -> Fields:
    """The arrays of one image of a batch; of boxes only those that are not padding."""
    fields = {name: values[image] for name, values in arrays.items()}
    if "boxes" not in fields or "scores" not in fields:
        return fields
    kept = fields["scores"] > 0
    return {name: values[kept] if values.shape[:1] == kept.shape else values for name, values in fields.items()}


def _on_canvas(prediction: Any, placement: Placement) -> Fields:
    """The fields of a Prediction, with boxes and keypoints in pixels of the canvas and masks as bool (N, height, width)."""
    found: dict[str, NDArray[Any]] = {}
    for name, value in ((each.name, getattr(prediction, each.name)) for each in dataclass_fields(prediction)):
        if name == "boxes_xyxy":
            found["boxes"] = placement.boxes_to_canvas(value)
        elif name == "keypoints" and value is not None:
            found[name] = np.concatenate([placement.points_to_canvas(value[..., :2]), value[..., 2:]], axis=-1)
        elif name == "masks" and value is not None:
            size = (placement.height, placement.width)
            found[name] = np.array([decode(mask, *size) for mask in value], bool).reshape(len(value), *size)
        elif value is not None:
            found[name] = np.asarray(value)
    return found


def _incomparable(ours: Fields, theirs: Fields) -> Iterator[str]:
    """A sentence for each field of one image that is unknown, that only one side has, or whose shapes do not fit."""
    rows = {len(ours["boxes"]), len(theirs["boxes"])} if "boxes" in ours and "boxes" in theirs else set()
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in FIELDS:
            yield f"{name!r} is a field that parity cannot compare (it knows {', '.join(FIELDS)})"
        elif name not in ours or name not in theirs:
            yield f"only {'torch' if name in ours else 'the bundle'} gives {name!r}"
        elif rows and name in PER_OBJECT:
            if ours[name].shape[1:] != theirs[name].shape[1:] or not {len(ours[name]), len(theirs[name])} <= rows:
                yield f"{name!r} has the shapes {ours[name].shape} and {theirs[name].shape}"
        elif ours[name].shape != theirs[name].shape:
            yield f"{name!r} has the shapes {ours[name].shape} and {theirs[name].shape}"


def _apart(ours: Fields, theirs: Fields, reach: float) -> "Apart":
    """How far the fields of one image are apart; ``reach`` in pixels is how far outside the canvas positions are told apart."""
    if "boxes" in ours:
        return _objects_apart(ours, theirs, reach)
    apart = Apart()
    if "candidates" in ours:
        first, second = ours["candidates"], theirs["candidates"]
        apart = apart.with_positions(first[..., :4], second[..., :4], reach).with_scores(first[..., 4:], second[..., 4:])
        apart = apart.with_agreeing(len(first), len(first))
    if "classes" in ours:
        apart = apart.with_agreeing(int((ours["classes"] == theirs["classes"]).sum()), ours["classes"].size)
    if "scores" in ours:
        apart = apart.with_scores(ours["scores"], theirs["scores"])
        apart = apart.with_agreeing(int(ours["scores"].argmax() == theirs["scores"].argmax()), 1)
        apart = replace(apart, max_abs=apart.max_score)
    if "exclusive" in ours:
        apart = apart.with_agreeing(int(ours["exclusive"] == theirs["exclusive"]), 1)
    return apart


def _objects_apart(ours: Fields, theirs: Fields, reach: float) -> "Apart":
    """Objects are matched one to one by box and class; a pair whose masks do not overlap enough is none."""
    first, second = match(*((side["boxes"], side["scores"], side["classes"]) for side in (ours, theirs)))
    if "masks" in ours:
        alike = [_mask_iou(*pair) >= MATCH_IOU for pair in zip(ours["masks"][first], theirs["masks"][second], strict=True)]
        first, second = first[np.array(alike, bool)], second[np.array(alike, bool)]
    apart = Apart().with_agreeing(2 * len(first), len(ours["boxes"]) + len(theirs["boxes"]))
    apart = apart.with_positions(ours["boxes"][first], theirs["boxes"][second], reach)
    apart = apart.with_scores(ours["scores"][first], theirs["scores"][second])
    if "keypoints" in ours:
        points, others = ours["keypoints"][first], theirs["keypoints"][second]
        apart = apart.with_positions(points[..., :2], others[..., :2], reach).with_scores(points[..., 2:], others[..., 2:])
    return apart


def _mask_iou(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    union = int(((ours > 0) | (theirs > 0)).sum())
    return int(((ours > 0) & (theirs > 0)).sum()) / union if union else 1.0


@dataclass(frozen=True, kw_only=True)
class Apart:
    """How far two predictions of one image are apart; the attributes are those of ``Check``, ``agreeing`` of ``count`` agree."""

    max_abs: float = 0.0
    max_rel: float = 0.0
    max_score: float = 0.0
    agreeing: int = 0
    count: int = 0

    def with_positions(self, ours: NDArray[Any], theirs: NDArray[Any], reach: float) -> "Apart":
        """And positions in canvas pixels, which beyond ``reach`` count as at its edge."""
        ours, theirs = (np.clip(side.astype(np.float64), -reach, 2 * reach) for side in (ours, theirs))
        apart = np.abs(ours - theirs)
        relative = apart / np.maximum(np.abs(ours), 1)
        return replace(self, max_abs=float(np.max(apart, initial=self.max_abs)), max_rel=float(np.max(relative, initial=self.max_rel)))

    def with_scores(self, ours: NDArray[Any], theirs: NDArray[Any]) -> "Apart":
        """And scores."""
        apart = np.abs(ours.astype(np.float64) - theirs)
        return replace(self, max_score=float(np.max(apart, initial=self.max_score)))

    def with_agreeing(self, agreeing: int, count: int) -> "Apart":
        """And things that are equal or not."""
        return replace(self, agreeing=self.agreeing + agreeing, count=self.count + count)


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
