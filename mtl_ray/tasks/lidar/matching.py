"""Greedy matching for metrics: each item in turn takes the free partner that fits it best.

All frames of a dataset are matched at once with numpy, so an item belongs to one frame.
"""

import numpy as np
from numpy.typing import NDArray

NOTHING = -1


def serial_choice(
    choosers: NDArray[np.int64],
    items: NDArray[np.int64],
    num_choosers: int,
    num_items: int,
) -> NDArray[np.int64]:
    """(num_choosers,) the pair by which each chooser got an item; ``NOTHING`` without one.

    Choosers take their turn in the order of their numbers. A chooser gets its best item at once if
    no chooser with a lower number is left that likes this item: then nobody can take it before. In
    every round at least the first chooser gets its item, in practice nearly all do.

    Args:
        choosers: (P,) of each pair that may match, ascending.
        items: (P,) of each pair; the pairs of a chooser are in the order of its liking.
        num_choosers: their number.
        num_items: their number.
    """
    chosen = np.full(num_choosers, NOTHING, np.int64)
    taken = np.zeros(num_items, np.bool_)
    earliest = np.empty(num_items, np.int64)
    pairs = np.arange(len(choosers))
    while len(pairs):
        chooser, item = choosers[pairs], items[pairs]
        earliest[item[::-1]] = chooser[::-1]  # the last one written, the lowest number, stays
        best = np.ones(len(pairs), np.bool_)
        best[1:] = chooser[1:] != chooser[:-1]
        gets = best & (earliest[item] == chooser)
        chosen[chooser[gets]] = pairs[gets]
        taken[item[gets]] = True
        pairs = pairs[(chosen[chooser] == NOTHING) & ~taken[item]]
    return chosen


def same_frame_pairs(
    first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of two lists that are in the same frame, as indices into both, sorted by the first
    and then the second.

    Args:
        first: (N,) frame of each entry, ascending.
        second: (M,) the same of the other list.
    """
    begin = np.searchsorted(second, first, side="left")
    counts = np.searchsorted(second, first, side="right") - begin
    one = np.repeat(np.arange(len(first)), counts)
    ends = np.cumsum(counts)
    within = np.arange(len(one)) - np.repeat(ends - counts, counts)
    return one, begin[one] + within
