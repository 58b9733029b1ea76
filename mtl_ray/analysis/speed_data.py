"""The steps of the data's side that ``speed`` times: batches of the loader, and the preparation
of single samples.
"""

import random
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import cast

from mtl_ray.analysis.stopwatch import Stopwatch
from mtl_ray.loading.augment import augmented, num_partners
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.collate import InputBuffers
from mtl_ray.loading.config import DataConfig
from mtl_ray.loading.loader import Loader
from mtl_ray.loading.object_bank import ObjectBank, open_banks
from mtl_ray.loading.prepare import scene_rules
from mtl_ray.loading.reader import Address, Reader, Where
from mtl_ray.loading.scene import Scene, SceneRule
from mtl_ray.samples import Sample
from mtl_ray.shards.order import key_of

TimedStep = Callable[[Stopwatch], object]
_SEED = 0


def loader_steps(data: DataConfig) -> Generator[TimedStep, None, None]:
    """For each step, waiting for the next batch of a loader."""
    with closing(cast(Generator[Batch, None, None], iter(Loader(data, seed=_SEED)))) as batches:
        while True:
            yield lambda watch: _wait(batches, watch)


def sample_steps(data: DataConfig) -> Generator[TimedStep, None, None]:
    """For each step, the preparation of one sample in the order of training: reading, decoding,
    each augmentation, the canvas.
    """
    reader = Reader(data.train, batch=data.batch, seed=_SEED, lanes=data.lanes, window=data.window)
    partners = num_partners(data.augment)
    buffers = InputBuffers(1, data.canvas, pinned=False)
    rules = scene_rules(data, reader, {})
    banks = open_banks(data.augment, reader.vocabulary.classes, data.max_pixels)
    cursor = 0
    while True:
        for address in reader.addresses(cursor, 0, 1, partners):
            yield lambda watch, address=address: _prepare(
                data, reader, rules, banks, buffers, address, watch
            )  # type: ignore[misc]
        cursor += data.batch


def _wait(batches: Iterator[Batch], watch: Stopwatch) -> None:
    with watch("wait for a batch"):
        next(batches)


def _prepare(
    data: DataConfig,
    reader: Reader,
    rules: list[SceneRule],
    banks: Mapping[str, ObjectBank],
    buffers: InputBuffers,
    address: Address,
    watch: Stopwatch,
) -> None:
    with watch("read"):
        sample = reader.read(address.where)
    with watch("decode"):
        scene = _scene(rules, address.where, sample)

    def partners(start: int, stop: int) -> list[Scene]:
        return [_scene(rules, where, reader.read(where)) for where in address.partners[start:stop]]

    numbers = random.Random(key_of(_SEED, address.lane, address.position))
    for number, change in enumerate(data.augment, 1):
        with watch(f"augment {number} ({change.type})"):
            scene = augmented(scene, (change,), numbers, partners, data.canvas, banks)
    with watch(data.canvas.input.fill_name):
        buffers.fill(0, sample.key, scene)


def _scene(rules: list[SceneRule], where: Where, sample: Sample) -> Scene:
    try:
        return rules[where[0]].decode(sample)
    except ValueError as error:
        raise ValueError(f"sample {sample.key}: {error}") from error
