"""Image labels as they go over the wire."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.classification.config import HeadConfig
from mtl_ray.tasks.classification.decode import LabelScores


def answer(prediction: LabelScores, vocabulary: Vocabulary, score_threshold: float) -> list[dict[str, Any]]:
    """``[{"class_label": 3, "class_name": "cat", "score": 0.8}, ...]``, best first.

    Classes with a score below ``score_threshold`` are left out, but for the best where an image has exactly one class.
    """
    names = vocabulary.classes["labels"]
    order = np.argsort(-prediction.scores, kind="stable")
    kept = [int(i) for n, i in enumerate(order) if prediction.scores[i] >= score_threshold or (n == 0 and prediction.exclusive)]
    return [{"class_label": i, "class_name": names[i], "score": float(prediction.scores[i])} for i in kept]


def read_answer(items: Sequence[Any], vocabulary: Vocabulary, head: HeadConfig) -> LabelScores:
    """The way back; classes that were left out have the score 0."""
    scores = np.zeros(len(vocabulary.classes["labels"]), np.float32)
    for item in items:
        scores[item["class_label"]] = item["score"]
    return LabelScores(scores=scores, exclusive=head.type == "linear")
