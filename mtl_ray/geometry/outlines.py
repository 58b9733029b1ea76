"""Converts masks to polygons along pixel edges; COCO's polygon filling gives the same mask again.

Corners lie between pixels, at integers. Filling follows the even-odd rule, so one ring can hold
several parts and holes: it goes to the next loop and back along the same line, which has no area.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Loop = list[tuple[int, int]]
"""Corners (x, y) of a closed line."""


def polygons_of(mask: NDArray[np.uint8]) -> list[list[int]]:
    """Polygons x, y, x, y, ... whose union is a mask (H, W): one per part, or a single ring if
    there is a hole.
    """
    loops = list(_loops(mask))
    if any(_doubled_area(loop) < 0 for loop in loops):
        return [ring_of(mask)]
    return [_flat(loop) for loop in loops]


def ring_of(mask: NDArray[np.uint8]) -> list[int]:
    """One polygon x, y, x, y, ... that gives a mask (H, W) by the even-odd rule; empty for an
    empty mask.
    """
    loops = list(_loops(mask))
    ring: Loop = []
    for loop in loops:
        ring += [*loop, loop[0]]
    ring += [loop[0] for loop in reversed(loops[:-1])] if len(loops) > 1 else []
    return _flat(ring if len(loops) > 1 else ring[:-1])


def _flat(loop: Loop) -> list[int]:
    return [value for corner in loop for value in corner]


def _doubled_area(loop: Loop) -> int:
    """Twice the area inside, negative for a hole."""
    return sum(
        x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(loop, loop[1:] + loop[:1], strict=True)
    )


def _loops(mask: NDArray[np.uint8]) -> Iterator[Loop]:
    """The closed lines around and inside the object, with the object to their right, corners
    only.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return
    top, left = int(rows[0]), int(columns[0])  # the object covers a small part of most images
    for loop in _walks(_edges(mask[top : rows[-1] + 1, left : columns[-1] + 1])):
        yield [(x + left, y + top) for x, y in loop]


def _walks(following: dict[tuple[int, int], list[tuple[int, int]]]) -> Iterator[Loop]:
    """The closed lines of edges; removes the edges from ``following``."""
    while following:
        start = next(iter(following))
        loop: Loop = []
        at, heading = start, (0, 0)
        while at in following:
            after = _take(following, at, heading)
            step = (after[0] - at[0], after[1] - at[1])
            direction = (int(np.sign(step[0])), int(np.sign(step[1])))
            if direction != heading:
                loop.append(at)
            at, heading = after, direction
            if at == start:
                break
        yield loop[1:] if len(loop) > 1 and _straight(loop) else loop


def _straight(loop: Loop) -> bool:
    """Whether the first point of a loop lies on a straight line, so that it is not a corner."""
    (x0, y0), (x1, y1), (x2, y2) = loop[-1], loop[0], loop[1]
    return x0 == x1 == x2 or y0 == y1 == y2


def _take(
    following: dict[tuple[int, int], list[tuple[int, int]]],
    at: tuple[int, int],
    heading: tuple[int, int],
) -> tuple[int, int]:
    """The end of the next edge at a corner; if two pixels touch there, the edge that turns
    right.
    """
    ends = following[at]
    right = (-heading[1], heading[0])
    chosen = next(
        (end for end in ends if ((end[0] - at[0]) * right[0] + (end[1] - at[1]) * right[1]) > 0),
        ends[0],
    )
    ends.remove(chosen)
    if not ends:
        del following[at]
    return chosen


def _edges(mask: NDArray[np.uint8]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Ends of the outer pixel edges by their starts; a run in a row or column is one edge."""
    inside = np.pad(mask != 0, 1)
    down = (
        inside[1:, 1:-1].astype(np.int8) - inside[:-1, 1:-1]
    )  # (H + 1, W): 1 where the object begins below a line
    over = (
        inside[1:-1, 1:].astype(np.int8) - inside[1:-1, :-1]
    ).T  # (W + 1, H): 1 where it begins to the right
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for lines, upright in ((down, False), (over, True)):
        for line, first, last, begins in _runs(lines):
            forward = begins != upright
            start, end = (first, last) if forward else (last, first)
            one, other = ((line, start), (line, end)) if upright else ((start, line), (end, line))
            following.setdefault(one, []).append(other)
    return following


def _runs(lines: NDArray[np.int8]) -> Iterator[tuple[int, int, int, bool]]:
    """Line, start, stop of each run of equal non-zero values, and whether the value is 1."""
    padded = np.pad(lines, ((0, 0), (1, 1)))
    changes = np.argwhere(np.diff(padded, axis=1) != 0)
    for (line, first), (same, last) in zip(
        changes[:-1].tolist(), changes[1:].tolist(), strict=True
    ):
        if line == same and (value := padded[line, first + 1]):
            yield line, first, last, bool(value == 1)
