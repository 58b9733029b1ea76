"""Fixtures for whole trainings that take seconds."""

import multiprocessing
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_ray.experiment import ExperimentConfig
from tests.training.tiny import config_of, write_split


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the splits ``train`` (50 samples) and ``val`` (13)."""
    folder = tmp_path_factory.mktemp("tiny")
    write_split(str(folder / "train"), 50, 1)
    write_split(str(folder / "val"), 13, 2)
    return folder


MakeConfig = Callable[..., ExperimentConfig]


@pytest.fixture
def make_config(splits: Path, tmp_path: Path) -> MakeConfig:
    """``make_config("schedule.steps=3", ...)``: the tiny config with overrides; its run lies at
    ``tmp_path/runs/run``.
    """
    return lambda *overrides: config_of(splits, tmp_path / "runs", *overrides)


Start = Callable[..., list[int | None]]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """``start("script.py", world_size, **given)``: the exit codes of real processes, one a rank,
    that run a script of this folder.

    The script finds RANK, WORLD_SIZE, STORE (for a process group) and whatever is given among its
    globals. The processes are forked from a server that has imported the trainer already.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mtl_ray.training.trainer"])

    def start(script: str, world_size: int, **given: Any) -> list[int | None]:
        given |= {
            "WORLD_SIZE": world_size,
            "STORE": str(tmp_path_factory.mktemp("store") / "store"),
        }
        path = str(Path(__file__).with_name(script))
        processes = [
            context.Process(target=runpy.run_path, args=(path, given | {"RANK": rank}))
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [process.exitcode for process in processes]

    return start


Train = Callable[..., list[int | None]]


@pytest.fixture(scope="session")
def train(start: Start) -> Train:
    """``train(config, world_size, kill_at=None, victim=None)``: ranks train together.

    With ``kill_at`` each sends SIGKILL to itself after so many steps, or to its children whose
    names begin with ``victim``.
    """

    def train(
        config: ExperimentConfig,
        world_size: int = 1,
        kill_at: int | None = None,
        victim: str | None = None,
    ) -> list[int | None]:
        return start("rank.py", world_size, CONFIG=config, KILL_AT=kill_at, VICTIM=victim)

    return train
