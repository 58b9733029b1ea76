"""From the tree to typed configs: messages, null, schema, what is shown."""

import dataclasses
import json

import jsonschema
import pytest
from pydantic import ValidationError

from mtl_ray.config.describe import schema, show
from mtl_ray.config.document import parse
from mtl_ray.config.load import override_tree
from mtl_ray.config.tree import merge, plain
from mtl_ray.config.validate import to_yaml, validate
from mtl_ray.experiment import ExperimentConfig, load_experiment, parse_experiment
from mtl_ray.loading.config import ValSplitConfig
from mtl_ray.training.config import CosineLr

SMALL = """\
model:
  backbone: {name: resnet18}
  necks:
    fpn: {type: fpn, channels: 64}
    pool: {type: pool}
  heads:
    boxes: {type: retinanet}
    labels: {type: linear}
data:
  train: {uri: train}
  val: {uri: val}
  canvas: {height: 128, width: 128}
  augment:
    - {type: flip, p: 0.5}
    - {type: zoom}
schedule:
  epochs: 3
  optimizer: {lr: 1e-4}
runtime: {name: small}
"""


def load(*overrides: str) -> ExperimentConfig:
    return validate(merge(parse(SMALL, "conf.yaml"), override_tree(overrides)), ExperimentConfig)


def test_a_small_config_is_typed():
    config = load()
    assert config.schedule.optimizer.lr == 1e-4
    assert config.data.augment[1].type == "zoom"
    assert config.model.heads["boxes"].levels == ("P3", "P4", "P5")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "optimizer:",
            "optimiser:",
            r"conf\.yaml:18: unknown key schedule\.optimiser; did you mean schedule\.optimizer\?",
        ),
        (
            "channels: 64",
            "chanels: 64",
            r"conf\.yaml:4: unknown key model\.necks\.fpn\.chanels; did you mean model\.necks\.fpn\.channels\?",  # noqa: E501
        ),
        (
            "{type: flip, p: 0.5}",
            "{type: flip, prob: 0.5}",
            r"conf\.yaml:14: unknown key data\.augment\.0\.prob; .*direction",
        ),
        ("data:", "datta:", r"conf\.yaml:9: unknown key datta; did you mean data\?"),
        (
            "epochs: 3",
            "epochs: -3",
            r"conf\.yaml:17: schedule\.epochs should be greater than 0, not -3",
        ),
        (
            "epochs: 3",
            "epochs: many",
            r"conf\.yaml:17: schedule\.epochs should be a valid number.*'many'",
        ),
        (
            "type: linear",
            "type: liner",
            r"conf\.yaml:8: model\.heads\.labels has the unknown type 'liner'; did you mean linear",
        ),
        (
            "{type: zoom}",
            "{p: 0.1}",
            r"conf\.yaml:15: data\.augment\.1 needs a type: one of flip, crop",
        ),
        (
            "{name: small}",
            "{name: 1e5}",
            r"conf\.yaml:19: runtime\.name should be a valid string, not 100000\.0",
        ),
        ("runtime: {name: small}", "runtime: {}", r"conf\.yaml:19: runtime\.name is missing"),
        (
            "  epochs: 3",
            "  epochs: 3\n  rate: {type: cosin}",
            r"conf\.yaml:18: schedule\.rate has the unknown type 'cosin'; did you mean cosine\?",
        ),
        (
            "    labels: {type: linear}",
            "    a/b: {type: linear}",
            r"conf\.yaml:1: .*head cannot be called 'a/b'.* metrics are called HEAD/METRIC",
        ),
        (
            "    labels: {type: linear}",
            "    '': {type: linear}",
            r"conf\.yaml:1: .*head cannot be called ''",
        ),
        (
            "  heads:\n    boxes: {type: retinanet}\n    labels: {type: linear}\n",
            "  heads: {}\n",
            r"conf\.yaml:1: .*model\.heads is empty.* Fix: give at least one",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_line(old, new, words):
    assert old in SMALL
    with pytest.raises(ValueError, match=words):
        validate(parse(SMALL.replace(old, new), "conf.yaml"), ExperimentConfig)


def problems_of(*overrides: str, **changes: str) -> list[str]:
    text = SMALL
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(ValueError, match=r".") as caught:
        validate(merge(parse(text, "conf.yaml"), override_tree(overrides)), ExperimentConfig)
    return str(caught.value).splitlines()


def test_every_mistake_is_named_at_once():
    """Unknown keys and types, values of a wrong type or range, missing keys, and what classes
    check by themselves.
    """
    found = problems_of(
        "runtime.workers={min: 5, max: 2}",
        "schedule.optimizer.lr=-1",
        "data.batch=many",
        "data.augment.1.scale=[1, 2, 3]",
        "data.canvas.width=null",
        "runtime.nmae=x",
        "model.heads.labels.type=liner",
        "model.heads.labels.levels=7",
        "schedule.optimiser=3",
        "evaluate.batch=0",
    )
    for words in (
        "unknown key runtime.nmae; did you mean runtime.name?",
        "unknown key schedule.optimiser; did you mean schedule.optimizer?",
        "model.heads.labels has the unknown type 'liner'; did you mean linear?",
        "runtime.workers: min is 5 and max is 2",
        "schedule.optimizer.lr should be greater than 0, not -1",
        "data.batch should be a valid integer",
        "data.augment.1.scale",
        "data.canvas.width is missing",
        "evaluate.batch should be greater than or equal to 1, not 0",
    ):
        assert any(words in line for line in found), words
    assert all(line.startswith("command line: ") or line.startswith("conf.yaml:") for line in found)
    assert sum("runtime.workers" in line for line in found) == 1, (
        "a mapping is no number that is wrong"
    )
    assert not any("labels.levels" in line for line in found), (
        "what a head of an unknown type may have is not known"
    )


def test_a_misspelt_key_is_not_missing_too():
    assert problems_of(a=("{name: small}", "{nmae: small}"), b=("epochs: 3", "epochs: 0")) == [
        "conf.yaml:19: unknown key runtime.nmae; did you mean runtime.name?",
        "conf.yaml:17: schedule.epochs should be greater than 0, not 0",
    ]


def test_a_length_is_said_once():
    assert problems_of("schedule.steps=7") == [
        "conf.yaml:16: schedule: give either epochs or steps, not both (null takes one away)"
    ]


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (
            "data.val.repeat=2",
            "data.val.repeat does nothing here: validation visits every sample of a split once",
        ),
        ("data.val.balanced=0.1", "data.val.balanced does nothing here"),
        ("data.val.weights=[1]", "data.val.weights does nothing here"),
        (
            "schedule.rate={type: cosine, gamma: 0.5}",
            "schedule.rate.gamma does nothing here: gamma is of a rate of type step",
        ),
        ("schedule.rate={milestones: [0.5]}", "schedule.rate.milestones does nothing here"),
        (
            "schedule.rate={type: constant, end: 0.5}",
            "schedule.rate.end does nothing here: end is of a rate of type poly or cosine",
        ),
        ("schedule.rate={type: step, end: 0.5}", "schedule.rate.end does nothing here"),
        ("schedule.rate={type: step, power: 2}", "schedule.rate.power does nothing here"),
        ("schedule.rate={type: poly, gamma: 0.5}", "schedule.rate.gamma does nothing here"),
    ],
)
def test_options_that_would_do_nothing_are_refused(override, reason):
    (line,) = problems_of(override)
    assert line.startswith(f"command line: {reason}")


def test_files_that_older_versions_wrote_are_read():
    """They give every option, those too that have left."""
    older = (
        "data.val={uri: val, repeat: 1, balanced: null, weights: null}",
        "schedule.rate={type: cosine, warmup: 0.1, end: 0.01, milestones: [0.67, 0.92], gamma: "
        "0.1, power: 0.9}",
    )
    config = load(*older)
    assert config.schedule.rate == CosineLr(warmup=0.1)
    assert config.data.val == ValSplitConfig(uri="val")
    for kind in ("constant", "step", "poly"):
        every = f"schedule.rate={{type: {kind}, end: 0.01, milestones: [0.67, 0.92], gamma: 0.1, power: 0.9}}"  # noqa: E501
        assert load(every).schedule.rate.type == kind
    tree = merge(
        parse(SMALL, "config.yaml"), override_tree(["data.val.repeat=3", "schedule.rate.gamma=0.5"])
    )
    with pytest.raises(ValueError, match=r"data\.val\.repeat"):
        validate(tree, ExperimentConfig)
    assert validate(tree, ExperimentConfig, written=True) == load(), (
        "what a run wrote is read whatever it says of them"
    )


def test_a_rate_without_a_type_is_a_cosine():
    assert load("schedule.rate.warmup=0.2").schedule.rate == CosineLr(warmup=0.2)
    assert load("schedule.rate={type: null, end: 0.5}").schedule.rate == CosineLr(end=0.5)


def test_null_takes_an_inherited_entry_away():
    config = load(
        "model.heads.labels=null",
        "model.necks.pool=null",
        "data.batch=null",
        "schedule.optimizer=null",
    )
    assert list(config.model.heads) == ["boxes"]
    assert list(config.model.necks) == ["fpn"]
    assert config.data.batch == 16
    assert config.schedule.optimizer.lr == 1e-3


def test_null_is_none_where_a_field_may_be_none():
    assert load().runtime.checkpoint_every_s == 300.0
    assert load("runtime.checkpoint_every_s=null").runtime.checkpoint_every_s is None


def test_null_for_what_has_no_default_says_that_it_is_missing():
    with pytest.raises(ValueError, match=r"runtime\.name is missing"):
        load("runtime.name=null")


def test_a_config_comes_back_from_its_text():
    config = load("model.backbone.options={drop_rate: 0.1, name: '1e-4'}")
    assert parse_experiment(to_yaml(config), "config.yaml") == config


def test_a_changed_copy_is_validated_again():
    with pytest.raises(ValidationError):
        dataclasses.replace(load().schedule.optimizer, lr=-5)


def test_each_value_is_shown_with_its_origin():
    tree = merge(parse(SMALL, "conf.yaml"), override_tree(["data.augment.1.p=0.25"]))
    lines = dict(
        line.split("  # ") for line in show(tree, validate(tree, ExperimentConfig)).splitlines()
    )
    shown = {text.strip(): origin for text, origin in lines.items()}
    assert shown["schedule.optimizer.lr=0.0001"] == "conf.yaml:18"
    assert shown["data.augment.1.p=0.25"] == "command line"
    assert shown["data.augment.0.p=0.5"] == "conf.yaml:14"
    assert shown["data.batch=16"] == "default"
    assert shown['model.heads.boxes.levels=["P3", "P4", "P5"]'] == "default"


def test_what_is_shown_can_be_given_as_overrides():
    tree = parse(SMALL, "conf.yaml")
    config = validate(tree, ExperimentConfig)
    overrides = [line.split("  # ")[0].strip() for line in show(tree, config).splitlines()]
    assert validate(merge(tree, override_tree(overrides)), ExperimentConfig) == config


def test_the_schema_accepts_what_validates_and_refuses_what_does_not(tmp_path):
    written = schema(ExperimentConfig)
    jsonschema.Draft202012Validator.check_schema(written)
    validator = jsonschema.Draft202012Validator(written)
    values = plain(parse(SMALL, "conf.yaml"))
    assert validator.is_valid(values)
    assert validator.is_valid({"_base_": "other.yaml", "model": {"heads": {"boxes": None}}})
    assert validator.is_valid(
        {"schedule": {"rate": {"warmup": 0.1}}, "model": {"heads": {"boxes": {"levels": ["P3"]}}}}
    ), "of a base"
    assert not validator.is_valid({"schedule": {"rate": {"type": "cosine", "gamma": 0.1}}})
    assert not validator.is_valid({**values, "unknown": 1})
    assert not validator.is_valid({"schedule": {"epochs": -1}})
    assert not validator.is_valid({"model": {"necks": {"p": {"type": "fpm"}}}})
    assert written["$defs"]["ScheduleConfig"]["properties"]["accumulate"]["description"].startswith(
        "Micro-batches"
    )
    assert written["$defs"]["AtssHead"]["properties"]["norm_groups"]["description"], (
        "that of the class that it extends"
    )
    json.dumps(written)


def test_a_file_of_a_run_is_loaded_as_any_other(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(load()), encoding="utf-8")
    assert load_experiment(path, ["runtime.seed=7"]).runtime.seed == 7
