"""Times the parts of a repeated step: percentiles by part. This module imports no torch."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The time of one part.

    Attributes:
        name: of the part; ``forward/heads`` is inside ``forward``.
        count: how often it was timed.
        mean_ms, p50_ms, p90_ms, p99_ms, min_ms, max_ms: milliseconds.
        share: of the time of everything, 0 to 1.
    """

    name: str
    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    share: float


class Stopwatch:
    """Collects the time of parts by name.

    Args:
        clock: seconds, monotonic.
        wait: called before each reading of the clock, for asynchronous devices.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        wait: Callable[[], object] = lambda: None,
    ) -> None:
        self._clock, self._wait = clock, wait
        self._seconds: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times what is inside the block."""
        self._seconds.setdefault(name, [])
        self._wait()
        began = self._clock()
        yield
        self._wait()
        self._seconds[name].append(self._clock() - began)

    def forget(self) -> None:
        """Drops the times so far, which were the warm-up."""
        self._seconds = {}

    def fresh(self) -> "Stopwatch":
        """Another stopwatch with the same clock."""
        return Stopwatch(self._clock, self._wait)

    def add(self, other: "Stopwatch") -> None:
        """Adds the times of another stopwatch."""
        for name, seconds in other._seconds.items():
            self._seconds.setdefault(name, []).extend(seconds)

    def seconds(self, name: str) -> list[float]:
        """All times of a part, in seconds."""
        return self._seconds[name]

    def timings(self, whole: str) -> tuple[Timing, ...]:
        """All parts in the order of their first start.

        ``whole``, of which the others are shares, comes last.
        """
        total = sum(self._seconds[whole])
        names = [*(name for name in self._seconds if name != whole), whole]
        return tuple(_timing(name, self._seconds[name], total) for name in names)


def _timing(name: str, seconds: Sequence[float], total: float) -> Timing:
    times = np.array(seconds) * 1e3
    p50, p90, p99 = np.percentile(times, [50, 90, 99]).tolist()
    return Timing(
        name=name,
        count=len(times),
        mean_ms=float(times.mean()),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        min_ms=float(times.min()),
        max_ms=float(times.max()),
        share=sum(seconds) / total if total > 0 else 0.0,
    )
