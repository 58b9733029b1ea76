"""A detector whose boxes a classifier labels, as one predictor: the crops of the boxes go from one
network to the other inside one process, without HTTP between them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.samples import Vocabulary
from mtl_ray.serving.config import ModelPipelineConfig
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.head_classes import head_vocabulary
from mtl_ray.tasks.task import HeadKind, KnownHead

MIN_SIDE_PX = 1


class PipelinePredictor:
    """Predicts boxes with the classes of the classifier. See ``Predictor``.

    Args:
        detector: predicts boxes.
        boxes: its head.
        classifier: predicts labels.
        labels: its head.
        config: thresholds.
    """

    def __init__(
        self,
        detector: Predictor,
        boxes: str,
        classifier: Predictor,
        labels: str,
        config: ModelPipelineConfig,
    ) -> None:
        self.detector, self.classifier = detector, classifier
        self.boxes, self.labels = boxes, labels
        self.config = config
        self.canvas: AnyCanvas = detector.canvas
        self.plugins = tuple(dict.fromkeys((*detector.plugins, *classifier.plugins)))
        head, label_head = detector.heads[boxes], classifier.heads[labels]
        self.heads: Mapping[str, HeadKind] = {
            boxes: KnownHead(
                type=head.type, task=head.task, annotation=head.annotation, exclusive=head.exclusive
            )
        }
        known = head_vocabulary(label_head, classifier.vocabulary)
        names = known.classes[label_head.annotation]
        colours = known.colours.get(label_head.annotation)
        self.vocabulary = Vocabulary(
            classes={head.annotation: names},
            colours={head.annotation: colours} if colours else {},
        )

    def same_as(self, other: Predictor) -> bool:
        """Whether another predictor is the same pipeline of the same two models."""
        return (
            isinstance(other, PipelinePredictor)
            and other.config == self.config
            and other.detector is self.detector
            and other.classifier is self.classifier
        )

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        """Labels the boxes of each image."""
        found = [_boxes_of(each[self.boxes]) for each in self.detector.predict(raws)]
        kept = [
            each.select(
                np.flatnonzero(each.scores >= self.config.min_score)[: self.config.max_boxes]
            )
            for each in found
        ]
        crops = [
            crop_box(raw, box, self.config.pad)
            for raw, each in zip(raws, kept, strict=True)
            for box in each.boxes_xyxy
        ]
        labels = iter(self.classifier.predict(crops) if crops else ())
        return [
            {self.boxes: _labelled(each, [next(labels)[self.labels] for _ in range(len(each))])}
            for each in kept
        ]


def open_pipeline(
    name: str, config: ModelPipelineConfig, predictors: Mapping[str, Predictor]
) -> PipelinePredictor:
    """A pipeline of two of the served models.

    Raises:
        ValueError: if a model or head does not exist, or predicts something else.
    """
    found = []
    for part, place in (("detector", config.detector), ("classifier", config.classifier)):
        model, _, head = place.partition("/")
        where = f"serve.pipelines.{name}.{part}"
        if model not in predictors:
            raise ValueError(f"{where}: there is no model {model!r} among {', '.join(predictors)}")
        heads = predictors[model].heads
        if head not in heads:
            raise ValueError(
                f"{where}: the model {model!r} has no head {head!r}; it has {', '.join(heads)}"
            )
        found.append((predictors[model], head))
    (detector, boxes), (classifier, labels) = found
    if detector.canvas.input != classifier.canvas.input:
        raise ValueError(
            f"serve.pipelines.{name}: the detector takes {detector.canvas.input.noun}s, the "
            f"classifier {classifier.canvas.input.noun}s"
        )
    _check_predictions(name, detector, boxes, Detections)
    _check_predictions(name, classifier, labels, LabelScores)
    return PipelinePredictor(detector, boxes, classifier, labels, config)


def _check_predictions(name: str, predictor: Predictor, head: str, kind: type[Any]) -> None:
    """Raises a ValueError if the head predicts something else; it is tried on generated data."""
    _, raw = predictor.canvas.input.generate(np.random.default_rng(0))
    if not isinstance(predictor.predict([raw])[0][head], kind):
        noun = "boxes on images" if kind is Detections else "labels"
        raise ValueError(f"serve.pipelines.{name}: the head {head!r} does not predict {noun}")


def _boxes_of(prediction: Any) -> Detections:
    assert isinstance(prediction, Detections)
    return prediction


def crop_box(image: NDArray[np.uint8], box: NDArray[np.float32], pad: float) -> NDArray[np.uint8]:
    """The part of an image (H, W, 3) in a box (4,) xyxy, at least a pixel of it; ``pad`` is a share
    of the sides of the box.
    """
    height, width = image.shape[:2]
    clean = np.clip(np.nan_to_num(box), -1e6, 1e6)
    grown = clean + np.array([-1, -1, 1, 1]) * pad * np.tile(clean[2:] - clean[:2], 2)
    x1, y1 = np.clip(np.floor(grown[:2]), 0, [width - MIN_SIDE_PX, height - MIN_SIDE_PX])
    x2, y2 = np.clip(np.ceil(grown[2:]), [x1 + MIN_SIDE_PX, y1 + MIN_SIDE_PX], [width, height])
    return np.ascontiguousarray(image[int(y1) : int(y2), int(x1) : int(x2)])


def _labelled(boxes: Detections, labels: Sequence[Any]) -> Detections:
    """Boxes with the best label of each, best score first."""
    if not len(boxes):
        return boxes
    scores = np.stack([each.scores for each in labels])
    best = scores.argmax(axis=1)
    joint = boxes.scores * scores[np.arange(len(best)), best]
    order = np.argsort(-joint, kind="stable")
    named = replace(boxes, classes=best.astype(np.int64), scores=joint.astype(np.float32))
    return named.select(order)
