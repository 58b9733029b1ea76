"""The task classification: a score for each class of an image."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.labels import LABELS
from mtl_ray.inputs.frame import Frame
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.classification.decode import LabelScores, decode_labels
from mtl_ray.tasks.difference import (
    Comparison,
    Difference,
    Fields,
    Sides,
    field_faults,
    fields_of,
)
from mtl_ray.tasks.optional import FusionRule
from mtl_ray.tasks.task import HeadKind, View

if TYPE_CHECKING:
    from mtl_ray.tasks.classification.metric import ExclusiveMetric, MultilabelMetric


@dataclass(frozen=True)
class ClassificationTask:
    """See ``Task``."""

    name = "classification"
    kind = LABELS
    view: ClassVar[View] = "labels"
    schema_name = "Labels"
    to_coco = None

    def decode(self, arrays: Fields, frame: Frame, head: HeadKind) -> LabelScores:
        """See ``decode.decode``; the place of the image on the canvas does not matter."""
        return decode_labels(arrays, head.exclusive)

    def mirrored(
        self, prediction: LabelScores, size: Mapping[str, int], vocabulary: Vocabulary
    ) -> LabelScores:
        """See ``FusingTask``: labels have no place."""
        return prediction

    def fused(
        self, predictions: Sequence[LabelScores], rule: FusionRule, head: HeadKind
    ) -> LabelScores:
        """See ``FusingTask``: the mean of the scores."""
        scores = np.mean([each.scores for each in predictions], axis=0, dtype=np.float64)
        return LabelScores(
            scores=np.asarray(scores, np.float32), exclusive=predictions[0].exclusive
        )

    def metric(
        self, head: HeadKind, vocabulary: Vocabulary
    ) -> "ExclusiveMetric | MultilabelMetric":
        """Accuracy for a head with one class per image, average precision for any number."""
        from mtl_ray.tasks.classification.metric import ExclusiveMetric, MultilabelMetric

        names = tuple(vocabulary.classes[self.kind.name])
        return ExclusiveMetric(names) if head.exclusive else MultilabelMetric(names)

    def to_response(
        self,
        prediction: LabelScores,
        vocabulary: Vocabulary,
        score_threshold: float,
        image_file: str | None = None,
    ) -> list[dict[str, Any]]:
        """``[{"class_label": 3, "class_name": "cat", "score": 0.8}, ...]``, best first.

        Classes with a score below ``score_threshold`` are left out, except the best if an image has
        exactly one class.
        """
        names, scores = vocabulary.classes[self.kind.name], prediction.scores
        order = (-scores).argsort(kind="stable")
        kept = order[scores[order] >= score_threshold]
        if prediction.exclusive and not len(kept):
            kept = order[:1]
        return [
            {"class_label": i, "class_name": names[i], "score": score}
            for i, score in zip(kept.tolist(), scores[kept].tolist(), strict=True)
        ]

    def from_response(
        self,
        content: Any,
        vocabulary: Vocabulary,
        head: HeadKind,
        size: Mapping[str, int] | None = None,
    ) -> LabelScores:
        """See ``Task``; classes that were left out have the score 0."""
        scores = np.zeros(len(vocabulary.classes[self.kind.name]), np.float32)
        for item in content:
            label = operator.index(item["class_label"])
            if not 0 <= label < len(scores):
                raise ValueError(
                    f"it has the class_label {label}, and there are {len(scores)} classes"
                )
            scores[label] = item["score"]
        if not np.isfinite(scores).all():
            raise ValueError("one of its scores is not finite")
        return LabelScores(scores=scores, exclusive=head.exclusive)

    def plain_image(self, prediction: LabelScores) -> None:
        """None: labels are no image."""
        return

    def response_schema(self) -> dict[str, Any]:
        """See ``Task``."""
        properties = {
            "class_label": {"type": "integer"},
            "class_name": {"type": "string"},
            "score": {"type": "number"},
        }
        return {
            "type": "array",
            "items": {"type": "object", "properties": properties, "required": list(properties)},
        }

    def draw_ground_truth(
        self, image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary
    ) -> NDArray[np.uint8]:
        """See ``Task``."""
        from mtl_ray.tasks.classification.draw import draw_labels

        return draw_labels(image, sample, vocabulary)

    def draw_prediction(
        self,
        image: NDArray[np.uint8],
        prediction: LabelScores,
        vocabulary: Vocabulary,
        score_threshold: float = 0.3,
    ) -> NDArray[np.uint8]:
        """See ``Task``."""
        from mtl_ray.tasks.classification.draw import draw_label_scores

        return draw_label_scores(image, prediction, vocabulary, score_threshold)

    def row_type(self) -> Any:
        """A struct with a score for each class."""
        import pyarrow as pa

        return pa.struct([("scores", pa.list_(pa.float32())), ("exclusive", pa.bool_())])

    def to_row(self, prediction: LabelScores) -> dict[str, Any]:
        """A value of ``row_type``."""
        return {"scores": prediction.scores, "exclusive": prediction.exclusive}

    def from_row(self, row: Mapping[str, Any]) -> LabelScores:
        """The inverse of ``to_row``."""
        return LabelScores(scores=np.array(row["scores"], np.float32), exclusive=row["exclusive"])

    def difference(self, first: LabelScores, second: LabelScores, how: Comparison) -> Difference:
        """Scores, the best class, and whether classes are exclusive."""
        return _difference(fields_of(first), fields_of(second), how.sides)

    def array_difference(self, first: Fields, second: Fields, how: Comparison) -> Difference:
        """Scores, and the best class."""
        return _difference(first, second, how.sides)


def _difference(first: Fields, second: Fields, sides: Sides) -> Difference:
    problems = field_faults(first, second, ("scores", "exclusive"), sides)
    if problems:
        return Difference(unit="labels", incomparable=problems)
    apart = Difference(unit="labels", compared=len(first["scores"])).with_scores(
        first["scores"], second["scores"]
    )
    apart = apart.with_agreeing(int(first["scores"].argmax() == second["scores"].argmax()), 1)
    if "exclusive" in first:
        apart = apart.with_agreeing(int(first["exclusive"] == second["exclusive"]), 1)
    return apart


CLASSIFICATION = ClassificationTask()
