"""The charts of a metric: confusion matrices and precision-recall curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BACKGROUND = "background"
"""The row of predictions without an object, and the column of objects without a prediction."""
RECALLS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, kw_only=True, eq=False)
class Confusion:
    """A confusion matrix.

    Attributes:
        names: of the rows and columns.
        counts: int64 (N, N), [annotated, predicted].
        unit: what is counted: images, objects or pixels.
        note: thresholds, for the title; may be empty.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    unit: str
    note: str = ""

    def condensed(self, most: int) -> "Confusion":
        """At most ``most`` classes: those with the most errors in their order, all others as one
        row and column ``N others``.
        """
        if len(self.names) <= most:
            return self
        errors = self.counts.sum(0) + self.counts.sum(1) - 2 * np.diag(self.counts)
        kept = np.sort(np.argsort(-errors, kind="stable")[: most - 1])
        group = np.full(len(self.names), most - 1)
        group[kept] = np.arange(most - 1)
        counts = np.zeros((most, most), np.int64)
        np.add.at(counts, (group[:, None], group[None]), self.counts)
        names = (*(self.names[i] for i in kept), f"{len(self.names) - most + 1} others")
        return Confusion(names=names, counts=counts, unit=self.unit, note=self.note)


@dataclass(frozen=True, kw_only=True, eq=False)
class PrecisionRecall:
    """Precision at the recalls ``RECALLS``, by class.

    Attributes:
        names: of the classes.
        precision: float64 (C, 101), the best at this recall or a higher one, 0 if the recall is not
            reached; NaN for a class without annotations.
        note: the criterion of a match, for the title; may be empty.
    """

    names: tuple[str, ...]
    precision: NDArray[np.float64]
    note: str = ""

    @property
    def average(self) -> NDArray[np.float64]:
        """Mean precision over the recalls, float64 (C,); NaN as ``precision``."""
        return np.asarray(self.precision.mean(axis=1), np.float64)


class Charts(NamedTuple):
    """The charts of one head's metric; None for a chart that it does not have."""

    confusion: Confusion | None = None
    precision_recall: PrecisionRecall | None = None


def interpolated_precision(
    correct: NDArray[np.int64], predicted: NDArray[np.int64], total: int
) -> NDArray[np.float64]:
    """Precision at the recalls ``RECALLS``, float64 (101,).

    Args:
        correct: int64 (K,), correct predictions at each threshold; thresholds decrease.
        predicted: int64 (K,), all predictions, at least 1.
        total: number of annotated objects or images; 0 gives NaN.
    """
    if not total:
        return np.full(len(RECALLS), np.nan)
    precision = np.maximum.accumulate((correct / predicted)[::-1])[::-1]
    at = np.searchsorted(correct / total, RECALLS - 1e-12)
    return np.append(precision, 0.0)[at]


def charted_classes(chart: PrecisionRecall, most: int) -> Sequence[int]:
    """The classes to draw, at most ``most``: those with the lowest average precision."""
    indices = np.flatnonzero(~np.isnan(chart.average))
    return sorted(indices[np.argsort(chart.average[indices], kind="stable")][:most].tolist())


def chart_file(name: str) -> str:
    """The file of a chart HEAD/CHART: ``confusion-boxes.png`` for ``boxes/confusion``."""
    head, chart = name.split("/")
    return f"{chart}-{head}.png"


def chart_of(file: str) -> str | None:
    """The inverse of ``chart_file``; None for the file of another image."""
    chart, _, head = file.removesuffix(".png").partition("-")
    return f"{head}/{chart}" if chart in ("confusion", "pr_curves") else None
