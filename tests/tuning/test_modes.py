"""A search never looks for the largest error by default."""

from pathlib import Path
from typing import Any

import pytest

from mtl_ray.config.document import parse
from mtl_ray.experiment import read_experiment
from mtl_ray.tasks.classification.metric import ExclusiveMetric
from mtl_ray.tuning.search import Search
from tests.tuning.searches import LR, text_of


def search_of(splits: Path, folder: Path, **tune: Any) -> Search:
    space = {LR: {"type": "choice", "values": [1, 2]}}
    tree = parse(text_of(splits, folder, {"space": space, "trials": 2, **tune}), "a.yaml")
    return Search(tree, read_experiment(tree))


@pytest.mark.parametrize(
    "tune",
    [
        {"metric": "flops"},
        {"objectives": [{"metric": "labels/mAP"}, {"metric": "latency_ms"}]},
        {"metric": "labels/top1"},
    ],
)
def test_the_highest_figure_of_which_less_is_better_is_refused(
    splits: Path, tmp_path: Path, tune: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written, so that the corrected config starts in the same folder."""
    monkeypatch.setattr(ExclusiveMetric, "lower_is_better", frozenset({"top1"}))
    with pytest.raises(
        ValueError, match=r"highest \w+.*, of which less is better\. Fix: mode: min"
    ):
        search_of(splits, tmp_path, **tune)
    goals = tune.get("objectives", [tune])
    fixed = {"objectives": [{**goals[0]}, {**goals[-1], "mode": "min"}][-len(goals) :]}
    assert search_of(splits, tmp_path, **fixed).total == 2


@pytest.mark.parametrize("metric", ["labels/mAP", "other/flops", "training/loss"])
def test_other_figures_may_be_maximised(splits: Path, tmp_path: Path, metric: str) -> None:
    assert search_of(splits, tmp_path, metric=metric).tune.mode == "max"
