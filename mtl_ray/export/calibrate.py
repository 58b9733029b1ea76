"""Samples of the training split for the calibration of int8 engines."""

import random

from mtl_ray.backends.backend import Calibration, GraphArrays
from mtl_ray.export.config import CalibrationConfig
from mtl_ray.inference.bundle import to_graph
from mtl_ray.inference.signature import Signature
from mtl_ray.inference.slide import some_window
from mtl_ray.inputs.input import AnyCanvas, Arrays, placed
from mtl_ray.loading.config import DataConfig
from mtl_ray.shards.split import open_split

MOST_TRIES = 4
"""Of each wanted sample this many are looked at, if some cannot be read."""


def calibration_samples(
    data: DataConfig, canvas: AnyCanvas, config: CalibrationConfig, signature: Signature
) -> Calibration:
    """Samples of the training split as inputs of a graph, chosen by the seed.

    Raises:
        ValueError: if the split cannot be read: an engine that is calibrated on something else
            would be worse than none.
    """
    uri = data.train.uris[0]
    try:
        split = open_split(uri)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"int8 is calibrated on the training split, which cannot be read: {error}"
        ) from error
    kind = canvas.input
    there = {each.name: each.noun for each in split.manifest.layout.inputs}
    if kind.name not in there:
        raise ValueError(
            f"int8 is calibrated on the training split, and {uri} has "
            f"{' and '.join(f'{noun}s' for noun in there.values())}, no {kind.noun}s"
        )
    order = list(range(split.num_samples))
    random.Random(config.seed).shuffle(order)
    batches: list[GraphArrays] = []
    for index in order[: MOST_TRIES * config.samples]:
        if len(batches) == config.samples:
            break
        (sample,) = split.read(index, index + 1)
        try:
            raw = kind.decode(sample.inputs[kind.name], data.max_pixels)
        except (KeyError, ValueError):
            continue  # the loader reports these
        arrays: Arrays = (
            placed([raw], canvas)[0]
            if signature.slide is None
            else some_window(raw, signature.slide, canvas, len(batches))
        )
        batches.append(to_graph(arrays, signature))
    if not batches:
        raise ValueError(f"int8 is calibrated on samples of {uri}, and none of them can be read")
    return Calibration(
        batches=batches,
        exclude=config.exclude,
        source=f"{len(batches)} samples of {uri}, seed {config.seed}",
    )
