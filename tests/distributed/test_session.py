"""Ray for the time of a job: one for all stages inside, ended afterwards, private to its user."""

import os
import subprocess
import sys

import pytest
import ray

from mtl_ray.distributed.session import session

TWICE = """
import os, ray
from mtl_ray.distributed.session import session
for number in (1, 2):
    with session(num_cpus=1):
        with session():
            pass
        assert ray.is_initialized()
        assert ray.cluster_resources()["CPU"] == 1
        print("answer", ray.get(ray.remote(lambda: number).remote()))
    assert not ray.is_initialized()
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh process without any of Ray's variables but those given."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=False)


def test_sessions_nest_and_follow_each_other() -> None:
    done = run(TWICE)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("answer")] == ["answer 1", "answer 2"]


def test_a_long_folder_for_sockets_is_refused_in_words() -> None:
    done = run("from mtl_ray.distributed.session import session\nwith session(): pass", RAY_TMPDIR="/tmp/" + "x" * 60)
    assert "RAY_TMPDIR=/tmp/xxx" in done.stderr
    assert "too long" in done.stderr


@pytest.mark.usefixtures("ray_session")
def test_a_running_ray_is_used_and_left_running() -> None:
    with session(num_cpus=64):
        assert ray.cluster_resources()["CPU"] == 2
    assert ray.is_initialized()
