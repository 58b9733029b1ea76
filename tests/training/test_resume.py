"""A run that is killed and started again ends where the undisturbed one does."""

import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from mtl_ray.training import checkpoint
from mtl_ray.training.scalars import read_scalars


def weights(run: Path, step: int) -> dict[str, Any]:
    return safetensors.numpy.load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def curve(run: Path) -> list[tuple[str, int, float | None]]:
    rows = read_scalars(str(run / "scalars.jsonl"))
    return [(row["mode"], row["step"], row.get("loss")) for row in rows]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_killed_run_ends_bit_for_bit_where_the_undisturbed_one_does(train, make_config, tmp_path, world_size):
    options = ("schedule.steps=14", "schedule.evaluate_every_steps=6", "schedule.ema=0.9", "runtime.log_every_steps=1")
    whole = make_config(*options, "runtime.name=whole")
    killed = make_config(*options, "runtime.name=killed")
    assert train(whole, world_size) == [0] * world_size
    assert -signal.SIGKILL in train(killed, world_size, kill_at=6)
    run = tmp_path / "runs" / "killed"
    assert checkpoint.steps(str(run)) == [4]
    assert -signal.SIGKILL in train(killed, world_size, kill_at=5)
    assert train(killed, world_size) == [0] * world_size
    state = checkpoint.read_state(str(run / "checkpoints" / "step-00000014"))
    assert (state.attempt, state.finished, state.cursor) == (3, True, 14 * 12)
    for file in ("model.safetensors", "ema.safetensors"):
        ours = (run / "checkpoints" / "step-00000014" / file).read_bytes()
        assert ours == (tmp_path / "runs" / "whole" / "checkpoints" / "step-00000014" / file).read_bytes()
    assert curve(run) == curve(tmp_path / "runs" / "whole")
