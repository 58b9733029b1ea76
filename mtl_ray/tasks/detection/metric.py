"""The metric of detection: COCO's average precision and recall, and Pascal VOC's."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mtl_ray.samples import Sample
from mtl_ray.tasks.charts import Charts, PrecisionRecall
from mtl_ray.tasks.detection.coco import CocoCurves, CocoKind, coco_curves
from mtl_ray.tasks.detection.columns import ScoredImage, images_with_masks
from mtl_ray.tasks.detection.confusion import detection_confusion
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.voc import VocTable, voc_table

PREFIX: Mapping[CocoKind, str] = {"bbox": "", "segm": "segm_", "keypoints": "keypoints_"}


class ProtocolTables(NamedTuple):
    """The results of the protocols: COCO's by kind, and VOC's if there are boxes."""

    curves: Mapping[CocoKind, CocoCurves]
    voc: VocTable | None


class DetectionMetric:
    """Keeps the objects and the detections of each image; the protocols run when a result is
    requested.

    Objects that are ``crowd`` or ``difficult`` need not be found, and detections on them are
    ignored. Detections of a class that the dataset of the image does not know
    (``Sample.known_classes``) are left out: they are neither correct nor wrong.
    """

    main = "mAP"
    lower_is_better: frozenset[str] = frozenset()

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.images: list[ScoredImage] = []
        self._tables: ProtocolTables | None = None

    def update(self, sample: Sample, prediction: Detections) -> None:
        """Keeps one image; one whose objects are not annotated is left out."""
        self._tables = None
        if sample.instances is not None:
            predicted = of_known_classes(prediction, sample)
            self.images.append(
                ScoredImage(sample.key, sample.height, sample.width, sample.instances, predicted)
            )

    def merge(self, other: Self) -> None:
        """Adds the images of ``other``."""
        self._tables = None
        self.images += other.images

    def result(self) -> Mapping[str, float]:
        """COCO's mAP, mAP50, mAP75, mAP_s, mAP_m, mAP_l, AR50, AR75, AR@1, AR@10, AR@100, AR_s,
        AR_m, AR_l, and VOC's.

        Masks and keypoints, if ground truth and predictions have them, follow with the prefixes
        ``segm_`` and ``keypoints_``; predictions without boxes have only those. Images whose
        objects have boxes only do not count for masks. NaN without an object to find.
        """
        tables = self._measured()
        result = {
            PREFIX[kind] + name: value
            for kind, got in tables.curves.items()
            for name, value in _summary(got).items()
        }
        if tables.voc is not None:
            voc = tables.voc
            result |= {
                "voc_mAP": _mean(voc.area),
                "voc_mAP_07": _mean(voc.eleven),
                "voc_recall": _mean(voc.recall),
            }
        return result

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """By class: mAP, mAP50, AR@100, VOC's AP and recall, and the number of objects to find."""
        tables = self._measured()
        columns: dict[str, NDArray[np.float64]] = {}
        for kind, got in tables.curves.items():
            columns |= {PREFIX[kind] + name: values for name, values in _by_class(got).items()}
        if tables.voc is not None:
            columns |= {"voc_AP": tables.voc.area, "voc_recall": tables.voc.recall}
        objects = _objects(self.images, len(self.names))
        return {
            name: {
                **{column: float(values[c]) for column, values in columns.items()},
                "objects": int(objects[c]),
            }
            for c, name in enumerate(self.names)
        }

    def charts(self) -> Charts:
        """Confusion of boxes, and COCO's precision-recall curves at IoU 0.5 (of masks or keypoints
        without boxes).
        """
        tables = self._measured()
        kind, got = next(iter(tables.curves.items()))
        precision = got.precision[0, :, :, 0, -1].T  # (C, R), IoU 0.5, all areas
        note = {"bbox": "IoU 0.5", "segm": "mask IoU 0.5", "keypoints": "OKS 0.5"}[kind]
        return Charts(
            confusion=detection_confusion(self.images, self.names) if kind == "bbox" else None,
            precision_recall=PrecisionRecall(
                names=self.names, precision=np.where(precision < 0, np.nan, precision), note=note
            ),
        )

    def _measured(self) -> ProtocolTables:
        """The results of the protocols for all images, computed once.

        Images are sorted by key, with numbers in it by value: the order of equal scores does not
        depend on how counts were merged.
        """
        if self._tables is None:
            images = sorted(self.images, key=lambda image: _by_value(image.key))
            kinds, classes = _kinds(images), len(self.names)
            voc = voc_table(images, classes) if "bbox" in kinds else None
            curves = {
                kind: coco_curves(
                    kind, images_with_masks(images) if kind == "segm" else images, classes
                )
                for kind in kinds
            }
            self._tables = ProtocolTables(curves=curves, voc=voc)
        return self._tables


def of_known_classes(prediction: Detections, sample: Sample) -> Detections:
    """The detections of the classes that the dataset of the sample knows."""
    known = sample.known_classes.get("instances")
    if known is None or known[prediction.classes].all():
        return prediction
    return prediction.select(known[prediction.classes])


def _by_value(key: str) -> list[str | int]:
    return [
        int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", key))
    ]


def _kinds(images: Sequence[ScoredImage]) -> list[CocoKind]:
    """The kinds that can be compared; a file of masks or keypoints alone has NaN boxes."""
    kinds: list[CocoKind] = (
        [] if any(np.isnan(image.predicted.boxes_xyxy).any() for image in images) else ["bbox"]
    )
    if any(image.predicted.masks is not None for image in images) and images_with_masks(images):
        kinds.append("segm")
    if any(image.predicted.keypoints is not None for image in images) and any(
        image.ground_truth.keypoints is not None for image in images
    ):
        kinds.append("keypoints")
    if not kinds:
        raise ValueError(
            "the predictions have no boxes, and the ground truth has no masks or keypoints to "
            "compare"
        )
    return kinds


def _summary(got: CocoCurves) -> dict[str, float]:
    precision = {area: got.precision[:, :, :, i, -1] for i, area in enumerate(got.areas)}
    result = {
        "mAP": _mean(precision["all"]),
        "mAP50": _mean(precision["all"][0]),
        "mAP75": _mean(precision["all"][5]),
    }
    result |= {
        f"mAP_{area[0]}": _mean(values) for area, values in precision.items() if area != "all"
    }
    result |= {
        f"AR{name}": _mean(got.recall[row, :, 0, -1]) for name, row in (("50", 0), ("75", 5))
    }
    result |= {f"AR@{limit}": _mean(got.recall[:, :, 0, i]) for i, limit in enumerate(got.limits)}
    return result | {
        f"AR_{area[0]}": _mean(got.recall[:, :, i, -1])
        for i, area in enumerate(got.areas)
        if area != "all"
    }


def _by_class(got: CocoCurves) -> dict[str, NDArray[np.float64]]:
    return {
        "mAP": _means(got.precision[:, :, :, 0, -1]),
        "mAP50": _means(got.precision[:1, :, :, 0, -1]),
        f"AR@{got.limits[-1]}": _means(got.recall[:, None, :, 0, -1]),
    }


def _objects(images: Sequence[ScoredImage], num_classes: int) -> NDArray[np.int64]:
    wanted = [
        image.ground_truth.classes[~(image.ground_truth.crowd | image.ground_truth.difficult)]
        for image in images
    ]
    return np.bincount(np.concatenate([np.empty(0, np.int64), *wanted]), minlength=num_classes)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of valid values: not -1 (COCO) and not NaN (VOC)."""
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The means of (T, R, C) over T and R, by class."""
    return np.array([_mean(values[:, :, c]) for c in range(values.shape[2])])
