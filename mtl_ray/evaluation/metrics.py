"""The metrics of an evaluation: one for each head."""

from collections.abc import Mapping
from typing import Any

from mtl_ray.evaluation.config import EvaluateConfig
from mtl_ray.evaluation.occlusion import with_occlusion
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.head_classes import head_metric, head_vocabulary
from mtl_ray.tasks.task import HeadKind, Metric


def head_metrics(heads: Mapping[str, HeadKind], vocabulary: Vocabulary, config: EvaluateConfig | None = None) -> dict[str, Metric[Any]]:
    """An empty metric by head for samples with the class indices of ``vocabulary``, with what the config asks for beside it.

    Raises:
        FileNotFoundError, ValueError: if a file that the config names cannot be read.
    """
    metrics: dict[str, Metric[Any]] = {}
    for name, head in heads.items():
        metric = head_metric(head, vocabulary)
        if config is not None and config.occlusion is not None and head.annotation == "instances":
            metric = with_occlusion(metric, head_vocabulary(head, vocabulary).classes["instances"], config.occlusion)
        metrics[name] = metric
    return metrics
