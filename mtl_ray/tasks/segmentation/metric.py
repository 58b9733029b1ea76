"""Overlap of a class map with the truth: mIoU, mAcc, aAcc and Dice from a confusion matrix."""

from collections.abc import Mapping
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.decode import decode_semantic
from mtl_ray.samples import IGNORE_INDEX, Sample
from mtl_ray.tasks.charts import Charts, Confusion
from mtl_ray.tasks.segmentation.decode import SemanticMap


class SemanticMetric:
    """A confusion matrix of pixels.

    Pixels that are ``IGNORE_INDEX`` in the truth do not count. A class that no pixel has, in truth or prediction, has no IoU
    and no Dice (NaN) and is left out of the mean; one that is only predicted has IoU 0; accuracy is over classes in the truth.
    Pixels predicted as a class that the dataset of the image does not know (``Sample.known_classes``) do not count.
    """

    main = "mIoU"
    lower_is_better: frozenset[str] = frozenset()

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.counts: NDArray[np.int64] = np.zeros((256, 256), np.int64)

    def update(self, sample: Sample, prediction: SemanticMap) -> None:
        """Counts the pixels of one image; a sample without a semantic map is left out."""
        if sample.semantic is None:
            return
        try:
            truth = decode_semantic(sample.semantic)
        except ValueError as error:
            raise ValueError(f"the semantic map of sample {sample.key!r} cannot be measured: {error}") from error
        if truth.shape != prediction.classes.shape:
            sizes = " and ".join(f"{width} x {height}" for height, width in (truth.shape, prediction.classes.shape))
            raise ValueError(f"the semantic map of sample {sample.key!r} and its prediction differ in size: {sizes} pixels")
        counts = pixel_confusion(truth, prediction.classes)
        if (known := sample.known_classes.get("semantic")) is not None:
            counts[:, np.flatnonzero(~known)] = 0
        self.counts += counts

    def merge(self, other: Self) -> None:
        """Adds the pixels of ``other``."""
        self.counts = self.counts + other.counts  # a new array: what a Ray task returned cannot be written to

    def result(self) -> Mapping[str, float]:
        """mIoU, mAcc, mDice: means over classes; aAcc: the share of right pixels."""
        table = self._table()
        counts = self._counted()
        total = counts.sum()
        means = {name: float(np.nanmean(values)) if np.isfinite(values).any() else float("nan") for name, values in table.items()}
        right = np.trace(counts[: len(self.names), : len(self.names)])
        return {
            "mIoU": means["IoU"],
            "mAcc": means["Acc"],
            "aAcc": float(right / total) if total else float("nan"),
            "mDice": means["Dice"],
        }

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """IoU, Acc (recall) and Dice of each class."""
        table = self._table()
        return {name: {metric: float(values[i]) for metric, values in table.items()} for i, name in enumerate(self.names)}

    def charts(self) -> Charts:
        """Confusion of pixels; a map has no scores, so there are no curves."""
        classes = len(self.names)
        counts = self._counted()[:classes, :classes]
        return Charts(confusion=Confusion(names=self.names, counts=counts, unit="pixels"), precision_recall=None)

    def _counted(self) -> NDArray[np.int64]:
        return np.delete(self.counts, IGNORE_INDEX, axis=0)

    def _table(self) -> dict[str, NDArray[np.float64]]:
        counts = self._counted()
        classes = len(self.names)
        truth, found = counts.sum(1)[:classes].astype(float), counts.sum(0)[:classes].astype(float)
        right = np.diag(counts[:, :classes])[:classes].astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"IoU": right / (truth + found - right), "Acc": right / truth, "Dice": 2 * right / (truth + found)}


def pixel_confusion(truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256, 256) int64 counts of (truth, found) over two maps of one size."""
    counts = np.zeros((256, 256), np.int64)
    rows = max(1, 2**24 // max(1, truth.shape[1]))  # calcHist counts in float32, which is exact below 2^24 only
    for start in range(0, truth.shape[0], rows):
        pair = [truth[start : start + rows], found[start : start + rows]]
        counts += cv2.calcHist(pair, [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64)
    return counts
