"""What the replicas of a server share: the newest config, and the counts of all of them.

A small actor holds it. Each replica asks it every second (``ReplicaMember``): it hands in its
counts, and gets the config if that is new. So a replica that starts later has the newest config
too, and ``/metrics`` of any replica shows the counts of all.
"""

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from mtl_ray.serving.app import App
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.keys import ApiKey
from mtl_ray.serving.metrics import added, counters_of
from mtl_ray.serving.report import ReplicaReport, joined

POLL_S = 1.0
GONE_S = 8.0
"""A replica that has not asked for so long has ended; its counters remain."""
ANSWER_S = 30.0
MOST_ENDED, JOINED = 64, ""
NAME = "mtl_ray_serve_state"
_log = logging.getLogger(__name__)
Newest = tuple[ServeConfig, Mapping[str, ApiKey], int]
"""A config, its keys, and the number of the update."""


class _State:
    """The actor."""

    def __init__(self, config: ServeConfig, keys: Mapping[str, ApiKey]) -> None:
        self._config, self._keys, self._number = config, keys, 0
        self._reports: dict[str, tuple[float, ReplicaReport]] = {}
        self._results: dict[str, tuple[int, str]] = {}
        self._ended: dict[str, ReplicaReport] = {}

    def set(self, config: ServeConfig, keys: Mapping[str, ApiKey]) -> int:
        """A new config. Returns its number."""
        kept = _unchanged(self._config, config)
        self._ended = {name: _only(each, kept) for name, each in self._ended.items()}
        self._config, self._keys, self._number = config, keys, self._number + 1
        return self._number

    def newest(self) -> Newest:
        return self._config, self._keys, self._number

    def meet(
        self, replica: str, report: ReplicaReport, number: int, failure: str
    ) -> tuple[list[ReplicaReport], Newest | None]:
        """A replica hands in its report, the number of its config, and why it could not take it.

        Returns:
            The reports of all replicas, and the newest config if the replica has an older one.
        """
        self._reports[replica] = (time.monotonic(), report)
        self._results[replica] = (number, failure)
        self._ended.pop(replica, None)  # it was only slow
        return self.reports(), None if number == self._number else self.newest()

    def reports(self) -> list[ReplicaReport]:
        """The newest report of each replica, and one of those that have ended."""
        now = time.monotonic()
        for name, (then, last) in list(self._reports.items()):
            if now - then > GONE_S:
                number, _ = self._results[name]
                del self._reports[name], self._results[name]
                self._end(name, last if number == self._number else _only(last, ()))
        return [*(each for _, each in self._reports.values()), *self._ended.values()]

    def _end(self, name: str, last: ReplicaReport) -> None:
        """Keeps the counters and statistics of a replica that has ended; those of the oldest ones
        are joined.
        """
        self._ended[name] = replace(last, metrics=counters_of(last.metrics))
        if len(self._ended) > MOST_ENDED:
            oldest = [self._ended.pop(each) for each in list(self._ended)[:2]]
            self._ended = {JOINED: joined(oldest), **self._ended}

    def results(self, number: int) -> list[str] | None:
        """What went wrong with an update; None until each replica has tried it."""
        now = time.monotonic()
        living = [name for name, (then, _) in self._reports.items() if now - then <= GONE_S]
        if any(self._results[name][0] < number for name in living):
            return None
        return [failure for name in living if (failure := self._results[name][1])]


def _unchanged(before: ServeConfig, after: ServeConfig) -> set[str]:
    """The keys behind which both configs have the same."""
    bundles = after.bundles()
    kept = {key for key, bundle in before.bundles().items() if bundles.get(key) == bundle}
    if before.models == after.models:
        kept |= {key for key, it in before.pipelines.items() if after.pipelines.get(key) == it}
    return kept


def _only(report: ReplicaReport, keys: Collection[str]) -> ReplicaReport:
    """A report with the statistics of these predictors alone."""
    statistics = {key: each for key, each in report.statistics.items() if key in keys}
    return replace(report, statistics=statistics)


class ServeState:
    """A handle of the actor; it can be sent to other processes."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def start(
        cls, config: ServeConfig, keys: Mapping[str, ApiKey], detached: bool = False
    ) -> "ServeState":
        """Starts the actor.

        Args:
            config: of the server.
            keys: of the server.
            detached: it stays after the process that starts it. If one with models of the same
                names runs already, that one gets the config.
        """
        kind = ray.remote(_State)
        if not detached:
            return cls(kind.options(num_cpus=0).remote(config, keys))
        names = ",".join(sorted((*config.models, *config.pipelines)))
        actor = kind.options(
            num_cpus=0,
            name=f"{NAME}-{hashlib.sha256(names.encode()).hexdigest()[:16]}",
            namespace=NAME,
            lifetime="detached",
            get_if_exists=True,
        ).remote(config, keys)
        ray.get(actor.set.remote(config, keys))
        return cls(actor)

    def newest(self) -> Newest:
        """The config that holds now."""
        found: Newest = _result(self._actor.newest.remote())
        return found

    def update(
        self, config: ServeConfig, keys: Mapping[str, ApiKey], at_most_s: float
    ) -> list[str]:
        """Gives all replicas a config, and waits for them. Returns what went wrong."""
        number = ray.get(self._actor.set.remote(config, keys))
        give_up = time.monotonic() + at_most_s
        while (failures := ray.get(self._actor.results.remote(number))) is None:
            if time.monotonic() > give_up:
                return [f"a replica has not answered within {at_most_s:g} s"]
            time.sleep(POLL_S / 4)
        found: list[str] = failures
        return found

    def counts(self) -> dict[str, float]:
        """The newest metrics, added over all replicas."""
        reports: list[ReplicaReport] = ray.get(self._actor.reports.remote())
        return added(each.metrics for each in reports)

    def meet(
        self, replica: str, report: ReplicaReport, number: int, failure: str
    ) -> tuple[list[ReplicaReport], Newest | None]:
        """See ``_State.meet``."""
        found: tuple[list[ReplicaReport], Newest | None] = _result(
            self._actor.meet.remote(replica, report, number, failure)
        )
        return found


def _result(reference: Any) -> Any:
    """As ``ray.get``, which prints a warning in a replica, whatever the thread."""
    return reference.future().result(ANSWER_S)


class ReplicaMember:
    """The side of a replica.

    Args:
        state: of the server.
        number: of the config with which the replica starts.
    """

    def __init__(self, state: ServeState, number: int) -> None:
        self._state = state
        self._name = uuid.uuid4().hex
        self._number, self._failure = number, ""
        self._taking = False

    def exchange(self, report: ReplicaReport) -> Sequence[ReplicaReport]:
        """The reports of all replicas; see ``Exchange``."""
        return self._state.meet(self._name, report, self._number, self._failure)[0]

    def follow(self, app: App, parallel_of: Callable[[ServeConfig], int]) -> None:
        """Hands in reports and takes new configs, in a thread, as long as the process runs."""
        threading.Thread(
            target=self._follow, args=(app, parallel_of), name="serve-state", daemon=True
        ).start()

    def _follow(self, app: App, parallel_of: Callable[[ServeConfig], int]) -> None:
        while True:
            try:
                reports, newest = self._state.meet(
                    self._name, app.report(), self._number, self._failure
                )
            except Exception:  # the actor has ended, and Serve ends this process soon
                _log.debug("the state of the server does not answer", exc_info=True)
                time.sleep(POLL_S)
                continue
            app.limits.gate.replicas = max(
                1, round(added(each.metrics for each in reports).get("mtl_ray_replicas", 1))
            )
            if newest is not None and not self._taking:
                self._taking = True
                threading.Thread(
                    target=self._take, args=(app, newest, parallel_of), daemon=True
                ).start()
            time.sleep(POLL_S)

    def _take(self, app: App, newest: Newest, parallel_of: Callable[[ServeConfig], int]) -> None:
        """Takes a config, in a thread of its own: the replica reports meanwhile."""
        config, keys, number = newest
        try:
            app.update(config, parallel_of(config), keys)
            self._failure = ""
        except Exception as error:  # whatever an engine raises: the old models go on
            self._failure = " ".join(str(error).split())
        self._number = number
        self._taking = False
