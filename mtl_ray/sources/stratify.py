"""Stratified split of images into parts, with groups kept together.

Groups are assigned one by one, those of the rarest class first, each to the part that lacks most of
that class (iterative stratification: Sechidis, Tsoumakas, Vlahavas 2011,
https://doi.org/10.1007/978-3-642-23808-6_10). Then groups are moved or swapped while that brings
the parts closer to their shares.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_ROUNDS = 30
"""Proposed moves or swaps per group."""
_MOST_PROPOSALS = 100_000


def groups_of(*labels: Sequence[Hashable]) -> NDArray[np.int64]:
    """(N,) int64 groups from 0: images that share a value in any column are in one group,
    transitively.
    """
    parents = list(range(len(labels[0])))

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at

    for column in labels:
        first: dict[Hashable, int] = {}
        for at, label in enumerate(column):
            parents[root(at)] = root(first.setdefault(label, at))
    return np.unique([root(at) for at in range(len(parents))], return_inverse=True)[1].astype(
        np.int64
    )


def assign_parts(
    counts: NDArray[np.int64], groups: NDArray[np.int64], shares: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Assigns a part to each image.

    Args:
        counts: (N, C) objects (or pixels, or 0 and 1) of each class in each image; C may be 0.
        groups: (N,) from ``groups_of``; all images of a group get the same part.
        shares: weights of the P parts, all above 0.
        seed: another seed gives other parts.

    Returns:
        (N,) int64, from 0 to P - 1.

    Raises:
        ValueError: if there are fewer groups than parts.
    """
    num_groups = int(groups.max(initial=-1)) + 1
    if num_groups < len(shares):
        raise ValueError(f"{num_groups} groups of images are too few for {len(shares)} parts")
    random = np.random.default_rng(seed)
    table = _table(counts, groups, num_groups)
    wanted = np.array(shares, np.float64) / sum(shares)
    sizes = np.bincount(groups)
    parts = _greedy(table, wanted, _quotas(wanted, len(groups)), sizes, random)
    _improve(table, wanted, parts, random, moves=bool(sizes.min() < sizes.max()))
    _fill(parts, sizes, len(shares))
    return parts[groups]


def _fill(parts: NDArray[np.int64], sizes: NDArray[np.int64], num_parts: int) -> None:
    """Gives each empty part the smallest group of the part with the most groups."""
    for empty in set(range(num_parts)) - set(parts.tolist()):
        members = np.flatnonzero(parts == np.bincount(parts).argmax())
        parts[members[sizes[members].argmin()]] = empty


def _quotas(wanted: Floats, images: int) -> NDArray[np.int64]:
    """Number of images of each part: its share, rounded so that the sum fits, and at least 1."""
    quotas: NDArray[np.int64] = np.maximum(1, np.floor(wanted * images)).astype(np.int64)
    while quotas.sum() > images:
        quotas[np.argmax(quotas)] -= 1
    while quotas.sum() < images:
        quotas[np.argmax(wanted * images - quotas)] += 1
    return quotas


def _table(counts: NDArray[np.int64], groups: NDArray[np.int64], num_groups: int) -> Floats:
    """(G, at most 2 C + 2): objects of each class, images with it, images without any class, and
    all images of each group, as shares of the dataset. Columns of zeros are dropped.
    """
    present = (counts > 0).astype(np.float64)
    columns = np.concatenate(
        [counts, present, ~present.any(axis=1, keepdims=True), np.ones((len(counts), 1))], axis=1
    )
    table = np.zeros((num_groups, columns.shape[1]))
    np.add.at(table, groups, columns)
    totals = table.sum(axis=0)
    shares: Floats = table[:, totals > 0] / totals[totals > 0]
    return shares


def _greedy(
    table: Floats,
    wanted: Floats,
    quotas: NDArray[np.int64],
    sizes: NDArray[np.int64],
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Assigns every group to the part that lacks most of its rarest class, among the parts with
    room for it.
    """
    room = quotas.copy()
    lacking = np.repeat(wanted[:, None], table.shape[1], axis=1)
    parts = np.full(len(table), -1, np.int64)
    for column in np.argsort((table > 0).sum(axis=0), kind="stable"):
        members = np.flatnonzero((table[:, column] > 0) & (parts < 0))
        # about the largest first
        order = np.argsort(-table[members, column] * random.lognormal(0, 0.5, len(members)))
        for group in members[order]:
            fits = room >= sizes[group]
            need = np.where(fits if fits.any() else room >= room.max(), lacking[:, column], -np.inf)
            best = np.flatnonzero(need >= need.max() - 1e-12)
            best = best[lacking[best, -1] >= lacking[best, -1].max() - 1e-12]
            parts[group] = random.choice(best) if len(best) > 1 else best[0]
            lacking[parts[group]] -= table[group]
            room[parts[group]] -= sizes[group]
    return parts


def _improve(
    table: Floats,
    wanted: Floats,
    parts: NDArray[np.int64],
    random: np.random.Generator,
    *,
    moves: bool,
) -> None:
    """Swaps two random groups, or moves one, where that brings the parts closer to their shares; a
    bounded number of times.

    A class that is too rare for the smallest part has a lower weight.
    """
    num_groups, num_parts = len(table), len(wanted)
    sums = np.zeros((num_parts, table.shape[1]))
    np.add.at(sums, parts, table)
    weights = np.minimum(1, (table > 0).sum(axis=0) * wanted.min())
    weights[-1] = weights.sum()  # the number of images weighs as much as all classes together
    off, sizes = sums - wanted[:, None], np.bincount(parts, minlength=num_parts)
    for _ in range(min(_MOST_PROPOSALS, _ROUNDS * num_groups) if num_parts > 1 else 0):
        first, second = random.integers(num_groups, size=2)
        exchange = not moves or bool(random.integers(2))
        source, target = parts[first], parts[second]
        if source == target or (not exchange and sizes[source] == 1):
            continue
        change = table[first] - table[second] if exchange else table[first]
        gain = (
            weights * change * (off[source] / wanted[source] - off[target] / wanted[target])
        ).sum() * 2
        if gain <= (weights * change**2).sum() * (1 / wanted[source] + 1 / wanted[target]) + 1e-15:
            continue
        off[source] -= change
        off[target] += change
        parts[first] = target
        if exchange:
            parts[second] = source
        else:
            sizes[source] -= 1
            sizes[target] += 1
