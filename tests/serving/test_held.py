"""The requests held, on average over time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.serving.held import ALONE_S, Held


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_short_requests_count_by_their_time() -> None:
    clock = Clock()
    held = Held(clock)
    for _ in range(100):  # 2 ms of every 10
        held.count += 1
        clock.now += 0.002
        held.count -= 1
        clock.now += 0.008
    assert held.count == 0
    assert held.mean() == pytest.approx(0.2)
    clock.now += 5
    assert held.mean() == 0, "since the last call"


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0.001, 100)), min_size=1))
def test_the_mean_is_the_integral_over_the_time(steps: list[tuple[int, float]]) -> None:
    clock = Clock()
    held = Held(clock)
    for count, seconds in steps:
        held.count = count
        clock.now += seconds
    expected = sum(count * seconds for count, seconds in steps) / sum(each for _, each in steps)
    assert held.mean() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_without_time_the_mean_is_the_number_now() -> None:
    held = Held(Clock())
    held.count = 3
    assert held.mean() == 3


def test_a_request_is_alone_when_none_has_met_another_for_a_while() -> None:
    clock = Clock()
    held = Held(clock)
    held.count = 1
    assert held.alone(stated=True)
    assert not held.alone(stated=False), "another was at the proxy"
    clock.now += ALONE_S
    assert not held.alone(stated=True)
    clock.now += 0.001
    assert held.alone(stated=True)
    held.count = 2
    assert not held.alone(stated=True), "another is here, such as one by gRPC"
    held.count = 1
    assert not held.alone(stated=True)
