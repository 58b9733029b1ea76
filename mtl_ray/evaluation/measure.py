"""Any predictor upon any samples: predictions go into one metric a head."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.loading.decode import decode_image
from mtl_ray.samples import Sample
from mtl_ray.tasks.contract import Metric

Keep = Callable[[Sample, Predictions], None]
"""Called with each sample and what was predicted of it."""


@dataclass(kw_only=True)
class Measured:
    """What went through ``measure``.

    Attributes:
        samples: how many were predicted.
        bad: key and reason of those that did not decode.
    """

    samples: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)


def measure(
    predictor: Predictor,
    samples: Iterable[Sample],
    metrics: Mapping[str, Metric],
    keep: Keep | None = None,
    *,
    batch: int = 16,
    max_pixels: int = 50_000_000,
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
    for part in _parts(_decoded(samples, max_pixels, measured), batch):
        for (sample, _), predictions in zip(part, predictor.predict([image for _, image in part]), strict=True):
            measured.samples += 1
            for name, metric in metrics.items():
                metric.update(sample, predictions[name])
            if keep is not None:
                keep(sample, predictions)
    return measured


Decoded = tuple[Sample, NDArray[np.uint8]]


def _decoded(samples: Iterable[Sample], max_pixels: int, measured: Measured) -> Iterator[Decoded]:
    for sample in samples:
        try:
            image = decode_image(sample.image, max_pixels=max_pixels)
        except ValueError as error:
            measured.bad.append((sample.key, str(error)))
        else:
            yield sample, image


def _parts(items: Iterator[Decoded], size: int) -> Iterator[list[Decoded]]:
    while part := list(islice(items, size)):
        yield part
