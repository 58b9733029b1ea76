"""Training on a real Ray: results, errors of the user, dead processes, and clean-up."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_ray.experiment import ExperimentConfig
from mtl_ray.inference.run_folder import newest_attempt
from mtl_ray.training import checkpoint
from mtl_ray.training.scalars import read_scalars
from tests.training.tiny import config_of, write_split

pytestmark = pytest.mark.jobs

MakeConfig = Callable[..., ExperimentConfig]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_split(str(folder / "train"), 50, 1)
    write_split(str(folder / "val"), 13, 2)
    return folder


@pytest.fixture
def make_config(splits: Path, tmp_path: Path) -> MakeConfig:
    return lambda *overrides: config_of(splits, tmp_path / "runs", *overrides)


def free_cpus() -> float:
    import ray

    return ray.available_resources().get("CPU", 0)


def wait_for_free_cpus(count: float) -> None:
    """Waits until the workers of a group have ended."""
    for _ in range(600):
        if free_cpus() >= count:
            return
        time.sleep(0.1)
    pytest.fail(f"only {free_cpus()} CPUs are free again")


def die_at(folder: Path, step: int, marker: Path) -> None:
    """Ends this process, a worker of Ray, when a rank has done a step."""
    while not any(f'"step": {step},' in path.read_text() for path in folder.glob("*.jsonl")):
        time.sleep(0.02)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_dead_worker_is_started_again_and_the_run_goes_on(
    ray_session, make_config, tmp_path, monkeypatch, capfd
):
    from mtl_ray.distributed import train as module

    marker, ledger, real = tmp_path / "killed", tmp_path / "ledger", module.run_worker

    def dies_once(config, gpu, timeout_s, code_hash, run_state):
        threading.Thread(target=die_at, args=(ledger, 5, marker), daemon=True).start()
        return real(config, gpu, timeout_s, code_hash, run_state)

    monkeypatch.setattr(module, "run_worker", dies_once)
    config = make_config(
        "runtime.workers=2",
        "runtime.log_every_steps=1",
        f"runtime.ledger={ledger}",
        "schedule.steps=40",
    )
    summary = module.train(config)
    run = tmp_path / "runs" / "run"
    assert marker.exists()
    assert (summary["finished"], summary["run"]) == (True, str(run))
    last = checkpoint.read_state(checkpoint.newest(str(run)))
    assert summary["metrics"]["labels/top1"] == last.metrics["labels/top1"]
    assert (last.step, last.attempt) == (40, 2)
    assert [
        row["step"] for row in read_scalars(str(run / "scalars.jsonl")) if row["mode"] == "train"
    ] == list(range(1, 41))
    assert "40/40" in capfd.readouterr().err
    monkeypatch.undo()
    assert module.train(config) == summary
    wait_for_free_cpus(2)


def test_a_run_without_a_length_is_refused_before_anything_starts(make_config, monkeypatch):
    from mtl_ray.distributed import train as module

    monkeypatch.setattr(module, "session", pytest.fail)
    with pytest.raises(ValueError, match="either epochs or steps"):
        module.train(make_config("schedule.steps=null", "schedule.epochs=null"))


def test_mistake_inside_a_worker_is_one_sentence_and_not_repeated(
    ray_session, make_config, tmp_path
):
    from mtl_ray.distributed.train import train

    with pytest.raises(ValueError, match="too few for schedule"):
        train(make_config("schedule.accumulate=40"))
    assert newest_attempt(str(tmp_path / "runs" / "run")).attempt == 1
    wait_for_free_cpus(2)


def test_workers_that_find_no_room_are_told_what_there_is(ray_session, make_config, monkeypatch):
    from mtl_ray.distributed import train as module

    # how long machines may take to join: this Ray is not private
    monkeypatch.setattr(module, "PATIENCE_S", 1.0)
    with pytest.raises(ValueError, match=r"3 workers ask for CPU=2 each; the machines have CPU=2"):
        module.train(make_config("runtime.workers=3", "runtime.cpus_per_worker=2"))
    with pytest.raises(ValueError, match="GPU=1 each; the machines have CPU=2, GPU=0"):
        module.train(make_config("runtime.device=gpu"))


def test_relative_output_of_a_submitted_job_is_refused(make_config, monkeypatch):
    from mtl_ray.distributed.train import with_absolute_uris

    config = make_config(
        "runtime.storage=runs", "data.val.uri=here/val", "data.train.uri=[a, s3://b/c/]"
    )
    monkeypatch.chdir("/tmp")
    absolute = with_absolute_uris(config)
    assert absolute.runtime.storage == "/tmp/runs"
    assert (absolute.data.val.uri, absolute.data.train.uri) == (
        "/tmp/here/val",
        ("/tmp/a", "s3://b/c"),
    )
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ValueError, match=r"runtime\.storage runs is a relative path"):
        with_absolute_uris(config)
