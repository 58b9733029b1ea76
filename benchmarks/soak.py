"""A server for a long time under good and bad requests at once: latency, throughput and memory
over time, as a figure and as numbers.

    python -m benchmarks.soak [--minutes 30] [--out soak]

Two bundles are served by ``jobs.serve`` (a hand-made image model and a small network for point
clouds). Good clients send pictures as fast as they are answered, with a short pause; bad ones send
what ``tests/serving/storm`` makes from a seed. It writes ``soak.png`` and ``soak.json``, and ends
with 1 if an answer was wrong, a good request failed, a process died, or memory grew by 10 % between
the first and the last tenth.
"""

import argparse
import json
import multiprocessing
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import psutil
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtl_ray.geometry.figures import CURVE_COLOURS, png
from mtl_ray.terminal import progress_bar
from tests.serving.bundles import make_bundle, two_halves
from tests.serving.storm.clouds import cloud_bundle
from tests.serving.storm.run import GoodClient, many, server, settled

MAX_GROWTH = 0.10
AT_ONCE = 100
"""Bad requests of one call."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """What happened in some seconds.

    Attributes:
        minute: at its end, since the start.
        p50_ms, p99_ms: of good requests.
        per_second: good requests.
        bad_per_second: bad requests.
        memory_mb: of each process, its own memory.
    """

    minute: float
    p50_ms: float
    p99_ms: float
    per_second: float
    bad_per_second: float
    memory_mb: dict[str, float]


@dataclass(kw_only=True)
class Soak:
    """All of a run."""

    intervals: list[Interval]
    statuses: dict[int, int]
    faults: list[str]
    refused: int
    lost: int

    @property
    def growth(self) -> float:
        """Of memory, from the first to the last tenth (medians), as a share."""
        total = [sum(each.memory_mb.values()) for each in self.intervals]
        tenth = max(1, len(total) // 10)
        return float(np.median(total[-tenth:]) / np.median(total[:tenth]) - 1)

    @property
    def fine(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.faults or self.refused or self.lost) and self.growth < MAX_GROWTH


def main(argv: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=5, help="seconds of a point of the figure")
    parser.add_argument("--bad-per-second", type=float, default=20)
    parser.add_argument("--clients", type=int, default=2, help="good ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="soak", help="folder of the figure and the numbers")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        models = {
            "image": make_bundle(Path(folder) / "image", "boxes", "labels"),
            "cloud": cloud_bundle(Path(folder) / "cloud"),
        }
        with server(models, "serve.timeout_s=20") as (port, pid, _):
            found = soak(port, pid, options)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "soak.png").write_bytes(png(draw(found)))
    content = {**asdict(found), "growth": found.growth, "options": vars(options)}
    (out / "soak.json").write_text(json.dumps(content, indent=1))
    print(summary(found))
    return int(not found.fine)


def soak(port: int, pid: int, options: argparse.Namespace) -> Soak:
    """Runs good and bad clients, and looks at the server every few seconds."""
    context = multiprocessing.get_context("spawn")
    results: Queue[tuple[int, str | None]] = context.Queue()
    ended = context.Event()
    rate = (options.seed, options.bad_per_second)
    bad = context.Process(target=bad_clients, args=(port, *rate, results, ended), daemon=True)
    watched = settled(pid)
    clients = [GoodClient(port, two_halves()) for _ in range(options.clients)]
    found = Soak(intervals=[], statuses={}, faults=[], refused=0, lost=0)
    statuses: Counter[int] = Counter()
    start = time.monotonic()
    bad.start()
    for client in clients:
        client.__enter__()
    bar = progress_bar(total=60 * options.minutes, desc="soak", unit="s")
    while time.monotonic() < start + 60 * options.minutes:
        latencies: list[float] = []
        for client in clients:
            client.into = latencies
        time.sleep(options.every)
        count = sum(statuses.values())
        while not results.empty():
            status, fault = results.get()
            statuses[status] += 1
            found.faults += [] if fault is None else [fault]
        more = (sum(statuses.values()) - count) / options.every
        found.intervals.append(
            interval((time.monotonic() - start) / 60, latencies, options.every, more, watched)
        )
        bar.set_postfix(bad=sum(statuses.values()), faults=len(found.faults), refresh=False)
        bar.update(options.every)
    bar.close()
    ended.set()
    for client in clients:
        client.__exit__()
    bad.join(90)
    found.refused = sum(client.refused for client in clients)
    found.lost = sum(not process.is_running() for process in watched)
    found.statuses = dict(sorted(statuses.items()))
    return found


def bad_clients(
    port: int,
    seed: int,
    per_second: float,
    results: "Queue[tuple[int, str | None]]",
    ended: Event,
) -> None:
    """The process of the bad clients: status and fault of each request go into the queue."""
    picture, start = two_halves(), 0
    while not ended.is_set():
        for number, kind, status, words in many(
            port, seed, range(start, start + AT_ONCE), picture, per_second
        ):
            again = f"{kind}: {words}; python -m tests.serving.storm --seed {seed} --only {number}"
            results.put((status, None if words is None else again))
        start += AT_ONCE


def interval(
    minute: float,
    latencies: Sequence[float],
    seconds: float,
    bad_per_second: float,
    watched: Sequence[psutil.Process],
) -> Interval:
    """The figures of some seconds."""
    taken = list(latencies) or [float("nan")]
    memory: Counter[str] = Counter()
    for process in watched:
        if process.is_running():
            name = "proxy" if "haproxy" in process.name() else "replica"
            memory[name] += round(process.memory_full_info().uss / 2**20, 1)
    return Interval(
        minute=minute,
        p50_ms=float(np.median(taken)),
        p99_ms=float(np.quantile(taken, 0.99)),
        per_second=len(latencies) / seconds,
        bad_per_second=bad_per_second,
        memory_mb=dict(memory),
    )


def draw(found: Soak) -> Figure:
    """Latency, throughput and memory over time."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    latency, rate, memory = figure.subplots(3, 1, sharex=True)
    minutes = [each.minute for each in found.intervals]
    _curves(
        latency,
        minutes,
        {
            "p50": [each.p50_ms for each in found.intervals],
            "p99": [each.p99_ms for each in found.intervals],
        },
        "ms, good requests",
    )
    _curves(
        rate,
        minutes,
        {
            "good": [each.per_second for each in found.intervals],
            "bad": [each.bad_per_second for each in found.intervals],
        },
        "requests a second",
    )
    names = sorted({name for each in found.intervals for name in each.memory_mb})
    values = {name: [each.memory_mb.get(name, 0.0) for each in found.intervals] for name in names}
    _curves(memory, minutes, values, "MB of its own")
    memory.set_xlabel("minutes")
    figure.suptitle(summary(found).split("\n", 1)[0], fontsize=10)
    return figure


def _curves(
    axes: Axes, minutes: Sequence[float], values: dict[str, list[float]], unit: str
) -> None:
    for index, (name, found) in enumerate(values.items()):
        axes.plot(minutes, found, color=CURVE_COLOURS[index], label=name)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def summary(found: Soak) -> str:
    """A few lines."""
    good = sum(each.per_second for each in found.intervals) / len(found.intervals)
    bad = sum(found.statuses.values())
    p50, p99 = (
        float(np.nanmedian([getattr(each, name) for each in found.intervals]))
        for name in ("p50_ms", "p99_ms")
    )
    lines = [
        f"{found.intervals[-1].minute:.1f} minutes: {good:.0f} good requests a second (p50 "
        f"{p50:.1f} ms, p99 {p99:.1f} ms), {bad} bad ones; memory {found.growth:+.1%}",
        f"{found.refused} good requests refused, {found.lost} processes died, "
        f"{len(found.faults)} wrong answers; statuses of bad requests: {found.statuses}",
        *found.faults[:20],
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
