"""What a task folder holds, and the protocol of its metric.

    config.py     a pydantic dataclass for each head: ``type``, and the class variables ``task`` and ``annotation``
    build.py      build(head, vocabulary, channels, strides) -> Head                         (torch; the only entry for models)
    decode.py     Prediction; decode(arrays, placement, head) -> Prediction of one image     (numpy, as the four below)
    metric.py     metric(head, vocabulary) -> Metric
    answer.py     answer(prediction, vocabulary, score_threshold) -> what goes over the wire
    draw.py       draw_truth(image, sample, vocabulary), draw_prediction(image, prediction, vocabulary, score_threshold)
    store.py      rows(key, prediction) -> dicts for the predictions file, and back

Only ``build.py`` and the modules it imports need torch.
"""

from collections.abc import Mapping
from typing import Any, Protocol, Self

from mtl_ray.samples import Sample
from mtl_ray.tasks.charts import Charts


class Metric(Protocol):
    """Counts that merge: ``a.merge(b)`` over shards, ranks and Ray tasks gives what one pass gives."""

    main: str
    """The entry of ``result`` by which checkpoints are compared (more is better)."""

    def update(self, sample: Sample, prediction: Any) -> None:
        """Counts one image. A sample without the annotation is left out."""
        ...

    def merge(self, other: Self) -> None:
        """Adds the counts of ``other``, which covers other samples."""
        ...

    def result(self) -> Mapping[str, float]:
        """Flat names to numbers in [0, 1]: mAP, mAP50, mIoU, top1, ...; NaN where nothing was annotated."""
        ...

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """The same by class name, for the table."""
        ...

    def charts(self) -> Charts:
        """Confusion matrix and precision-recall curves."""
        ...
