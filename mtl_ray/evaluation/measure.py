"""Any predictor on any samples: predictions go into one metric for each head."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.inputs.input import Input
from mtl_ray.samples import Sample
from mtl_ray.tasks.task import HeadKind, Metric

Keep = Callable[[Sample, Predictions], None]
"""Called with each sample and its predictions."""
Find = Callable[[Sample], Predictions | None]
"""Gives the stored predictions of a sample; None if there are none."""
Kinds = tuple[AnnotationKind[Any, Any], ...]
NO_INPUT = "it has no {name}"
"""Why a sample without the input of the network is not measured."""


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """A sample and its decoded input, or why there is none."""

    sample: Sample
    raw: Any = None
    reason: str | None = None


@dataclass(kw_only=True)
class MeasuredSamples:
    """The samples that an evaluation measured or skipped.

    Attributes:
        samples: number of measured samples.
        invalid: key and reason of each invalid sample: it has no input, the input does not decode,
            or an annotation is damaged or does not fit it.
        largest: most samples that were given to the predictor at once.
    """

    samples: int = 0
    largest: int = 0
    invalid: list[tuple[str, str]] = field(default_factory=list)


def measure(
    predictor: Predictor,
    samples: Iterable[Sample],
    metrics: Mapping[str, Metric[Any]],
    keep: Keep | None = None,
    *,
    batch: int = 16,
    max_pixels: int = MAX_PIXELS,
) -> MeasuredSamples:
    """Predicts on each sample and updates the metric of each head.

    Args:
        predictor: what is measured.
        samples: with their inputs.
        metrics: by head name; a head without a metric is not measured.
        keep: is called with every sample and its predictions, to store or draw them.
        batch: samples given to the predictor at once.
        max_pixels: samples with more pixels (values, if the input is not an image) are invalid.
    """
    measured = MeasuredSamples()
    for group in _decoded(
        samples, predictor.canvas.input, kinds_of(predictor.heads), max_pixels, batch
    ):
        valid = [each for each in group if each.reason is None]
        measured.largest = max(measured.largest, len(valid))
        measured.invalid += [
            (each.sample.key, each.reason) for each in group if each.reason is not None
        ]
        for each, predictions in zip(
            valid, predictor.predict([each.raw for each in valid]), strict=True
        ):
            _count(each.sample, predictions, metrics, measured, keep)
    return measured


def measure_stored(
    find: Find,
    samples: Iterable[Sample],
    metrics: Mapping[str, Metric[Any]],
    keep: Keep | None = None,
    kinds: Kinds = (),
) -> MeasuredSamples:
    """Measures stored predictions; inputs are not read. ``kinds`` are those of the heads."""
    measured = MeasuredSamples()
    for sample in samples:
        predictions = find(sample)
        if predictions is None:
            measured.invalid.append((sample.key, "no prediction is stored for it"))
            continue
        try:
            _check_annotations(sample, kinds, sample.image_size)
        except ValueError as error:
            measured.invalid.append((sample.key, str(error)))
        else:
            _count(sample, predictions, metrics, measured, keep)
    return measured


def kinds_of(heads: Mapping[str, HeadKind]) -> Kinds:
    """The kinds of annotation that some heads are measured on."""
    return tuple(dict.fromkeys(head.task.kind for head in heads.values()))


def _check_annotations(sample: Sample, kinds: Kinds, size: Mapping[str, int]) -> None:
    """Checks that a metric can read what is annotated.

    Raises:
        ValueError: if an annotation is damaged, or does not fit the size of the input.
    """
    for kind in kinds:
        if kind.name in sample.annotations:
            kind.check(sample.annotations[kind.name], size)


def _count(
    sample: Sample,
    predictions: Predictions,
    metrics: Mapping[str, Metric[Any]],
    measured: MeasuredSamples,
    keep: Keep | None,
) -> None:
    measured.samples += 1
    for name, metric in metrics.items():
        metric.update(sample, predictions[name])
    if keep is not None:
        keep(sample, predictions)


def _decoded(
    samples: Iterable[Sample],
    kind: Input[Any, Any, Any, Any],
    kinds: Kinds,
    limit: int,
    size: int,
) -> Iterator[list[_Decoded]]:
    """Batches of ``size`` decoded samples. The next batch is decoded while the predictor runs."""

    def decode(sample: Sample) -> _Decoded:
        encoded = sample.inputs.get(kind.name)
        if encoded is None or not kind.num_bytes(encoded):
            return _Decoded(sample=sample, reason=NO_INPUT.format(name=kind.name))
        try:
            raw = kind.decode(encoded, limit)
            _check_annotations(sample, kinds, kind.size(raw))
        except ValueError as error:
            return _Decoded(sample=sample, reason=str(error))
        return _Decoded(sample=sample, raw=raw)

    waiting = iter(samples)
    with ThreadPoolExecutor(2, thread_name_prefix="decode") as pool:
        batches: deque[list[Future[_Decoded]]] = deque()
        while True:
            batch = [pool.submit(decode, sample) for sample in islice(waiting, size)]
            if batch:
                batches.append(batch)
            if not batches:
                return
            if len(batches) > 1 or not batch:
                yield [future.result() for future in batches.popleft()]
