"""Counts of a server in the text format of Prometheus
(https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format).

Each replica counts by itself. A series is its name with its labels, as Prometheus writes it, so
the counts of several replicas are added by series.
"""

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping

from mtl_ray.serving.reply import Reply

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
FAMILIES = {
    "mtl_ray_requests_total": ("counter", "Requests by model, version and HTTP status."),
    "mtl_ray_request_seconds": ("histogram", "Time from the first byte to the answer."),
    "mtl_ray_alone_total": ("counter", "Requests that were alone, and answered without a thread."),
    "mtl_ray_limited_total": ("counter", "Requests above the rate of their key, by name of it."),
    "mtl_ray_updates_total": ("counter", "Updates of what is served, by result."),
    "mtl_ray_queue": ("gauge", "Files that wait for a free thread of their model."),
    "mtl_ray_active": ("gauge", "Requests and files in work or waiting."),
    "mtl_ray_replicas": ("gauge", "Replicas that run."),
}
"""Type and help of each family."""
Series = Mapping[str, float]
"""Value by series."""


class Metrics:
    """The counts of one replica."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[str, float] = defaultdict(float)
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._buckets: dict[str, list[int]] = {}

    def count(self, family: str, **labels: str) -> None:
        """Adds one to a counter."""
        with self._lock:
            self._counts[series(family, **labels)] += 1

    def request(self, model: str, version: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        labels = {"model": model, **({"version": version} if version else {})}
        inner = series("", **labels)
        place = bisect_left(BUCKETS_S, seconds)
        with self._lock:
            self._counts[series("mtl_ray_requests_total", **labels, status=str(status))] += 1
            self._sums[inner] += seconds
            self._buckets.setdefault(inner, [0] * (len(BUCKETS_S) + 1))[place] += 1

    def snapshot(self) -> dict[str, float]:
        """All series."""
        with self._lock:
            found: dict[str, float] = dict(self._counts)
            for inner, counts in self._buckets.items():
                total = 0
                for edge, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
                    total += count
                    found[f'mtl_ray_request_seconds_bucket{inner[:-1]},le="{edge}"}}'] = total
                found[f"mtl_ray_request_seconds_sum{inner}"] = self._sums[inner]
                found[f"mtl_ray_request_seconds_count{inner}"] = total
        return found


def series(family: str, **labels: str) -> str:
    """A series as Prometheus writes it."""
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{family}{{{inner}}}" if labels else family


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def added(replicas: Iterable[Series]) -> dict[str, float]:
    """The sums of each series over replicas."""
    total: defaultdict[str, float] = defaultdict(float)
    for each in replicas:
        for name, value in each.items():
            total[name] += value
    return dict(total)


def counters_of(values: Series) -> dict[str, float]:
    """Without the gauges, of a replica that has ended."""
    return {
        name: value for name, value in values.items() if FAMILIES[family_of(name)][0] != "gauge"
    }


def family_of(name: str) -> str:
    """The family of a series."""
    plain = name.partition("{")[0]
    for end in ("_bucket", "_sum", "_count"):
        if plain.endswith(end) and plain.removesuffix(end) in FAMILIES:
            return plain.removesuffix(end)
    return plain


def exposition(values: Series) -> Reply:
    """The answer to ``GET /metrics``."""
    lines = []
    for family, (kind, text) in FAMILIES.items():
        of_family = [name for name in values if family_of(name) == family]
        if of_family:
            lines += [f"# HELP {family} {text}", f"# TYPE {family} {kind}"]
            lines += [f"{name} {values[name]:.10g}" for name in of_family]
    return Reply(body="\n".join([*lines, ""]).encode(), type=CONTENT_TYPE)
