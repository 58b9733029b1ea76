"""Which starts are the same run: a new option, a renamed key and an older file stop none;
another result does, in words.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from mtl_ray import artifact
from mtl_ray.config.strict import STRICT
from mtl_ray.config.validate import values_of
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.training.checkpoint import KIND, discard, newest
from mtl_ray.training.config import RuntimeConfig, ScheduleConfig
from mtl_ray.training.context import RunContext
from mtl_ray.training.identity import WITHOUT_EFFECT, config_hash, without_defaults
from mtl_ray.training.resume import find_resume_point, run_uri
from mtl_ray.training.trainer import run


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NewerSchedule(ScheduleConfig):
    lookahead: int = 5


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NewerExperiment(ExperimentConfig):
    """The config of a version that has one more option."""

    schedule: NewerSchedule


def newer(config: ExperimentConfig, **options: int) -> NewerExperiment:
    values = values_of(config)
    values["schedule"] |= options
    return TypeAdapter(NewerExperiment).validate_python(values)


def rewrite(
    config: ExperimentConfig, change: Callable[[dict], None], state: dict | None = None
) -> str:
    """Changes config.yaml (and state.json) of the newest checkpoint of a run, and publishes it
    again.
    """
    uri = newest(run_uri(config))
    assert uri is not None
    opened = artifact.open_artifact(uri, kind=KIND)
    files = {name: opened.read(name) for name in opened.names}
    values = yaml.safe_load(files["config.yaml"])
    change(values)
    files["config.yaml"] = yaml.safe_dump(values).encode()
    files["state.json"] = json.dumps(json.loads(files["state.json"]) | (state or {})).encode()
    discard(uri)
    artifact.publish(uri, files, kind=KIND)
    return uri


@pytest.fixture
def begun(make_config) -> ExperimentConfig:
    """The config of a run that was stopped after its first step."""
    config = make_config("schedule.steps=3", "runtime.checkpoint_every_steps=1")
    run(config, RunContext(should_stop=lambda: True))
    return config


def test_a_new_option_with_a_default_leaves_the_hash_and_another_value_does_not(make_config):
    config = make_config()
    assert config_hash(newer(config)) == config_hash(config)
    assert config_hash(newer(config, lookahead=5)) == config_hash(config)
    assert config_hash(newer(config, lookahead=6)) != config_hash(config)


def test_what_is_no_default_and_every_type_enter_the_hash(make_config):
    values = without_defaults(
        make_config("schedule.rate={type: poly}", "data.augment=[{type: flip, p: 0.25}]")
    )
    assert values["schedule"]["rate"] == {"type": "poly"}
    assert values["data"]["augment"] == [{"type": "flip", "p": 0.25}]
    hashes = {
        config_hash(make_config(f"schedule.rate={{type: {kind}}}"))
        for kind in ("poly", "cosine", "constant", "step")
    }
    assert len(hashes) == 4
    assert config_hash(make_config("runtime.keep=7", "data.threads=3")) == config_hash(
        make_config()
    )


def test_every_key_without_effect_is_one_of_its_section():
    sections = {"data": "data", "runtime": "runtime"}
    for path, section in sections.items():
        known = {
            field.name
            for field in dataclasses.fields(
                ExperimentConfig.__pydantic_fields__[section].annotation
            )
        }
        assert set(WITHOUT_EFFECT[path]) <= known
    assert {field.name for field in dataclasses.fields(RuntimeConfig)} - set(
        WITHOUT_EFFECT["runtime"]
    ) == {*("seed", "deterministic", "precision", "sync_bn", "load_from", "best")}


def test_a_run_of_a_version_that_lacked_an_option_goes_on(begun):
    def older(values: dict) -> None:
        del (
            values["schedule"]["clip_grad_norm"],
            values["runtime"]["sync_bn"],
            values["runtime"]["keep"],
            values["data"]["lanes"],
        )

    rewrite(begun, older, {"config_hash": "0123456789abcdef"})
    assert find_resume_point(begun).state.step == 1
    assert run(begun, RunContext())["step"] == 3


def test_an_option_that_the_older_run_did_not_have_is_refused_with_its_value_and_the_default(
    begun, make_config
):
    rewrite(begun, lambda values: values["schedule"].pop("clip_grad_norm"))
    other = make_config(
        "schedule.steps=3", "runtime.checkpoint_every_steps=1", "schedule.clip_grad_norm=2.0"
    )
    with pytest.raises(ValueError, match=r"schedule\.clip_grad_norm \(2\.0, was None\)"):
        find_resume_point(other)


def test_a_default_that_changed_since_is_refused_although_the_hash_is_the_same(begun):
    rewrite(begun, lambda values: values["schedule"]["rate"].update(end=0.5))
    with pytest.raises(ValueError, match=r"schedule\.rate\.end \(0\.01, was 0\.5\)"):
        find_resume_point(begun)


def test_a_renamed_runtime_key_stops_no_run(begun):
    def older(values: dict) -> None:
        values["runtime"]["keep_newest"] = values["runtime"].pop("keep")

    rewrite(begun, older)
    assert find_resume_point(begun).state.step == 1


def test_a_key_of_the_older_run_that_is_not_known_is_named_where_the_results_differ(begun):
    rewrite(
        begun,
        lambda values: values["schedule"]["optimizer"].update(lookahead=7),
        {"config_hash": "0" * 16},
    )
    with pytest.raises(
        ValueError, match=r"schedule\.optimizer\.lookahead \(not known to this version, was 7\)"
    ):
        find_resume_point(begun)


def test_a_checkpoint_carries_its_network(begun):
    uri = newest(run_uri(begun))
    assert uri is not None
    written = yaml.safe_load((Path(uri) / "model.yaml").read_text())
    assert set(written) == {"model", "input", "vocabulary"}
    values = values_of(begun)
    assert (written["model"], written["input"]["canvas"]) == (
        values["model"],
        values["data"]["canvas"],
    )
    assert (Path(uri) / written["vocabulary"]).is_file()
