"""Class maps of large images from windows of the network's size: where the windows lie, and the
mean of their logits in bounded memory.

The rule is that of MMSegmentation's slide inference (``EncoderDecoder.slide_inference``): the
logits of all windows over a pixel are summed and divided by their number, then scaled to the image
(bilinear), and the largest is the class of the pixel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 4 << 30
"""Most bytes of the sums of one image: classes x the shorter side x the window's side along the
longer one, float32.
"""
_LINES = 64
"""Lines of the image that are scaled at a time."""


def starts(side: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along a side; the last is shifted back so as to end with the side.

    >>> starts(10, 4, 3), starts(11, 4, 3), starts(3, 4, 3)
    ([0, 3, 6], [0, 3, 6, 7], [0])
    """
    count = max(side - crop + stride - 1, 0) // stride + 1
    return [max(0, min(i * stride, side - crop)) for i in range(count)]


@dataclass(frozen=True, kw_only=True)
class WindowGrid:
    """The windows of an image. Lines run along its shorter side, so that the sums of the lines that
    are not complete stay small.

    Attributes:
        size: height and width of the image in which the windows lie.
        crop: height and width of a window.
        stride: rows and columns from one to the next.
    """

    size: tuple[int, int]
    crop: tuple[int, int]
    stride: tuple[int, int]

    @property
    def swapped(self) -> bool:
        """Whether lines are columns."""
        return self.size[1] > self.size[0]

    @property
    def axes(self) -> tuple[int, int]:
        """The axis of lines, and the one along a line."""
        return (1, 0) if self.swapped else (0, 1)

    def of(self, axis: int) -> list[int]:
        """Where windows begin along an axis."""
        return starts(self.size[axis], self.crop[axis], self.stride[axis])

    def counts(self, axis: int) -> NDArray[np.float32]:
        """The number of windows over each place along an axis."""
        counts = np.zeros(self.size[axis], np.float32)
        for start in self.of(axis):
            counts[start : start + self.crop[axis]] += 1
        return counts

    def windows(self) -> list[tuple[int, int]]:
        """The top and left of each window, those of the first lines first."""
        lines, along = self.axes
        pairs = [(first, second) for first in self.of(lines) for second in self.of(along)]
        return [(second, first) for first, second in pairs] if self.swapped else pairs

    def sum_bytes(self, classes: int) -> int:
        """The memory that the sums of logits take."""
        lines, along = self.axes
        return 4 * classes * min(self.crop[lines], self.size[lines]) * self.size[along]


class WindowSum:
    """The class of each pixel of an image, from the logits of its windows in the order of
    ``WindowGrid.windows``.

    Args:
        grid: the windows.
        classes: number of classes.
        size: height and width of the image; the logits are scaled to it.

    Raises:
        ValueError: if the sums would take more than ``MOST_BYTES``.
    """

    def __init__(self, grid: WindowGrid, classes: int, size: tuple[int, int]) -> None:
        if (needed := grid.sum_bytes(classes)) > MOST_BYTES:
            height, width = grid.size
            raise ValueError(
                f"an image of {width} x {height} pixels with {classes} classes needs "
                f"{needed / 2**30:.1f} GiB for its sums of logits, allowed are "
                f"{MOST_BYTES / 2**30:.0f}. Fix: a smaller evaluate.slide.crop, or "
                "evaluate.slide.fit"
            )
        self._grid = grid
        self._lines, self._along = grid.axes
        shape = (grid.size[self._lines], grid.size[self._along])
        self._sums = np.zeros(
            (classes, min(grid.crop[self._lines], shape[0]), shape[1]), np.float32
        )
        self._first = 0  # the line of the image at which the sums begin
        self._line_counts, self._place_counts = (grid.counts(axis) for axis in grid.axes)
        self._scaled = _ScaledLines(shape, (size[self._lines], size[self._along]))

    def add(self, window: tuple[int, int], logits: NDArray[Any]) -> None:
        """Adds a window at its top and left: (C, height, width), without padding."""
        line, place = window[self._lines], window[self._along]
        if line > self._first:
            self._finish(line)
        turned = logits.swapaxes(1, 2) if self._grid.swapped else logits
        _, lines, places = turned.shape
        start = line - self._first
        self._sums[:, start : start + lines, place : place + places] += turned

    def result(self) -> NDArray[np.uint8]:
        """(height, width) of the image, after all windows."""
        self._finish(self._first + self._sums.shape[1])
        classes = self._scaled.classes
        return np.ascontiguousarray(classes.T) if self._grid.swapped else classes

    def _finish(self, stop: int) -> None:
        """Gives away the lines before ``stop``, over which no further window lies."""
        count = stop - self._first
        done = self._sums[:, :count]
        done /= self._line_counts[self._first : stop, None] * self._place_counts
        self._scaled.push(done)
        rest = self._sums.shape[1] - count
        self._sums[:, :rest] = self._sums[:, count:].copy()
        self._sums[:, rest:] = 0
        self._first = stop


class _ScaledLines:
    """Lines of logits scaled to the image, and their best classes.

    Args:
        source: number of lines and their length.
        target: the same of the image.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        self.classes = np.empty(target, np.uint8)
        self._same = source == target
        self._lines, self._places = (
            _neighbours(old, new) for old, new in zip(source, target, strict=True)
        )
        self._done = 0  # lines of the image
        self._held: NDArray[Any] | None = None  # the last lines that may be needed again
        self._first = 0  # of the held lines

    def push(self, lines: NDArray[Any]) -> None:
        """The next lines of logits, (C, n, length)."""
        if self._same:
            self.classes[self._done : self._done + lines.shape[1]] = lines.argmax(axis=0)
            self._done += lines.shape[1]
            return
        held = lines if self._held is None else np.concatenate([self._held, lines], axis=1)
        low, high, _ = self._lines
        ready = int(np.searchsorted(high, self._first + held.shape[1]))  # those before it
        for start, stop in _chunks(self._done, ready):
            self.classes[start:stop] = self._blended(held, start, stop).argmax(axis=0)
        self._done = ready
        next_line = int(low[ready]) if ready < len(low) else self._first + held.shape[1]
        keep = min(next_line - self._first, held.shape[1])
        self._held, self._first = held[:, keep:].copy(), self._first + keep

    def _blended(self, held: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
        """Lines [start, stop) of the image, bilinear (``align_corners=False``)."""
        low, high, share = (each[start:stop] for each in self._lines)
        lines = _mix(held[:, low - self._first], held[:, high - self._first], share[:, None])
        low, high, share = self._places
        return _mix(lines[:, :, low], lines[:, :, high], share)


def _mix(first: NDArray[Any], second: NDArray[Any], share: NDArray[Any]) -> NDArray[Any]:
    mixed: NDArray[Any] = first + (second - first) * share
    return mixed


def _neighbours(old: int, new: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """For each of ``new`` places its two neighbours among ``old`` places, and the share of the
    second.
    """
    places = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    low = np.floor(places).astype(np.int64)
    return low, np.minimum(low + 1, old - 1), (places - low).astype(np.float32)


def _chunks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, _LINES):
        yield first, min(first + _LINES, stop)


def batches(windows: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    """The windows in groups."""
    for start in range(0, len(windows), size):
        yield windows[start : start + size]
