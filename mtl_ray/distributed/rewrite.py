"""A split that was converted before, as a Source: so it can be written again in the other form or with other shards."""

from functools import partial

import numpy as np

from mtl_ray import storage
from mtl_ray.shards.split import Split, open_split
from mtl_ray.sources.config import Shards
from mtl_ray.sources.source import Reading, Source


def open_shards(config: Shards) -> Source:
    """Lists the samples of a split; ids, order and vocabulary stay as they are.

    Raises:
        ValueError: if there is no split, or its shards do not match its manifest.
    """
    split = open_split(storage.absolute(config.root))
    blocks = np.repeat(np.arange(len(split.block_rows)), split.block_rows)
    rows = np.arange(len(blocks)) - np.repeat(np.cumsum(split.block_rows) - split.block_rows, split.block_rows)
    return Source(
        vocabulary=split.vocabulary,
        records=list(zip(blocks.tolist(), rows.tolist(), strict=True)),
        reader=partial(_read, split),
        fingerprint=split.manifest.digest,
        layout=split.manifest.layout,
    )


def _read(split: Split, address: tuple[int, int]) -> Reading:
    return split.read_row(*address), []
