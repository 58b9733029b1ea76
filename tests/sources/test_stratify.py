"""Sharing out: right numbers, the same share of every class, groups whole, and another seed
another result.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.sources.stratify import assign_parts, groups_of


def one_hot(*numbers: int) -> np.ndarray:
    """Images of one class each: so many of each class."""
    return np.eye(len(numbers), dtype=np.int64)[np.repeat(np.arange(len(numbers)), numbers)]


@pytest.mark.parametrize("seed", range(3))
def test_every_class_is_shared_out(seed: int) -> None:
    counts = one_hot(100, 50, 10)
    parts = assign_parts(counts, np.arange(160), [0.8, 0.1, 0.1], seed)
    assert [np.bincount(parts[counts[:, kind] > 0], minlength=3).tolist() for kind in range(3)] == [
        [80, 10, 10],
        [40, 5, 5],
        [8, 1, 1],
    ]


def test_objects_are_shared_out_better_than_by_chance() -> None:
    random = np.random.default_rng(0)
    counts = random.poisson(random.uniform(0.5, 3, 12), (400, 12)) * random.integers(
        0, 2, (400, 12)
    )
    wanted = np.array([0.7, 0.2, 0.1])

    def off(parts: np.ndarray) -> float:
        shares = np.array([counts[parts == part].sum(axis=0) for part in range(3)]) / counts.sum(
            axis=0
        )
        return float(np.abs(shares - wanted[:, None]).max())

    ours = assign_parts(counts, np.arange(400), wanted.tolist(), 0)
    chance = [
        off(np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], [280, 80, 40])))
        for seed in range(20)
    ]
    assert np.bincount(ours).tolist() == [280, 80, 40]
    assert off(ours) < min(chance) / 2


def test_seeds() -> None:
    counts = np.random.default_rng(0).integers(0, 4, (60, 5))
    first, again, other = (assign_parts(counts, np.arange(60), [3, 1], seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 5)), min_size=3, max_size=60
    ),
    st.lists(st.floats(0.1, 1), min_size=2, max_size=3),
    st.integers(0, 9),
)
def test_groups_stay_whole_and_no_part_is_empty(
    rows: list[tuple[int, int, int]], shares: list[float], seed: int
) -> None:
    groups = groups_of([group for group, _, _ in rows])
    counts = np.array([(one, other) for _, one, other in rows])
    if groups.max() + 1 < len(shares):
        with pytest.raises(ValueError, match="are too few"):
            assign_parts(counts, groups, shares, seed)
        return
    parts = assign_parts(counts, groups, shares, seed)
    assert all(len(set(parts[groups == group])) == 1 for group in range(groups.max() + 1))
    assert set(parts.tolist()) == set(range(len(shares)))


def test_numbers_of_groups_of_unlike_sizes() -> None:
    groups = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 30, 40))
    parts = assign_parts(np.zeros((len(groups), 0), np.int64), groups, [0.6, 0.4], 0)
    assert abs((parts == 0).mean() - 0.6) < 0.02


def test_chains_of_what_belongs_together() -> None:
    assert groups_of(["a", "b", "a", "c", "d"], [1, 2, 3, 2, 4]).tolist() == [0, 1, 0, 1, 2]
