"""Masks as COCO run-length encodings (RLE): the compressed ``counts`` of a mask of known size,
column by column.

Format and polygon filling are those of COCO (Lin et al. 2014,
https://cocodataset.org/#format-data).
"""

from collections.abc import Sequence

import hotcoco.mask as rle
import numpy as np
from numpy.typing import NDArray


def encode_rle(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> bytes:
    """RLE of a mask (H, W); non-zero pixels belong to the object."""
    return bytes(rle.encode(mask.astype(np.bool_))["counts"])


def encode_part(part: NDArray[np.bool_], top: int, left: int, height: int, width: int) -> bytes:
    """RLE of a mask (height, width) that is empty outside of ``part`` (h, w), whose first pixel
    lies at row ``top`` and column ``left``.

    Its cost depends on the size of the part only.
    """
    # 1 where a run of a column begins, -1 behind its end: (w, h + 1)
    steps = np.diff(np.pad(part.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    columns, rows = np.nonzero(steps)
    places = (left + columns) * height + top + rows  # begin, end, begin, end, ...
    going_on = np.flatnonzero(places[1:-1:2] == places[2::2])  # over the end of a column
    places = np.delete(places, np.concatenate([2 * going_on + 1, 2 * going_on + 2]))
    lengths = np.diff(places, prepend=0, append=height * width).tolist()
    return from_counts(lengths if lengths[-1] else lengths[:-1], height, width)


def decode_rle(counts: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Mask (height, width) uint8 of an RLE, 1 in the object; all zeros for ``b""``."""
    if not counts:
        return np.zeros((height, width), np.uint8)
    return np.ascontiguousarray(rle.decode({"size": [height, width], "counts": counts}))


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> bytes:
    """RLE of the union of polygons, each x, y, x, y, ... in pixels with at least three points."""
    parts = rle.frPyObjects([list(map(float, polygon)) for polygon in polygons], height, width)
    return bytes(rle.merge(parts)["counts"])


def from_counts(counts: Sequence[int], height: int, width: int) -> bytes:
    """RLE of plain run lengths, zeros first, column by column.

    Raises:
        ValueError: if they do not add up to height x width.
    """
    if any(count < 0 for count in counts) or sum(counts) != height * width:
        raise ValueError(f"run lengths add up to {sum(counts)}, not to {height} x {width}")
    return bytes(
        rle.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)["counts"]
    )


def from_compressed(counts: bytes, height: int, width: int) -> bytes:
    """Checks compressed run lengths of an annotation file.

    Raises:
        ValueError: if they do not fit a mask of this size.
    """
    return from_counts(_run_lengths(counts), height, width)


def _run_lengths(counts: bytes) -> list[int]:
    """Plain run lengths of an RLE: six bits per character; from the third on, differences to the
    one before last.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("not compressed run lengths")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths that are cut short")
    return lengths


def ious(
    first: Sequence[bytes], second: Sequence[bytes], height: int, width: int
) -> NDArray[np.float64]:
    """IoU (N, M) of two groups of masks of (height, width) pixels; 0 for two empty masks."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    one, other = (
        [{"size": [height, width], "counts": counts} for counts in group]
        for group in (first, second)
    )
    return np.asarray(rle.iou(one, other, [False] * len(other)), np.float64)


def area(counts: bytes, height: int, width: int) -> int:
    """Number of pixels of the object."""
    return int(rle.area({"size": [height, width], "counts": counts})) if counts else 0


def mask_box(counts: bytes, height: int, width: int) -> tuple[float, float, float, float]:
    """The xyxy box in pixels around an object; four zeros if it is empty."""
    if not counts:
        return (0.0, 0.0, 0.0, 0.0)
    x, y, box_width, box_height = (
        float(value) for value in rle.to_bbox({"size": [height, width], "counts": counts})
    )
    return (x, y, x + box_width, y + box_height)
