"""Measuring the model while it is trained: every rank a share of the validation split, the counts merged."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtl_ray.evaluation.measure import measure
from mtl_ray.experiment import ExperimentConfig, predicting_heads, task_part
from mtl_ray.inference.predictor import Predictions
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.models.model import Model
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.training.collective import Collective
from mtl_ray.training.context import RunContext
from mtl_ray.training.trackers import Pictures

Picture = tuple[Sample, Predictions]


class Validation:
    """The validation split of a run and how to measure on it."""

    def __init__(self, config: ExperimentConfig, vocabulary: Vocabulary, context: RunContext, ranks: Collective) -> None:
        self._config, self._vocabulary, self._context, self._ranks = config, vocabulary, context, ranks
        uri = config.data.val.uri
        self._splits = [open_split(each) for each in ((uri,) if isinstance(uri, str) else uri)]
        self.heads = predicting_heads(config.model.heads)

    def main_metric(self) -> str:
        """The metric by which checkpoints are compared, HEAD/METRIC.

        Raises:
            ValueError: if every head is auxiliary.
        """
        if self._config.runtime.best is not None:
            return self._config.runtime.best
        for name, head in self.heads.items():
            return f"{name}/{task_part(head, 'metric').metric(head, self._vocabulary).main}"
        raise ValueError("every head of the model is train_only: nothing could be measured or exported")

    def measure(self, model: Model) -> tuple[dict[str, float], list[Picture]]:
        """All metrics as HEAD/METRIC, the same on every rank, and the first samples of this rank with what was predicted."""
        metrics = {name: task_part(head, "metric").metric(head, self._vocabulary) for name, head in self.heads.items()}
        predictor = TorchPredictor(
            model, self.heads, self._vocabulary, self._config.data.canvas, device=self._context.device, batch=self._config.evaluate.batch
        )
        pictures: list[Picture] = []

        def keep(sample: Sample, predictions: Predictions) -> None:
            if len(pictures) < self._config.evaluate.pictures:
                pictures.append((sample, predictions))

        measure(predictor, self._share(), metrics, keep=keep, batch=self._config.evaluate.batch, max_pixels=self._config.data.max_pixels)
        merged = self._merge(metrics)
        return {f"{name}/{key}": float(value) for name, metric in merged.items() for key, value in metric.result().items()}, pictures

    def _share(self) -> Iterator[Sample]:
        """Rank r of R reads the rows from r N / R to (r + 1) N / R of all splits together."""
        total = sum(split.num_samples for split in self._splits)
        rank, world_size = self._context.rank, self._context.world_size
        start, stop = rank * total // world_size, (rank + 1) * total // world_size
        first = 0
        for split in self._splits:
            yield from split.read(min(max(start - first, 0), split.num_samples), min(max(stop - first, 0), split.num_samples))
            first += split.num_samples

    def _merge(self, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
        merged, *others = self._ranks.gather(metrics)
        for other in others:
            for name, metric in merged.items():
                metric.merge(other[name])
        return merged

    def draw(self, pictures: Sequence[Picture]) -> Pictures:
        """Truth and predictions of samples side by side."""
        return []
