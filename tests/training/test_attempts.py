"""Which checkpoints count when processes of older attempts wake up late."""

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray import artifact, storage
from mtl_ray.inference.checkpoint import find_checkpoint
from mtl_ray.inference.run_folder import (
    checkpoint_folder,
    checkpoint_folders,
    current_checkpoints,
    newest_attempt,
)
from mtl_ray.training import checkpoint
from mtl_ray.training.checkpoint import Claim, StaleAttemptError, claim
from mtl_ray.training.context import RunContext
from mtl_ray.training.trainer import run


@dataclass
class Process:
    """One that trains, as it sees itself: the checkpoints that led to its weights, its own at
    the end.
    """

    attempt: int
    history: list[tuple[int, int]] = field(default_factory=list)

    @property
    def step(self) -> int:
        return self.history[-1][0] if self.history else 0


def start(uri: str, processes: list[Process]) -> Process:
    found = current_checkpoints(uri)
    base = found[-1] if found else None
    history: list[tuple[int, int]] = []
    if base is not None:
        made = next(process for process in processes if process.attempt == base.attempt)
        history = [entry for entry in made.history if entry[0] <= base.step]
    name = None if base is None else Path(base.uri).name
    attempt = claim(
        uri, from_step=base.step if base else 0, from_checkpoint=name, world_size=1, run_id="x"
    )
    return Process(attempt.attempt, history)


def publish(uri: str, process: Process, steps: int) -> None:
    step = process.step + steps
    artifact.publish(
        checkpoint_folder(uri, step, process.attempt), {"state": b"1"}, kind=checkpoint.KIND
    )
    process.history.append((step, process.attempt))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=25))
def test_only_the_line_to_the_newest_attempt_counts_however_late_others_publish(actions):
    with tempfile.TemporaryDirectory() as uri:
        processes = [start(uri, [])]
        for who, steps in actions:
            if who == 0:
                processes.append(start(uri, processes))
            else:
                publish(uri, processes[-min(who, len(processes))], steps)
            assert [(place.step, place.attempt) for place in current_checkpoints(uri)] == processes[
                -1
            ].history


def test_two_that_claim_at_once_get_two_numbers(tmp_path, monkeypatch):
    real, rivals = storage.write_new, []

    def slow(uri: str, data: bytes) -> bool:
        if not rivals:
            rivals.append(True)
            rivals.append(
                claim(str(tmp_path), from_step=0, from_checkpoint=None, world_size=1, run_id="b")
            )
        return real(uri, data)

    monkeypatch.setattr(storage, "write_new", slow)
    mine = claim(str(tmp_path), from_step=0, from_checkpoint=None, world_size=1, run_id="a")
    assert (rivals[1].attempt, mine.attempt, mine.run_id) == (1, 2, "b")
    Claim(str(tmp_path), 2).check()
    with pytest.raises(StaleAttemptError, match="attempt 2, process"):
        Claim(str(tmp_path), 1).check()


def test_checkpoints_without_an_attempt_in_their_name_are_read(make_config, tmp_path):
    config, uri = make_config("runtime.log_every_steps=1"), tmp_path / "runs" / "run"
    run(config, RunContext(should_stop=lambda: True))
    (uri / "checkpoints" / "step-00000001-a0001").rename(uri / "checkpoints" / "step-00000001")
    (uri / "attempts" / "00000001.json").unlink()
    assert find_checkpoint(str(uri)).endswith("step-00000001")
    run(config, RunContext(should_stop=lambda: True))
    assert [(place.step, place.attempt) for place in current_checkpoints(str(uri))] == [
        (1, 0),
        (2, 1),
    ]
    assert newest_attempt(str(uri)).from_checkpoint == "step-00000001"


def test_an_attempt_that_was_overtaken_ends_and_publishes_nothing_that_counts(
    make_config, tmp_path
):
    config, uri, asked = (
        make_config("runtime.log_every_steps=1", "runtime.checkpoint_every_steps=2"),
        tmp_path / "runs" / "run",
        [],
    )

    def overtaken() -> bool:
        asked.append(True)
        if len(asked) == 3:
            # the checkpoint of step 2 is written in the background
            while not current_checkpoints(str(uri)):
                time.sleep(0.01)
            run(config, RunContext(should_stop=lambda: True))
        return False

    with pytest.raises(StaleAttemptError, match="goes on elsewhere"):
        run(config, RunContext(should_stop=overtaken))
    assert [(place.step, place.attempt) for place in current_checkpoints(str(uri))] == [
        (2, 1),
        (3, 2),
    ]
    before = sorted(uri.rglob("*"))
    with pytest.raises(StaleAttemptError):
        checkpoint.prune(str(uri), 1, "labels/top1", Claim(str(uri), 1))
    assert sorted(uri.rglob("*")) == before


def test_while_a_run_goes_on_the_checkpoint_before_the_newest_stays(make_config, tmp_path):
    config, uri = (
        make_config(
            "runtime.keep=1",
            "schedule.evaluate_every_steps=100",
            "runtime.checkpoint_every_steps=2",
        ),
        tmp_path / "runs" / "run",
    )
    kept = []
    run(
        config,
        RunContext(
            on_checkpoint=lambda *_: kept.append(
                [place.step for place in checkpoint_folders(str(uri))]
            )
        ),
    )
    assert kept == [[2], [2, 4], [4, 6], [6, 8], [8, 10], [10, 12], [14]]
