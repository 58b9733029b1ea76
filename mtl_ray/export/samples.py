"""The pictures that an exported graph is checked on: of the validation split, or made up where it is out of reach."""

from collections.abc import Iterable
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.decode import decode_image
from mtl_ray.loading.config import DataConfig
from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.shards.split import open_split

Pictured = tuple[Sample, NDArray[np.uint8]]
"""A sample and its decoded picture, (H, W, 3) uint8 RGB."""


def check_samples(data: DataConfig, vocabulary: Vocabulary, count: int) -> tuple[list[Pictured], str]:
    """Samples of the validation split, and a sentence that says what they are.

    A bundle may be made where the data is not: generated pictures then take the place of the split, and so they do for a split
    of other classes, whose annotations would mean something else.
    """
    uri = data.val.uri if isinstance(data.val.uri, str) else data.val.uri[0]
    try:
        split = open_split(uri)
    except (FileNotFoundError, ValueError) as error:
        return generated(count), f"generated pictures, since the validation split cannot be read ({error})"
    if split.vocabulary.classes != vocabulary.classes:
        return generated(count), f"generated pictures, since {uri} has other classes than the model"
    found = list(islice(_readable(split.read(0, split.num_samples), data.max_pixels), count))
    return (found, uri) if found else (generated(count), f"generated pictures, since no picture of {uri} can be read")


def _readable(samples: Iterable[Sample], max_pixels: int) -> Iterable[Pictured]:
    for sample in samples:
        try:
            yield sample, decode_image(sample.image, max_pixels=max_pixels)
        except ValueError:
            continue  # the loader counts and names these; here the next one serves as well


def generated(count: int) -> list[Pictured]:
    """Pictures with edges and areas of all sizes in random colours, nothing annotated; the same every time."""
    rng = np.random.default_rng(0)
    return [_scene(rng, f"generated-{index}") for index in range(count)]


def _scene(rng: np.random.Generator, key: str) -> Pictured:
    height, width = (int(side) for side in rng.integers(96, 480, 2))
    image = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.ellipse(image, centre, (int(rng.integers(4, 120)), int(rng.integers(4, 120))), int(rng.integers(180)), 0, 360, colour, -1)
    image = cv2.add(image, rng.integers(0, 24, image.shape, np.uint8))
    done, data = cv2.imencode(".png", image[..., ::-1])
    assert done
    return image_sample(key=key, image=data.tobytes(), height=height, width=width), image
