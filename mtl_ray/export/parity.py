"""Parity: how the difference between the exported graph and torch is measured and judged.

The task of each head compares the outputs: see ``Task.array_difference`` and ``Task.difference``.
It is a ``ParityError`` if a graph differs by more than a tolerance, has a field that the task
cannot compare, or does not run at some size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.config.validate import values_of
from mtl_ray.export.config import ExportConfig
from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.tasks.difference import Comparison, Difference
from mtl_ray.tasks.task import Task

BatchArrays = Mapping[str, NDArray[Any]]
"""The output arrays of one head for a batch, by name."""
FIRST = 2
"""As many failures are told in a table of engines."""
SIDES = ("torch", "the bundle")


class ParityError(Exception):
    """The exported graph differs from torch; nothing was published."""

    def __init__(self, parity: "Parity") -> None:
        super().__init__(f"the exported graph differs from torch: {'; '.join(parity.failures)}")
        self.parity = parity


@dataclass(frozen=True, kw_only=True)
class ParityCheck:
    """One head at one canvas and batch size.

    Attributes:
        head: its name.
        canvas: the size of the network's input in words (``Input.size_of``).
        batch: samples in one call.
        max_abs: largest difference of a box or keypoint coordinate (canvas pixels), or of a score
            if there are no boxes.
        max_rel: the same divided by the size of torch's number (numbers below 1 count as 1).
        max_score: largest difference of a score.
        agree: share of objects with a partner (same class, box and mask), of pixels with the same
            class, or of images with the same best class.
        count: boxes, pixels or images that were compared.
    """

    head: str
    canvas: str
    batch: int
    max_abs: float = 0.0
    max_rel: float = 0.0
    max_score: float = 0.0
    agree: float = 1.0
    count: int = 0

    @property
    def where(self) -> str:
        """The head, canvas and batch size, in words."""
        return f"{self.head} at {self.canvas}, batch {self.batch}"


def join_checks(checks: Sequence[ParityCheck]) -> ParityCheck:
    """One check for several checks of the same head, canvas and batch size."""
    count = sum(check.count for check in checks)
    return replace(
        checks[0],
        max_abs=_most([check.max_abs for check in checks]),
        max_rel=_most([check.max_rel for check in checks]),
        max_score=_most([check.max_score for check in checks]),
        agree=sum(check.agree * check.count for check in checks) / count
        if count
        else min(check.agree for check in checks),
        count=count,
    )


def _most(differences: Sequence[float]) -> float:
    """The largest difference; NaN if any is NaN, unlike ``max``."""
    return float(np.max(differences))


@dataclass(frozen=True, kw_only=True)
class MetricPair:
    """One metric of the samples, from torch and from the bundle.

    Attributes:
        head, metric: its name.
        torch, bundle: its values.
        shown: whether it is in tables for people; see ``brief``.
    """

    head: str
    metric: str
    torch: float
    bundle: float
    shown: bool = True

    @property
    def difference(self) -> float:
        """The absolute difference."""
        return abs(self.torch - self.bundle)


@dataclass(kw_only=True)
class Parity:
    """All checks, and a sentence for each failure."""

    layout: str
    samples: int
    checks: list[ParityCheck] = field(default_factory=list)
    metrics: list[MetricPair] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    canvases: list[AnyCanvas] = field(default_factory=list)
    """At which the graph was right."""
    batches: tuple[int, ...] = ()
    too_low: list[str] = field(default_factory=list)
    """Sentences on metrics that are so low that no engine can lose more than is allowed."""

    @property
    def reason(self) -> str:
        """The first failures."""
        further = len(self.failures) - FIRST
        more = f"; and {further} more" if further > 0 else ""
        return "; ".join(self.failures[:FIRST]) + more

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each head of which nothing was compared, since torch and the bundle found
        no object on any sample, or whose metric is too low to be lost.
        """
        counts: dict[str, int] = {}
        for check in self.checks:
            counts[check.head] = counts.get(check.head, 0) + check.count
        nothing = (
            f"the head {head} found nothing on the samples, in torch and in the bundle: they are "
            "equal, but no answer was compared (Fix: a trained model, or more export.samples)"
            for head, count in counts.items()
            if not count
        )
        return (*nothing, *self.too_low)

    def to_json(self) -> dict[str, Any]:
        """The content of ``parity.json``."""
        metrics = [
            {
                **{name: value for name, value in asdict(pair).items() if name != "shown"},
                "difference": pair.difference,
            }
            for pair in self.metrics
        ]
        return {
            "version": 1,
            "passed": not self.failures,
            "layout": self.layout,
            "samples": self.samples,
            "checks": [asdict(check) for check in self.checks],
            "metrics": metrics,
            "failures": self.failures,
            "notes": list(self.notes),
        }

    def range_json(self) -> dict[str, Any]:
        """The sizes and batches at which the graph was right, for ``range.json``."""
        return {
            "canvases": [values_of(canvas) for canvas in self.canvases],
            "batches": list(self.batches),
        }


def compare_arrays(
    check: ParityCheck,
    task: Task[Any, Any],
    expected: BatchArrays,
    found: BatchArrays,
    frames: Sequence[Any],
    config: ExportConfig,
) -> tuple[ParityCheck, list[str]]:
    """Compares the arrays of torch and of the graph for the same batch.

    Args:
        check: head, canvas and batch size; its figures are ignored.
        task: of the head.
        expected: arrays by name, batch first, from torch.
        found: the same from the engine.
        frames: of the samples on the canvas.
        config: the tolerances.

    Returns:
        The figures, and a sentence for each exceeded tolerance or field that cannot be compared.
    """
    shapes = {
        name: (value.shape, found[name].shape) for name, value in expected.items() if name in found
    }
    if shapes := {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}:
        return replace(check, agree=0.0), [f"{check.where}: shapes differ, {shapes}"]
    ours, theirs = (
        [{name: values[sample] for name, values in arrays.items()} for sample in range(check.batch)]
        for arrays in (expected, found)
    )
    hows = [Comparison(frame=frame, sides=SIDES) for frame in frames]
    apart = [task.array_difference(*each) for each in zip(ours, theirs, hows, strict=True)]
    return _judged(check, apart, config)


def compare_predictions(
    check: ParityCheck,
    task: Task[Any, Any],
    expected: Sequence[Any],
    found: Sequence[Any],
    frames: Sequence[Any],
    config: ExportConfig,
) -> tuple[ParityCheck, list[str]]:
    """Compares the predictions of one head for the same samples, every field of them. Their arrays
    have been compared before.

    Args:
        check: head, canvas and batch size; its figures are ignored.
        task: of the head.
        expected: a prediction for each sample, from torch.
        found: the same from the engine.
        frames: of the samples on the canvas, so that differences are in canvas pixels.
        config: the tolerances.

    Returns:
        As ``compare_arrays``.
    """
    types = {type(prediction).__name__ for prediction in (*expected, *found)}
    if len(types) > 1:
        return replace(check, agree=0.0), [
            f"{check.where}: the predictions are of different types, {', '.join(sorted(types))}"
        ]
    hows = [Comparison(frame=frame, sides=SIDES, cut=True) for frame in frames]
    apart = [
        task.difference(first, second, how)
        for first, second, how in zip(expected, found, hows, strict=True)
    ]
    return _judged(check, apart, config)


def _judged(
    check: ParityCheck, apart: Sequence[Difference], config: ExportConfig
) -> tuple[ParityCheck, list[str]]:
    """The figures of a check, and its failures, of the differences of each image."""
    if problems := list(dict.fromkeys(problem for each in apart for problem in each.incomparable)):
        return replace(check, agree=0.0), [f"{check.where}: {problem}" for problem in problems]
    count = sum(each.count for each in apart)
    check = replace(
        check,
        max_abs=_most(
            [(each.max_score or 0.0) if each.max_px is None else each.max_px for each in apart]
        ),
        max_rel=_most([each.max_rel for each in apart]),
        max_score=_most([each.max_score or 0.0 for each in apart]),
        agree=sum(each.agreeing for each in apart) / count if count else 1.0,
        count=count,
    )
    return check, [f"{check.where}: {sentence}" for sentence in _broken(check, config)]


def _broken(check: ParityCheck, config: ExportConfig) -> Iterator[str]:
    limits = {
        "max_abs": (check.max_abs, config.max_abs),
        "max_score": (check.max_score, config.max_score),
    }
    for name, (value, limit) in limits.items():
        if not value <= limit:
            yield f"{name} is {value:.3g}, allowed {limit:g}"
    if not check.agree >= config.min_agree:
        yield f"only {check.agree:.4%} agree, {config.min_agree:.4%} must"


def parity_table(parity: Parity) -> str:
    """A table for a terminal: a line for each head, canvas and batch size, then one for each
    metric.
    """
    rows: list[tuple[str, ...]] = [
        ("head", "canvas", "batch", "compared", "agree", "max abs", "max rel", "max score")
    ]
    for check in parity.checks:
        figures = (f"{check.max_abs:.1e}", f"{check.max_rel:.1e}", f"{check.max_score:.1e}")
        rows.append(
            (
                check.head,
                check.canvas,
                str(check.batch),
                str(check.count),
                f"{check.agree:.3%}",
                *figures,
            )
        )
    metrics: list[tuple[str, ...]] = [("metric", "torch", "bundle", "difference")]
    shown = [pair for pair in parity.metrics if pair.shown]
    for pair in shown:
        metrics.append(
            (
                f"{pair.head}/{pair.metric}",
                f"{pair.torch:.4f}",
                f"{pair.bundle:.4f}",
                f"{pair.difference:.1e}",
            )
        )
    lines = [*_aligned(rows), *(["", *_aligned(metrics)] if shown else [])]
    if hidden := len(parity.metrics) - len(shown):
        lines.append(f"{hidden} more figures were compared")
    return "\n".join(lines)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
