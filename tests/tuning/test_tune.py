"""Searches on a real Ray: trials that are stopped, fail or lose their process."""

import json
import os
import signal
from pathlib import Path

import pytest
import yaml

from mtl_ray.config.document import parse
from mtl_ray.config.load import load_tree
from mtl_ray.config.validate import validate
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.tuning.report import best_yaml, trials_table, write_search_report
from tests.tuning.searches import LR, text_of

pytestmark = pytest.mark.jobs


def made_up(behave):
    """Replaces a training: ``behave(lr, folder)`` yields the evaluations, each with metrics or
    an exception.
    """

    def train(config, *, on_metrics):
        folder = Path(config.runtime.storage) / config.runtime.name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "starts").open("a") as file:
            file.write("x")
        found, finished = {}, True
        for step, metrics in enumerate(behave(config, folder), 1):
            if isinstance(metrics, Exception):
                raise metrics
            found = metrics
            if on_metrics(step, float(step), metrics):
                finished = False
                break
        return {"run": str(folder), "step": 1, "finished": finished, "metrics": found, "best": None}

    return train


def run_search(text, behave):
    from mtl_ray.distributed.tune import search

    return search(parse(text, "test"), train=made_up(behave))


def test_a_trial_that_fails_is_recorded_with_its_reason_and_one_whose_process_dies_is_started_again(
    ray_session, splits, tmp_path, capsys
):
    def behave(config, folder):
        lr = config.schedule.optimizer.lr
        if lr == 1:
            raise ValueError("the loss is not finite at step 3 (loss=nan)")
        if lr == 2:
            raise RuntimeError("CUDA out of memory")
        if lr == 3:
            return [{"other": 1.0}]
        if lr == 4 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [{"m": lr}]

    tune = {
        "metric": "m",
        "sampler": "grid",
        "concurrent": 2,
        "space": {LR: {"type": "choice", "values": [1, 2, 3, 4, 5]}},
    }
    found = run_search(text_of(splits, tmp_path, tune), behave)
    assert found.done
    rows = {row[LR]: row for row in trials_table(found)}
    assert [rows[str(lr)]["state"] for lr in range(1, 6)] == [
        "failed",
        "failed",
        "failed",
        "complete",
        "complete",
    ]
    assert rows["1"]["reason"] == "the loss is not finite at step 3 (loss=nan)"
    assert rows["2"]["reason"] == "RuntimeError: CUDA out of memory"
    assert rows["3"]["reason"] == "the evaluation has no value of m; it has other"
    assert (tmp_path / "run" / "trials" / "0003" / "starts").read_text() == "xx"
    assert found.best() == [4]
    assert [trial.state.name for trial in found.study.optuna.trials] == [
        "FAIL",
        "FAIL",
        "FAIL",
        "COMPLETE",
        "COMPLETE",
    ]
    assert "trial 1    failed   RuntimeError: CUDA out of memory" in capsys.readouterr().out
    (tmp_path / "base.yaml").write_text(text_of(splits, tmp_path, tune))
    (tmp_path / "best.yaml").write_text(best_yaml(found, 4))
    (tmp_path / "tuned.yaml").write_text("_base_: [base.yaml, best.yaml]\n")
    assert validate(load_tree(tmp_path / "tuned.yaml"), ExperimentConfig).schedule.optimizer.lr == 5
    again = run_search(text_of(splits, tmp_path, tune), behave)
    assert again.done
    assert trials_table(again) == trials_table(found)
    with pytest.raises(
        ValueError, match=r"was started with another config: tune\.sampler, schedule\.steps"
    ):
        run_search(text_of(splits, tmp_path, tune | {"sampler": "tpe"}, steps=99), behave)


def test_trials_stopped_by_asha_are_pruned_and_never_complete(ray_session, splits, tmp_path):
    def behave(config, folder):
        return [{"m": config.schedule.optimizer.lr * epoch} for epoch in range(1, 5)]

    tune = {"metric": "m", "sampler": "grid", "scheduler": "asha", "reduction": 2, "concurrent": 1}
    tune["space"] = {LR: {"type": "choice", "values": [4, 3, 5, 1]}}
    found = run_search(text_of(splits, tmp_path, tune), behave)
    assert [row["state"] for row in trials_table(found)] == [
        "complete",
        "stopped",
        "complete",
        "stopped",
    ]
    stopped = found.results[1]
    assert (stopped.values, stopped.reason, [each.value for each in stopped.reports]) == (
        None,
        "after 1 epochs",
        [3.0],
    )
    pruned = found.study.optuna.trials[1]
    assert (pruned.state.name, pruned.intermediate_values) == ("PRUNED", {1000: 3.0})
    assert found.results[2].values == [20.0]


def test_several_objectives_give_the_trials_that_none_beats(ray_session, splits, tmp_path):
    def behave(config, folder):
        lr = config.schedule.optimizer.lr
        return [{"good": lr, "dear": lr * lr if lr != 3 else 100.0}]

    tune = {
        "objectives": [{"metric": "good"}, {"metric": "dear", "mode": "min"}],
        "sampler": "grid",
        "concurrent": 2,
    }
    tune["space"] = {LR: {"type": "choice", "values": [1, 2, 3, 4]}}
    found = run_search(text_of(splits, tmp_path, tune), behave)
    assert found.best() == [3, 1, 0]
    names = {uri.rpartition("/")[2] for uri in write_search_report(found)}
    assert names >= {
        "trials.csv",
        "trials.json",
        "best.yaml",
        "best-0000.yaml",
        "best-0001.yaml",
        "best-0003.yaml",
        "pareto.png",
        "history.png",
    }
    assert json.loads((tmp_path / "run" / "trials.json").read_text())[3]["dear"] == 16
    assert all(
        (tmp_path / "run" / name).read_bytes()[:4] == b"\x89PNG"
        for name in names
        if name.endswith(".png")
    )


def test_real_trials_are_ordinary_runs_with_anchors_of_their_own_canvas_and_costs(
    ray_session, splits, tmp_path
):
    from jobs.tune import main

    content = yaml.safe_load(text_of(splits, tmp_path, {}, steps=2, evaluate_every_steps=None))
    content["model"]["necks"] = {"pyramid": {"type": "fpn", "inputs": ["C3", "C5"], "channels": 16}}
    anchors = [[[8, 8]], [[16, 16]]]
    content["model"]["heads"] = {
        "boxes": {"type": "yolov3", "levels": ["P3", "P5"], "channels": 16, "anchors": anchors}
    }
    content["tune"] = {
        "objectives": [{"metric": "boxes/mAP"}, {"metric": "flops", "mode": "min"}],
        "sampler": "grid",
        "concurrent": 2,
        "space": {
            "data.canvas": {
                "type": "choice",
                "values": {
                    "small": {"height": 32, "width": 32},
                    "large": {"height": 64, "width": 64},
                },
            },
            "model.heads.boxes.anchors": {"type": "anchors", "low": 1, "high": 1},
        },
    }
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(content))
    assert main([str(tmp_path / "tune.yaml")]) == 0
    rows = json.loads((tmp_path / "run" / "trials.json").read_text())
    assert [row["state"] for row in rows] == ["complete", "complete"], rows
    small, large = sorted(row["flops"] for row in rows)
    assert large == pytest.approx(4 * small, rel=0.1)
    by_canvas = {}
    for row in rows:
        run = tmp_path / "run" / "trials" / f"{row['trial']:04d}"
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert (config["runtime"]["name"], config["runtime"]["wandb_group"], config["tune"]) == (
            run.name,
            "run",
            None,
        )
        assert (run / "checkpoints").is_dir()
        by_canvas[config["data"]["canvas"]["height"]] = config["model"]["heads"]["boxes"]["anchors"]
    assert len(by_canvas[32]) == len(by_canvas[64]) == 1  # all squares are small: P5 gets none
    assert by_canvas[64][0][1][0] == pytest.approx(2 * by_canvas[32][0][1][0], rel=0.02)
