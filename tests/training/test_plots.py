"""The curves of a run: every metric is in some figure, and no figure has more than can be told
apart.
"""

from pathlib import Path

import pytest

from mtl_ray.tasks.lidar.task import DETECTION_3D
from mtl_ray.training import plots


def metric_rows(count: int) -> list[dict[str, object]]:
    values = {f"boxes/metric{i}": 0.5 for i in range(count)}
    return [
        {"mode": "val", "epoch": step, "step": step, "time": 1.0, "boxes/none": None, **values}
        for step in (1, 2)
    ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The names of the curves of each figure that is drawn, by its title."""
    found: dict[str, list[str]] = {}

    def keep(rows, names, title, label, *, log=False, of=plots._curves):
        found[title] = list(names)
        return of(rows, names, title, label, log=log)

    monkeypatch.setattr(plots, "_curves", keep)
    return found


@pytest.mark.parametrize(("count", "figures"), [(1, 1), (7, 1), (8, 2), (17, 3)])
def test_many_metrics_go_into_several_figures(
    tmp_path: Path, count: int, figures: int, drawn: dict[str, list[str]]
) -> None:
    plots.draw_training_curves(metric_rows(count), str(tmp_path), {})
    assert len(drawn) == figures
    assert [name for names in drawn.values() for name in names] == [
        f"boxes/metric{i}" for i in range(count)
    ]
    assert max(map(len, drawn.values())) <= plots.MOST_CURVES
    assert figures == 1 or f"Validation: boxes (2 of {figures})" in drawn
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["metrics-boxes.png", *(f"metrics-boxes-{number}.png" for number in range(2, figures + 1))]
    )


@pytest.mark.parametrize(("count", "curves"), [(1, 2), (12, 13), (13, 13), (40, 13)])
def test_of_many_losses_the_largest_are_drawn_and_the_sum_of_the_others(
    tmp_path: Path, count: int, curves: int, drawn: dict[str, list[str]]
) -> None:
    values = {f"boxes/loss_{i}": float(i + 1) for i in range(count)}
    rows = [
        {"mode": "train", "step": step, "loss": 1.0, "lr": 0.1, "images_per_s": 1.0, **values}
        for step in (1, 2)
    ]
    plots.draw_training_curves(rows, str(tmp_path), {})
    names = drawn["Loss"]
    assert len(names) == curves
    largest = [f"boxes/loss_{i}" for i in range(count)][-11:]
    assert set(largest) <= set(names)
    assert (names[-1] == f"sum of {count - 11} smaller") == (count > 12)


def test_a_head_with_very_many_metrics_shows_some_and_groups_have_their_own_figure(
    tmp_path: Path, drawn: dict[str, list[str]]
) -> None:
    names = [
        "boxes/mAP",
        "boxes/KITTI/Car_3D_AP40_moderate_strict",
        "boxes/KITTI/Car_3D_AP11_easy_loose",
        "labels/KITTI/top1",
    ]
    rows = [{"mode": "val", "step": step, **dict.fromkeys(names, 0.5)} for step in (1, 2)]
    plots.draw_training_curves(rows, str(tmp_path), {"boxes": DETECTION_3D})
    assert list(drawn.values()) == [names[:1], names[1:2], names[3:]]
    assert {path.name for path in tmp_path.iterdir()} == {
        "metrics-boxes.png",
        "metrics-boxes-KITTI.png",
        "metrics-labels-KITTI.png",
    }


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ((0.002, 0.004), (0, 0), (0.004, 0.01)),
        ((3.0, 40.0), (0, 0), (40, 50)),
        ((-2.0, 0.5), (-3, -2), (0.5, 1)),
    ],
)
def test_a_figure_shows_metrics_of_any_range(
    values: tuple[float, ...], low: tuple[float, float], high: tuple[float, float]
) -> None:
    rows = [{"step": step, "a/error": value} for step, value in enumerate(values)]
    bottom, top = plots._curves(rows, ["a/error"], "title", "metric").axes[0].get_ylim()
    assert low[0] <= bottom <= low[1]
    assert high[0] <= top <= high[1]
