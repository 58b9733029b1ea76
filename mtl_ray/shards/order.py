"""The order of samples, computed and not stored: permuted units, endless lanes, shuffled windows.

A unit is a block of rows (or a single row, where a split is small). In every epoch the units are
permuted and laid end to end; L lanes read that line side by side, each its own stretch; within a
lane, the rows of W neighbouring units are permuted. Everything follows from (seed, epoch, lane,
position), so any place can be found at once, and nothing has to be kept but the units.
"""

import hashlib
import struct
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_KEPT_EPOCHS = 2


def key_of(*numbers: int) -> int:
    """A 64-bit key of some integers (BLAKE2b)."""
    packed = struct.pack(f"<{len(numbers)}Q", *(number % 2**64 for number in numbers))
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output of splitmix64 for each state (Steele, Lea and Flood 2014, "Fast splittable
    pseudorandom number generators").
    """
    mixed = state + _GOLDEN
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def permutation(size: int, key: int) -> Ints:
    """A permutation of 0..size-1 that depends on the key alone; unlike NumPy's generators, the
    same in every version.
    """
    numbers = np.arange(size, dtype=np.uint64)
    numbers += np.uint64(key)
    order: Ints = np.argsort(splitmix64(numbers), kind="stable")
    return order


@dataclass(frozen=True, slots=True)
class _Epoch:
    """The line of one epoch.

    Attributes:
        units: (U,) the units in their order.
        ends: (U,) where each ends on the line, in rows.
        lanes: (L + 1,) where each lane's stretch of the line begins, and the end of the last.
        first: (L,) the place in ``units`` of the unit in which each lane begins.
    """

    units: Ints
    ends: Ints
    lanes: Ints
    first: Ints


class Order:
    """The endless order of some units for L lanes.

    Row number g of the whole stream, counted across the lanes from the last to the first, is
    position g // L of lane L - 1 - g % L; epoch e is exactly the rows e N to (e + 1) N - 1. So each
    lane enters epoch e at position (e N + lane) // L of its own, and whenever all lanes have read
    equally far, each sample has been read equally often, give or take one.

    Attributes:
        num_rows: N, the rows of all units together.
    """

    def __init__(self, rows: Ints, *, key: int, lanes: int, window: int) -> None:
        """Keeps the rows of each unit (U,), all positive.

        Args:
            rows: of each unit.
            key: two orders of different keys have nothing to do with each other.
            lanes: L.
            window: W, how many neighbouring units of a lane are shuffled together; 0 leaves rows in
                the order of the line.
        """
        self.num_rows = int(rows.sum())
        self._rows = rows
        self._key = key
        self._lanes = lanes
        self._window = window
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()
        self._windows: OrderedDict[tuple[int, int, int], Ints] = OrderedDict()

    def locate(self, lane: Ints, position: Ints, back: Ints | None = None) -> tuple[Ints, Ints]:
        """Where the samples at some positions of some lanes lie.

        Args:
            lane: (n,).
            position: (n,) of each, within its lane.
            back: (n,) looks so many rows back from each, round and round within its window (its
                lane's stretch, where there are no windows), instead of at the position itself: the
                partners of a mosaic, which cost no further read.

        Returns:
            unit and row within the unit, (n,) each.
        """
        epoch = (position * self._lanes + self._lanes - 1 - lane) // self.num_rows
        unit, row = np.empty_like(lane), np.empty_like(lane)
        for each in np.unique(epoch).tolist():
            at = epoch == each
            unit[at], row[at] = self._in_epoch(
                each, lane[at], position[at], None if back is None else back[at]
            )
        return unit, row

    def _in_epoch(
        self, number: int, lane: Ints, position: Ints, back: Ints | None
    ) -> tuple[Ints, Ints]:
        epoch = self._epoch(number)
        place = epoch.lanes[lane] + position - (number * self.num_rows + lane) // self._lanes
        if self._window:
            place = self._shuffled(number, lane, place, back)
        elif back is not None:
            start, stop = epoch.lanes[lane], epoch.lanes[lane + 1]
            place = start + (place - start - back) % (stop - start)
        index = np.searchsorted(epoch.ends, place, side="right")
        unit = epoch.units[index]
        return unit, place - epoch.ends[index] + self._rows[unit]

    def _shuffled(self, number: int, lane: Ints, place: Ints, back: Ints | None) -> Ints:
        """The row of the line that is read at each place of it.

        Windows begin at edges of units. Those of lane l are moved by l % W units, so that not all
        lanes open a new one at once.
        """
        epoch = self._epoch(number)
        phase = lane % self._window
        window = (
            np.searchsorted(epoch.ends, place, side="right") - epoch.first[lane] + phase
        ) // self._window
        first = epoch.first[lane] + window * self._window - phase
        last = np.minimum(first + self._window, len(epoch.units)) - 1
        first = np.maximum(first, epoch.first[lane])
        start: Ints = np.maximum(
            epoch.ends[first] - self._rows[epoch.units[first]], epoch.lanes[lane]
        )
        stop = np.minimum(epoch.ends[last], epoch.lanes[lane + 1])
        offset: Ints = place - start
        if back is not None:
            offset = (offset - back) % (stop - start)
        runs = np.flatnonzero(np.diff(lane, prepend=-1) | np.diff(window, prepend=-1))
        for begin, end in zip(runs.tolist(), [*runs[1:].tolist(), len(place)], strict=True):
            size = int(stop[begin] - start[begin])
            offset[begin:end] = self._window_order(
                number, int(lane[begin]), int(window[begin]), size
            )[offset[begin:end]]
        return start + offset

    def _window_order(self, epoch: int, lane: int, window: int, size: int) -> Ints:
        key = (epoch, lane, window)
        if key not in self._windows:
            self._windows[key] = permutation(size, key_of(self._key, *key))
            if len(self._windows) > 3 * self._lanes:
                self._windows.popitem(last=False)
        return self._windows[key]

    def _epoch(self, number: int) -> _Epoch:
        if number not in self._epochs:
            units = permutation(len(self._rows), key_of(self._key, number))
            ends = np.cumsum(self._rows[units])
            lane = np.arange(self._lanes)
            shares = ((number + 1) * self.num_rows + lane) // self._lanes - (
                number * self.num_rows + lane
            ) // self._lanes
            lanes = np.concatenate([[0], np.cumsum(shares)])
            self._epochs[number] = _Epoch(
                units, ends, lanes, np.searchsorted(ends, lanes[:-1], side="right")
            )
            if len(self._epochs) > _KEPT_EPOCHS:
                self._epochs.popitem(last=False)
        return self._epochs[number]
