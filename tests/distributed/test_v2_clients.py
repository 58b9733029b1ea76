"""The unmodified client of Triton Inference Server against a running server, HTTP and gRPC."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from jobs.serve import main
from mtl_ray.backends.backend import GraphArrays
from mtl_ray.distributed.proxy import free_ports
from mtl_ray.inference.bundle import BundlePredictor
from tests.environments import environment, outside
from tests.serving.bundles import make_bundle

ROOT = Path(__file__).parents[2]
KEY = "sesame"
CLIENT = "tritonclient[http,grpc]==2.73.0"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "all": make_bundle(folder / "all", "boxes", "semantic", "labels"),
        "labels": make_bundle(folder / "labels", "labels"),
    }


@pytest.fixture(scope="module")
def server(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, int, int]]:
    """The ports of HTTP and gRPC, and the process."""
    log = tmp_path_factory.mktemp("server") / "log"
    http, grpc = free_ports(2)
    command = [sys.executable, "-m", "jobs.serve", *models.values(), "--port", str(http)]
    command += ["--grpc-port", str(grpc), "serve.replicas=2", "serve.api_key_env=SERVER_KEY"]
    settings = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**settings, "SERVER_KEY": KEY},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        give_up = time.monotonic() + 270
        while "curl" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.1)
        yield http, grpc, process.pid
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def answers(uri: str) -> GraphArrays:
    """Inputs and what the graph makes of them."""
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8)
    outputs = BundlePredictor(uri).session.run({"image": images})
    return {"image": images, **{f"out:{name}": values for name, values in outputs.items()}}


@pytest.mark.jobs
def test_tritonclient(server: tuple[int, int, int], models: dict[str, str], tmp_path: Path) -> None:
    python = environment("tritonclient", [CLIENT])
    files = []
    for name, uri in models.items():
        np.savez(tmp_path / f"{name}.npz", **answers(uri))
        files.append(f"{name}={tmp_path / name}.npz")
    script = Path(__file__).parent / "triton_client_run.py"
    done = subprocess.run(  # noqa: PLW1510
        [str(python), str(script), str(server[0]), str(server[1]), KEY, *files],
        env=outside(python),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(" refusals") == 2 * len(models)


@pytest.mark.jobs
def test_grpc_listens_on_this_machine_only_in_every_replica(server: tuple[int, int, int]) -> None:
    parent = psutil.Process(server[2])
    listening = [
        connection.laddr.ip
        for each in parent.children(recursive=True)
        for connection in each.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == server[1]
    ]
    assert len(listening) == 2
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_a_port_that_is_taken_is_said_before_ray_is_started(models: dict[str, str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (port,) = free_ports(1)
        with pytest.raises(ValueError, match="--grpc-port chooses another"):
            main([models["all"], "--port", str(port), "--grpc-port", str(taken.getsockname()[1])])
