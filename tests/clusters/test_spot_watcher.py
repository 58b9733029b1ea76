"""A cloud's notice becomes ``ray drain-node`` with the time that is left.

Before it, nothing happens.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clusters.metadata import metadata_service

WATCHER = Path(__file__).parents[2] / "clusters" / "spot_watcher.py"
CLOUDS = ["aws", "gcp", "azure"]
LONGEST_S = {"aws": 115, "gcp": 30, "azure": 28}
WAIT_S = 120


@pytest.fixture
def fake_ray(tmp_path: Path) -> Path:
    """A folder with a program ``ray`` that records its calls, and fails the first time."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "ray"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ntest "$(wc -l < {calls})" -gt 1\n')
    program.chmod(0o755)
    return program.parent


def watcher(
    cloud: str, url: str, tmp_path: Path, *options: str, path: Path | None = None, **more: str
) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        str(WATCHER),
        cloud,
        "--address",
        "192.0.2.1:6379",
        "--metadata",
        url,
        "--every",
        "0.05",
    ]
    environment = {
        **os.environ,
        "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"],
        **more,
    }
    return subprocess.Popen(
        [*command, "--lock", str(tmp_path / "lock"), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_notice_drains_the_node_with_the_time_that_is_left(cloud, fake_ray, tmp_path):
    calls = fake_ray.parent / "calls"
    with metadata_service(cloud) as (url, service):
        process = watcher(cloud, url, tmp_path, "--node-id", "abc", path=fake_ray)
        # polls without a notice; gcp answers when the value changes
        for _ in range(1 if cloud == "gcp" else 4):
            assert service.asked.acquire(timeout=WAIT_S)
        assert not calls.exists()
        service.noticed.set()
        said, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    assert service.refused == []
    first, second = calls.read_text().splitlines()  # the first call fails and is made again
    for call in (first, second):
        assert (
            "drain-node --address 192.0.2.1:6379 --node-id abc --reason "
            "DRAIN_NODE_REASON_PREEMPTION" in call
        )
        left = int(re.search(r"--deadline-remaining-seconds (\d+)", call)[1])
        assert 0 <= left <= LONGEST_S[cloud]
    assert "ray drain-node ended with 1" in said
    assert "node abc is being drained" in said


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_service_that_fails_is_asked_again(cloud, fake_ray, tmp_path):
    with metadata_service(cloud) as (url, service):
        service.failures.extend([503, 500, 500])
        service.noticed.set()
        process = watcher(cloud, url, tmp_path, "--node-id", "abc", path=fake_ray)
        said, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    assert said.count("HTTP Error 500") == 1
    assert service.failures == []


def test_a_second_watcher_leaves_the_work_to_the_first(fake_ray, tmp_path):
    with metadata_service("aws") as (url, service):
        first = watcher("aws", url, tmp_path, "--node-id", "abc", path=fake_ray)
        assert service.asked.acquire(timeout=WAIT_S)
        second = watcher("aws", url, tmp_path, "--node-id", "abc", path=fake_ray)
        said, _ = second.communicate(timeout=WAIT_S)
        assert (second.returncode, "already" in said) == (0, True)
        service.noticed.set()
        first.communicate(timeout=WAIT_S)
    assert first.returncode == 0
