"""Options of a run that change how it computes."""

import math

import numpy as np
import pytest
import torch

from mtl_ray.training.context import RunContext
from mtl_ray.training.scalars import read_scalars
from mtl_ray.training.trainer import run


def losses(summary) -> list[float]:
    return [
        row["loss"]
        for row in read_scalars(f"{summary['run']}/scalars.jsonl")
        if row["mode"] == "train"
    ]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_stays_near_full_precision(make_config, precision):
    options = (
        "schedule.steps=8",
        "schedule.optimizer={type: sgd, lr: 0.01}",
        "model.heads.labels.dropout=0",
        "model.heads.semantic.dropout=0",
    )
    full = losses(run(make_config(*options, "runtime.name=full"), RunContext()))
    mixed = losses(
        run(
            make_config(*options, "runtime.name=mixed", f"runtime.precision={precision}"),
            RunContext(),
        )
    )
    assert mixed != full
    assert mixed == pytest.approx(full, rel=0.05)


def test_loss_falls(make_config):
    options = (
        "schedule.steps=60",
        "schedule.evaluate_every=null",
        "schedule.evaluate_every_steps=null",
    )
    curve = losses(run(make_config(*options), RunContext()))
    assert np.mean(curve[-3:]) < 0.7 * np.mean(curve[:3])


def test_loss_that_is_not_finite_ends_the_run_with_the_step_and_no_checkpoint(
    make_config, tmp_path
):
    config = make_config(
        "schedule.optimizer={type: sgd, lr: 1e30}", "runtime.checkpoint_every_steps=1"
    )
    with pytest.raises(
        ValueError,
        match=r"the loss is not finite at step \d+ \(labels/loss_class=.*lower schedule.optimizer.lr",  # noqa: E501
    ):
        run(config, RunContext())
    rows = read_scalars(str(tmp_path / "runs" / "run" / "scalars.jsonl"))
    assert all(math.isfinite(row["loss"]) for row in rows if row["mode"] == "train")


def test_clipping_is_logged_and_flags_of_torch_are_given_back(make_config):
    before = torch.are_deterministic_algorithms_enabled()
    summary = run(
        make_config("schedule.clip_grad_norm=0.1", "schedule.accumulate=3", "schedule.steps=4"),
        RunContext(),
    )
    rows = read_scalars(f"{summary['run']}/scalars.jsonl")
    assert all(row["grad_norm"] > 0 for row in rows if row["mode"] == "train")
    assert torch.are_deterministic_algorithms_enabled() == before


def test_same_seed_same_weights_other_seed_other_weights(make_config):
    def curve(name: str, seed: int) -> list[float]:
        return losses(
            run(
                make_config(f"runtime.name={name}", f"runtime.seed={seed}", "schedule.steps=4"),
                RunContext(),
            )
        )

    assert curve("a", 1) == curve("b", 1) != curve("c", 2)


def test_stop_leaves_a_checkpoint_to_go_on_from(make_config):
    stopped = run(make_config(), RunContext(should_stop=lambda: True))
    assert (stopped["step"], stopped["finished"]) == (1, False)
    assert run(make_config(), RunContext())["finished"]
