"""The data that an exported graph is checked on: of the validation split, or made up where that is
out of reach.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from mtl_ray.inputs.input import Input
from mtl_ray.loading.config import DataConfig
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import open_split

DecodedSample = tuple[Sample, Any]
"""A sample and its decoded input: of an image (H, W, 3) uint8 RGB."""


def check_samples(data: DataConfig, vocabulary: Vocabulary, count: int) -> tuple[list[DecodedSample], str]:
    """Samples of the validation split, and a sentence that says what they are.

    A bundle may be made where the data is not: generated samples then take the place of the split,
    and so they do for a split of other classes, whose annotations would mean something else.
    """
    uri, kind = data.val.uri if isinstance(data.val.uri, str) else data.val.uri[0], data.canvas.input
    made = f"generated {kind.name}s, since"
    try:
        split = open_split(uri)
    except (FileNotFoundError, ValueError) as error:
        return generate_samples(kind, count), f"{made} the validation split cannot be read ({error})"
    if split.vocabulary.classes != vocabulary.classes:
        return generate_samples(kind, count), f"{made} {uri} has other classes than the model"
    found = list(islice(_readable(split.read(0, split.num_samples), kind, data.max_pixels), count))
    return (found, uri) if found else (generate_samples(kind, count), f"{made} no {kind.name} of {uri} can be read")


def _readable(samples: Iterable[Sample], kind: Input[Any, Any, Any, Any], limit: int) -> Iterator[DecodedSample]:
    for sample in samples:
        if kind.name not in sample.inputs:
            continue
        try:
            yield sample, kind.decode(sample.inputs[kind.name], limit)
        except ValueError:
            continue  # the loader counts and names these; here the next one serves as well


def generate_samples(kind: Input[Any, Any, Any, Any], count: int) -> list[DecodedSample]:
    """Made-up data of an input, nothing annotated; the same every time."""
    rng = np.random.default_rng(0)
    made = [kind.generate(rng) for _ in range(count)]
    return [(Sample(key=f"generated-{number}", inputs={kind.name: encoded}), raw) for number, (encoded, raw) in enumerate(made)]
