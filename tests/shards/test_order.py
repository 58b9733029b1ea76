"""The order of samples, for any shards: exact epochs, any number of ranks, any place to resume;
and bugs that these tests must see.
"""

import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mtl_ray.annotations.labels import LABELS, LabelsKind
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.shards import order as order_module
from mtl_ray.shards import sequence as sequence_module
from mtl_ray.shards.mix import PATTERN_SLOTS, Mix, balanced_copies
from mtl_ray.shards.order import Order, permutation
from mtl_ray.shards.sequence import Addresses, Sequence


@dataclass
class FakeManifest:
    num_bytes: int = 0
    shuffled: bool = True
    digest: str = "d"


@dataclass
class FakeSplit:
    """What a Sequence asks of a Split."""

    rows: list[int]
    labels: list[list[int]] = field(default_factory=list)
    names: tuple[str, ...] = ("a", "b", "c", "d")
    uri: str = "fake"
    manifest: FakeManifest = field(default_factory=FakeManifest)

    @property
    def block_rows(self) -> NDArray[np.int64]:
        return np.array(self.rows, np.int64)

    @property
    def num_samples(self) -> int:
        return sum(self.rows)

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(classes={"labels": self.names})

    @property
    def annotations(self) -> dict[str, LabelsKind]:
        return {"labels": LABELS}

    def scan_classes(self, annotation: Annotation) -> Iterator[NDArray[np.int64]]:
        assert annotation == "labels"
        return (np.array(row, np.int64) for row in self.labels)


def sequence(*splits: FakeSplit, batch: int, **options: object) -> Sequence:
    return Sequence(splits, batch=batch, **options)  # type: ignore[arg-type]


def rows_of(found: Addresses) -> list[tuple[int, int, int]]:
    return list(zip(found.source.tolist(), found.block.tolist(), found.row.tolist(), strict=True))


def everything(found: Addresses) -> list[tuple[int, ...]]:
    return [
        (*row, *place)
        for row, *place in zip(
            rows_of(found), found.lane.tolist(), found.position.tolist(), strict=True
        )
    ]


ROWS = st.lists(st.integers(1, 9), min_size=1, max_size=12)
SHAPES = st.tuples(st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 3)).map(
    lambda shape: (shape[0], shape[0] * shape[1])
)
WINDOWS = st.none() | st.integers(1, 5)


def check_epochs(rows: list[int], lanes: int, batch: int, window: int | None, seed: int) -> None:
    """At every step boundary, each sample was seen equally often, give or take one."""
    made = sequence(FakeSplit(rows), batch=batch, seed=seed, lanes=lanes, window=window)
    total = sum(rows)
    seen = {(0, block, row): 0 for block, size in enumerate(rows) for row in range(size)}
    for step in range(4 * total // batch + 2):
        for where in rows_of(made.addresses(step * batch, 0, 1, batch)):
            seen[where] += 1
        consumed = (step + 1) * batch
        assert set(seen.values()) <= {consumed // total, consumed // total + 1}
        assert sum(seen.values()) == consumed


def check_ranks(
    rows: list[int], lanes: int, batch: int, window: int | None, seed: int, ranks: list[int]
) -> None:
    """The ranks' shares one after the other are the global batch, however many there are, and
    from wherever one starts.
    """
    for step, world_size in enumerate(ranks):
        whole = sequence(
            FakeSplit(rows), batch=batch, seed=seed, lanes=lanes, window=window
        ).addresses(step * batch, 0, 1, batch)
        resumed = sequence(FakeSplit(rows), batch=batch, seed=seed, lanes=lanes, window=window)
        shares = [
            resumed.addresses(step * batch, rank, world_size, batch) for rank in range(world_size)
        ]
        assert list(chain.from_iterable(map(everything, shares))) == everything(whole)
        assert all(len(share) >= batch // lanes for share in shares)


@settings(max_examples=120, deadline=None)
@given(rows=ROWS, shape=SHAPES, window=WINDOWS, seed=st.integers(-(2**63), 2**63 - 1))
def test_every_epoch_is_a_permutation(
    rows: list[int], shape: tuple[int, int], window: int | None, seed: int
) -> None:
    check_epochs(rows, *shape, window, seed)


@settings(max_examples=80, deadline=None)
@given(rows=ROWS, shape=SHAPES, window=WINDOWS, seed=st.integers(0, 99), data=st.data())
def test_any_number_of_ranks_at_any_step(
    rows: list[int], shape: tuple[int, int], window: int | None, seed: int, data: st.DataObject
) -> None:
    check_ranks(
        rows,
        *shape,
        window,
        seed,
        data.draw(st.lists(st.integers(1, shape[0]), min_size=1, max_size=6)),
    )


BUGS = {
    "a window runs on into the next lane": (
        "np.minimum(epoch.ends[last], epoch.lanes[lane + 1])",
        "epoch.ends[last]",
    ),
    "a window begins before its lane": (
        "epoch.ends[first] - self._rows[epoch.units[first]], epoch.lanes[lane]",
        "epoch.ends[first] - self._rows[epoch.units[first]], 0",
    ),
    "lanes enter an epoch at the same place": (
        "position - (number * self.num_rows + lane) // self._lanes",
        "position - number * self.num_rows // self._lanes",
    ),
    "lanes change epoch at another place": (
        "+ self._lanes - 1 - lane) // self.num_rows",
        "+ lane) // self.num_rows",
    ),
    "windows overlap": ("window * self._window - phase", "window * self._window"),
    "blocks are drawn, not permuted": (
        "permutation(len(self._rows), key_of(self._key, number))",
        "np.random.default_rng(number).integers(0, len(self._rows), len(self._rows))",
    ),
    "rows are drawn, not permuted": (
        "permutation(size, key_of(self._key, *key))",
        "np.random.default_rng(0).integers(0, size, size)",
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = BUGS[name]
    source = inspect.getsource(order_module)
    assert source.count(right) == 1
    planted = {"__name__": order_module.__name__}
    exec(source.replace(right, wrong), planted)
    monkeypatch.setattr(sequence_module, "Order", planted["Order"])
    with pytest.raises((AssertionError, IndexError, KeyError)):
        check_epochs([5, 7, 3, 10], 4, 8, 2, 1)


def test_a_rank_that_takes_other_lanes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = (
        "(rank + 1) * self.lanes // world_size",
        "rank * self.lanes // world_size + self.lanes // world_size",
    )
    source = inspect.getsource(sequence_module)
    assert source.count(right) == 1
    planted = {"__name__": sequence_module.__name__}
    exec(source.replace(right, wrong), planted)
    check_ranks([5, 7, 3], 8, 16, 2, 1, [3])
    monkeypatch.setattr(Sequence, "addresses", planted["Sequence"].addresses)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        check_ranks([5, 7, 3], 8, 16, 2, 1, [3])


def test_the_batch_may_change_at_fixed_lanes() -> None:
    made = sequence(FakeSplit([5, 7, 9]), batch=8, lanes=4, window=2)
    steps = [8, 4, 12, 4, 20]
    starts = np.cumsum([0, *steps[:-1]])
    found = [
        everything(made.addresses(int(start), 0, 1, size))
        for start, size in zip(starts, steps, strict=True)
    ]
    whole = everything(made.addresses(0, 0, 1, sum(steps)))
    assert sorted(chain(*found)) == sorted(whole)
    assert len(set(chain(*found))) == sum(steps)


def test_the_order_is_the_same_on_every_machine_and_in_every_version() -> None:
    """A change of this value is a change of the order: checkpoints would go on with other
    samples.
    """
    assert permutation(8, 1).tolist() == [2, 4, 6, 3, 0, 1, 7, 5]
    made = sequence(FakeSplit([5, 7, 3, 9, 4]), batch=8, seed=7, lanes=4, window=2)
    found = np.array(
        [everything(made.addresses(step * 8, 0, 1, 8)) for step in range(20)], np.int64
    )
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == "1711d492c51c2615"


def test_splitmix64_is_the_published_generator() -> None:
    """The first outputs for the seed 1234567, whose states are the seed and multiples of the
    golden ratio's fraction.
    """
    states = np.uint64(1234567) + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert order_module.splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_seeds_and_epochs_differ() -> None:
    def first(seed: int, cursor: int) -> list[tuple[int, int, int]]:
        return rows_of(sequence(FakeSplit([64]), batch=64, seed=seed).addresses(cursor, 0, 1, 64))

    assert len({tuple(first(seed, cursor)) for seed in range(3) for cursor in (0, 64, 128)}) == 9


def test_blocks_are_read_about_once_an_epoch() -> None:
    """At most one block more for each cut between lanes, and within a lane one window after the
    other.
    """
    rows, lanes, window = [7] * 40, 4, 3
    made = sequence(FakeSplit(rows), batch=lanes, lanes=lanes, window=window)
    visits = 0
    for lane in range(lanes):
        blocks = [
            int(made.addresses(cursor, lane, lanes, lanes).block[0])
            for cursor in range(0, sum(rows), lanes)
        ]
        first, last = (
            {block: index for index, block in each}
            for each in (list(enumerate(blocks))[::-1], enumerate(blocks))
        )
        visits += len(first)
        assert max(last[block] - first[block] for block in first) < window * 7
    assert visits <= 40 + lanes - 1


def test_windows_mix_what_lies_together() -> None:
    """On rows sorted by class, batches come nearer to the mix of a permutation the wider the
    windows are.
    """

    def variance(window: int | None) -> float:
        made = sequence(FakeSplit([50] * 200), batch=100, lanes=10, window=window)
        classes = [made.addresses(step * 100, 0, 1, 100).block // 2 for step in range(100)]
        return float(np.var([np.bincount(each, minlength=100) for each in classes], axis=0).mean())

    narrow, wide, exact = variance(1), variance(16), variance(None)
    assert narrow > 2 * wide
    assert wide < 1.5 * exact


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, shape=SHAPES, window=WINDOWS, seed=st.integers(0, 99), ranks=st.integers(1, 8))
def test_partners_cost_no_further_read(
    rows: list[int], shape: tuple[int, int], window: int | None, seed: int, ranks: int
) -> None:
    lanes, batch = shape
    made = sequence(FakeSplit(rows), batch=batch, seed=seed, lanes=lanes, window=window)
    whole = made.addresses(0, 0, 1, batch)
    partners = [rows_of(each) for each in made.partners(whole, 3)]
    for lane in range(lanes):
        length = (sum(rows) + lane) // lanes
        stretch = [
            rows_of(made.addresses(cursor * lanes, 0, 1, lanes))[lane] for cursor in range(length)
        ]
        for index in np.flatnonzero((whole.lane == lane) & (whole.position < length)):
            assert {each[index] for each in partners} <= set(stretch)
            if window is not None:
                position = int(whole.position[index])
                assert all(
                    abs(stretch.index(each[index]) - position) < window * max(rows)
                    for each in partners
                )
    world_size = min(ranks, lanes)
    shares = [made.addresses(0, rank, world_size, batch) for rank in range(world_size)]
    assert [
        list(chain(*(rows_of(made.partners(share, 3)[each]) for share in shares)))
        for each in range(3)
    ] == partners


def test_partners_vary_and_are_others() -> None:
    made = sequence(FakeSplit([256]), batch=64, lanes=4)
    whole = made.addresses(0, 0, 1, 64)
    one, other = (rows_of(each) for each in made.partners(whole, 2))
    assert all(a != b for a, b in zip(one, rows_of(whole), strict=True))
    assert len(set(one)) > 32
    assert one != other


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(ROWS, min_size=2, max_size=3),
    shape=SHAPES,
    window=WINDOWS,
    repeat=st.integers(1, 3),
)
def test_splits_are_joined_and_repeated(
    rows: list[list[int]], shape: tuple[int, int], window: int | None, repeat: int
) -> None:
    lanes, batch = shape
    made = sequence(
        *(FakeSplit(each) for each in rows), batch=batch, lanes=lanes, window=window, repeat=repeat
    )
    total = sum(map(sum, rows))
    assert made.samples_per_epoch == total * repeat
    steps = total * repeat // lanes
    seen = list(
        chain(*(rows_of(made.addresses(step * lanes, 0, 1, lanes)) for step in range(steps)))
    )
    stored = [
        (source, block, row)
        for source, blocks in enumerate(rows)
        for block, size in enumerate(blocks)
        for row in range(size)
    ]
    missing = [repeat - seen.count(where) for where in stored]
    assert min(missing) >= 0
    assert sum(missing) == total * repeat - steps * lanes < lanes


LABELLED = st.lists(st.lists(st.integers(0, 3), max_size=2, unique=True), min_size=1, max_size=30)


@settings(max_examples=80, deadline=None)
@given(labels=LABELLED, threshold=st.floats(0.01, 1), window=WINDOWS, block=st.integers(1, 9))
def test_rare_classes_are_seen_more_often(
    labels: list[list[int]], threshold: float, window: int | None, block: int
) -> None:
    rows = [len(labels[start : start + block]) for start in range(0, len(labels), block)]
    split = FakeSplit(rows, labels)
    share = [sum(index in row for row in labels) / len(labels) for index in range(4)]
    factors = [max([1.0, *(np.sqrt(threshold / share[index]) for index in row)]) for row in labels]
    copies = balanced_copies([split], threshold)  # type: ignore[list-item]
    assert copies.min() >= 1
    assert np.abs(copies - factors).max() < 1 + 1 / 256
    assert abs(copies.sum() - sum(factors)) <= 1 + len(labels) / 256
    made = sequence(split, batch=1, lanes=1, window=window, balanced=threshold)
    assert made.samples_per_epoch == copies.sum()
    epoch = [
        rows_of(made.addresses(cursor, 0, 1, 1))[0] for cursor in range(made.samples_per_epoch)
    ]
    stored = [(0, at // block, at % block) for at in range(len(labels))]
    assert [epoch.count(where) for where in stored] == copies.tolist()


def test_balance_goes_by_name_over_all_splits() -> None:
    one = FakeSplit([8], [[0]] * 8, names=("common", "x", "y", "rare"))
    other = FakeSplit([8], [[1]] * 7 + [[0]], names=("rare", "common"))
    copies = balanced_copies([one, other], 0.5)  # type: ignore[list-item]
    assert copies[:15].tolist() == [1] * 15
    assert copies[15] in (2, 3)  # sqrt(0.5 / (1 / 16)) is 2.83


def test_balance_needs_labels_in_common() -> None:
    class Unlabelled(FakeSplit):
        @property
        def vocabulary(self) -> Vocabulary:
            return Vocabulary(classes={"semantic": ("a",)})

    with pytest.raises(ValueError, match="have none in common"):
        sequence(FakeSplit([3], [[0]] * 3), Unlabelled([3]), batch=1, balanced=0.1)


@settings(max_examples=40, deadline=None)
@given(
    weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=4),
    lanes=st.sampled_from([1, 3, 8, 64]),
)
def test_mixes_are_even_and_count_every_source(weights: list[float], lanes: int) -> None:
    mix = Mix(weights, lanes)
    shares = np.bincount(mix.pattern, minlength=len(weights)) / PATTERN_SLOTS
    assert shares == pytest.approx(
        np.array(weights) / sum(weights), abs=len(weights) / PATTERN_SLOTS
    )
    for start in (0, 100, PATTERN_SLOTS):
        places = np.arange(start, start + PATTERN_SLOTS)
        for lane in (0, lanes - 1):
            source, taken = mix.sources(np.full(len(places), lane), places)
            for each in range(len(weights)):
                found = taken[source == each]
                assert (np.diff(found) == 1).all()
                assert np.abs(
                    np.cumsum(source == each) - shares[each] * np.arange(1, len(places) + 1)
                ).max() < max(2, len(weights))
    assert all(mix.sources(np.array([lane]), np.array([0]))[1] == 0 for lane in range(lanes))


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(ROWS, min_size=2, max_size=3), shape=SHAPES, window=WINDOWS, data=st.data())
def test_each_source_of_a_mix_is_exact_lane_by_lane(
    rows: list[list[int]], shape: tuple[int, int], window: int | None, data: st.DataObject
) -> None:
    lanes, batch = shape
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(rows), max_size=len(rows)))
    made = sequence(
        *(FakeSplit(each) for each in rows),
        batch=batch,
        lanes=lanes,
        window=window,
        weights=weights,
    )
    seen = [rows_of(made.addresses(step * lanes, 0, 1, lanes)) for step in range(200)]
    for source, blocks in enumerate(rows):
        total = sum(blocks)
        alone = Order(
            np.array(blocks, np.int64),
            key=order_module.key_of(0, source),
            lanes=lanes,
            window=window or 0,
        )
        counts = {
            where: sum(where == each for step in seen for each in step)
            for where in {
                (source, block, row) for block, size in enumerate(blocks) for row in range(size)
            }
        }
        assert alone.num_rows == total
        assert max(counts.values()) - min(counts.values()) <= 2 + 2 * lanes // total


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(1, 1), (7, 7), (16, 16), (64, 64), (128, 64), (100, 50), (97, 1), (96, 48)],
)
def test_lanes_are_the_largest_divisor_up_to_64(batch: int, expected: int) -> None:
    assert sequence(FakeSplit([4]), batch=batch).lanes == expected


def test_windows_by_size_and_shuffling(caplog: pytest.LogCaptureFixture) -> None:
    def window(num_bytes: int, shuffled: bool, **options: int) -> object:
        return sequence(
            FakeSplit([4], manifest=FakeManifest(num_bytes, shuffled)), batch=512, **options
        ).pins["window"]

    assert window(2 << 30, True) == 0
    assert window((2 << 30) + 1, True) == 4
    assert window(0, True, window=3) == 3
    assert not caplog.records
    assert window((2 << 30) + 1, False) == 16
    assert "not shuffled at conversion" in caplog.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"splits": [FakeSplit([])]}, "there are no samples in fake"),
        ({"lanes": 3}, "batch 8 is not a multiple of data.lanes 3"),
        ({"weights": (1.0, 2.0)}, "there are 2 weights for 1 splits"),
        ({"weights": (-1.0,)}, "weights must be positive"),
    ],
)
def test_what_does_not_fit_is_told(options: dict[str, object], sentence: str) -> None:
    splits = options.pop("splits", [FakeSplit([4])])
    with pytest.raises(ValueError, match=sentence):
        sequence(*splits, batch=8, **options)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((3, 0, 1, 8), "must be multiples of the number of lanes, 8"),
        ((8, 0, 1, 4), "must be multiples of the number of lanes, 8"),
        ((8, 0, 9, 8), "at most 8 workers can share a batch"),
        ((8, 2, 2, 8), "rank 2 of 2"),
    ],
)
def test_wrong_places_are_told(arguments: tuple[int, int, int, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sequence(FakeSplit([4]), batch=8).addresses(*arguments)


def test_pins_tell_orders_apart() -> None:
    assert sequence(FakeSplit([4]), batch=8, seed=3, repeat=2).pins == {
        "manifests": ["d"],
        "seed": 3,
        "lanes": 8,
        "window": 0,
        "repeat": 2,
        "balanced": None,
        "weights": None,
    }
