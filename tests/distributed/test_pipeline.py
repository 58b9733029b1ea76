"""A whole pipeline from one file, run twice: the second run repeats nothing."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_ray.distributed.pipeline import check_expected
from mtl_ray.distributed.stage import Stage, StageOutcome, answer_text, stage_table

ROOT = Path(__file__).parents[2]


def test_expectations_are_held_against_the_figures():
    assert check_expected({"boxes/mAP50": 0.85}, {"boxes/mAP50": 0.8}) == (
        "boxes/mAP50 0.850 >= 0.8",
        True,
    )
    assert check_expected({"a/x": 0.5, "b/y": 0.9}, {"a/x": 0.6, "b/y": 0.9}) == (
        "a/x 0.500 is below 0.6, b/y 0.900 >= 0.9",
        False,
    )
    assert check_expected({"a/x": float("nan")}, {"a/x": 0.1})[1] is False
    errors = {"a/rmse": 0.5, "b/rmse": 0.9}
    assert check_expected(errors, {"a/rmse": 0.6, "b/rmse": 0.8}, errors.keys()) == (
        "a/rmse 0.500 <= 0.6, b/rmse 0.900 is above 0.8",
        False,
    )
    assert check_expected({"a/rmse": float("nan")}, {"a/rmse": 0.1}, {"a/rmse"})[1] is False
    assert check_expected({"a/x": 0.5}, {}) == ("1 figures", True)
    with pytest.raises(
        ValueError, match="expects labels/mAP, which was not measured; there is a/x"
    ):
        check_expected({"a/x": 0.5}, {"labels/mAP": 0.1})


def test_the_table_shows_every_stage_and_what_did_not_hold():
    stages = [
        Stage(
            name="train",
            seconds=12.34,
            outcome=StageOutcome(result="done", where=str(Path.cwd() / "runs" / "x")),
        ),
        Stage(
            name="export",
            seconds=1.0,
            outcome=StageOutcome(result="parity failed", where="s3://bucket/x", held=False),
        ),
    ]
    lines = stage_table(stages).splitlines()
    assert re.fullmatch(r"train +12\.3 s  done +runs/x", lines[2])
    assert lines[3].endswith("s3://bucket/x")
    assert re.fullmatch(r"all +13\.3 s  did not hold: export", lines[-1])
    assert "every check held" in stage_table(stages[:1])


def test_a_long_answer_is_shown_by_its_beginning():
    answer = {
        "boxes": [{"bbox": [1.2648, 2.0], "score": 0.5}] * 5,
        "map": {"png": "x" * 100},
        "labels": [],
    }
    line = '    {"bbox": [1.265, 2.0], "score": 0.5},\n'
    text = (
        '{\n  "boxes": [\n'
        + line * 3
        + '    ... 2 more\n  ],\n  "map": {"png": "'
        + "x" * 40
        + '..."},\n  "labels": []\n}'
    )
    assert answer_text(answer) == text
    assert answer_text([]) == "[]"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_pipeline(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    config = folder / "pipeline.yaml"
    config.write_text(
        f"""\
experiment:
  _base_: {ROOT / "configs/multitask/digits.yaml"}
  data: {{train: {{uri: {folder}/train}}, val: {{uri: {folder}/val}}, canvas: {{height: 64, width: 64}}, batch: 4}}
  schedule: {{epochs: null, steps: 2}}
  runtime: {{name: tiny, storage: {folder}/runs, workers: 2, wandb: disabled}}
  export: {{samples: 3}}
  serve: {{port: {free_port()}}}
convert:
  train: {{type: digits, split: train, num: 12, size: 64}}
  val: {{type: digits, split: val, num: 6, size: 64}}
pictures: 2
"""  # noqa: E501
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-m", "jobs.pipeline", str(config), *overrides],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_tiny_pipeline_runs_and_runs_again(tmp_path):
    first = run_pipeline(tmp_path)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    stages = [
        line.split()[0]
        for line in first.stdout.split("stage ")[-1].splitlines()
        if line and line[0].isalpha()
    ]
    assert stages == [
        "convert",
        "convert",
        "train",
        "evaluate",
        "export",
        "serve",
        "compare",
        "all",
    ]
    assert '"class_name"' in first.stdout
    assert len(list((tmp_path / "runs" / "tiny" / "answers").glob("*.jpg"))) == 2
    again = run_pipeline(tmp_path, "expect={boxes/mAP50: 1.01}")
    assert again.returncode == 1, again.stdout[-3000:] + again.stderr[-3000:]
    assert again.stdout.count("there already") >= 3
    assert "did not hold: evaluate" in again.stdout
