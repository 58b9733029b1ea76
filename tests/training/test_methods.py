"""A method that a plugin brings: no head, several modules, state of its own, and a best
checkpoint by what it watches.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from mtl_ray.config.document import parse
from mtl_ray.config.load import override_tree
from mtl_ray.config.tree import merge
from mtl_ray.config.validate import validate
from mtl_ray.experiment import ExperimentConfig, read_experiment
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.methods.config import SupervisedConfig
from mtl_ray.samples import Vocabulary
from mtl_ray.training import checkpoint
from mtl_ray.training.config import AdamW
from mtl_ray.training.context import RunContext
from mtl_ray.training.identity import config_hash
from mtl_ray.training.learner import build_method
from mtl_ray.training.optimizer import build_optimizer
from mtl_ray.training.resume import find_resume_point, summary_text
from mtl_ray.training.scalars import read_scalars
from mtl_ray.training.trainer import run
from mtl_ray.vocabulary import vocabulary_from_json
from tests.training import contrast_plugin
from tests.training.conftest import MakeConfig, Train
from tests.training.tiny import values

PLUGIN = "tests.training.contrast_plugin"
BEST = "training/contrast/loss_nce"
STEPS = (
    "schedule.steps=12",
    "schedule.evaluate_every_steps=3",
    "runtime.keep=20",
    "runtime.checkpoint_every_steps=2",
)


@pytest.fixture
def contrast(splits: Path, tmp_path: Path) -> Any:
    """``contrast(...)``: the tiny config without heads, with the plugin's method, and overrides."""

    def make(*overrides: str) -> ExperimentConfig:
        given = values(splits, tmp_path / "runs")
        given |= {"plugins": [PLUGIN], "method": {"type": "contrast"}}
        given["model"]["heads"] = {}
        tree = merge(parse(yaml.safe_dump(given), "tiny"), override_tree([*STEPS, *overrides]))
        return read_experiment(tree)

    return make


def last(folder: Path) -> Path:
    return Path(checkpoint.newest(str(folder)) or "")


def evaluations(folder: Path) -> dict[int, float]:
    return {
        row["step"]: row[BEST]
        for row in read_scalars(str(folder / "scalars.jsonl"))
        if row["mode"] == "val"
    }


def test_a_method_without_heads_trains_and_its_loss_chooses_the_best_checkpoint(
    contrast: Any, tmp_path: Path
) -> None:
    summary = run(contrast("runtime.log_every_steps=1"), RunContext())
    folder = tmp_path / "runs" / "run"
    rows = [row for row in read_scalars(str(folder / "scalars.jsonl")) if row["mode"] == "train"]
    losses = [row["contrast/loss_nce"] for row in rows]
    found = evaluations(folder)
    assert found == pytest.approx(
        {step: sum(losses[step - 3 : step]) / 3 for step in (3, 6, 9, 12)}
    )
    best = json.loads((folder / "best.json").read_text())
    assert (best["metric"], best["step"]) == (BEST, min(found, key=lambda step: found[step]))
    assert best["value"] == min(found.values()) < max(found.values())
    assert f"{BEST}={best['value']:.4f}" in summary_text(summary, contrast())
    assert (folder / "plots" / "metrics-training-contrast.png").is_file()


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_killed_run_ends_bit_for_bit_where_the_undisturbed_one_does(
    contrast: Any, tmp_path: Path, train: Train, world_size: int
) -> None:
    options = ("schedule.accumulate=2", "schedule.ema=0.9")
    assert train(contrast(*options, "runtime.name=whole"), world_size) == [0] * world_size
    train(contrast(*options, "runtime.name=killed"), world_size, kill_at=6)
    assert 0 < checkpoint.read_state(str(last(tmp_path / "runs" / "killed"))).step < 12
    assert train(contrast(*options, "runtime.name=killed"), world_size) == [0] * world_size
    whole, killed = (last(tmp_path / "runs" / name) for name in ("whole", "killed"))
    assert checkpoint.read_state(str(killed)).attempt == 2
    for file in ("model.safetensors", "method.safetensors", "ema.safetensors"):
        assert (whole / file).read_bytes() == (killed / file).read_bytes()
    assert [checkpoint.read_training(str(each))["method"] for each in (whole, killed)] == [
        {"seen": 12 * 12}
    ] * 2
    assert evaluations(whole.parents[1]) == evaluations(killed.parents[1])


def test_a_checkpoint_holds_the_model_as_ever_and_the_rest_in_a_further_file(
    contrast: Any, tmp_path: Path
) -> None:
    run(contrast("schedule.steps=2"), RunContext())
    found = last(tmp_path / "runs" / "run")
    model = safetensors.torch.load_file(found / "model.safetensors")
    rest = safetensors.torch.load_file(found / "method.safetensors")
    assert {name.partition(".")[0] for name in model} == {"trunk"}
    assert {name.partition(".")[0] for name in rest} == {"projector", "momentum", "queue"}
    assert rest["queue"].shape == (40, 8)


def test_a_method_without_a_model_keeps_its_weights_and_refuses_an_average(
    contrast: Any, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"schedule\.ema averages a model, and the method 'contrast' has none"
    ):
        run(
            contrast("method.exported=false", "schedule.ema=0.9", "runtime.name=averaged"),
            RunContext(),
        )
    config = contrast("method.exported=false", "schedule.steps=4")
    run(config, RunContext(should_stop=lambda: True))
    assert run(config, RunContext())["finished"]
    found = last(tmp_path / "runs" / "run")
    assert not (found / "model.safetensors").exists()
    assert "student.trunk.backbone.net.conv1.weight" in safetensors.torch.load_file(
        found / "method.safetensors"
    )


def test_the_trunk_that_was_learnt_is_where_a_supervised_run_starts(
    contrast: Any, make_config: MakeConfig, tmp_path: Path
) -> None:
    run(contrast("runtime.name=pretext", "schedule.steps=2"), RunContext())
    found = last(tmp_path / "runs" / "pretext")
    config = make_config(f"runtime.load_from={found}")
    vocabulary = checkpoint_vocabulary(found)
    method = build_method(config, vocabulary, 10, None)
    stored = safetensors.torch.load_file(found / "model.safetensors")
    model = method.model()
    assert model is not None
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in stored.items())


def checkpoint_vocabulary(found: Path) -> Vocabulary:
    return vocabulary_from_json(json.loads((found / "vocabulary.json").read_text()))


def test_a_checkpoint_without_heads_says_that_it_predicts_nothing(
    contrast: Any, tmp_path: Path
) -> None:
    for exported in ("true", "false"):
        run(
            contrast(
                "schedule.steps=2", f"method.exported={exported}", f"runtime.name=run-{exported}"
            ),
            RunContext(),
        )
        with pytest.raises(
            ValueError, match=r"has no head that predicts.*Fix: .*runtime\.load_from="
        ):
            open_checkpoint(str(last(tmp_path / "runs" / f"run-{exported}")))


def test_rules_and_stages_of_the_optimizer_name_the_model_as_ever(
    contrast: Any, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = contrast(
        "schedule.optimizer={lr: 1.0, layer_decay: 0.5, weight_decay: 0}",
        "schedule.optimizer.rules=[{match: trunk.backbone.net.conv1.*, lr: 3}, {match: "
        "projector.*, lr: 7}]",
    )
    run(contrast("schedule.steps=1", "runtime.name=one"), RunContext())
    method = build_method(config, checkpoint_vocabulary(last(tmp_path / "runs" / "one")), 10, None)
    optimizer = build_optimizer(method.module, config.schedule.optimizer, 12, prefix="student.")
    rates = {
        id(parameter): group["lr"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    named = {
        name: rates[id(each)]
        for name, each in method.module.named_parameters()
        if each.requires_grad
    }
    assert len(named) == len(rates)
    assert named["projector.weight"] == 7
    stages = {name: rate for name, rate in named.items() if ".layer" in name}
    assert min(stages.values()) < max(stages.values())
    assert named["student.trunk.backbone.net.conv1.weight"] == 3 * min(stages.values()) / 2


def test_parameters_that_would_share_a_name_with_the_model_are_refused() -> None:
    module = torch.nn.ModuleDict(
        {
            "student": torch.nn.ModuleDict({"trunk": torch.nn.Linear(1, 1)}),
            "trunk": torch.nn.Linear(1, 1),
        }
    )
    with pytest.raises(ValueError, match="parameters of the same names"):
        build_optimizer(module, AdamW(), 12, prefix="student.")


def test_supervised_is_the_default_and_leaves_the_identity_of_a_run(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    assert config.method == SupervisedConfig()
    assert config_hash(make_config("method.type=supervised")) == config_hash(config)


def test_another_method_under_the_same_name_is_refused(contrast: Any, tmp_path: Path) -> None:
    run(contrast("schedule.steps=4"), RunContext(should_stop=lambda: True))
    with pytest.raises(ValueError, match=r"method\.decay \(0\.5, was 0\.9\)"):
        find_resume_point(contrast("schedule.steps=4", "method.decay=0.5"))
    assert config_hash(contrast()) != config_hash(contrast("method.queue=41"))


def test_a_config_without_heads_needs_a_method_that_does_without(
    splits: Path, tmp_path: Path, make_config: MakeConfig
) -> None:
    given = values(splits, tmp_path)
    given["model"]["heads"] = {}
    with pytest.raises(
        ValueError, match=r"model\.heads is empty, and the method 'supervised' learns from heads"
    ):
        validate(parse(yaml.safe_dump(given), "tiny"), ExperimentConfig)


@pytest.mark.parametrize(
    ("best", "message"),
    [
        ("lables/top1", "'lables' is no head that is measured"),
        ("training/loss", "'training' is no"),
        ("labels/nope", "best=labels/nope is not measured; there is .*labels/top1"),
    ],
)
def test_a_best_metric_that_is_not_measured_is_refused(
    make_config: MakeConfig, best: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(make_config(f"runtime.best={best}"), RunContext())


def test_what_a_method_watches_must_be_a_figure_of_training(
    contrast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = contrast_plugin.ContrastConfig.build

    def watching(self: Any, setup: Any) -> Any:
        method = build(self, setup)
        method.watches = replace(method.watches, name="nce")
        return method

    monkeypatch.setattr(contrast_plugin.ContrastConfig, "build", watching)
    with pytest.raises(
        ValueError, match=r"the method watches 'nce', which is not among .*contrast/loss_nce"
    ):
        run(contrast(), RunContext())
