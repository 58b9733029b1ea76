"""Where samples come from: the splits of a config read as one, in the computed order."""

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from mtl_ray.loading.config import SplitConfig
from mtl_ray.loading.join import join_vocabularies
from mtl_ray.loading.scene import AnyKind
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.sequence import Addresses, Sequence
from mtl_ray.shards.split import Split, open_split

Where = tuple[int, int, int]
"""The split (its index), the block in the split, and the row in the block at which a sample
lies.
"""


@dataclass(frozen=True, slots=True)
class Address:
    """A sample and its place in the order.

    Attributes:
        where: its split, its block there, and its row there.
        lane, position: never twice the same; random numbers follow from them.
        partners: where three other samples of the same window lie, if any were asked for.
    """

    where: Where
    lane: int
    position: int
    partners: tuple[Where, ...] = ()


class Reader:
    """Reads samples of several splits at addresses; threads may share it.

    Attributes:
        vocabulary: of all splits together.
        label_spaces: of each split, what its class indices become.
        kinds: the kinds of annotation of the vocabulary.
        samples_per_epoch: over all splits and repeats.
        pins: what must be as it was when a cursor is taken up again.
    """

    def __init__(
        self, split: SplitConfig, *, batch: int, seed: int, lanes: int | None, window: int | None
    ) -> None:
        """Opens every URI of the config.

        Raises:
            ValueError: if a split is damaged, or they cannot be read together.
        """
        self._splits = [open_split(uri) for uri in split.uris]
        self.vocabulary, self.label_spaces = join_vocabularies(
            [each.vocabulary for each in self._splits], split.uris
        )
        self.kinds = _kinds(self._splits, self.vocabulary)
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
        self.pins = self._sequence.pins
        self._batch = batch

    def addresses(self, cursor: int, rank: int, world_size: int, partners: int) -> list[Address]:
        """This rank's share of the global batch at ``cursor``; its blocks are brought near
        meanwhile.

        Args:
            cursor: samples consumed before.
            rank: of this process.
            world_size: number of processes.
            partners: how many other samples to name for each.
        """
        found = self._sequence.addresses(cursor, rank, world_size, self._batch)
        for source, split in enumerate(self._splits):
            split.prefetch(np.unique(found.block[found.source == source]).tolist())
        others = (
            [_where(each) for each in self._sequence.partners(found, partners)] if partners else []
        )
        places = zip(_where(found), found.lane.tolist(), found.position.tolist(), strict=True)
        return [
            Address(*place, tuple(other[index] for other in others))
            for index, place in enumerate(places)
        ]

    def read(self, where: Where) -> Sample:
        """The sample that lies there."""
        source, block, row = where
        return self._splits[source].read_row(block, row)


def _kinds(splits: Items[Split], vocabulary: Vocabulary) -> list[AnyKind]:
    """The kinds of annotation of the joined vocabulary, as the splits store them."""
    known = {kind.name: kind for split in splits for kind in split.annotations.values()}
    return [known[name] for name in vocabulary.classes]


def _where(found: Addresses) -> list[Where]:
    return list(zip(found.source.tolist(), found.block.tolist(), found.row.tolist(), strict=True))
