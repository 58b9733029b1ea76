"""Reduces the shapes of many boxes to a few weighted points (cells of a histogram), on which
anchors are searched.

Boxes and anchors are (width, height) in canvas pixels. The overlap of two shapes is their
intersection over union with a common centre.
"""

import numpy as np
from numpy.typing import NDArray

Shapes = NDArray[np.float64]
"""(N, 2): width, height."""
CHUNK = 65536
"""Number of boxes that are compared with all anchors at a time."""
MOST_EXACT = 8192
"""Up to this number of boxes, each box is a point."""
_FINE = 4096
"""Fine cells along a side, from which the edges of the cells of the histogram are computed."""


def anchor_overlaps(shapes: Shapes, anchors: Shapes) -> NDArray[np.float64]:
    """(K, N) intersection over union of each of K anchors with each of N boxes.

    0 for an anchor of size 0.
    """
    inter = np.minimum.outer(anchors[:, 0], shapes[:, 0]) * np.minimum.outer(
        anchors[:, 1], shapes[:, 1]
    )
    return np.asarray(inter / (shapes[:, 0] * shapes[:, 1] + anchors.prod(axis=1)[:, None] - inter))


def nearest_anchors(
    shapes: Shapes, anchors: Shapes
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each of N boxes the index (N,) of the anchor with the largest overlap (the first of
    equals), and that overlap (N,).
    """
    index, overlap = np.empty(len(shapes), np.int64), np.empty(len(shapes))
    for start in range(0, len(shapes), CHUNK):
        part = slice(start, start + CHUNK)
        found = anchor_overlaps(shapes[part], anchors)
        index[part] = found.argmax(axis=0)
        overlap[part] = found.max(axis=0)
    return index, overlap


class BoxShapes:
    """Box shapes with weights.

    Attributes:
        width, height: (P,) float64 canvas pixels.
        shapes: (P, 2), width and height.
        weights: (P,) float64, with the sum 1.
    """

    def __init__(self, shapes: Shapes, counts: NDArray[np.float64]) -> None:
        """Takes shapes (P, 2) and the number of boxes that each represents (P,)."""
        self.width, self.height = np.ascontiguousarray(shapes.T)
        self.shapes = np.stack([self.width, self.height]).T
        self.weights = counts / counts.sum()
        self._area = self.width * self.height

    def __len__(self) -> int:
        return len(self.weights)

    def overlaps(self, anchors: Shapes) -> NDArray[np.float64]:
        """(K, P) intersection over union of each of K anchors with each point."""
        return anchor_overlaps(self.shapes, anchors)

    def average(self, anchors: Shapes) -> float:
        """Weighted mean over the points of the overlap with the nearest anchor."""
        return float(self.overlaps(anchors).max(axis=0) @ self.weights)

    def descent(self, logs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The negative average overlap and its gradient, for a minimiser.

        With I the intersection, U the union and a the area of the nearest anchor, d(I/U)/dx = (I'
        (U + I) - I a) / U^2 for the logarithm x of one side of the anchor; I' is I where that side
        is the shorter one, else 0.

        Args:
            logs: (2 K,) natural logarithms of width and height of each anchor.

        Returns:
            The value, and (2 K,).
        """
        anchors = np.exp(logs.reshape(-1, 2))
        nearest = self.overlaps(anchors).argmax(axis=0)
        width, height = anchors[nearest, 0], anchors[nearest, 1]
        inter = np.minimum(width, self.width) * np.minimum(height, self.height)
        area = width * height
        union = self._area + area - inter
        gradient = np.empty_like(anchors)
        for side, shorter in enumerate((width < self.width, height < self.height)):
            slope = (np.where(shorter, inter, 0.0) * (union + inter) - inter * area) / (
                union * union
            )
            gradient[:, side] = np.bincount(nearest, slope * self.weights, minlength=len(anchors))
        return -float((inter / union) @ self.weights), -gradient.ravel()


def reduced_points(shapes: Shapes, cells: int) -> BoxShapes:
    """The boxes themselves if they are few, else the mean shape of each cell of a histogram.

    The edges of the cells are the mean of two grids: one with equal steps of the logarithm, one
    with equal numbers of boxes. So the histogram also resolves a dataset of which most boxes have
    nearly one size. Averages over 96 x 96 cells and over 849,902 boxes differ by about 1e-4.

    Args:
        shapes: (N, 2), all above 0.
        cells: along each side.
    """
    if len(shapes) <= MOST_EXACT:
        return BoxShapes(shapes, np.ones(len(shapes)))
    flat = _cells(np.log(shapes[:, 0]), cells) * cells + _cells(np.log(shapes[:, 1]), cells)
    counts = np.bincount(flat, minlength=cells * cells)
    used = np.flatnonzero(counts)
    sums = [np.bincount(flat, shapes[:, side], minlength=cells * cells)[used] for side in (0, 1)]
    return BoxShapes(np.stack(sums, axis=1) / counts[used, None], counts[used].astype(np.float64))


def _cells(logs: NDArray[np.float64], cells: int) -> NDArray[np.int64]:
    low = logs.min()
    fine = np.minimum((logs - low) * (_FINE / max(logs.max() - low, 1e-9)), _FINE - 1).astype(
        np.int64
    )
    share = np.cumsum(np.bincount(fine, minlength=_FINE)) / len(logs)
    even = np.arange(1, _FINE + 1) / _FINE
    return np.asarray(np.minimum((share + even) / 2 * cells, cells - 1).astype(np.int64)[fine])


def spread_anchors(points: BoxShapes, num: int, rng: np.random.Generator) -> Shapes:
    """Initial anchors (num, 2) that are far from each other (k-means++.

    Arthur and Vassilvitskii 2007).
    """
    chosen = [int(rng.choice(len(points), p=points.weights))]
    distance = 1 - points.overlaps(points.shapes[chosen])[0]
    while len(chosen) < num:
        chances = points.weights * distance**2
        total = chances.sum()
        place = (
            rng.choice(len(points), p=chances / total) if total > 0 else rng.integers(len(points))
        )
        chosen.append(int(place))
        distance = np.minimum(distance, 1 - points.overlaps(points.shapes[chosen[-1:]])[0])
    return np.asarray(points.shapes[chosen])
