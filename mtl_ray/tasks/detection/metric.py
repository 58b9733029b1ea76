"""How well objects are found: COCO's average precision and recall, and Pascal VOC's."""

import re
from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.detection.coco import Curves, Kind, Scored, curves
from mtl_ray.tasks.detection.config import HeadConfig
from mtl_ray.tasks.detection.decode import Detections

PREFIX: Mapping[Kind, str] = {"bbox": "", "segm": "segm_", "keypoints": "keypoints_"}


class DetectionMetric:
    """Keeps the objects and the detections of each image; the protocols run when a result is asked for.

    Objects that are ``crowd`` or ``difficult`` need not be found, and what is found on them counts neither way.
    """

    main = "mAP"

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.images: list[Scored] = []

    def update(self, sample: Sample, prediction: Detections) -> None:
        """Keeps one image; one whose objects are not annotated is left out."""
        if sample.instances is not None:
            self.images.append(Scored(sample.key, sample.height, sample.width, sample.instances, prediction))

    def merge(self, other: Self) -> None:
        """Adds the images of ``other``."""
        self.images += other.images

    def result(self) -> Mapping[str, float]:
        """mAP, mAP50, mAP75, mAP_s, mAP_m, mAP_l, AR@1, AR@10, AR@100, ...; NaN where there is no object to find."""
        result: dict[str, float] = {}
        for kind in self._kinds():
            result |= {PREFIX[kind] + name: value for name, value in _summary(curves(kind, self._ordered(), len(self.names))).items()}
        return result

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """mAP and mAP50 of each class."""
        table: dict[str, dict[str, float]] = {name: {} for name in self.names}
        for kind in self._kinds():
            got = curves(kind, self._ordered(), len(self.names))
            for c, name in enumerate(self.names):
                precision = got.precision[:, :, c, 0, -1]
                table[name] |= {f"{PREFIX[kind]}mAP": _mean(precision), f"{PREFIX[kind]}mAP50": _mean(precision[0])}
        return table

    def _kinds(self) -> list[Kind]:
        kinds: list[Kind] = ["bbox"]
        if any(image.found.masks is not None for image in self.images):
            kinds.append("segm")
        if any(image.found.keypoints is not None for image in self.images):
            kinds.append("keypoints")
        return kinds

    def _ordered(self) -> list[Scored]:
        """By key, numbers in it by value: equal scores are then met in the same order however the images came together."""
        return sorted(self.images, key=lambda image: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", image.key)])


def metric(head: HeadConfig, vocabulary: Vocabulary) -> DetectionMetric:
    """An empty metric for the classes of the vocabulary."""
    return DetectionMetric(tuple(vocabulary.classes["instances"]))


def _summary(got: Curves) -> dict[str, float]:
    precision = {area: got.precision[:, :, :, i, -1] for i, area in enumerate(got.areas)}
    result = {"mAP": _mean(precision["all"]), "mAP50": _mean(precision["all"][0]), "mAP75": _mean(precision["all"][5])}
    result |= {f"mAP_{area[0]}": _mean(values) for area, values in precision.items() if area != "all"}
    result |= {f"AR@{limit}": _mean(got.recall[:, :, 0, i]) for i, limit in enumerate(got.limits)}
    return result | {f"AR_{area[0]}": _mean(got.recall[:, :, i, -1]) for i, area in enumerate(got.areas) if area != "all"}


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
