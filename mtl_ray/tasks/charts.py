"""What a metric shows beyond figures: which classes are taken for which, and what precision is to be had at which recall."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BACKGROUND = "background"
"""The row of what was found where there is nothing, and the column of what was not found."""
RECALLS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, kw_only=True, eq=False)
class Confusion:
    """How often a class was taken for another.

    Attributes:
        names: of the rows and columns.
        counts: int64 (N, N), [annotated, predicted].
        unit: what is counted: images, objects or pixels.
        note: under what conditions, for the title; empty if there are none.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    unit: str
    note: str = ""

    def condensed(self, most: int) -> "Confusion":
        """At most ``most`` classes: those with the most mistakes in their order, all others as one row and column ``N others``."""
        if len(self.names) <= most:
            return self
        mistakes = self.counts.sum(0) + self.counts.sum(1) - 2 * np.diag(self.counts)
        kept = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
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
        precision: float64 (C, 101), the best at this recall or a higher one, 0 where it is not reached; NaN for a class of which
            nothing is annotated.
        note: what counts as found, for the title; empty if that is plain.
    """

    names: tuple[str, ...]
    precision: NDArray[np.float64]
    note: str = ""

    @property
    def average(self) -> NDArray[np.float64]:
        """Mean precision over the recalls, float64 (C,); NaN as ``precision``."""
        return np.asarray(self.precision.mean(axis=1), np.float64)


class Charts(NamedTuple):
    """What one head's metric shows; None for what has no meaning for it."""

    confusion: Confusion | None = None
    precision_recall: PrecisionRecall | None = None


def interpolated_precision(right: NDArray[np.int64], found: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    """Precision at the recalls ``RECALLS``, float64 (101,).

    Args:
        right: int64 (K,), right ones among what was found at each threshold, thresholds falling.
        found: int64 (K,), all that was found, at least 1.
        total: of what is to be found; NaN comes of 0.
    """
    if not total:
        return np.full(len(RECALLS), np.nan)
    precision = np.maximum.accumulate((right / found)[::-1])[::-1]
    at = np.searchsorted(right / total, RECALLS - 1e-12)
    return np.append(precision, 0.0)[at]


def charted_classes(chart: PrecisionRecall, most: int) -> Sequence[int]:
    """The classes to show, at most ``most``: where there are more, those of the least average precision, which want to be looked at."""
    indices = np.flatnonzero(~np.isnan(chart.average))
    return sorted(indices[np.argsort(chart.average[indices], kind="stable")][:most].tolist())


def chart_file(name: str) -> str:
    """The file of a chart HEAD/CHART: ``boxes/confusion`` lies in ``confusion-boxes.png``."""
    head, chart = name.split("/")
    return f"{chart}-{head}.png"


def chart_of(file: str) -> str | None:
    """The way back; None for the file of another picture."""
    chart, _, head = file.removesuffix(".png").partition("-")
    return f"{head}/{chart}" if chart in ("confusion", "pr_curves") else None
