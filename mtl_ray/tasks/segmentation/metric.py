"""Overlap of a class map with the ground truth: mIoU, mAcc, aAcc and Dice from a confusion
matrix.
"""

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

    Pixels that are ``IGNORE_INDEX`` in the ground truth do not count. A class without pixels in
    ground truth and prediction has no IoU and no Dice (NaN) and is left out of the mean; one that
    is only predicted has IoU 0. Accuracy is over the classes in the ground truth. Pixels predicted
    as a class that the dataset of the image does not know (``Sample.known_classes``) do not count.
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
            gt = decode_semantic(sample.semantic)
        except ValueError as error:
            raise ValueError(
                f"the semantic map of sample {sample.key!r} cannot be measured: {error}"
            ) from error
        if gt.shape != prediction.classes.shape:
            sizes = " and ".join(
                f"{width} x {height}" for height, width in (gt.shape, prediction.classes.shape)
            )
            raise ValueError(
                f"the semantic map of sample {sample.key!r} and its prediction differ in size: "
                f"{sizes} pixels"
            )
        counts = pixel_confusion(gt, prediction.classes)
        if (known := sample.known_classes.get("semantic")) is not None:
            counts[:, np.flatnonzero(~known)] = 0
        self.counts += counts

    def merge(self, other: Self) -> None:
        """Adds the pixels of ``other``."""
        # a new array: what a Ray task returned cannot be written to
        self.counts = self.counts + other.counts

    def result(self) -> Mapping[str, float]:
        """mIoU, mAcc, mDice: means over classes; aAcc: the share of correct pixels."""
        table = self._table()
        counts = self._counted()
        total = counts.sum()
        means = {
            name: float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
            for name, values in table.items()
        }
        correct = np.trace(counts[: len(self.names), : len(self.names)])
        return {
            "mIoU": means["IoU"],
            "mAcc": means["Acc"],
            "aAcc": float(correct / total) if total else float("nan"),
            "mDice": means["Dice"],
        }

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """IoU, Acc (recall) and Dice of each class."""
        table = self._table()
        return {
            name: {metric: float(values[i]) for metric, values in table.items()}
            for i, name in enumerate(self.names)
        }

    def charts(self) -> Charts:
        """Confusion of pixels; a map has no scores, so there are no curves."""
        classes = len(self.names)
        counts = self._counted()[:classes, :classes]
        return Charts(
            confusion=Confusion(names=self.names, counts=counts, unit="pixels"),
            precision_recall=None,
        )

    def _counted(self) -> NDArray[np.int64]:
        return np.delete(self.counts, IGNORE_INDEX, axis=0)

    def _table(self) -> dict[str, NDArray[np.float64]]:
        counts = self._counted()
        classes = len(self.names)
        gt, pred = counts.sum(1)[:classes].astype(float), counts.sum(0)[:classes].astype(float)
        correct = np.diag(counts[:, :classes])[:classes].astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "IoU": correct / (gt + pred - correct),
                "Acc": correct / gt,
                "Dice": 2 * correct / (gt + pred),
            }


def pixel_confusion(gt: NDArray[np.uint8], pred: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256, 256) int64 counts of (annotated, predicted) of two maps of the same size."""
    counts = np.zeros((256, 256), np.int64)
    # calcHist counts in float32, which is exact below 2^24 only
    rows = max(1, 2**24 // max(1, gt.shape[1]))
    for start in range(0, gt.shape[0], rows):
        pair = [gt[start : start + rows], pred[start : start + rows]]
        counts += cv2.calcHist(pair, [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64)
    return counts
