"""The shared state of a server's replicas, without Ray: the class of the actor itself."""

from dataclasses import replace

import pytest

from mtl_ray.distributed import serve_state
from mtl_ray.distributed.serve_state import GONE_S, MOST_ENDED, _State
from mtl_ray.inference.statistics import Statistics, read_statistics
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.keys import ApiKey
from mtl_ray.serving.metrics import added
from mtl_ray.serving.report import ReplicaReport

OLD, NEW = ServeConfig(models={"m": "/1"}), ServeConfig(models={"m": "/2"})
KEYS = {"a": ApiKey(key="x")}


class Clock:
    """In place of the module ``time``."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(serve_state, "time", made)
    return made


def report(count: float) -> ReplicaReport:
    series = 'mtl_ray_requests_total{model="m",status="200"}'
    return ReplicaReport(metrics={series: count, "mtl_ray_replicas": 1.0}, statistics={})


def sums(state: _State) -> tuple[float, float]:
    """Requests and replicas."""
    total = added(each.metrics for each in state.reports())
    return total['mtl_ray_requests_total{model="m",status="200"}'], total.get("mtl_ray_replicas", 0)


def test_replicas_get_a_new_config_once_and_say_how_it_went(clock: Clock) -> None:
    state = _State(OLD, KEYS)
    for name in ("r1", "r2"):
        assert state.meet(name, report(0), 0, "")[1] is None
    assert state.results(0) == []
    number = state.set(NEW, {})
    assert state.results(number) is None
    assert state.meet("r1", report(0), 0, "")[1] == (NEW, {}, number)
    state.meet("r1", report(0), number, "")
    assert state.results(number) is None, "the other one has not tried it"
    state.meet("r2", report(0), number, "no such file")
    assert state.results(number) == ["no such file"]
    again = state.set(OLD, KEYS)
    for name in ("r1", "r2"):
        state.meet(name, report(0), again, "")
    assert state.results(again) == []
    assert state.newest() == (OLD, KEYS, again)


def test_an_update_does_not_wait_for_a_replica_that_has_ended(clock: Clock) -> None:
    state = _State(OLD, KEYS)
    state.meet("r1", report(5), 0, "")
    number = state.set(NEW, KEYS)
    clock.now += GONE_S + 1
    state.meet("r2", report(1), number, "")
    assert state.results(number) == []


def test_counters_of_ended_replicas_remain_and_none_counts_twice(clock: Clock) -> None:
    state = _State(OLD, KEYS)
    state.meet("r1", report(5), 0, "")
    state.meet("r2", report(2), 0, "")
    assert sums(state) == (7, 2)
    clock.now += GONE_S + 1
    state.meet("r2", report(3), 0, "")
    assert sums(state) == (8, 1)
    state.meet("r1", report(6), 0, "")
    assert sums(state) == (9, 2), "it was only slow"
    for number in range(3 * MOST_ENDED):
        clock.now += GONE_S + 1
        state.meet(f"later-{number}", report(1), 0, "")
    assert sums(state) == (9 + 3 * MOST_ENDED, 1)
    assert len(state.reports()) <= MOST_ENDED + 2


def test_statistics_of_ended_replicas_remain_until_the_model_changes(clock: Clock) -> None:
    config = ServeConfig(models={"m": "/1", "n": "/1"})
    state = _State(config, KEYS)

    def counts(key: str) -> int:
        return sum(
            read_statistics(each.statistics[key]).samples
            for each in state.reports()
            if key in each.statistics
        )

    seen = Statistics(samples=3).to_json()
    for number in range(MOST_ENDED + 3):
        state.meet(f"r{number}", replace(report(1), statistics={"m": seen, "n": seen}), 0, "")
        clock.now += GONE_S + 1
    assert counts("m") == counts("n") == 3 * (MOST_ENDED + 3)
    number = state.set(replace(config, models={"m": "/2", "n": "/1"}), KEYS)
    assert (counts("m"), counts("n")) == (0, 3 * (MOST_ENDED + 3))
    state.meet("old", replace(report(1), statistics={"m": seen}), number - 1, "")
    clock.now += GONE_S + 1
    assert counts("m") == 0, "those are of the model before"
