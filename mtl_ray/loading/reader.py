"""Where samples come from: the splits of a config read as one, in the computed order."""

from dataclasses import dataclass

import numpy as np

from mtl_ray.loading.config import SplitConfig
from mtl_ray.loading.join import join_vocabularies
from mtl_ray.samples import Sample
from mtl_ray.shards.order import Sequence
from mtl_ray.shards.split import open_split


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
        samples_per_epoch: over all splits and repeats.
    """

    def __init__(self, split: SplitConfig, *, batch: int, seed: int, lanes: int | None, window: int | None) -> None:
        """Opens every URI of the config.

        Raises:
            ValueError: if a split is damaged, or they cannot be read together.
        """
        uris = (split.uri,) if isinstance(split.uri, str) else split.uri
        self._splits = [open_split(uri) for uri in uris]
        self.vocabulary, self.recodings = join_vocabularies([each.vocabulary for each in self._splits], uris)
        self._sequence = Sequence(
            self._splits,
            batch=batch,
            seed=seed,
            lanes=lanes,
            window=window,
            repeat=split.repeat,
            balanced=split.balanced,
            weights=split.weights,
        )
        self.samples_per_epoch = self._sequence.samples_per_epoch
        self._batch = batch

    def addresses(self, cursor: int, rank: int, world_size: int) -> list[Address]:
        """This rank's share of the global batch at ``cursor``."""
        found = self._sequence.addresses(cursor, rank, world_size, self._batch)
        columns = (found.source, found.block, found.row, found.lane, found.position)
        return [Address(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def expect(self, cursor: int, rank: int, world_size: int) -> None:
        """Says that the batch at ``cursor`` comes soon, so that its blocks can be brought near."""
        found = self._sequence.addresses(cursor, rank, world_size, self._batch)
        for source, split in enumerate(self._splits):
            split.prefetch(np.unique(found.block[found.source == source]).tolist())

    def read(self, address: Address) -> Sample:
        """The sample at an address."""
        return self._splits[address.source].read_row(address.block, address.row)
