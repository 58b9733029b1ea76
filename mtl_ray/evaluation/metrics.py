"""The metrics of an evaluation: one for each head, with the recall of occluded objects if the
config asks for it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from mtl_ray import storage
from mtl_ray.evaluation.coco_file import read_json
from mtl_ray.evaluation.config import EvaluateConfig, OcclusionConfig
from mtl_ray.geometry.masks import from_compressed
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.charts import Charts
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.metric import DetectionMetric, of_known_classes
from mtl_ray.tasks.detection.occlusion import HiddenObject, OcclusionCounts, OcclusionLists
from mtl_ray.tasks.detection.task import predicts_objects
from mtl_ray.tasks.head_classes import HeadClasses, head_metric, head_vocabulary
from mtl_ray.tasks.task import HeadKind, Metric

ANY_CLASS = "object"
"""The name of the one class if all classes are counted as one."""


def head_metrics(
    heads: Mapping[str, HeadKind],
    vocabulary: Vocabulary,
    config: EvaluateConfig | None = None,
    *,
    class_agnostic: bool = False,
) -> dict[str, Metric[Any]]:
    """An empty metric for each head, for samples with the class indices of ``vocabulary``.

    Args:
        heads: by name.
        vocabulary: of the run.
        config: of the evaluation.
        class_agnostic: heads that find objects are measured without their classes; so they are if
            the config says it.

    Raises:
        FileNotFoundError, ValueError: if a file that the config names cannot be read.
    """
    metrics: dict[str, Metric[Any]] = {}
    for name, head in heads.items():
        metric = head_metric(head, vocabulary)
        if predicts_objects(head) and (
            class_agnostic or (config is not None and config.class_agnostic)
        ):
            metric = ClassAgnostic(HeadClasses.of(head, vocabulary))
        if config is not None and config.occlusion is not None and predicts_objects(head):
            metric = with_occlusion(
                metric, head_vocabulary(head, vocabulary).classes["instances"], config.occlusion
            )
        metrics[name] = metric
    return metrics


class ClassAgnostic:
    """The metric of detections with all classes counted as one, as COCO's evaluation with
    ``useCats=0``. Detections of classes that the dataset of an image does not know are left out.
    """

    def __init__(self, classes: HeadClasses) -> None:
        self._classes, self._metric = classes, DetectionMetric((ANY_CLASS,))
        self.main, self.lower_is_better = self._metric.main, self._metric.lower_is_better

    def update(self, sample: Sample, prediction: Detections) -> None:
        """Counts one sample of the run."""
        sample = self._classes.sample(sample)
        found, objects = of_known_classes(prediction, sample), sample.instances
        if objects is not None:
            objects = replace(objects, classes=np.zeros_like(objects.classes))
        known = {kind: each for kind, each in sample.known_classes.items() if kind != "instances"}
        self._metric.update(
            replace(sample.with_annotations(instances=objects), known_classes=known),
            replace(found, classes=np.zeros_like(found.classes)),
        )

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self._metric.merge(other._metric)

    def result(self) -> Mapping[str, float]:
        """See ``Metric``."""
        return self._metric.result()

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """See ``Metric``."""
        return self._metric.per_class()

    def charts(self) -> Charts:
        """See ``Metric``."""
        return self._metric.charts()


class WithOcclusion:
    """A metric of detections, and the recall of listed objects: ``occluded_recall`` and
    ``separated_recall`` in [0, 1].
    """

    def __init__(self, metric: Metric[Any], counts: OcclusionCounts) -> None:
        self.main, self.lower_is_better = metric.main, metric.lower_is_better
        self._metric, self._counts = metric, counts

    def update(self, sample: Sample, prediction: Detections) -> None:
        """Counts one image, which the lists name by its key or the last part of it."""
        self._metric.update(sample, prediction)
        self._counts.update(sample.key, prediction)

    def merge(self, other: Self) -> None:
        """Adds the counts of ``other``."""
        self._metric.merge(other._metric)
        self._counts.merge(other._counts)

    def result(self) -> Mapping[str, float]:
        """Those of the head, and the two recalls; NaN if the data has no object of a list."""
        return {
            **self._metric.result(),
            **{f"{kind}_recall": value for kind, value in self._counts.recall().items()},
        }

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """Those of the head."""
        return self._metric.per_class()

    def charts(self) -> Charts:
        """Those of the head."""
        return self._metric.charts()


def with_occlusion(
    metric: Metric[Any], names: Sequence[str], config: OcclusionConfig
) -> WithOcclusion:
    """The metric of a detection head, with the recall of the objects of two lists.

    Raises:
        FileNotFoundError, ValueError: if a list cannot be read.
    """
    lists: OcclusionLists = {
        "occluded": read_list(config.occluded),
        "separated": read_list(config.separated),
    }
    counts = OcclusionCounts(
        lists, names, score_threshold=config.score_threshold, iou_threshold=config.iou_threshold
    )
    return WithOcclusion(metric, counts)


def read_list(uri: str) -> list[HiddenObject]:
    """The objects of a list in JSON, as ``jobs.analyze occlusion --lists`` writes it.

    Raises:
        FileNotFoundError, ValueError: if it cannot be read.
    """
    return hidden_objects(uri, read_json(uri))


def hidden_objects(uri: str, content: Any) -> list[HiddenObject]:
    """A sequence of (image file, class, anything, x y width height, {size, counts}).

    Raises:
        ValueError: naming the first entry of another form.
    """
    if not isinstance(content, list | tuple):
        raise ValueError(f"{uri} is no list of objects but a {type(content).__name__}")
    objects = []
    for number, entry in enumerate(content):
        try:
            file_name, name, _, (x, y, w, h), mask = entry
            height, width = (int(side) for side in mask["size"])
            counts = _run_lengths(mask["counts"])
            box = (float(x), float(y), float(x) + float(w), float(y) + float(h))
            checked = from_compressed(counts, height, width)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ValueError(
                f"{uri}: entry {number} is not (image file, class, number, [x, y, width, height], "
                f"{{size, counts}}): {error}"
            ) from error
        objects.append(
            HiddenObject(
                file_name=str(file_name),
                name=str(name),
                box_xyxy=box,
                height=height,
                width=width,
                mask=checked,
            )
        )
    return objects


def _run_lengths(counts: Any) -> bytes:
    """Compressed run lengths, as text or bytes."""
    if isinstance(counts, str):
        return counts.encode()
    if not isinstance(counts, bytes | list):  # a number would become as many bytes
        raise TypeError("counts are no text")
    return bytes(counts)


def write_list(uri: str, objects: Sequence[HiddenObject]) -> None:
    """Writes a list in JSON."""
    rows = [
        [
            each.file_name,
            each.name,
            number,
            _xywh(each),
            {"size": [each.height, each.width], "counts": each.mask.decode()},
        ]
        for number, each in enumerate(objects)
    ]
    storage.write(uri, (json.dumps(rows) + "\n").encode())


def _xywh(each: HiddenObject) -> list[float]:
    x1, y1, x2, y2 = each.box_xyxy
    return [x1, y1, x2 - x1, y2 - y1]
