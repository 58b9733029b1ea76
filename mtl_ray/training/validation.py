"""Measures the model during training: every rank takes a share of the validation split, and the
counts are merged.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_ray.evaluation.data import class_converter
from mtl_ray.evaluation.measure import measure
from mtl_ray.evaluation.metrics import head_metrics
from mtl_ray.evaluation.preflight import log_counted_objects
from mtl_ray.evaluation.report import figures
from mtl_ray.experiment import ExperimentConfig, predicting_heads
from mtl_ray.geometry.panels import grid, shrunk
from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inference.tta import AugmentedPredictor
from mtl_ray.loading.loader import BadSamplesError
from mtl_ray.methods.method import Method, Watched
from mtl_ray.models.model import Model
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import Split, open_split
from mtl_ray.tasks.head_classes import HeadClasses, head_metric
from mtl_ray.tasks.task import AnyHead, Metric
from mtl_ray.training.context import Collective, RunContext
from mtl_ray.training.trackers import EvaluationFigures

WATCHED = "training/"
"""Stands before the name of what the method watches, among the metrics of an evaluation."""
PANEL_PX = 480
"""The longer side of each panel of an image."""
_NAMED = 5
"""Most invalid samples that an error lists."""
_log = logging.getLogger(__name__)


def measurable_heads(config: ExperimentConfig, method: Method) -> Mapping[str, AnyHead]:
    """The heads that an evaluation measures: those of the method's model, but for auxiliary
    ones.
    """
    return {} if method.model() is None else predicting_heads(config.model.heads)


def best_by(
    config: ExperimentConfig,
    heads: Mapping[str, AnyHead],
    vocabulary: Vocabulary,
    watches: Watched | None,
) -> Watched:
    """The metric by which the best checkpoint of a run is chosen: ``runtime.best``, else the main
    metric of the first head, else what the method watches.

    Args:
        config: of the run.
        heads: those that are measured.
        vocabulary: of the training split.
        watches: ``Method.watches``.

    Raises:
        ValueError: if nothing is measured and the method watches nothing, or ``runtime.best`` names
            no figure of either.
    """
    watched = (
        None
        if watches is None
        else Watched(name=WATCHED + watches.name, lower_is_better=watches.lower_is_better)
    )
    wanted = config.runtime.best
    if not heads and watched is None:
        raise ValueError(
            "no head is measured (every head of the model is train_only, or the method "
            f"{config.method.type!r} has no model), and "
            "the method watches nothing: no checkpoint would be the best"
        )
    if watched is not None and (wanted == watched.name or not heads):
        if wanted not in (None, watched.name):
            raise ValueError(f"runtime.best={wanted} is not measured; this run has {watched.name}")
        return watched
    name, _, entry = (wanted or next(iter(heads))).partition("/")
    if name not in heads:
        raise ValueError(
            f"runtime.best={wanted}: {name!r} is no head that is measured (these are: "
            f"{', '.join(heads)})"
        )
    metric = head_metric(heads[name], vocabulary)
    entry = entry or metric.main
    return Watched(name=f"{name}/{entry}", lower_is_better=entry in metric.lower_is_better)


class ValidationResult(NamedTuple):
    """What can be shown of an evaluation.

    Attributes:
        samples: the first samples of this rank with their predictions.
        metrics: by head, of all ranks; on rank 0 only, the others have none.
    """

    samples: Sequence[tuple[Sample, Predictions]]
    metrics: Mapping[str, Metric[Any]]


class Validation:
    """The validation split of a run."""

    def __init__(
        self,
        config: ExperimentConfig,
        vocabulary: Vocabulary,
        context: RunContext,
        ranks: Collective,
    ) -> None:
        self._config, self._vocabulary, self._context, self._ranks = (
            config,
            vocabulary,
            context,
            ranks,
        )
        uri = config.data.val.uri
        self._splits = [open_split(each) for each in ((uri,) if isinstance(uri, str) else uri)]
        self._converters = [self._converter(split) for split in self._splits]
        self.heads = predicting_heads(config.model.heads)

    def log_counted_objects(self) -> None:
        """Says what will count, before the first step; see ``preflight``."""
        log_counted_objects(
            self.heads, self._vocabulary, zip(self._splits, self._converters, strict=True)
        )

    def measure(self, model: Model) -> tuple[dict[str, float], ValidationResult]:
        """All metrics as HEAD/METRIC, the same on every rank, and what can be shown of them.

        Raises:
            BadSamplesError: on every rank, if more samples cannot be read than ``data.max_bad``
                allows.
        """
        metrics = head_metrics(self.heads, self._vocabulary, self._config.evaluate)
        predictor = self._predictor(model)
        samples: list[tuple[Sample, Predictions]] = []

        def keep(sample: Sample, predictions: Predictions) -> None:
            if len(samples) < self._config.evaluate.pictures:
                samples.append((sample, predictions))

        batch, max_pixels = self._config.evaluate.batch, self._config.data.max_pixels
        self._judge(
            measure(
                predictor, self._share(), metrics, keep=keep, batch=batch, max_pixels=max_pixels
            ).invalid
        )
        merged = self._merge(metrics)
        return self._ranks.decide(lambda: figures(merged)), ValidationResult(samples, merged)

    def _predictor(self, model: Model) -> Predictor:
        predictor = TorchPredictor(
            model,
            self.heads,
            self._vocabulary,
            self._config.data.canvas,
            device=self._context.device,
            batch=self._config.evaluate.batch,
            slide=self._config.evaluate.slide,
        )
        tta = self._config.evaluate.tta
        return predictor if tta is None else AugmentedPredictor(predictor, tta)

    def _judge(self, bad: Sequence[tuple[str, str]]) -> None:
        """Logs which samples of any rank are not measured; too many of them end the run."""
        named = [f"{key}: {reason}" for share in self._ranks.gather(bad) for key, reason in share]
        if len(named) > self._config.data.max_bad:
            allowed = f"data.max_bad allows {self._config.data.max_bad}"
            raise BadSamplesError(
                f"{len(named)} samples of the validation split could not be read, {allowed}: "
                f"{'; '.join(named[:_NAMED])}"
            )
        if self._context.rank == 0:
            for each in named:
                _log.warning("sample %s is not measured", each)

    def _share(self) -> Iterator[Sample]:
        """Rank r of R reads the rows from r N / R to (r + 1) N / R of all splits together."""
        total = sum(split.num_samples for split in self._splits)
        rank, world_size = self._context.rank, self._context.world_size
        start, stop = rank * total // world_size, (rank + 1) * total // world_size
        first = 0
        for split, convert in zip(self._splits, self._converters, strict=True):
            size = split.num_samples
            yield from map(
                convert,
                split.read(min(max(start - first, 0), size), min(max(stop - first, 0), size)),
            )
            first += size

    def _converter(self, split: Split) -> Callable[[Sample], Sample]:
        """Maps the class indices of a validation split to those of the training split."""
        convert, unknown = class_converter(split, self._vocabulary)
        if unknown and self._context.rank == 0:
            _log.warning(
                "%s: the training split does not know %s; they are not measured",
                split.uri,
                ", ".join(unknown),
            )
        return convert

    def _merge(self, metrics: Mapping[str, Any]) -> Mapping[str, Metric[Any]]:
        """The metrics of all ranks, merged on rank 0 alone: they hold every object and score of the
        split.
        """
        first, *others = self._ranks.gather_first(metrics) or [{}]
        for other in others:
            for name, metric in first.items():
                metric.merge(other[name])
        return first

    def draw(self, result: ValidationResult) -> EvaluationFigures:
        """One image per sample, ground truth and prediction side by side, a row per head; and each
        head's charts.
        """
        # matplotlib takes a second, which a first step need not wait for
        from mtl_ray.evaluation.charts import (
            draw_charts,
        )

        images = [
            (sample.key, self._draw(sample, predictions)) for sample, predictions in result.samples
        ]
        return EvaluationFigures(
            images, draw_charts({name: metric.charts() for name, metric in result.metrics.items()})
        )

    def _draw(self, sample: Sample, predictions: Predictions) -> NDArray[np.uint8]:
        kind = self._config.data.canvas.input
        image = kind.show(kind.decode(sample.inputs[kind.name], self._config.data.max_pixels))
        panels, titles = [], []
        for name, head in self.heads.items():
            classes = HeadClasses.of(head, self._vocabulary)
            panels.append(
                head.task.draw_ground_truth(image, classes.sample(sample), classes.vocabulary)
            )
            panels.append(head.task.draw_prediction(image, predictions[name], classes.vocabulary))
            titles += [f"{name}: annotated", f"{name}: predicted"]
        return grid([shrunk(panel, PANEL_PX) for panel in panels], columns=2, titles=titles)
