"""Machines come and go: several Ray nodes on this machine, in their own process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.tiny import write_split

ROOT = Path(__file__).parents[2]


def run(module: str, folder: Path) -> str:
    """The output of ``python -m MODULE FOLDER``."""
    temporary = Path(f"/tmp/mm{os.getpid()}")  # short: it contains sockets
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
    }
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_run_grows_and_shrinks_with_its_cluster(tmp_path):
    write_split(str(tmp_path / "train"), 50, 1)
    write_split(str(tmp_path / "val"), 13, 2)
    assert "worlds 1 2 1 2 1" in run("tests.distributed.elastic_run", tmp_path)


@pytest.mark.slow
def test_tasks_leave_machines_with_gpus_alone_while_there_are_others(tmp_path):
    # of a raylet
    said = [
        line
        for line in run("tests.distributed.placing_run", tmp_path).splitlines()
        if not line.startswith(" ")
    ]
    assert said == ["1000 plain", "lost", "1000 either"]
