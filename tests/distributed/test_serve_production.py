"""A server under load while what it serves changes: as its own job, with two replicas."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from mtl_ray.distributed.placeholder import Placeholder
from mtl_ray.distributed.proxy import free_ports
from tests.serving.bundles import make_bundle, two_halves

ROOT = Path(__file__).parents[2]
CLIENTS = 4


def test_the_placeholder_answers_until_it_closes() -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with Placeholder("127.0.0.1", port) as placeholder:
        for answer in (
            httpx.get(f"{url}/ping"),
            httpx.post(f"{url}/predictions/x", content=b"x" * 1_000_000),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "starting" in answer.json()["message"]
            assert answer.json()["error"] == answer.json()["message"]  # for clients of /v2
        with Placeholder("127.0.0.1", port):
            placeholder.close()
            assert httpx.get(f"{url}/ping").status_code == 503, "the other one at the same port"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/ping")


@dataclass
class Load:
    """Clients that ask without a pause."""

    url: str
    statuses: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self.ended.is_set():
                try:
                    answer = client.post(f"{self.url}/predictions/pets", content=two_halves())
                    self.statuses[str(answer.status_code)] += 1
                    self.versions[answer.headers.get("x-model-version", "none")] += 1
                except httpx.HTTPError as error:
                    self.statuses[repr(error)] += 1


def until(log: Path, words: str, count: int = 1) -> None:
    give_up = time.monotonic() + 240
    while log.read_text().count(words) < count:
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.1)


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    url: str
    log: Path
    config: Path
    folder: Path
    early: list[int]

    def configure(
        self, versions: dict[str, str], weights: dict[str, float], more: str = ""
    ) -> None:
        models = json.dumps({"pets": {"versions": versions, "weights": weights}})
        self.config.write_text(f"serve:\n  replicas: 2\n  models: {models}\n{more}")

    def update(self, words: str, count: int) -> None:
        self.process.send_signal(signal.SIGHUP)
        until(self.log, words, count)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (port,) = free_ports(1)
    log, config = tmp_path / "log", tmp_path / "serve.yaml"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    uris = {"1": make_bundle(tmp_path / "1", "boxes")}
    config.write_text(
        f"serve:\n  replicas: 2\n  models: {json.dumps({'pets': {'versions': uris}})}\n"
    )
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.serve", str(config), "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    url, early = f"http://127.0.0.1:{port}", []
    try:
        while "kill -HUP" not in log.read_text():
            assert process.poll() is None, log.read_text()
            try:
                early.append(httpx.get(f"{url}/models", timeout=20).status_code)
            except httpx.ConnectError:
                early.append(0)
            except httpx.HTTPError:
                early.append(-1)
            time.sleep(0.05)
        yield Server(process, url, log, config, tmp_path, early)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(120)


@pytest.mark.jobs
def test_rolling_forward_and_back_under_load_drops_nothing(server: Server) -> None:
    listening = server.early[next(i for i, each in enumerate(server.early) if each) :]
    assert set(listening) <= {200, 503}, "once something listens, it answers"
    assert listening.count(503) > 10, "from before Ray has started"
    one = httpx.post(f"{server.url}/predictions/pets", content=two_halves(), timeout=60)
    assert len(one.headers.get_list("x-request-id")) == 1
    load = Load(server.url)
    threads = [threading.Thread(target=load.run) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        both = {str(i): make_bundle(server.folder / f"new-{i}", "boxes") for i in (1, 2)}
        for count, weights in enumerate(({"1": 0.5, "2": 0.5}, {"2": 1.0}, {"1": 1.0}), 1):
            server.configure(both, weights)
            server.update("the new config is served", count)
            before = Counter(load.versions)
            time.sleep(2)
            seen = {name for name, value in load.versions.items() if value > before[name] + CLIENTS}
            assert seen == weights.keys()
        server.configure({**both, "3": str(server.folder / "nothing")}, {"3": 1.0})
        server.update("the new config is not served", 1)
        server.configure(both, {"2": 1.0}, "  timeout_s: 7\n")
        server.update("the new config is not served", 2)
        assert "serve.timeout_s cannot change" in server.log.read_text()
        time.sleep(1)
    finally:
        load.ended.set()
        for thread in threads:
            thread.join(60)
    assert set(load.statuses) == {"200"}, load.statuses
    assert load.statuses["200"] > 200
    time.sleep(3)  # the replicas report every second
    counts = httpx.get(f"{server.url}/metrics", timeout=20).text
    assert "mtl_ray_replicas 2" in counts
    total = sum(
        float(line.rpartition(" ")[2])
        for line in counts.splitlines()
        if line.startswith("mtl_ray_requests_total") and 'status="200"' in line
    )
    assert total == load.statuses["200"] + 1, "the requests of both replicas"
    print(f"{load.statuses}; {load.versions}")
