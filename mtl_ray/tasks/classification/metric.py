"""How well image labels are predicted: accuracy for one class per image, average precision for any
number.
"""

from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mtl_ray.samples import Sample
from mtl_ray.tasks.charts import Charts, Confusion, PrecisionRecall, interpolated_precision
from mtl_ray.tasks.classification.decode import LabelScores

MetricColumns = dict[str, NDArray[np.float64]]
BINS = 256
"""Bins of scores, even in log-odds from -10 to 10: fine near 0 and 1, where most scores are."""


class ExclusiveMetric:
    """Top-1 and top-5 accuracy, and precision, recall and F1 of the most likely class.

    A class that is neither annotated nor predicted has no precision, recall or F1 (NaN) and is left
    out of the means. Of an image whose dataset does not know all classes
    (``Sample.known_classes``), the scores of the known ones count.
    """

    main = "top1"
    lower_is_better: frozenset[str] = frozenset()

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.confusion: NDArray[np.int64] = np.zeros((len(names), len(names)), np.int64)
        self.in_five = 0
        self.scores: NDArray[np.int64] = np.zeros((2, len(names), BINS), np.int64)
        """Number of images with a score in each bin, [has the class or not, class, bin]."""

    def update(self, sample: Sample, prediction: LabelScores) -> None:
        """Counts one image; one without a label is left out.

        Raises:
            ValueError: if the image has several labels.
        """
        if sample.labels is None or len(sample.labels) == 0:
            return
        if len(sample.labels) > 1:
            raise ValueError(
                f"sample {sample.key!r} has {len(sample.labels)} labels; a head with one label for "
                "each image cannot be measured on it"
            )
        gt = int(sample.labels[0])
        known = _known(sample, len(self.names))
        order = np.argsort(-prediction.scores, kind="stable")
        order = order[known[order]]
        self.confusion[gt, order[0]] += 1
        self.in_five += int(gt in order[:5])
        classes = np.flatnonzero(known)
        self.scores[(classes == gt).astype(int), classes, _bins(prediction.scores[classes])] += 1

    def merge(self, other: Self) -> None:
        """Adds the counts of ``other``."""
        # a new array: what a Ray task returned cannot be written to
        self.confusion = self.confusion + other.confusion
        self.in_five += other.in_five
        self.scores = self.scores + other.scores

    def result(self) -> Mapping[str, float]:
        """top1, top5, and the means over classes of precision, recall and f1."""
        total = int(self.confusion.sum())
        means = {name: _mean(values) for name, values in self._table().items()}
        if not total:
            return {"top1": float("nan"), "top5": float("nan"), **means}
        return {
            "top1": float(np.trace(self.confusion) / total),
            "top5": self.in_five / total,
            **means,
        }

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """Precision, recall and f1 of each class."""
        return _rows(self.names, self._table())

    def charts(self) -> Charts:
        """Confusion of images, and curves of each class against all others; scores are rounded to
        ``BINS`` bins.
        """
        wrong, correct = self.scores[:, :, ::-1].cumsum(axis=2)
        curves = [_curve(correct[c], correct[c] + wrong[c]) for c in range(len(self.names))]
        return Charts(
            confusion=Confusion(names=self.names, counts=self.confusion, unit="images"),
            precision_recall=PrecisionRecall(names=self.names, precision=np.array(curves)),
        )

    def _table(self) -> MetricColumns:
        return _precision_recall(
            np.diag(self.confusion), self.confusion.sum(0), self.confusion.sum(1)
        )


class MultilabelMetric:
    """Average precision of each class over all images, and precision, recall and F1 at a score of
    0.5.

    Average precision is the mean, over the images that have the class, of the precision at their
    score (the area under the precision-recall steps, without interpolation); images of equal score
    count together, so their order does not matter. Scores of classes that the dataset of an image
    does not know (``Sample.known_classes``) do not count.
    """

    main = "mAP"
    lower_is_better: frozenset[str] = frozenset()

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.scores: list[NDArray[np.float32]] = []
        self.gt: list[NDArray[np.bool_]] = []
        self.known: list[NDArray[np.bool_]] = []

    def update(self, sample: Sample, prediction: LabelScores) -> None:
        """Keeps the scores of one image; one that is not annotated is left out."""
        if sample.labels is None:
            return
        present = np.zeros(len(self.names), np.bool_)
        present[sample.labels] = True
        self.scores.append(prediction.scores)
        self.gt.append(present)
        self.known.append(_known(sample, len(self.names)))

    def merge(self, other: Self) -> None:
        """Adds the images of ``other``."""
        self.scores += other.scores
        self.gt += other.gt
        self.known += other.known

    def result(self) -> Mapping[str, float]:
        """mAP; precision, recall and f1 as means over classes, and micro_* over all decisions
        together.
        """
        table = self._table()
        correct, pred, gt = (int(values.sum()) for values in self._counts())
        micro = _precision_recall(*(np.array([value]) for value in (correct, pred, gt)))
        named = {"mAP": "AP", "precision": "precision", "recall": "recall", "f1": "f1"}
        return {name: _mean(table[column]) for name, column in named.items()} | {
            f"micro_{name}": float(v[0]) for name, v in micro.items()
        }

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """AP, precision, recall and f1 of each class."""
        return _rows(self.names, self._table())

    def charts(self) -> Charts:
        """Curves of each class; an image may have several classes, so there is no confusion."""
        curves = [_curve(*_steps(scores, gt)) for scores, gt in self._by_class()]
        return Charts(
            confusion=None,
            precision_recall=PrecisionRecall(names=self.names, precision=np.array(curves)),
        )

    def _counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        counts = [((scores >= 0.5) & gt, scores >= 0.5, gt) for scores, gt in self._by_class()]
        correct, pred, present = (
            np.array([[each.sum() for each in of_class] for of_class in counts], np.int64)
            .reshape(-1, 3)
            .T
        )
        return correct, pred, present

    def _table(self) -> MetricColumns:
        precision = [average_precision(scores, gt) for scores, gt in self._by_class()]
        return {"AP": np.array(precision, np.float64), **_precision_recall(*self._counts())}

    def _by_class(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """The scores and the ground truth (N,) of each class, for the images whose dataset knows
        it.
        """
        shape = (len(self.scores), len(self.names))
        scores, gt, known = (
            np.array(rows).reshape(shape) for rows in (self.scores, self.gt, self.known)
        )
        for place in range(len(self.names)):
            mine = known[:, place].astype(np.bool_)
            yield scores[mine, place].astype(np.float32), gt[mine, place].astype(np.bool_)


def _known(sample: Sample, classes: int) -> NDArray[np.bool_]:
    return sample.known_classes.get("labels", np.ones(classes, np.bool_))


def average_precision(scores: NDArray[np.float32], gt: NDArray[np.bool_]) -> float:
    """Area under the precision-recall steps of N scores (N,) and their ground truth (N,); NaN
    without a positive.
    """
    if not gt.any():
        return float("nan")
    correct, pred = _steps(scores, gt)
    return float(np.sum(np.diff(correct, prepend=0) * correct / pred) / gt.sum())


def _steps(
    scores: NDArray[np.float32], gt: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """At each distinct score, best first: the number of positives at or above it, and the number of
    images.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])
    return np.cumsum(gt[order], dtype=np.int64)[last], last + 1


def _bins(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    exact = np.clip(np.nan_to_num(scores.astype(np.float64)), 0.0, 1.0)
    with np.errstate(divide="ignore"):
        odds = np.log(exact) - np.log1p(-exact)
    return np.clip((odds + 10) / 20 * BINS, 0, BINS - 1).astype(np.int64)


def _curve(correct: NDArray[np.int64], pred: NDArray[np.int64]) -> NDArray[np.float64]:
    """Precision at the recalls of a chart; the last counts are of all images."""
    some = pred > 0
    return interpolated_precision(
        correct[some], pred[some], int(correct[-1]) if len(correct) else 0
    )


def _precision_recall(
    correct: NDArray[np.int64], pred: NDArray[np.int64], gt: NDArray[np.int64]
) -> MetricColumns:
    """A class that is annotated but never predicted has precision 0; one that is only predicted has
    no recall.
    """
    known = np.where((pred > 0) | (gt > 0), 0.0, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(pred > 0, correct / pred, known)
        return {"precision": precision, "recall": correct / gt, "f1": 2 * correct / (pred + gt)}


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _rows(names: tuple[str, ...], table: MetricColumns) -> dict[str, dict[str, float]]:
    return {
        name: {column: float(values[i]) for column, values in table.items()}
        for i, name in enumerate(names)
    }
