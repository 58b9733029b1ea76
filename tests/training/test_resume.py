"""A run that is killed and started again ends where the undisturbed one does."""

import shutil
import signal
from pathlib import Path

import pytest

from mtl_ray.training import checkpoint
from mtl_ray.training.context import RunContext
from mtl_ray.training.scalars import read_scalars
from mtl_ray.training.trainer import run


def curve(run: Path) -> list[tuple[str, int, float | None]]:
    rows = read_scalars(str(run / "scalars.jsonl"))
    return [(row["mode"], row["step"], row.get("loss")) for row in rows]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_killed_run_ends_bit_for_bit_where_the_undisturbed_one_does(
    train, make_config, tmp_path, world_size
):
    options = (
        "schedule.steps=14",
        "schedule.evaluate_every_steps=6",
        "schedule.ema=0.9",
        "runtime.log_every_steps=1",
    )
    whole = make_config(*options, "runtime.name=whole")
    killed = make_config(*options, "runtime.name=killed")
    assert train(whole, world_size) == [0] * world_size
    # The checkpoint of step 6 is begun once that of step 4 is whole, so at step 7 that one is
    # there, and the other perhaps.
    assert -signal.SIGKILL in train(killed, world_size, kill_at=7)
    run = tmp_path / "runs" / "killed"
    assert checkpoint.steps(str(run)) in ([4], [4, 6])
    assert -signal.SIGKILL in train(killed, world_size, kill_at=7)
    assert train(killed, world_size) == [0] * world_size
    last = run / "checkpoints" / "step-00000014-a0003"
    state = checkpoint.read_state(str(last))
    assert (state.attempt, state.finished, state.cursor) == (3, True, 14 * 12)
    for file in ("model.safetensors", "ema.safetensors"):
        undisturbed = tmp_path / "runs" / "whole" / "checkpoints" / "step-00000014-a0001" / file
        assert (last / file).read_bytes() == undisturbed.read_bytes()
    assert curve(run) == curve(tmp_path / "runs" / "whole")


def test_other_numbers_of_workers_go_on_with_the_same_samples_and_the_same_loss(
    train, make_config, tmp_path
):
    options = (
        "runtime.sync_bn=true",
        "runtime.log_every_steps=1",
        "model.heads.labels.dropout=0",
        "model.heads.semantic.dropout=0",
        "schedule.optimizer={type: sgd, lr: 0.005}",
    )
    whole = make_config(*options, "runtime.name=whole")
    elastic = make_config(*options, "runtime.name=elastic")
    assert train(whole, 1) == [0]
    assert -signal.SIGKILL in train(elastic, 3, kill_at=6)
    assert -signal.SIGKILL in train(elastic, 2, kill_at=5)
    assert train(elastic, 1) == [0]
    wanted, found = (
        [row for row in curve(tmp_path / "runs" / name) if row[0] == "train"]
        for name in ("whole", "elastic")
    )
    assert [row[1] for row in found] == list(range(1, 15))
    assert [row[2] for row in found] == pytest.approx([row[2] for row in wanted], rel=1e-3)


@pytest.mark.parametrize(
    "optimizer",
    [
        "{type: sgd, lr: 0.005, nesterov: true, %s}",
        "{type: adamw, lr: 0.005, betas: [0.8, 0.99], %s}",
    ],
)
def test_rules_and_ramps_go_on_where_they_were(make_config, tmp_path, optimizer):
    rules = "rules: [{match: heads.*.bias, lr: 2, weight_decay: 1}, {match: heads.*, lr: 3}]"
    ramps = (
        "schedule.weight_decay={end: 0.4}",
        "schedule.momentum={type: linear, start: 0.5, end: 0.95}",
    )
    options = (
        "schedule.steps=4",
        "runtime.deterministic=true",
        f"schedule.optimizer={optimizer % rules}",
        *ramps,
    )
    run(make_config(*options, "runtime.name=whole"), RunContext())
    for _ in range(4):
        run(make_config(*options, "runtime.name=parts"), RunContext(should_stop=lambda: True))
    whole, parts = (
        Path(checkpoint.newest(str(tmp_path / "runs" / name)) or "") for name in ("whole", "parts")
    )
    assert checkpoint.read_state(str(parts)).attempt == 4
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()


def test_finished_run_is_left_alone(train, make_config, tmp_path):
    config = make_config("schedule.steps=3")
    assert train(config) == [0]
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    assert run(config, RunContext())["finished"]
    assert {
        path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()
    } == before


def test_another_config_under_the_same_name_is_refused_in_words(make_config):
    run(make_config("schedule.steps=2"), RunContext())
    with pytest.raises(ValueError, match=r"schedule\.steps \(3, was 2\)"):
        run(make_config("schedule.steps=3"), RunContext())
    assert run(
        make_config("schedule.steps=2", "runtime.workers=2", "data.threads=2", "runtime.keep=5"),
        RunContext(),
    )["finished"]


def test_damaged_checkpoint_is_passed_over(make_config, tmp_path, caplog):
    config = make_config("schedule.steps=5")
    run(config, RunContext(should_stop=lambda: True))
    folder = tmp_path / "runs" / "run" / "checkpoints"
    assert checkpoint.steps(str(folder.parent)) == [1]
    shutil.copytree(folder / "step-00000001-a0001", folder / "step-00000002-a0001")
    weights = folder / "step-00000002-a0001" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    assert checkpoint.newest(str(folder.parent)) == str(folder / "step-00000001-a0001")
    assert "is passed over" in caplog.text
    (folder / "step-00000001-a0001" / "training.pt").unlink()
    with pytest.raises(ValueError, match="none of the checkpoints"):
        run(config, RunContext())


def test_other_data_under_the_same_name_is_refused(make_config, splits, tmp_path):
    run(make_config(), RunContext(should_stop=lambda: True))
    with pytest.raises(ValueError, match="other data"):
        run(make_config(f"data.train.uri={splits / 'val'}"), RunContext())
    shutil.copytree(splits / "train", tmp_path / "moved")
    assert run(
        make_config(f"data.train.uri={tmp_path / 'moved'}", "runtime.log_every_steps=4"),
        RunContext(),
    )["finished"]
