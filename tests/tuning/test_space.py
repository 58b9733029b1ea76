"""Search spaces: their parameters are valid, and errors name file and line."""

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mtl_ray.config.document import parse
from mtl_ray.config.load import load_tree
from mtl_ray.config.tree import plain
from mtl_ray.config.validate import validate
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.tuning.config import (
    Choice,
    Distribution,
    Int,
    LogUniform,
    TuneConfig,
    Uniform,
    in_order,
)
from mtl_ray.tuning.record import Reported, Trial, TrialResult
from mtl_ray.tuning.space import (
    check_space,
    choice_names,
    choose_parameters,
    grid_parameters,
    grid_values,
    overrides_of,
    trial_overlay,
    with_flat_space,
)
from mtl_ray.tuning.study import Study
from tests.training.tiny import values

ENDS = st.tuples(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3)).map(sorted)
SIMPLE = st.one_of(
    ENDS.map(lambda ends: Uniform(low=ends[0], high=ends[1], points=3)),
    ENDS.map(lambda ends: LogUniform(low=ends[0], high=ends[1], points=3)),
    st.tuples(st.integers(-9, 9), st.integers(0, 9), st.integers(1, 3)).map(
        lambda n: Int(low=n[0], high=n[0] + n[1], step=n[2])
    ),
    st.lists(
        st.one_of(st.integers(0, 5), st.sampled_from(["a", "b"])),
        min_size=1,
        max_size=4,
        unique_by=str,
    ).map(lambda found: Choice(values=tuple(found))),
)


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Distribution]:
    """Up to four entries; any may depend on an entry of type choice."""
    entries = draw(st.lists(SIMPLE, min_size=1, max_size=4))
    space: dict[str, Distribution] = {}
    for number, entry in enumerate(entries):
        choices = [path for path, found in space.items() if isinstance(found, Choice)]
        when = {}
        if choices and draw(st.booleans()):
            path = draw(st.sampled_from(choices))
            when = {path: draw(st.sampled_from(list(choice_names(space[path]).values())))}
        space[f"section{number}.key"] = type(entry)(**{**vars_of(entry), "when": when})
    return space


def vars_of(entry):
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__ if name != "when"}


def allowed(entry, value):
    if isinstance(entry, Choice):
        return value in choice_names(entry)
    if isinstance(entry, Int):
        return entry.low <= value <= entry.high and (value - entry.low) % entry.step == 0
    return entry.low <= value <= entry.high


@given(space=spaces(), seed=st.integers(0, 99), sampler=st.sampled_from(["random", "tpe"]))
def test_every_value_is_within_its_ends_and_conditions_hold(space, seed, sampler):
    study = Study(
        TuneConfig(space=space, metric="m", sampler=sampler, startup=1, seed=seed), [], {}
    )
    for number in range(3):
        chosen = study.propose(number)
        for path, entry in space.items():
            wanted = all(
                other in chosen and choice_names(space[other])[chosen[other]] == value
                for other, value in entry.when.items()
            )
            assert (path in chosen) == wanted
            assert path not in chosen or allowed(entry, chosen[path])
        study.finish(number, TrialResult(state="complete", values=[float(number)]))


@given(space=spaces())
def test_a_grid_has_every_combination_once(space):
    found = [json.dumps(chosen, sort_keys=True) for chosen in grid_parameters(space)]
    assert len(set(found)) == len(found)
    expected = {frozenset()}
    for path in in_order(space):
        grown = set()
        for some in expected:
            chosen = dict(some)
            active = all(
                o in chosen and choice_names(space[o])[chosen[o]] == v
                for o, v in space[path].when.items()
            )
            grown |= (
                {some | {(path, value)} for value in grid_values(space[path])} if active else {some}
            )
        expected = grown
    assert {frozenset(json.loads(text).items()) for text in found} == expected


@given(space=spaces(), seed=st.integers(0, 99))
def test_overrides_mean_what_was_chosen_on_the_command_line_and_in_a_base_file(space, seed):
    chosen = Study(
        TuneConfig(space=space, metric="m", sampler="random", seed=seed), [], {}
    ).propose(0)
    found = plain(parse(trial_overlay(overrides_of(space, chosen)), "best.yaml"))
    for path, given_ in chosen.items():
        section, key = path.split(".")
        value = choice_names(space[path])[given_] if isinstance(space[path], Choice) else given_
        assert found[section][key] == value
        assert type(found[section][key]) is type(value)


def test_a_grid_of_numbers_has_both_ends_and_even_steps():
    assert grid_values(Uniform(low=0, high=1, points=3)) == [0, 0.5, 1]
    assert grid_values(LogUniform(low=1e-4, high=1e-2, points=3)) == pytest.approx(
        [1e-4, 1e-3, 1e-2]
    )
    assert grid_values(Int(low=1, high=8, step=3)) == [1, 4, 7]


def test_a_choice_by_name_may_be_anything_and_conditions_may_name_several_values():
    space = {
        "a.when": Choice(values={"small": {"x": 1}, "large": {"x": 2}, "none": None}),
        "b.lr": Uniform(low=0, high=1, when={"a.when": ["small", "large"]}),
    }
    assert overrides_of(space, {"a.when": "small"}) == ['a.when={"x": 1}']
    assert set(choose_parameters(space, lambda path, _: "large" if path == "a.when" else 0.5)) == {
        "a.when",
        "b.lr",
    }
    assert set(choose_parameters(space, lambda path, _: "none")) == {"a.when"}


def test_the_order_of_entries_does_not_matter_and_circles_are_refused():
    child, parent = Int(low=1, high=2, when={"z": 1}), Choice(values=(1, 2))
    assert in_order({"a": child, "z": parent}) == ["z", "a"]
    with pytest.raises(ValidationError, match="a depends on b, which is not in the space"):
        TuneConfig(space={"a": Int(low=1, high=2, when={"b": 1})}, metric="m")
    with pytest.raises(ValidationError, match="a depends on itself"):
        TuneConfig(space={"a": Int(low=1, high=2, when={"a": 1})}, metric="m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "either metric or objectives"),
        ({"metric": "m", "objectives": [{"metric": "n"}]}, "either metric or objectives"),
        (
            {"objectives": [{"metric": "m"}, {"metric": "n"}], "scheduler": "asha"},
            "with several objectives it must be none",
        ),
        (
            {"objectives": [{"metric": "m"}, {"metric": "n"}], "sampler": "cmaes"},
            "cmaes allows only one objective",
        ),
        ({"metric": "m", "sampler": "grid"}, "a.b needs points"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        TuneConfig(space={"a.b": Uniform(low=0, high=1)}, **changes)


def test_mistakes_in_a_space_are_told_with_file_line_and_the_nearest_key(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(values(tmp_path, tmp_path)))
    file = tmp_path / "tune.yaml"
    file.write_text(
        "_base_: base.yaml\n"
        "tune:\n"
        "  metric: labels/top1\n"
        "  space:\n"
        "    schedule.optimiser.lr: {type: loguniform, low: 1e-4, high: 1e-2}\n"
        "    data.batch: {type: int, low: 0, high: 8}\n"
        "    model.heads.labels.anchors: {type: anchors}\n"
        "    serve.port: {type: int, low: 1, high: 8}\n"
        "    schedule.optimizer.lr: {type: loguniform, low: 1e-4, high: 1e-2}\n"
    )
    tree = load_tree(file)
    config = validate(tree, ExperimentConfig)
    with pytest.raises(ValueError) as caught:
        check_space(tree, config.tune.space)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(
        "tune.yaml:5: unknown key schedule.optimiser; did you mean schedule.optimizer?"
    )
    assert lines[1].endswith("tune.yaml:6: data.batch should be greater than or equal to 1, not 0")
    assert "tune.yaml:7: model.heads.labels.anchors has no anchors" in lines[2]
    assert "tune.yaml:8: serve.port cannot be searched" in lines[3]
    assert len(lines) == 4


def test_the_command_line_changes_adds_and_removes_entries_of_a_space(tmp_path):
    content = values(tmp_path, tmp_path) | {
        "tune": {
            "metric": "m",
            "space": {
                "a.lr": {"type": "uniform", "low": 0, "high": 1},
                "a.b": {"type": "int", "low": 1, "high": 2},
            },
        }
    }
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(content))
    changes = [
        "tune.space.a.lr.low=0.5",
        "tune.space.a.b=null",
        "tune.space.c.type.d={type: choice, values: [1, 2]}",
        "tune.trials=3",
    ]
    config = validate(with_flat_space(load_tree(tmp_path / "tune.yaml", changes)), ExperimentConfig)
    assert config.tune.trials == 3
    assert config.tune.space == {
        "a.lr": Uniform(low=0.5, high=1),
        "c.type.d": Choice(values=(1, 2)),
    }


def quadratic(parameters):
    return -((math.log10(parameters["a.lr"]) + 2) ** 2) - (parameters["a.x"] - 0.3) ** 2


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
@pytest.mark.parametrize("restart", [0, 20])
def test_a_search_finds_better_values_than_chance_also_after_a_restart(sampler, restart):
    space = {"a.lr": LogUniform(low=1e-5, high=1), "a.x": Uniform(low=-2, high=2)}

    def best(config):
        trials, results = [], {}
        study = Study(config, trials, results)
        for number in range(40):
            if number == restart:
                study = Study(config, trials, results)
            trials.append(Trial(number=number, parameters=study.propose(number), overrides=[]))
            results[number] = TrialResult(
                state="complete", values=[quadratic(trials[-1].parameters)]
            )
            study.finish(number, results[number])
        return sum(sorted((result.values[0] for result in results.values()), reverse=True)[:10])

    assert best(TuneConfig(space=space, metric="m", sampler=sampler, seed=3)) > best(
        TuneConfig(space=space, metric="m", sampler="random", seed=3)
    )


def test_stopped_trials_are_pruned_and_failed_ones_fail_to_the_sampler_now_and_after_a_restart():
    config = TuneConfig(space={"a.x": Uniform(low=0, high=1)}, metric="m")
    results = {
        0: TrialResult(state="complete", values=[0.5]),
        1: TrialResult(
            state="stopped",
            values=None,
            reports=[Reported(epoch=0.5, value=0.1), Reported(epoch=1.0, value=0.2)],
        ),
        2: TrialResult(state="failed", values=None, reason="out of memory"),
    }
    study = Study(config, [], {})
    trials = [
        Trial(number=number, parameters=study.propose(number), overrides=[]) for number in range(4)
    ]
    for number, result in results.items():
        study.finish(number, result)
    for found in (study, Study(config, trials, results)):
        assert [trial.state.name for trial in found.optuna.trials] == [
            "COMPLETE",
            "PRUNED",
            "FAIL",
            "RUNNING",
        ]
        assert found.optuna.trials[1].intermediate_values == {500: 0.1, 1000: 0.2}
        assert found.optuna.trials[2].values is None
        assert [trial.params for trial in found.optuna.trials] == [
            trial.parameters for trial in trials
        ]
        assert found.optuna.best_trial.number == 0


def test_what_is_tried_next_does_not_depend_on_the_process_that_draws():
    config = TuneConfig(
        space={"a.x": Uniform(low=0, high=1), "a.n": Int(low=1, high=9)},
        metric="m",
        startup=2,
        seed=5,
    )
    whole = Study(config, [], {})
    trials, results = [], {}
    for number in range(8):
        again = Study(config, trials, results).propose(number)
        trials.append(Trial(number=number, parameters=whole.propose(number), overrides=[]))
        assert again == trials[-1].parameters
        results[number] = TrialResult(state="complete", values=[trials[-1].parameters["a.x"]])
        whole.finish(number, results[number])
    assert len({trial.parameters["a.x"] for trial in trials}) == 8
