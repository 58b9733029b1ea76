"""The doctor and the spot watcher on a real Ray of two nodes that requires its token."""

import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.clusters.local_ray import LocalRay
from tests.clusters.metadata import metadata_service

ROOT = Path(__file__).parents[2]
WAIT_S = 200


def run(cluster: LocalRay, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = cluster.environment | changes
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )


@pytest.mark.cluster
@pytest.mark.timeout(900)  # on an idle machine it takes one minute
def test_a_cluster_is_looked_at_and_a_node_of_it_is_drained(tmp_path):
    with LocalRay(secrets.token_hex(16)) as cluster:
        cluster.start_worker()
        every_node_answers(cluster, tmp_path / "storage")
        without_the_token_it_is_one_sentence(cluster)
        a_notice_drains_the_worker(cluster, tmp_path / "lock")


def every_node_answers(cluster: LocalRay, storage: Path) -> None:
    done = run(cluster, "-m", "jobs.doctor", cluster.address, "--storage", str(storage))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok") for line in lines)
    assert "2 alive: 1 CPUs, 0 GPUs" in lines[0]
    for subject in ("torch", "gpu", "names", "storage", "shared", "/dev/shm", "clock", "ports"):
        assert sum(f" {subject} " in line[:45] for line in lines) == 2, (subject, done.stdout)
    assert f"{cluster.dashboard} answers 401 without the token" in done.stdout
    assert list(storage.iterdir()) == []


def without_the_token_it_is_one_sentence(cluster: LocalRay) -> None:
    done = run(cluster, "-m", "jobs.doctor", cluster.address, RAY_AUTH_MODE="disabled")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no cluster answers at")


def a_notice_drains_the_worker(cluster: LocalRay, lock: Path) -> None:
    """Ray ends a drained node at once if nothing runs on it."""
    (node,) = [node["node_id"] for node in cluster.nodes() if not node["is_head_node"]]
    with metadata_service("aws") as (url, service):
        service.noticed.set()
        options = (
            "--address",
            cluster.address,
            "--node-id",
            node,
            "--metadata",
            url,
            "--every",
            "0.05",
            "--lock",
            str(lock),
        )
        done = run(cluster, str(ROOT / "clusters" / "spot_watcher.py"), "aws", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"node {node} is being drained" in done.stdout
    give_up = time.monotonic() + WAIT_S
    while node in {one["node_id"] for one in cluster.nodes()} and time.monotonic() < give_up:
        assert list(cluster.draining()) in ([node], [])
        time.sleep(0.5)
    (gone,) = [one for one in cluster.nodes(alive=False) if one["node_id"] == node]
    assert gone["state"] == "DEAD"
    assert "preempt" in gone["state_message"].lower()
