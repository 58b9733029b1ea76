"""How often each sample counts, and from which of several splits the next one comes."""

from collections import Counter
from collections.abc import Sequence as Items

import numpy as np

from mtl_ray.samples import Annotation
from mtl_ray.shards.order import Ints
from mtl_ray.shards.split import Split

PATTERN_SLOTS = 1024
"""The period of a mix: weights are kept to about a thousandth."""
_PARTS = 256


def balanced_copies(splits: Items[Split], threshold: float) -> Ints:
    """How often each row counts so that images with rare classes are seen more often; (N,) int64,
    at least 1, in stored order.

    The repeat factor of LVIS (Gupta et al. 2019, section 4.2): a class in a share f of the images
    has r = max(1, sqrt(t / f)), an image the greatest r of its classes. The fractions of r are
    carried over from row to row, so that the copies of a run of rows add up to the sum of their
    factors. Classes are known by name over all splits; only labels are read.

    Raises:
        ValueError: if no kind of annotation is known to all splits.
    """
    annotation = _shared_annotation(splits)
    images: Counter[str] = Counter()
    for split in splits:
        names = split.vocabulary.classes[annotation]
        for classes in split.scan_classes(annotation):
            images.update({names[index] for index in classes.tolist()})
    num_rows = sum(split.num_samples for split in splits)
    factor = {
        name: max(1.0, float(np.sqrt(threshold * num_rows / count)))
        for name, count in images.items()
    }
    ends = np.cumsum(np.concatenate([_row_parts(split, annotation, factor) for split in splits]))
    return np.diff(ends // _PARTS, prepend=0)


def _row_parts(split: Split, annotation: Annotation, factor: dict[str, float]) -> Ints:
    """The factor of each row in whole parts of 1 / _PARTS, so that sums are exact on every
    machine.
    """
    of_class = np.array(
        [round(factor.get(name, 1.0) * _PARTS) for name in split.vocabulary.classes[annotation]],
        np.int64,
    )
    rows = (of_class[classes].max(initial=_PARTS) for classes in split.scan_classes(annotation))
    return np.fromiter(rows, np.int64, count=split.num_samples)


def _shared_annotation(splits: Items[Split]) -> Annotation:
    shared = [
        kind
        for name, kind in splits[0].annotations.items()
        if all(split.vocabulary.classes.get(name) for split in splits)
    ]
    if shared:
        return min(shared, key=lambda kind: kind.balance_order).name
    raise ValueError(
        "balancing needs a kind of annotation that all splits have; these have none in common"
    )


class Mix:
    """A fixed, evenly spaced pattern of sources, which starts at another place for each lane."""

    def __init__(self, weights: Items[float], lanes: int) -> None:
        """Rounds the weights to slots of the pattern, at least one each.

        Raises:
            ValueError: if a weight is not positive, or there are more sources than slots.
        """
        if any(not weight > 0 for weight in weights) or len(weights) > PATTERN_SLOTS:
            raise ValueError(
                f"weights must be positive numbers, at most {PATTERN_SLOTS}; these are "
                f"{list(weights)}"
            )
        slots = _shares(np.asarray(weights, np.float64), PATTERN_SLOTS)
        place = np.concatenate([(np.arange(count) + 0.5) / count for count in slots])
        self.pattern = np.repeat(np.arange(len(slots)), slots)[np.argsort(place, kind="stable")]
        taken = self.pattern[:, None] == np.arange(len(slots))
        self._before = np.concatenate(
            [np.zeros((1, len(slots)), np.int64), np.cumsum(taken, axis=0)]
        )
        self._phase = np.arange(lanes) * PATTERN_SLOTS // lanes

    def sources(self, lane: Ints, position: Ints) -> tuple[Ints, Ints]:
        """Which source each position of a lane reads, and how many of that source the lane has
        read before; (n,) each.
        """
        start, slot = self._phase[lane], position + self._phase[lane]
        source = self.pattern[slot % PATTERN_SLOTS]
        before = (
            slot // PATTERN_SLOTS * self._before[-1][source]
            + self._before[slot % PATTERN_SLOTS, source]
        )
        return source, before - self._before[start, source]


def _shares(weights: np.ndarray[tuple[int], np.dtype[np.float64]], total: int) -> Ints:
    """Whole numbers that add up to ``total`` in the proportion of the weights, at least 1 each
    (largest remainders).
    """
    spare = total - len(weights)
    exact = weights / weights.sum() * spare
    shares: Ints = np.floor(exact).astype(np.int64)
    order = np.argsort(shares - exact, kind="stable")
    shares[order[: spare - int(shares.sum())]] += 1
    return shares + 1


# What an order permutes: the blocks of some splits, or single rows where the splits are small;
# visited once or more often.


class Units:
    """The units over the rows of some splits, laid end to end in stored order.

    A row may count more than once (``copies``). A block whose rows count M times together is
    visited ceil(M / its rows) times, in v visits; visit j then reads its copies j, j + v, j + 2 v,
    ...: a visit is never longer than the block, and the copies of one row fall into different
    visits.

    Attributes:
        rows: (U,) rows of each unit.
    """

    def __init__(
        self, splits: Items[Split], *, single_rows: bool, repeat: int, copies: Ints | None
    ) -> None:
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
    """The visits of blocks whose copies end at ``ends``: rows of each visit, first copy of its
    block, its number, how many there are.
    """
    copies = np.diff(ends, prepend=0)
    counts = -(-copies // rows)
    block = np.repeat(np.arange(len(rows)), counts)
    visit = np.arange(len(block)) - (np.cumsum(counts) - counts)[block]
    visits = counts[block]
    return (copies[block] - visit + visits - 1) // visits, (ends - copies)[block], visit, visits
