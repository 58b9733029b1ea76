"""The data that an exported graph is checked on: of the validation split, or made up where that is
out of reach.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from mtl_ray.evaluation.classes import recoder
from mtl_ray.inputs.input import Input
from mtl_ray.loading.config import DataConfig
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import open_split

Decoded = tuple[Sample, Any]
"""A sample and its decoded input: of an image (H, W, 3) uint8 RGB."""


def check_samples(data: DataConfig, vocabulary: Vocabulary, count: int) -> tuple[list[Decoded], str]:
    """Samples of the validation split, and a sentence that says what they are.

    A bundle may be made where the data is not: generated samples then take the place of the split. Annotations get the class
    indices of the model.
    """
    uri, kind = data.val.uri if isinstance(data.val.uri, str) else data.val.uri[0], data.canvas.input
    made = f"generated {kind.name}s, since"
    try:
        split = open_split(uri)
    except (FileNotFoundError, ValueError) as error:
        return generated(kind, count), f"{made} the validation split cannot be read ({error})"
    samples = map(recoder(split, vocabulary)[0], split.read(0, split.num_samples))
    found = list(islice(_readable(samples, kind, data.max_pixels), count))
    return (found, uri) if found else (generated(kind, count), f"{made} no {kind.name} of {uri} can be read")


def _readable(samples: Iterable[Sample], kind: Input[Any, Any, Any, Any], limit: int) -> Iterator[Decoded]:
    for sample in samples:
        if kind.name not in sample.inputs:
            continue
        try:
            yield sample, kind.decode(sample.inputs[kind.name], limit)
        except ValueError:
            continue  # the loader counts and names these; here the next one serves as well


def generated(kind: Input[Any, Any, Any, Any], count: int) -> list[Decoded]:
    """Made-up data of an input, nothing annotated; the same every time."""
    rng = np.random.default_rng(0)
    made = [kind.generate(rng) for _ in range(count)]
    return [(Sample(key=f"generated-{number}", inputs={kind.name: encoded}), raw) for number, (encoded, raw) in enumerate(made)]
