"""Histograms of what a model gets and what it answers, and how far two of them lie apart.

A bundle holds those of its export (``statistics.json``), a server counts its own.
"""

import json
import math
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inputs.input import AnyCanvas

STATISTICS_FILE = "statistics.json"
"""Of a bundle. Bundles that were checked on generated data, and older ones, have none."""
MIN_SCORE = 0.05
"""Lower scores are not counted: heads differ in how many of them they give."""
SCORE_EDGES = tuple(i / 20 for i in range(21))
ALPHA = 0.01
MAX_BINS = 1000
MOST_ASIDE = 16
"""Batches that a server has answered and not counted yet; they hold their data."""


@runtime_checkable
class Scored(Protocol):
    """A prediction with scores in [0, 1]."""

    @property
    def scores(self) -> NDArray[np.float32]: ...  # noqa: D102


@dataclass(kw_only=True)
class Histogram:
    """Counts of values between edges; values outside count in the first or last bin.

    Attributes:
        edges: N + 1 of them, rising.
        counts: N numbers.
        dependence: the design effect of the values, 1 if they are independent; see
            ``dependence_of``.
    """

    edges: tuple[float, ...]
    counts: list[int]
    dependence: float = 1.0

    @classmethod
    def empty(cls, edges: Sequence[float]) -> Self:
        """A histogram without a value."""
        return cls(edges=tuple(edges), counts=[0] * (len(edges) - 1))

    @property
    def total(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def add(self, values: Sequence[float] | NDArray[np.floating[Any]]) -> None:
        """Counts some values; NaN is left out."""
        last = len(self.counts) - 1
        for value in map(float, values):  # few: numpy would take ten times as long
            if not math.isnan(value):
                self.counts[min(max(bisect_right(self.edges, value) - 1, 0), last)] += 1

    def merge(self, other: "Histogram") -> None:
        """Adds the counts of another one with the same edges; other edges are left out."""
        if other.edges == self.edges:
            self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]

    def distance(self, other: "Histogram") -> dict[str, Any] | None:
        """The test of Kolmogorov and Smirnov on the bins: the largest difference of the two
        cumulative distributions, and the distance that chance exceeds in one of a hundred cases
        (https://doi.org/10.1214/aoms/1177730256). Values that depend on each other count less.
        None without values or with other edges.

        Args:
            other: the baseline, whose ``dependence`` holds for both.
        """
        n, m = self.total, other.total
        if not n or not m or self.edges != other.edges:
            return None
        apart = np.cumsum(self.counts) / n - np.cumsum(other.counts) / m
        distance = float(np.abs(apart).max())
        critical = math.sqrt(-math.log(ALPHA / 2) / 2 * (n + m) / (n * m) * other.dependence)
        return {
            "distance": round(distance, 4),
            "by_chance": round(min(critical, 1.0), 4),
            "drift": distance > critical,
        }


@dataclass(kw_only=True)
class Statistics:
    """Histograms of the data and of the scores of each head of one model.

    Attributes:
        samples: number of predicted samples.
        data: of a number of each sample, by its name (``Input.statistic``).
        scores: by head; heads without scores have none.
    """

    samples: int = 0
    data: dict[str, Histogram] = field(default_factory=dict)
    scores: dict[str, Histogram] = field(default_factory=dict)

    def update(
        self, canvas: AnyCanvas, raws: Sequence[Any], predictions: Sequence[Predictions]
    ) -> None:
        """Counts some samples and their predictions."""
        kind = canvas.input
        self.samples += len(raws)
        if kind.statistic_name:
            found = self.data.setdefault(kind.statistic_name, Histogram.empty(kind.statistic_edges))
            found.add([kind.statistic(raw) for raw in raws])
        for each in predictions:
            for head, prediction in each.items():
                if isinstance(prediction, Scored):
                    scores = prediction.scores
                    of_head = self.scores.setdefault(head, Histogram.empty(SCORE_EDGES))
                    of_head.add(scores[scores >= MIN_SCORE])

    def merge(self, other: "Statistics") -> None:
        """Adds the counts of another part of the same model's requests."""
        self.samples += other.samples
        for mine, theirs in ((self.data, other.data), (self.scores, other.scores)):
            for name, histogram in theirs.items():
                mine.setdefault(name, Histogram.empty(histogram.edges)).merge(histogram)

    def to_json(self) -> dict[str, Any]:
        """The counts as plain values."""
        return {
            "version": 1,
            "samples": self.samples,
            "data": _plain(self.data),
            "scores": _plain(self.scores),
        }

    def compare(self, baseline: "Statistics") -> dict[str, Any]:
        """The distance of each histogram from the same one of ``baseline``."""
        pairs = (("data", self.data, baseline.data), ("scores", self.scores, baseline.scores))
        return {
            part: {
                name: apart
                for name, histogram in mine.items()
                if name in theirs and (apart := histogram.distance(theirs[name])) is not None
            }
            for part, mine, theirs in pairs
        }


class LiveStatistics:
    """The statistics of a predictor that is served: several threads count, and an update of the
    server keeps them. Samples are put aside first, so that no answer waits until they are counted.
    """

    def __init__(self) -> None:
        self._total = Statistics()
        self._aside: deque[tuple[AnyCanvas, Sequence[Any], Sequence[Predictions]]] = deque()
        self._lock = threading.Lock()

    def put_aside(
        self, canvas: AnyCanvas, raws: Sequence[Any], predictions: Sequence[Predictions]
    ) -> None:
        """Keeps some samples and their predictions for ``count``; counts if many are there."""
        self._aside.append((canvas, raws, predictions))
        if len(self._aside) > MOST_ASIDE:
            self.count()

    def count(self) -> None:
        """Counts what was put aside."""
        with self._lock:
            while self._aside:
                self._total.update(*self._aside.popleft())

    def to_json(self) -> dict[str, Any]:
        """All counts until now, as plain values."""
        self.count()
        with self._lock:
            return self._total.to_json()


def _plain(histograms: Mapping[str, Histogram]) -> dict[str, Any]:
    return {
        name: {
            "edges": list(each.edges),
            "counts": list(each.counts),
            **({"dependence": each.dependence} if each.dependence > 1 else {}),
        }
        for name, each in histograms.items()
    }


def read_statistics(content: Any) -> Statistics:
    """The inverse of ``to_json``, also from bytes.

    Raises:
        ValueError: if it has another form.
    """
    try:
        values = json.loads(content) if isinstance(content, bytes) else content
        return Statistics(
            samples=int(values["samples"]),
            data=_histograms(values["data"]),
            scores=_histograms(values["scores"]),
        )
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{STATISTICS_FILE} is damaged: {error}") from error


def _histograms(values: Mapping[str, Any]) -> dict[str, Histogram]:
    found = {}
    for name, each in values.items():
        edges, counts = tuple(map(float, each["edges"])), list(map(int, each["counts"]))
        dependence = float(each.get("dependence", 1))
        if len(edges) != len(counts) + 1 or not 1 <= len(counts) <= MAX_BINS or min(counts) < 0:
            raise ValueError(f"the histogram {name!r} has {len(edges)} edges")
        if not 1 <= dependence < math.inf:
            raise ValueError(f"the histogram {name!r} has a dependence of {dependence}")
        found[str(name)] = Histogram(edges=edges, counts=counts, dependence=dependence)
    return found


def statistics_of(predictor: Predictor, batches: Iterable[Sequence[Any]]) -> Statistics:
    """The statistics of a model on some data, as a baseline: with the dependence of the scores.

    Args:
        predictor: the model.
        batches: data that is predicted at once.
    """
    found, of_each = Statistics(), list[Statistics]()
    for raws in batches:
        for raw, prediction in zip(raws, predictor.predict(raws), strict=True):
            of_each.append(Statistics())
            of_each[-1].update(predictor.canvas, [raw], [prediction])
            found.merge(of_each[-1])
    for head, histogram in found.scores.items():
        rows = [each.scores[head].counts for each in of_each if head in each.scores]
        histogram.dependence = dependence_of(np.array(rows))
    return found


def dependence_of(counts: NDArray[np.int64]) -> float:
    """The design effect of scores that come in samples (Kish, Survey Sampling, 1965): scores of one
    sample are alike, such as those of the boxes of a sharp image, so they count for fewer.

    It is the variance between samples of the shares below each edge, over the variance that scores
    drawn one by one would have. n scores tell as much as n / design effect independent ones. 1 at
    least.

    Args:
        counts: of each bin by sample, (samples, bins).
    """
    below = np.cumsum(counts, axis=1, dtype=np.float64)
    total = below[:, -1].sum()
    share = below.sum(axis=0) / max(total, 1)
    apart = below - below[:, -1:] * share
    alone = float((share * (1 - share)).sum() * total)
    return max(1.0, round(float((apart**2).sum()) / alone, 3)) if alone > 0 else 1.0
