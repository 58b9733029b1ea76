"""Finds duplicate images, within a dataset and across datasets."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.health import Health, Identity

ROUGH_BITS, FINE_BITS = 3, 24
"""Two images look alike if at most this many of the 64 and of the 256 bits of their hashes differ.
59 photographs that were saved again as JPEG of quality 30, or at half the size, did not differ by
more; the nearest different photographs differed by 13 and 73."""
_BANDS = 4
"""Parts of the coarse hash: if 3 of 64 bits differ, at least one of four parts is equal."""
MAX_PAIRS = 500
"""Most pairs that are listed; all are counted."""


@dataclass(frozen=True, slots=True)
class Same:
    """Two duplicate samples.

    Attributes:
        a, b: indices of the datasets.
        key_a, key_b: the samples.
        how: "same file", or "looks alike".
    """

    a: int
    b: int
    key_a: str
    key_b: str
    how: str


Placed = tuple[int, Identity]
"""The index of a dataset, and the hashes of a sample of it."""


def find_same(sets: Sequence[Health]) -> tuple[list[Same], dict[tuple[int, int, str], int]]:
    """At most MAX_PAIRS pairs of duplicate samples, and the number of samples of b that are also in
    a, by (a, b, how).

    A sample is paired with the first duplicate before it in each dataset up to its own. If that is
    the same file, similar images do not count.
    """
    everything = [
        (place, identity) for place, health in enumerate(sets) for identity in health.identities
    ]
    found: list[Same] = []
    counts: defaultdict[tuple[int, int, str], int] = defaultdict(int)
    known: set[tuple[int, int]] = set()
    for how, pairs in (("same file", _same_files(everything)), ("looks alike", _alike(everything))):
        for first, second in sorted(pairs, key=lambda pair: pair[::-1]):
            (a, one), (b, other) = everything[first], everything[second]
            if (a, second) not in known:
                known.add((a, second))
                counts[a, b, how] += 1
                found += [Same(a, b, one.key, other.key, how)] if len(found) < MAX_PAIRS else []
    return found, dict(sorted(counts.items()))


def _same_files(everything: Sequence[Placed]) -> Iterator[tuple[int, int]]:
    """Pairs of indices: each sample, and the first sample before it with the same content in
    each dataset.
    """
    firsts: defaultdict[bytes, dict[int, int]] = defaultdict(dict)
    for index, (place, identity) in enumerate(everything):
        if identity.content is not None:
            group = firsts[identity.content]
            yield from ((first, index) for first in group.values())
            group.setdefault(place, index)


def _alike(everything: Sequence[Placed]) -> set[tuple[int, int]]:
    """Pairs of indices, the smaller one first."""
    seen = [
        (index, identity.look)
        for index, (_, identity) in enumerate(everything)
        if identity.look is not None
    ]
    if not seen:
        return set()
    indices = np.array([index for index, _ in seen])
    rough: NDArray[np.uint8] = np.array([np.frombuffer(look[0], np.uint8) for _, look in seen])
    fine: NDArray[np.uint8] = np.array([np.frombuffer(look[1], np.uint8) for _, look in seen])
    pairs: set[tuple[int, int]] = set()
    for band in np.split(rough, _BANDS, axis=1):
        order = np.lexsort(band.T)
        borders = (
            np.flatnonzero((np.diff(band[order].astype(np.int16), axis=0) != 0).any(axis=1)) + 1
        )
        for group in np.split(order, borders):
            pairs.update(_near(indices, rough, fine, np.sort(group)))
    return pairs


def _near(
    indices: NDArray[np.int64],
    rough: NDArray[np.uint8],
    fine: NDArray[np.uint8],
    group: NDArray[np.int64],
) -> Iterator[tuple[int, int]]:
    for number, one in enumerate(group[:-1].tolist()):
        others = group[number + 1 :]
        near = np.bitwise_count(rough[others] ^ rough[one]).sum(axis=1) <= ROUGH_BITS
        near &= np.bitwise_count(fine[others] ^ fine[one]).sum(axis=1) <= FINE_BITS
        yield from ((int(indices[one]), int(indices[other])) for other in others[near].tolist())
