"""A training that is asked to stop, or killed, and started again with the same command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from mtl_ray.inference.run_folder import current_checkpoints, newest_attempt
from tests.training.tiny import values, write_split

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
pytestmark = pytest.mark.jobs

"""A test fails after this time without progress."""


def start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    """Runs ``jobs.train`` on its own private Ray."""
    config = folder / "tiny.yaml"
    if not config.exists():
        write_split(str(folder / "train"), 50, 1)
        write_split(str(folder / "val"), 13, 2)
        config.write_text(yaml.safe_dump(values(folder, folder / "runs")))
    command = [
        sys.executable,
        "-m",
        "jobs.train",
        str(config),
        f"runtime.ledger={folder / 'ledger'}",
        *options,
    ]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process: "subprocess.Popen[str]", folder: Path, step: int) -> None:
    while not any(f'"step": {step},' in path.read_text() for path in folder.glob("ledger/*.jsonl")):
        if process.poll() is not None:
            pytest.fail(process.communicate()[1])
        time.sleep(0.05)


LONG = (
    "schedule.steps=3000",
    "schedule.evaluate_every_steps=3000",
    "runtime.checkpoint_every_steps=3000",
)


def test_a_polite_end_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path):
    process = start(tmp_path, *LONG)
    wait_for_step(process, tmp_path, 5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "the same command goes on from there" in errors
    (place,) = current_checkpoints(str(tmp_path / "runs" / "run"))
    assert place.step >= 5
    again = start(tmp_path, *LONG)
    wait_for_step(again, tmp_path, place.step + 1)
    attempt = newest_attempt(str(tmp_path / "runs" / "run"))
    assert (attempt.attempt, attempt.from_step) == (2, place.step)
    again.send_signal(signal.SIGINT)
    assert again.wait() == 128 + signal.SIGINT


def test_nothing_is_left_of_a_driver_that_was_killed(tmp_path):
    process = start(tmp_path, *LONG, "runtime.workers=2")
    wait_for_step(process, tmp_path, 3)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) > 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert [each.name() for each in alive] == [], (
        "the ranks, or Ray's processes, go on without a driver"
    )
