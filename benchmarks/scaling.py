"""Replicas over time while the load changes: autoscaling by ongoing requests.

    python -m benchmarks.scaling --out scaling.png [--min 1] [--max 3] [--target 2]

Clients ask without a pause: one, then many, then one, then none. The figure shows the clients, the
requests that the server holds, its replicas, the answers in each second, and p50 and p99 of their
latency. ``--min 0`` lets the last replica end too; the first request after that waits for a new
one. The bundle is a small graph made for tests: the figure is about the scaling, not about speed.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from mtl_ray.distributed.proxy import free_ports
from mtl_ray.distributed.serve import Server, running
from mtl_ray.serving.config import AutoscaleConfig, ServeConfig
from mtl_ray.serving.metrics import series
from tests.serving.bundles import make_bundle, two_halves

MODEL = "boxes"


@dataclass
class Load:
    """Some clients; every answer is noted.

    Attributes:
        answers: when it came, after how many seconds, and its status.
    """

    url: str
    answers: list[tuple[float, float, int]] = field(default_factory=list)
    wanted: int = 0
    ended: bool = False

    def client(self, number: int) -> None:
        """One client; it asks while more than ``number`` are wanted."""
        body = two_halves()
        with httpx.Client(timeout=120) as http:
            while not self.ended:
                if number >= self.wanted:
                    time.sleep(0.05)
                    continue
                began = time.monotonic()
                try:
                    status = http.post(f"{self.url}/predictions/{MODEL}", content=body).status_code
                except httpx.HTTPError:
                    status = 0
                now = time.monotonic()
                self.answers.append((now, now - began, status))


@dataclass
class Second:
    """What was seen in one second."""

    at_s: float
    clients: int
    replicas: float
    active: float


def main(argv: list[str] | None = None) -> int:
    """0 if no request failed and the replicas went up and down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="scaling.png")
    parser.add_argument("--min", type=int, default=1)
    parser.add_argument("--max", type=int, default=3)
    parser.add_argument("--target", type=float, default=2)
    parser.add_argument("--clients", type=int, default=8, help="at the peak")
    parser.add_argument("--seconds", type=float, default=20, help="of each level of load")
    options = parser.parse_args(argv)
    scale = AutoscaleConfig(
        min=options.min, max=options.max, target=options.target, up_delay_s=1, down_delay_s=4
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder) / MODEL, MODEL)
        (port,) = free_ports(1)
        config = ServeConfig(models={MODEL: bundle}, port=port, autoscale=scale)
        with running(config) as server:
            load = Load(server.url)
            seen = drive(server, load, (1, options.clients, 1, 0), options.seconds)
            first_s = None
            if options.min == 0:
                began = time.monotonic()
                url = f"{server.url}/predictions/{MODEL}"
                answer = httpx.post(url, content=two_halves(), timeout=120)
                load.answers.append((time.monotonic(), 0.0, answer.status_code))
                first_s = time.monotonic() - began
    draw(seen, load, options.out)
    failed = [status for _, _, status in load.answers if status != 200]
    most, last = max(each.replicas for each in seen), seen[-1].replicas
    figures = {
        "answers": len(load.answers),
        "failed": len(failed),
        "statuses of failures": sorted(set(failed)),
        "most replicas": most,
        "replicas at the end": last,
        "first answer from zero, s": first_s,
    }
    print(json.dumps(figures))
    return 0 if not failed and most == options.max and last == options.min else 1


def drive(server: Server, load: Load, levels: Sequence[int], seconds: float) -> list[Second]:
    """Runs the levels of load and looks at the server twice in a second."""
    threads = [
        threading.Thread(target=load.client, args=(number,)) for number in range(max(levels))
    ]
    for thread in threads:
        thread.start()
    seen, began = [], time.monotonic()
    try:
        for level in levels:
            load.wanted = level
            end = time.monotonic() + (seconds if level else 1.5 * seconds)
            while time.monotonic() < end:
                counts = server.counts()
                seen.append(
                    Second(
                        at_s=time.monotonic() - began,
                        clients=level,
                        replicas=counts.get(series("mtl_ray_replicas"), 0),
                        active=counts.get(series("mtl_ray_active"), 0),
                    )
                )
                time.sleep(0.5)
    finally:
        load.ended = True
        for thread in threads:
            thread.join()
    load.answers = [(at - began, took, status) for at, took, status in load.answers]
    return seen


def draw(seen: Sequence[Second], load: Load, out: str) -> None:
    """Three panels over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, middle, below) = plt.subplots(3, 1, figsize=(9, 8), sharex=True)
    times = [each.at_s for each in seen]
    above.step(times, [each.clients for each in seen], where="post", label="clients")
    above.plot(times, [each.active for each in seen], ".", label="requests held", color="grey")
    above.step(
        times, [each.replicas for each in seen], where="post", label="replicas", linewidth=2.5
    )
    above.set_ylabel("count")
    above.legend(loc="upper right")
    seconds = range(int(times[-1]) + 1)
    of_second = [[each for each in load.answers if int(each[0]) == second] for second in seconds]
    middle.bar(seconds, [len(each) for each in of_second], align="edge", label="answered")
    failed = [sum(status != 200 for _, _, status in each) for each in of_second]
    middle.bar(seconds, failed, align="edge", color="red", label="failed")
    middle.set_ylabel("answers per second")
    middle.legend(loc="upper right")
    busy = [(second, sorted(1e3 * each[1] for each in of_second[second])) for second in seconds]
    busy = [(second, latencies) for second, latencies in busy if latencies]
    at = [second + 0.5 for second, _ in busy]
    below.plot(at, [statistics.median(each) for _, each in busy], label="p50")
    below.plot(at, [each[int(0.99 * (len(each) - 1))] for _, each in busy], label="p99")
    below.set_yscale("log")
    below.set_ylabel("latency, ms")
    below.set_xlabel("time, s")
    below.legend(loc="upper right")
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
