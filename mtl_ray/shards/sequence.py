"""A Sequence: which samples make the global batch at a cursor, and which of them belong to a rank.

The sequence of global batches does not depend on the number of ranks. A checkpoint only stores the
cursor, the number of samples consumed; ``pins`` must not change when the run resumes.
"""

import logging
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from mtl_ray.shards.mix import Mix, Units, balanced_copies
from mtl_ray.shards.order import Ints, Order, key_of, splitmix64
from mtl_ray.shards.split import Split

SMALL_BYTES = 2 << 30
"""Splits up to this size are permuted row by row: they stay in memory or in the local cache."""
MAX_LANES = 64
PARTNER_REACH = 32
"""How many rows back in its window the first partner of a sample may lie."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Addresses:
    """Where n samples lie, and their place in the order; int64 (n,) each, lane by lane.

    Attributes:
        source: index of the split.
        block: of the split, in stored order.
        row: within the block.
        lane: the stream that the sample belongs to.
        position: within the lane. (lane, position) is never given twice: random numbers of
            augmentation follow from it.
    """

    source: Ints
    block: Ints
    row: Ints
    lane: Ints
    position: Ints

    def __len__(self) -> int:
        return len(self.row)


def default_lanes(batch: int) -> int:
    """The largest divisor of a batch up to 64, which is also the most workers that can share it."""
    return max(each for each in range(1, min(batch, MAX_LANES) + 1) if batch % each == 0)


class Sequence:
    """The endless sequence of training samples of one or several splits; for one thread at a time.

    Attributes:
        lanes: L, streams that are read side by side; every batch and every cursor is a multiple of
            it.
        samples_per_epoch: how many samples make one visit of everything (with copies and repeats;
            of all splits together).
        pins: what a checkpoint keeps besides the cursor, as JSON values. With other pins a cursor
            means other samples.
    """

    def __init__(
        self,
        splits: Items[Split],
        *,
        batch: int,
        seed: int = 0,
        lanes: int | None = None,
        window: int | None = None,
        repeat: int = 1,
        balanced: float | None = None,
        weights: Items[float] | None = None,
    ) -> None:
        """Lays out the order; with ``balanced``, the labels of all samples are read once.

        Args:
            splits: are joined, or mixed where there are weights.
            batch: samples of one step over all ranks; chooses the number of lanes where none is
                given.
            seed: of all permutations.
            lanes: by default the largest divisor of the batch up to 64.
            window: blocks of a lane that are shuffled together. By default small splits are
                permuted row by row without windows; others take 4, or more and a warning where the
                rows were not shuffled when they were written.
            repeat: visits of everything in an epoch.
            balanced: threshold t of the repeat factors of LVIS; see ``balanced_copies``.
            weights: shares of the samples that come from each split; by default all are one line of
                samples.

        Raises:
            ValueError: if there are no samples, or the numbers do not fit together.
        """
        self.lanes = lanes or default_lanes(batch)
        if batch % self.lanes:
            raise ValueError(f"data.batch {batch} is not a multiple of data.lanes {self.lanes}")
        if weights is not None and len(weights) != len(splits):
            raise ValueError(f"there are {len(weights)} weights for {len(splits)} splits")
        groups = [list(splits)] if weights is None else [[split] for split in splits]
        for group in groups:
            if not any(split.num_samples for split in group):
                raise ValueError(
                    f"there are no samples in {', '.join(split.uri for split in group)}"
                )
        single_rows = (
            window is None and sum(split.manifest.num_bytes for split in splits) <= SMALL_BYTES
        )
        window = 0 if single_rows else window or self._default_window(splits, batch)
        copies = [
            None if balanced is None else balanced_copies(group, balanced) for group in groups
        ]
        self._units = [
            Units(group, single_rows=single_rows, repeat=repeat, copies=copy)
            for group, copy in zip(groups, copies, strict=True)
        ]
        self._orders = [
            Order(units.rows, key=key_of(seed, stream), lanes=self.lanes, window=window)
            for stream, units in enumerate(self._units)
        ]
        self._mix = None if weights is None else Mix(weights, self.lanes)
        self._partner_key = np.uint64(key_of(seed, -1))
        self.samples_per_epoch = sum(order.num_rows for order in self._orders)
        self.pins = {
            "manifests": [split.manifest.digest for split in splits],
            "seed": seed,
            "lanes": self.lanes,
            "window": window,
            "repeat": repeat,
            "balanced": balanced,
            "weights": None if weights is None else list(weights),
        }

    def _default_window(self, splits: Items[Split], batch: int) -> int:
        unshuffled = [split.uri for split in splits if not split.manifest.shuffled]
        if not unshuffled:
            return 4
        window = max(4, 2 * batch // self.lanes)
        _log.warning(
            "%s: rows were not shuffled at conversion, which costs accuracy; %d blocks are "
            "shuffled together",
            unshuffled[0],
            window,
        )
        return window

    def addresses(self, cursor: int, rank: int, world_size: int, batch: int) -> Addresses:
        """The share of one rank in the global batch that begins at a cursor.

        A rank has the lanes from ``rank * L // world_size`` on: the ranks' shares, one after the
        other, are the global batch.

        Args:
            cursor: samples consumed before, a multiple of ``lanes``.
            rank: from 0.
            world_size: number of ranks, at most ``lanes``.
            batch: samples of this step over all ranks, a multiple of ``lanes``; it may change from
                step to step.

        Raises:
            ValueError: if the numbers do not fit.
        """
        if cursor < 0 or cursor % self.lanes or batch < 1 or batch % self.lanes:
            raise ValueError(
                f"cursor {cursor} and batch {batch} must be multiples of the number of lanes, "
                f"{self.lanes}"
            )
        if not 0 <= rank < world_size <= self.lanes:
            raise ValueError(
                f"rank {rank} of {world_size}: at most {self.lanes} workers can share a batch; "
                "raise data.lanes or data.batch"
            )
        lanes = np.arange(rank * self.lanes // world_size, (rank + 1) * self.lanes // world_size)
        depth = batch // self.lanes
        lane = np.repeat(lanes, depth)
        position = np.tile(np.arange(depth) + cursor // self.lanes, len(lanes))
        return self._locate(lane, position, None)

    def partners(self, addresses: Addresses, count: int) -> list[Addresses]:
        """Other samples for each of some samples, to be put together with it (mosaic); ``count``
        times n.

        They lie at most 32 + ``count`` rows back in the same window, so they cost no further read,
        and do not depend on the number of ranks. In a window of one row a sample is its own
        partner.
        """
        state = splitmix64(self._partner_key + addresses.lane.astype(np.uint64))
        draw = splitmix64(state + addresses.position.astype(np.uint64))
        back = 1 + (draw % np.uint64(PARTNER_REACH)).astype(np.int64)
        return [
            self._locate(addresses.lane, addresses.position, back + each) for each in range(count)
        ]

    def _locate(self, lane: Ints, position: Ints, back: Ints | None) -> Addresses:
        if self._mix is None:
            source, block, row = self._units[0].resolve(
                *self._orders[0].locate(lane, position, back)
            )
            return Addresses(source=source, block=block, row=row, lane=lane, position=position)
        source, taken = self._mix.sources(lane, position)
        block, row = np.empty_like(lane), np.empty_like(lane)
        for each in np.unique(source).tolist():
            at = source == each
            found = self._orders[each].locate(
                lane[at], taken[at], None if back is None else back[at]
            )
            _, block[at], row[at] = self._units[each].resolve(*found)
        return Addresses(source=source, block=block, row=row, lane=lane, position=position)
