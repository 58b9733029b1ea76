"""Rates, parameter groups, and when things are due."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.experiment import build_model
from mtl_ray.models.config import TimmBackbone
from mtl_ray.models.resnet_config import ResNetBackbone
from mtl_ray.samples import Vocabulary
from mtl_ray.training.config import (
    AdamW,
    ConstantLr,
    CosineLr,
    CosineRamp,
    LinearRamp,
    ParameterRule,
    PolyLr,
    RuntimeConfig,
    ScheduleConfig,
    Sgd,
    StepLr,
)
from mtl_ray.training.optimizer import (
    OptimizerSchedule,
    build_optimizer,
    parameter_factors,
    parameter_groups,
    set_lr,
)
from mtl_ray.training.schedule import RunSchedule, lr_factor

RUNTIME = RuntimeConfig(name="x", checkpoint_every_s=None, checkpoint_every_steps=5)


@given(
    kind=st.sampled_from([ConstantLr, StepLr, PolyLr, CosineLr]),
    steps=st.integers(1, 500),
    warmup=st.one_of(st.floats(0, 0.9), st.integers(1, 40)),
    end=st.floats(0, 1),
)
def test_rate_rises_over_the_warm_up_and_then_only_falls(kind, steps, warmup, end):
    rate = kind(warmup=warmup, end=end) if kind in (PolyLr, CosineLr) else kind(warmup=warmup)
    factors = [lr_factor(step, steps, rate) for step in range(steps)]
    length = math.ceil(warmup * steps if warmup < 1 else warmup)
    assert all(0 <= value <= 1 for value in factors)
    rest = factors[length:]
    assert all(b <= a + 1e-12 for a, b in pairwise(rest))
    assert factors[0] > 0


def test_rates_are_those_of_the_papers():
    flat = {"warmup": 0.0}
    assert lr_factor(50, 100, CosineLr(end=0.0, **flat)) == pytest.approx(0.5)
    assert lr_factor(25, 100, PolyLr(end=0.0, power=0.9, **flat)) == pytest.approx(0.75**0.9)
    assert [
        lr_factor(step, 10, StepLr(milestones=(0.5, 0.8), gamma=0.1, **flat)) for step in (4, 5, 8)
    ] == pytest.approx([1, 0.1, 0.01])
    assert [lr_factor(step, 100, ConstantLr(warmup=3)) for step in range(4)] == pytest.approx(
        [0.25, 0.5, 0.75, 1]
    )


@pytest.fixture
def model(make_config):
    return build_model(
        make_config().model,
        Vocabulary(classes={"labels": ("a", "b"), "semantic": ("a", "b")}, exclusive_labels=True),
    )


def test_biases_and_norms_are_not_decayed_and_every_parameter_is_in_one_group(model):
    groups = parameter_groups(dict(model.named_parameters()), AdamW(weight_decay=0.1), 1e-3)
    decayed = {id(p) for group in groups for p in group["params"] if group["weight_decay"] > 0}
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed)) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1), name


def test_lower_stages_of_the_backbone_learn_slower(model):
    groups = parameter_groups(
        dict(model.named_parameters()), AdamW(layer_decay=0.5, backbone_lr=0.1), 1.0
    )
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    by_name = {name: rate[id(p)] for name, p in model.named_parameters()}
    stem, layer1, layer4 = (
        by_name[f"trunk.backbone.net.{name}.weight"]
        for name in ("conv1", "layer1.0.conv1", "layer4.0.conv1")
    )
    assert by_name["heads.labels.linear.weight"] == 1.0
    assert by_name["trunk.backbone.net.bn1.weight"] == stem
    assert layer4 == pytest.approx(0.05)
    assert layer1 == pytest.approx(0.05 * 0.5**3)
    assert stem == pytest.approx(0.05 * 0.5**4)


@pytest.mark.parametrize(
    ("name", "stages"),
    [("convnext_atto", 4), ("mobilenetv3_small_050", 6), ("resnet10t", 4), ("regnetx_002", 4)],
)
def test_stages_are_found_in_other_families(make_config, name, stages):
    config = replace(make_config().model, backbone=TimmBackbone(name=name, levels=("C3", "C5")))
    net = build_model(
        config,
        Vocabulary(classes={"labels": ("a", "b"), "semantic": ("a", "b")}, exclusive_labels=True),
    )
    groups = parameter_groups(dict(net.named_parameters()), AdamW(layer_decay=0.5), 1.0)
    rates = {round(group["lr"], 9) for group in groups}
    assert rates == {1.0, *(0.5**k for k in range(1, stages + 2))}


def test_frozen_parameters_are_in_no_group(model):
    model.trunk.backbone.requires_grad_(False)
    groups = parameter_groups(dict(model.named_parameters()), AdamW(), 1.0)
    assert sum(len(group["params"]) for group in groups) == sum(
        p.requires_grad for p in model.parameters()
    )


@pytest.mark.parametrize(("scale", "expected"), [(None, 0.01), (8, 0.04)])
def test_rate_is_scaled_to_the_batch_only_when_asked(model, scale, expected):
    optimizer = build_optimizer(model, AdamW(lr=0.01, scale_to_batch=scale), batch=32)
    assert set_lr(optimizer, 0.5) == pytest.approx(expected / 2)
    assert set_lr(optimizer, 1.0) == pytest.approx(expected)


def test_schedule_counts_epochs_over_their_ends():
    table = RunSchedule(ScheduleConfig(epochs=3), RUNTIME, batch=12, samples_per_epoch=50)
    assert table.steps == 13
    assert [step for step in range(1, 14) if table.evaluates(step)] == [5, 9, 13]
    assert [step for step in range(1, 14) if table.saves(step, busy=True)] == [5, 10]


def test_the_clock_waits_for_the_checkpoint_before():
    table = RunSchedule(
        ScheduleConfig(steps=9),
        RuntimeConfig(name="a", checkpoint_every_s=1e-9),
        batch=2,
        samples_per_epoch=6,
    )
    assert table.saves(1, busy=False)
    assert not table.saves(1, busy=True)


def test_schedule_counts_steps():
    table = RunSchedule(
        ScheduleConfig(steps=10, evaluate_every_steps=4), RUNTIME, batch=12, samples_per_epoch=50
    )
    assert [step for step in range(1, 11) if table.evaluates(step)] == [4, 8, 10]
    only_last = RunSchedule(
        ScheduleConfig(steps=10, evaluate_every=None), RUNTIME, batch=12, samples_per_epoch=50
    )
    assert [step for step in range(1, 11) if only_last.evaluates(step)] == [10]


@pytest.mark.parametrize("length", [{}, {"epochs": 2.0, "steps": 3}])
def test_length_is_said_once(length):
    with pytest.raises(ValueError, match="either epochs or steps"):
        RunSchedule(ScheduleConfig(**length), RUNTIME, batch=12, samples_per_epoch=50)


def test_a_run_of_seconds_ends_when_they_are_used_up_and_its_rate_is_at_its_end_then():
    schedule = RunSchedule(
        ScheduleConfig(steps=1000, seconds=60, evaluate_every=None),
        RUNTIME,
        batch=4,
        samples_per_epoch=40,
    )
    assert [
        schedule.place(3, 0.0),
        schedule.place(3, 30.0),
        schedule.place(700, 30.0),
        schedule.place(3, 61.0),
    ] == [3, 500, 700, 999]
    schedule.check_time(80, 59.9)
    assert not schedule.evaluates(80)
    schedule.check_time(81, 60.1)
    assert schedule.steps == 81
    assert schedule.evaluates(81)


def test_a_part_of_a_gpu_is_for_runs_of_one_worker():
    assert RuntimeConfig(name="x", gpus_per_worker=0.25).gpus_per_worker == 0.25
    with pytest.raises(ValueError, match="cannot share a GPU"):
        RuntimeConfig(name="x", gpus_per_worker=0.5, workers=2)


def factors(model, *rules, **options):
    return parameter_factors(
        dict(model.named_parameters()),
        AdamW(rules=tuple(ParameterRule(**rule) for rule in rules), **options),
    )


def test_the_first_rule_that_matches_a_parameter_counts(model):
    found = factors(
        model,
        {"match": "heads.labels.linear.bias", "weight_decay": 2.0},
        {"match": "heads.*", "lr": 10.0},
        {"match": r"re:\.bn1\.weight$", "lr": 0.0, "weight_decay": 0.5},
        backbone_lr=0.1,
    )
    assert found["heads.labels.linear.bias"] == (1.0, 2.0)
    assert found["heads.labels.linear.weight"] == (10.0, 1.0)
    assert found["heads.semantic.classify.bias"] == (10.0, 0.0)
    assert found["trunk.backbone.net.layer1.0.bn1.weight"] == (0.0, 0.5)
    assert found["trunk.backbone.net.layer1.0.conv1.weight"] == (0.1, 1.0)
    assert found["trunk.backbone.net.layer1.0.bn2.weight"] == (0.1, 0.0)


def test_rules_reach_the_groups_of_the_optimizer(model):
    rules = (ParameterRule(match="heads.labels.*", lr=2.0, weight_decay=3.0),)
    optimizer = build_optimizer(
        model, Sgd(lr=0.1, weight_decay=0.01, nesterov=True, rules=rules), batch=4
    )
    of_head = {id(p) for p in model.heads["labels"].parameters()}
    groups = [
        group for group in optimizer.param_groups if any(id(p) in of_head for p in group["params"])
    ]
    assert [
        (group["lr"], group["weight_decay"], group["nesterov"], len(group["params"]))
        for group in groups
    ] == [(0.2, 0.03, True, 2)]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            [{"match": "head.labels.linear.weight"}],
            r"rules\.0: 'head\.labels.*' matches no .*near it are heads\.labels\.linear\.weight",
        ),
        (
            [{"match": "*classify*"}, {"match": "*.classifi.*"}],
            r"rules\.1: '\*\.classifi\.\*' matches no parameter",
        ),
        (
            [{"match": "heads.*"}, {"match": "heads.labels.*"}],
            r"rules\.1: .*changes nothing: earlier rules have all 2",
        ),
        ([{"match": "re:^linear"}], r"near it are heads\.labels\.linear\."),
    ],
)
def test_a_rule_without_a_parameter_is_refused_and_near_names_are_named(model, rules, said):
    with pytest.raises(ValueError, match=said):
        factors(model, *rules)


def test_a_rule_on_frozen_parameters_alone_is_refused(model):
    model.trunk.backbone.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that learns"):
        factors(model, {"match": "trunk.*"})


def test_a_regular_expression_that_is_none_is_refused_when_the_config_is_read(make_config):
    with pytest.raises(ValueError, match="is not a regular expression"):
        make_config("schedule.optimizer.rules=[{match: 're:(', lr: 0.5}]")


def test_each_optimizer_has_its_own_options_only(make_config):
    adamw = make_config("schedule.optimizer={betas: [0.8, 0.95], eps: 1e-6}").schedule.optimizer
    assert adamw == AdamW(lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    assert make_config("schedule.optimizer={type: sgd, momentum: 0.8}").schedule.optimizer == Sgd(
        lr=0.01, momentum=0.8
    )
    with pytest.raises(ValueError, match=r"unknown key schedule\.optimizer\.betas"):
        make_config("schedule.optimizer={type: sgd, betas: [0.9, 0.99]}")
    with pytest.raises(ValueError, match=r"unknown key schedule\.optimizer\.nesterov"):
        make_config("schedule.optimizer.nesterov=true")
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        make_config("schedule.optimizer={type: sgd, momentum: 0, nesterov: true}")


def test_the_older_momentum_of_adamw_is_its_first_beta(make_config):
    assert make_config("schedule.optimizer.momentum=0.85").schedule.optimizer == AdamW(
        lr=0.01, betas=(0.85, 0.999)
    )
    with pytest.raises(ValueError, match="less than 1"):
        make_config("schedule.optimizer.momentum=1.5")


def test_weight_decay_and_momentum_follow_their_ramps(model):
    schedule = ScheduleConfig(
        steps=100,
        optimizer=AdamW(
            weight_decay=0.04, rules=(ParameterRule(match="heads.labels.*", weight_decay=2.0),)
        ),
        weight_decay=CosineRamp(end=0.4),
        momentum=LinearRamp(start=0.5, end=0.9, until=0.5),
    )
    optimizer = build_optimizer(model, schedule.optimizer, 4, decay_changes=True)
    ramps = OptimizerSchedule(optimizer, schedule)
    seen = []
    for step in (0, 25, 50, 100):
        ramps.set(step, 100)
        seen.append(
            (
                {round(group["weight_decay"], 9) for group in optimizer.param_groups},
                optimizer.param_groups[0]["betas"],
            )
        )
    middle = [0.04 + 0.36 * (1 - math.cos(math.pi * done)) / 2 for done in (0, 0.25, 0.5, 1)]
    assert [decay for decay, _ in seen] == [
        {0.0, round(value, 9), round(2 * value, 9)} for value in middle
    ]
    assert [betas[0] for _, betas in seen] == pytest.approx([0.5, 0.7, 0.9, 0.9])
    assert {betas[1] for _, betas in seen} == {0.999}


def test_a_weight_decay_that_begins_at_nothing_still_spares_biases(model):
    schedule = ScheduleConfig(
        steps=10,
        optimizer=Sgd(weight_decay=0.0),
        weight_decay=LinearRamp(end=0.1),
        momentum=LinearRamp(end=0.5),
    )
    optimizer = build_optimizer(model, schedule.optimizer, 4, decay_changes=True)
    OptimizerSchedule(optimizer, schedule).set(10, 10)
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert all(
        decay[id(p)] == pytest.approx(0.1 if p.ndim > 1 else 0.0) for p in model.parameters()
    )
    assert {group["momentum"] for group in optimizer.param_groups} == {0.5}


def test_without_ramps_and_rules_the_groups_are_those_of_older_checkpoints(model):
    assert [
        len(group["params"])
        for group in parameter_groups(dict(model.named_parameters()), AdamW(weight_decay=0.0), 1.0)
    ] == [len(list(model.parameters()))]
    assert {
        tuple(group) for group in parameter_groups(dict(model.named_parameters()), AdamW(), 1.0)
    } == {("params", "lr", "base_lr", "weight_decay")}


def test_ramps_are_read_from_a_config(make_config):
    schedule = make_config(
        "schedule.weight_decay={end: 0.4}",
        "schedule.momentum={type: linear, end: 0.95, until: 0.1}",
    ).schedule
    assert (schedule.weight_decay, schedule.momentum) == (
        CosineRamp(end=0.4),
        LinearRamp(end=0.95, until=0.1),
    )
    with pytest.raises(ValueError, match="below 1"):
        make_config("schedule.momentum={end: 1.5}")


def test_stages_of_every_backbone_are_told_apart(make_config):
    backbone = ResNetBackbone(depth=18, base_channels=8, levels=("C3", "C5"))
    model = build_model(
        replace(make_config().model, backbone=backbone),
        Vocabulary(classes={"labels": ("a", "b"), "semantic": ("a", "b")}, exclusive_labels=True),
    )
    config = AdamW(layer_decay=0.5, backbone_lr=0.1)
    factors = parameter_factors(dict(model.named_parameters()), config)
    assert factors["trunk.backbone.layer4.0.conv1.weight"].lr == pytest.approx(0.05)
    assert factors["trunk.backbone.conv1.weight"].lr == pytest.approx(0.1 * 0.5**5)
