"""Instance masks on their way through transforms: run-length encodings and where they lie now,
drawn once at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry import masks as rle

_EXACT = 1e-6
"""Pixels by which the corner of a window may miss the edge of a pixel through rounding."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Masks:
    """The masks of N objects. Each is x_now = x_source * scale + offset, same for y, seen through a
    window.

    Attributes:
        counts: N compressed run-length encodings; b"" for an object without a mask.
        sizes: (N, 2) int64 height and width of each encoded mask.
        scales, offsets: (N, 2) float64 x and y; a negative scale is a mirror.
        windows: (N, 4) float64 xyxy, pixels now: outside the mask is empty.
    """

    counts: tuple[bytes, ...]
    sizes: NDArray[np.int64]
    scales: NDArray[np.float64]
    offsets: NDArray[np.float64]
    windows: NDArray[np.float64]

    @staticmethod
    def of(counts: Sequence[bytes], hw: tuple[int, int]) -> "Masks":
        """Masks where they were drawn, in an image of (height, width) pixels."""
        n = len(counts)
        return Masks(
            counts=tuple(counts),
            sizes=np.tile(np.array(hw, np.int64), (n, 1)),
            scales=np.ones((n, 2)),
            offsets=np.zeros((n, 2)),
            windows=np.tile(np.array([0.0, 0.0, hw[1], hw[0]]), (n, 1)),
        )

    @staticmethod
    def concatenated(parts: "Sequence[Masks]") -> "Masks":
        """Several groups as one."""
        return Masks(
            counts=tuple(each for part in parts for each in part.counts),
            sizes=np.concatenate([part.sizes for part in parts]),
            scales=np.concatenate([part.scales for part in parts]),
            offsets=np.concatenate([part.offsets for part in parts]),
            windows=np.concatenate([part.windows for part in parts]),
        )

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) which objects have a mask."""
        return np.array([bool(each) for each in self.counts], np.bool_)

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Masks":
        """Some of them."""
        chosen = np.flatnonzero(which) if which.dtype == np.bool_ else which
        counts = tuple(self.counts[int(index)] for index in chosen)
        return Masks(
            counts=counts,
            sizes=self.sizes[chosen],
            scales=self.scales[chosen],
            offsets=self.offsets[chosen],
            windows=self.windows[chosen],
        )

    def moved(self, scale_xy: tuple[float, float], offset_xy: tuple[float, float]) -> "Masks":
        """Elsewhere: new = old * scale + offset."""
        scale, offset = np.array(scale_xy), np.array(offset_xy)
        corners = self.windows.reshape(-1, 2, 2) * scale + offset  # (N, 2 corners, xy)
        windows = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        return replace(
            self, scales=self.scales * scale, offsets=self.offsets * scale + offset, windows=windows
        )

    def clipped(self, height: int, width: int) -> "Masks":
        """Nothing is left outside a (height, width) image."""
        return replace(
            self,
            windows=np.clip(self.windows, 0, np.array([width, height, width, height], np.float64)),
        )

    def render(self, into: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Draws each mask into its (H, W) of ``into`` (N, H, W), which holds zeros: 1 where the
        object is.

        A pixel takes the value at its centre (nearest neighbour).

        Returns:
            (N,) which masks have a pixel there.
        """
        height, width = into.shape[1:]
        drawn = np.zeros(len(self.counts), np.bool_)
        for index, counts in enumerate(self.counts):
            if not counts:
                continue
            mask_h, mask_w = (int(side) for side in self.sizes[index])
            (scale_x, scale_y), (offset_x, offset_y) = self.scales[index], self.offsets[index]
            left, top, right, bottom = self.windows[index]
            rows, to_rows = _source(height, scale_y, offset_y, mask_h, top, bottom)
            columns, to_columns = _source(width, scale_x, offset_x, mask_w, left, right)
            if len(rows) and len(columns):
                decoded = rle.decode_rle(counts, mask_h, mask_w)
                shown = decoded[rows[:, None], columns[None, :]]
                into[index, to_rows, to_columns] = shown
                drawn[index] = shown.any()
        return drawn

    def outside(self, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,) which of the ``asked`` (N,) masks lie wholly outside of their windows, such as that
        of a ring whose hole alone is left by a crop.

        An object that is too small to be drawn is not outside, nor is one whose mask is empty.
        """
        found = np.zeros(len(self.counts), np.bool_)
        for index in np.flatnonzero(asked & self.known).tolist():
            height, width = (int(side) for side in self.sizes[index])
            corners = self.windows[index].reshape(2, 2) - self.offsets[index]
            corners = corners / self.scales[index]  # of the window, xy in the mask
            left, top = np.floor(corners.min(axis=0) + _EXACT).clip(min=0).astype(int)
            right, bottom = np.ceil(corners.max(axis=0) - _EXACT).clip(min=0).astype(int)
            decoded = rle.decode_rle(self.counts[index], height, width)
            found[index] = decoded.any() and not decoded[top:bottom, left:right].any()
        return found


def _source(
    length: int, scale: float, offset: float, size: int, start: float, stop: float
) -> tuple[NDArray[np.int64], slice]:
    """Which pixels of a mask's side of ``size`` are shown along a side of ``length``, and at
    which pixels of that.
    """
    centres = np.arange(length) + 0.5
    source = np.floor((centres - offset) / scale).astype(np.int64)
    shown = np.flatnonzero((source >= 0) & (source < size) & (centres > start) & (centres < stop))
    if not len(shown):
        return np.zeros(0, np.int64), slice(0, 0)
    return source[shown], slice(int(shown[0]), int(shown[-1]) + 1)
