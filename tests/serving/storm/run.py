"""A storm of bad requests against a server, while a good client goes on asking it.

Quiet blocks and blocks of storm take turns, so that what else the machine does slows the good
client in both.
"""

import http.client
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import psutil

from mtl_ray.distributed.proxy import free_ports
from mtl_ray.terminal import progress_bar
from tests.serving.storm.attacks import MAX_BODY, MAX_PIXELS, attack
from tests.serving.storm.wire import deliver, judge

CLIENTS = 24
"""Bad clients at the same time."""
PAUSE_S = 0.005
"""Between two questions of the good client: so that it measures waiting, not the processors."""
MEMBERS = ("ServeReplica", "haproxy")
"""The processes that see requests, by their command lines."""


@dataclass(kw_only=True)
class StormReport:
    """What a storm did.

    Attributes:
        seed: of the attacks.
        statuses: how often each answer came, by kind of attack; 0 for none.
        faults: number of the attack and what was wrong with its answer.
        calm, stormy: milliseconds of the good client's requests.
        refused: good requests that were not answered with 200.
        memory_mb: of the server's processes after each block.
        lost: names of the processes of the server that have died.
        tracebacks: in what the server printed.
    """

    seed: int
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    calm: list[float] = field(default_factory=list)
    stormy: list[float] = field(default_factory=list)
    refused: int = 0
    memory_mb: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    tracebacks: int = 0

    @property
    def slowdown(self) -> float:
        """The good client's median in the storm, relative to its own without."""
        return statistics.median(self.stormy) / statistics.median(self.calm)

    @property
    def growth(self) -> float:
        """Of memory, as a share, since the first block, which is the warm-up."""
        return self.memory_mb[-1] / self.memory_mb[0] - 1

    def to_text(self) -> str:
        """A table, and a line to repeat each fault."""
        lines = [
            f"{kind:14}" + ", ".join(f"{status or 'none'}: {n}" for status, n in sorted(of.items()))
            for kind, of in sorted(self.statuses.items())
        ]
        total = sum(sum(of.values()) for of in self.statuses.values())
        lines += [
            f"{total} bad requests, {len(self.faults)} faults, {len(self.lost)} processes died"
            f"{''.join(f' ({name})' for name in self.lost)}, "
            f"{self.tracebacks} tracebacks printed",
            f"good client: p50 {statistics.median(self.calm):.2f} ms in calm "
            f"({len(self.calm)} requests), {statistics.median(self.stormy):.2f} ms in the storm "
            f"({len(self.stormy)}): {self.slowdown:.2f} times; {self.refused} refused",
            f"memory: {self.growth:+.1%}: MB {', '.join(f'{mb:.0f}' for mb in self.memory_mb)}",
        ]
        lines += [
            f"fault {kind}: {words}\n  again: python -m tests.serving.storm --seed {self.seed} "
            f"--only {number}"
            for number, kind, words in self.faults[:20]
        ]
        return "\n".join(lines)


@contextmanager
def server(models: dict[str, str], *options: str) -> Iterator[tuple[int, int, Path]]:
    """``jobs.serve`` in a process of its own: its port, its process and the file of its output."""
    (port,) = free_ports(1)
    targets = [f"{name}={uri}" for name, uri in models.items()]
    limits = [f"serve.max_body_bytes={MAX_BODY}", f"serve.max_pixels={MAX_PIXELS}"]
    command = [sys.executable, "-m", "jobs.serve", *targets, *limits, *options]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--port", str(port)], stdout=out, stderr=subprocess.STDOUT
            )
        try:
            _await(port, process, log)
            yield port, process.pid, log
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            if process.poll() is None:
                process.kill()


def _await(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        with (
            suppress(OSError, urllib.error.URLError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5),
        ):
            return
        time.sleep(0.3)
    raise AssertionError(f"the server does not answer: {log.read_text()}")


def members(pid: int) -> list[psutil.Process]:
    """The processes of a server that see requests."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            title = " ".join((process.name(), *process.cmdline()[:1]))
            if any(name in title for name in MEMBERS):
                found.append(process)
    return found


def settled(pid: int, for_s: float = 10.0) -> list[psutil.Process]:
    """``members`` when they have been the same for some time: Ray replaces its first HAProxy some
    seconds after it answers.
    """
    found, since = members(pid), time.monotonic()
    while time.monotonic() < since + for_s:
        time.sleep(0.5)
        if (now := members(pid)) != found:
            found, since = now, time.monotonic()
    return found


def memory_mb(processes: list[psutil.Process]) -> float:
    """Memory that is theirs alone."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_full_info().uss / 2**20
    return total


class GoodClient:
    """Asks on one connection until it is told to stop; its latencies go where ``into`` says."""

    def __init__(self, port: int, picture: bytes) -> None:
        self.into: list[float] | None = None
        self.refused = 0
        self._port, self._picture = port, picture
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "GoodClient":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._ended.wait(PAUSE_S):
            start, into = time.perf_counter(), self.into
            try:
                connection.request("POST", "/predictions/image", self._picture)
                answer = connection.getresponse()
                good = answer.status == 200 and bool(answer.read())
            except (http.client.HTTPException, OSError):
                good = False
                connection.close()
            if not good:
                self.refused += 1
            elif into is not None and into is self.into:
                into.append((time.perf_counter() - start) * 1e3)


def one(port: int, seed: int, number: int, picture: bytes) -> tuple[int, str, int, str | None]:
    """One attack: its number, kind, status, and what was wrong."""
    made = attack(seed, number, picture)
    try:
        outcome = deliver(port, made)
    except OSError as error:
        return number, made.kind, 0, f"cannot be sent: {error}"
    return number, made.kind, outcome.status or 0, judge(made, outcome)


def many(
    port: int, seed: int, numbers: range, picture: bytes, per_second: float
) -> list[tuple[int, str, int, str | None]]:
    """Attacks by several clients, begun at an even pace."""
    start = time.monotonic()

    def paced(number: int) -> tuple[int, str, int, str | None]:
        due = start + (number - numbers.start) / per_second
        time.sleep(max(0.0, due - time.monotonic()))
        return one(port, seed, number, picture)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(paced, numbers))


def storm(
    port: int,
    pid: int,
    log: Path,
    picture: bytes,
    *,
    requests: int,
    seed: int,
    per_second: float = 60.0,
    block: int = 250,
) -> StormReport:
    """Runs attacks in blocks, the first of which only warms the server up."""
    report = StormReport(seed=seed)
    before = settled(pid)
    assert len(before) >= 2, f"no replica and proxy below process {pid}"
    names = [" ".join((each.name(), *each.cmdline()[-8:])) for each in before]
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart,
        GoodClient(port, picture) as good,
        progress_bar(total=requests, desc="storm", unit="request") as bar,
    ):
        for start in range(0, requests, block):
            numbers = range(start, min(start + block, requests))
            good.into = report.calm
            time.sleep(len(numbers) / per_second / 2)
            good.into = report.stormy
            found = apart.submit(many, port, seed, numbers, picture, per_second).result()
            good.into = None
            for number, kind, status, words in found:
                report.statuses.setdefault(kind, Counter())[status] += 1
                report.faults += [] if words is None else [(number, kind, words)]
            report.memory_mb.append(memory_mb(before))
            memory = f"{report.memory_mb[-1]:.0f}"
            bar.set_postfix(faults=len(report.faults), MB=memory, refresh=False)
            bar.update(len(numbers))
    report.refused = good.refused
    report.lost = [name for name, each in zip(names, before, strict=True) if not each.is_running()]
    report.tracebacks = log.read_text(errors="replace").count("Traceback")
    return report
