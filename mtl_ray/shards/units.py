"""What an order permutes: the blocks of some splits, or single rows where the splits are small; visited once or more often."""

from collections.abc import Sequence as Items

import numpy as np

from mtl_ray.shards.order import Ints
from mtl_ray.shards.split import Split


class Units:
    """The units over the rows of some splits, laid end to end in stored order.

    A row may count more than once (``copies``). A block whose rows count M times together is visited ceil(M / its rows) times,
    in v visits; visit j then reads its copies j, j + v, j + 2 v, ...: a visit is never longer than the block, and the copies of one
    row fall into different visits.

    Attributes:
        rows: (U,) rows of each unit.
    """

    def __init__(self, splits: Items[Split], *, single_rows: bool, repeat: int, copies: Ints | None) -> None:
        """Cuts the rows of the splits into units.

        Args:
            splits: are joined.
            single_rows: every row is a unit of its own, not every block.
            repeat: whole extra visits of everything.
            copies: (N,) how often each row counts, at least once; None is once each.
        """
        counts = np.array([len(split.block_rows) for split in splits])
        sizes = np.concatenate([split.block_rows for split in splits])
        self._source_starts = np.cumsum(counts) - counts
        self._block_starts = np.cumsum(sizes) - sizes
        rows: Ints = np.ones(int(sizes.sum()), np.int64) if single_rows else sizes
        self._start = np.arange(len(rows)) if single_rows else self._block_starts
        self._copies: tuple[Ints, Ints, Ints] | None = None
        if copies is not None:
            copy_starts = np.cumsum(copies) - copies
            ends = np.append(copy_starts, copies.sum())[self._start + rows]
            rows, self._start, visit, visits = _visits(rows, ends)
            self._copies = (copy_starts, visit, visits)
        self.rows = np.tile(rows, repeat) if repeat > 1 else rows

    def resolve(self, unit: Ints, row: Ints) -> tuple[Ints, Ints, Ints]:
        """The split, the block within it, and the row within that, of rows of units; (n,) each."""
        unit = unit % len(self._start)
        stored = self._start[unit] + row
        if self._copies is not None:
            copy_starts, visit, visits = self._copies
            copy = self._start[unit] + visit[unit] + row * visits[unit]
            stored = np.searchsorted(copy_starts, copy, side="right") - 1
        block = np.searchsorted(self._block_starts, stored, side="right") - 1
        source = np.searchsorted(self._source_starts, block, side="right") - 1
        return source, block - self._source_starts[source], stored - self._block_starts[block]


def _visits(rows: Ints, ends: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """The visits of blocks whose copies end at ``ends``: rows of each visit, first copy of its block, its number, how many there are."""
    copies = np.diff(ends, prepend=0)
    counts = -(-copies // rows)
    block = np.repeat(np.arange(len(rows)), counts)
    visit = np.arange(len(block)) - (np.cumsum(counts) - counts)[block]
    visits = counts[block]
    return (copies[block] - visit + visits - 1) // visits, (ends - copies)[block], visit, visits
