"""Any predictor upon any samples: predictions go into one metric a head."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inputs.decode import decode_image, decode_semantic
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.samples import Sample
from mtl_ray.tasks.task import Metric

Keep = Callable[[Sample, Predictions], None]
"""Called with each sample and what was predicted of it."""
Find = Callable[[Sample], Predictions | None]
"""Gives what was predicted of a sample at another time, if anything."""
NO_IMAGE = "it has no image"
"""Why a sample whose ``image`` is empty is not measured."""
Decoded = tuple[Sample, NDArray[np.uint8] | str]
"""A sample and its image, or why there is none."""


@dataclass(kw_only=True)
class Measured:
    """What went through ``measure``.

    Attributes:
        samples: how many were predicted.
        bad: key and reason of those that were not: no image, one that does not decode, a semantic map that does not fit it.
    """

    samples: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)


def measure(
    predictor: Predictor,
    samples: Iterable[Sample],
    metrics: Mapping[str, Metric[Any]],
    keep: Keep | None = None,
    *,
    batch: int = 16,
    max_pixels: int = MAX_PIXELS,
) -> Measured:
    """Predicts on each sample and updates the metric of each head.

    Args:
        predictor: what is measured.
        samples: with their images.
        metrics: by head name; heads without one are not measured.
        keep: sees every sample with its predictions, to store or draw them.
        batch: images given to the predictor at once.
        max_pixels: images whose header says more are bad.
    """
    measured = Measured()
    for part in _decoded(samples, max_pixels, batch):
        good = [(sample, image) for sample, image in part if not isinstance(image, str)]
        measured.bad += [(sample.key, image) for sample, image in part if isinstance(image, str)]
        for (sample, _), predictions in zip(good, predictor.predict([image for _, image in good]), strict=True):
            _count(sample, predictions, metrics, measured, keep)
    return measured


def measure_stored(find: Find, samples: Iterable[Sample], metrics: Mapping[str, Metric[Any]], keep: Keep | None = None) -> Measured:
    """The same for predictions that were made at another time; no image is looked at."""
    measured = Measured()
    for sample in samples:
        predictions = find(sample)
        if predictions is None:
            measured.bad.append((sample.key, "no prediction is stored for it"))
            continue
        try:
            check_map(sample, (sample.height, sample.width))
        except ValueError as error:
            measured.bad.append((sample.key, str(error)))
        else:
            _count(sample, predictions, metrics, measured, keep)
    return measured


def check_map(sample: Sample, size: tuple[int, int]) -> None:
    """Refuses a sample whose semantic map no metric can read.

    Raises:
        ValueError: if it does not decode, or not to the (height, width) of the image.
    """
    if sample.semantic is None:
        return
    height, width = decode_semantic(sample.semantic).shape
    if (height, width) != size:
        raise ValueError(f"the semantic map is {width} x {height} pixels, the image {size[1]} x {size[0]}")


def _count(sample: Sample, predictions: Predictions, metrics: Mapping[str, Metric[Any]], measured: Measured, keep: Keep | None) -> None:
    measured.samples += 1
    for name, metric in metrics.items():
        metric.update(sample, predictions[name])
    if keep is not None:
        keep(sample, predictions)


def _decoded(samples: Iterable[Sample], max_pixels: int, size: int) -> Iterator[list[Decoded]]:
    """Parts of ``size`` samples with their images; the next part is decoded while the predictor has the last."""

    def decode(sample: Sample) -> Decoded:
        if not sample.image:
            return sample, NO_IMAGE
        try:
            image = decode_image(sample.image, max_pixels=max_pixels)
            check_map(sample, image.shape[:2])
        except ValueError as error:
            return sample, str(error)
        return sample, image

    waiting = iter(samples)
    with ThreadPoolExecutor(2, thread_name_prefix="decode") as pool:
        parts: deque[list[Future[Decoded]]] = deque()
        while True:
            part = [pool.submit(decode, sample) for sample in islice(waiting, size)]
            if part:
                parts.append(part)
            if not parts:
                return
            if len(parts) > 1 or not part:
                yield [future.result() for future in parts.popleft()]
