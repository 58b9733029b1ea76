"""Pictures that are there twice, in one data set or in two."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mtl_ray.analysis.health import Health, Identity

MAX_BITS = 12
"""Two pictures look alike if so many of 256 places differ, and none of the 64 rougher ones."""
MAX_PAIRS = 500
"""Pairs that are named; all are counted."""


@dataclass(frozen=True, slots=True)
class Same:
    """Two samples that show the same.

    Attributes:
        a, b: the data sets, by their place.
        key_a, key_b: the samples.
        how: "same file", or "looks alike".
    """

    a: int
    b: int
    key_a: str
    key_b: str
    how: str


def find_same(sets: Sequence[Health]) -> tuple[list[Same], dict[tuple[int, int, str], int]]:
    """Pairs of samples that show the same, some of them, and how many there are by (a, b, how), a at most b."""
    by_content: defaultdict[bytes, list[tuple[int, Identity]]] = defaultdict(list)
    by_look: defaultdict[bytes, list[tuple[int, Identity]]] = defaultdict(list)
    for place, health in enumerate(sets):
        for identity in health.identities:
            if identity.content is not None:
                by_content[identity.content].append((place, identity))
            if identity.look is not None:
                by_look[identity.look[0]].append((place, identity))
    groups = [("same file", group) for group in by_content.values() if len(group) > 1]
    groups += [("looks alike", part) for group in by_look.values() if len(group) > 1 for part in _alike(group)]
    found: list[Same] = []
    counts: defaultdict[tuple[int, int, str], int] = defaultdict(int)
    for how, group in groups:
        for (a, first), (b, other) in _pairs(group):
            counts[a, b, how] += 1
            if len(found) < MAX_PAIRS:
                found.append(Same(a, b, first.key, other.key, how))
    return found, dict(sorted(counts.items()))


def _alike(group: Sequence[tuple[int, Identity]]) -> Iterator[list[tuple[int, Identity]]]:
    """Those that look like the first of them and are other files, until none is left."""
    left = list(group)
    while len(left) > 1:
        first = left[0][1]
        near = [each for each in left if _differing(first, each[1]) <= MAX_BITS]
        different = list({identity.content: (place, identity) for place, identity in reversed(near)}.values())[::-1]
        if len(different) > 1:
            yield different
        left = [each for each in left if each not in near]


def _differing(one: Identity, other: Identity) -> int:
    assert one.look is not None
    assert other.look is not None
    return (int.from_bytes(one.look[1]) ^ int.from_bytes(other.look[1])).bit_count()


def _pairs(group: Sequence[tuple[int, Identity]]) -> Iterator[tuple[tuple[int, Identity], tuple[int, Identity]]]:
    """In each data set the further ones with its first one; of two data sets each of the later one with the earlier one's first."""
    firsts: dict[int, tuple[int, Identity]] = {}
    for each in group:
        yield from ((first, each) for place, first in firsts.items() if place <= each[0])
        firsts.setdefault(each[0], each)
