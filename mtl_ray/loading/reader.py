"""Where samples come from: the splits of a config read as one, in the computed order, through a bounded cache of blocks."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from mtl_ray.loading.config import SplitConfig
from mtl_ray.loading.join import join_vocabularies
from mtl_ray.samples import Sample
from mtl_ray.shards.order import Sequence
from mtl_ray.shards.split import open_split

_CACHE_BYTES = 512 * 2**20
"""Encoded samples kept in memory. Blocks are read whole, and their rows come due within one window."""


@dataclass(frozen=True, slots=True)
class Address:
    """A sample (its split, block, and row within the block) and its place in the order (lane, and position in the lane)."""

    source: int
    block: int
    row: int
    lane: int
    position: int


class Reader:
    """Reads samples of several splits at addresses; threads may share it.

    Attributes:
        vocabulary: of all splits together.
        recodings: of each split, what its class indices become.
        sequence: the order.
    """

    def __init__(self, split: SplitConfig, *, batch: int, seed: int, lanes: int | None, window: int | None) -> None:
        """Opens every URI of the config.

        Raises:
            ValueError: if a split is damaged, or they cannot be read together.
        """
        uris = (split.uri,) if isinstance(split.uri, str) else split.uri
        self._splits = [open_split(uri) for uri in uris]
        self.vocabulary, self.recodings = join_vocabularies([each.vocabulary for each in self._splits], uris)
        self.sequence = Sequence(
            self._splits,
            batch=batch,
            seed=seed,
            lanes=lanes,
            window=window,
            repeat=split.repeat,
            balanced=split.balanced,
            weights=split.weights,
        )
        self._batch = batch
        self._blocks = BlockCache(_CACHE_BYTES)

    def addresses(self, cursor: int, rank: int, world_size: int) -> list[Address]:
        """This rank's share of the global batch at ``cursor``."""
        found = self.sequence.addresses(cursor, rank, world_size, self._batch)
        columns = (found.source, found.block, found.row, found.lane, found.position)
        return [Address(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def sample(self, source: int, block: int, row: int) -> Sample:
        """Reads one sample; its whole block is then at hand."""
        split = self._splits[source]
        return self._blocks.get((source, block), lambda: split.read_block(block))[row]


class BlockCache:
    """The blocks read last, up to a number of bytes. Two threads that want the same block read it once."""

    def __init__(self, limit_bytes: int) -> None:
        """An empty cache."""
        self._limit = limit_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[int, int], list[Sample]] = OrderedDict()
        self._reading: dict[tuple[int, int], threading.Lock] = {}

    def get(self, key: tuple[int, int], read: Callable[[], list[Sample]]) -> list[Sample]:
        """The block of a key, from memory or from ``read``."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:
            with self._lock:
                if key in self._blocks:
                    return self._blocks[key]
            block = read()
            self._put(key, block)
        return block

    def _put(self, key: tuple[int, int], block: list[Sample]) -> None:
        with self._lock:
            self._reading.pop(key, None)
            self._blocks[key] = block
            self._bytes += _size(block)
            while self._bytes > self._limit and len(self._blocks) > 1:
                self._bytes -= _size(self._blocks.popitem(last=False)[1])


def _size(block: list[Sample]) -> int:
    return sum(len(sample.image) + len(sample.semantic or b"") for sample in block)
