"""Training on a real Ray: results, mistakes, deaths, and what is left behind."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_ray.experiment import ExperimentConfig
from mtl_ray.inference.run_folder import newest_attempt
from mtl_ray.training import checkpoint
from mtl_ray.training.scalars import read_scalars
from tests.training.tiny import config_of, write_split

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
    """A group of workers takes a moment to go away."""
    for _ in range(600):
        if free_cpus() >= count:
            return
        time.sleep(0.1)
    pytest.fail(f"only {free_cpus()} CPUs are free again")


def test_dead_worker_is_started_again_and_the_run_goes_on(ray_session, make_config, tmp_path, monkeypatch, capfd):
    from mtl_ray.distributed import train as module

    marker, real = tmp_path / "killed", module._work

    def dies_once(config, board):
        import os
        import signal

        from mtl_ray.training.step import Step

        plain = Step.__call__

        def step(self, batch, number):
            if number == 9 and self.context.rank == 1 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(self, batch, number)

        Step.__call__ = step
        return real(config, board)

    monkeypatch.setattr(module, "_work", dies_once)
    config = make_config("runtime.workers=2", "runtime.log_every_steps=1")
    summary = module.train(config)
    run = tmp_path / "runs" / "run"
    assert marker.exists()
    assert summary["finished"]
    assert summary["run"] == str(run)
    assert summary["metrics"]["labels/top1"] == checkpoint.read_state(str(run / "checkpoints" / "step-00000014-a0002")).metrics["labels/top1"]
    assert checkpoint.read_state(str(run / "checkpoints" / "step-00000014-a0002")).attempt == 2
    assert [row["step"] for row in read_scalars(str(run / "scalars.jsonl")) if row["mode"] == "train"] == list(range(1, 15))
    assert "14/14" in capfd.readouterr().err
    monkeypatch.undo()
    assert module.train(config) == summary
    wait_for_free_cpus(2)


def test_mistake_inside_a_worker_is_one_sentence_and_not_repeated(ray_session, make_config, tmp_path):
    from mtl_ray.distributed.train import train

    with pytest.raises(ValueError, match="too few for schedule"):
        train(make_config("schedule.accumulate=40"))
    assert newest_attempt(str(tmp_path / "runs" / "run")).attempt == 1
    wait_for_free_cpus(2)


def test_workers_that_cannot_meet_leave_no_cpus_taken(ray_session, make_config, monkeypatch):
    from ray.train import TrainingFailedError

    from mtl_ray.distributed import train as module

    monkeypatch.setattr(module, "_backend", lambda request: "nccl")
    with pytest.raises(TrainingFailedError):
        module.train(make_config("runtime.workers=2", "runtime.max_failures=0"))
    wait_for_free_cpus(2)


def test_workers_that_find_no_room_are_told_what_there_is(ray_session, make_config):
    from mtl_ray.distributed.train import train

    with pytest.raises(ValueError, match=r"3 workers ask for CPU=2 each; the machines have CPU=2"):
        train(make_config("runtime.workers=3", "runtime.cpus_per_worker=2"))
    with pytest.raises(ValueError, match="GPU=1 each; the machines have CPU=2, GPU=0"):
        train(make_config("runtime.device=gpu"))


def test_relative_output_of_a_submitted_job_is_refused(make_config, monkeypatch):
    from mtl_ray.distributed.train import with_absolute_uris

    config = make_config("runtime.storage=runs", "data.val.uri=here/val", "data.train.uri=[a, s3://b/c/]")
    monkeypatch.chdir("/tmp")
    absolute = with_absolute_uris(config)
    assert absolute.runtime.storage == "/tmp/runs"
    assert (absolute.data.val.uri, absolute.data.train.uri) == ("/tmp/here/val", ("/tmp/a", "s3://b/c"))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ValueError, match=r"runtime\.storage runs is a relative path"):
        with_absolute_uris(config)
