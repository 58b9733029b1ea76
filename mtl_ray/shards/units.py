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
        self._source_ends = np.cumsum([len(split.block_rows) for split in splits])
        self._block_ends = np.cumsum(np.concatenate([split.block_rows for split in splits]))
        num_rows = int(self._block_ends[-1]) if len(self._block_ends) else 0
        ends = np.arange(1, num_rows + 1) if single_rows else self._block_ends
        rows: Ints = np.diff(ends, prepend=0)
        start = ends - rows
        self._copies: tuple[Ints, Ints, Ints] | None = None
        if copies is not None:
            copy_ends = np.cumsum(copies)
            rows, start, visit, visits = _visits(rows, copy_ends[ends - 1])
            self._copies = (copy_ends, np.tile(visit, repeat), np.tile(visits, repeat))
        self.rows = np.tile(rows, repeat)
        self._start = np.tile(start, repeat)

    def resolve(self, unit: Ints, row: Ints) -> tuple[Ints, Ints, Ints]:
        """The split, the block within it, and the row within that, of rows of units; (n,) each."""
        stored = self._start[unit] + row
        if self._copies is not None:
            copy_ends, visit, visits = self._copies
            stored = np.searchsorted(copy_ends, self._start[unit] + visit[unit] + row * visits[unit], side="right")
        block = np.searchsorted(self._block_ends, stored, side="right")
        source = np.searchsorted(self._source_ends, block, side="right")
        first_row = np.concatenate([[0], self._block_ends])[block]
        return source, block - np.concatenate([[0], self._source_ends])[source], stored - first_row


def _visits(rows: Ints, ends: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """The visits of blocks whose copies end at ``ends``: rows of each visit, first copy of its block, its number, how many there are."""
    copies = np.diff(ends, prepend=0)
    counts = -(-copies // rows)
    block = np.repeat(np.arange(len(rows)), counts)
    visit = np.arange(len(block)) - (np.cumsum(counts) - counts)[block]
    visits = counts[block]
    return (copies[block] - visit + visits - 1) // visits, (ends - copies)[block], visit, visits
