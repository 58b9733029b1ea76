"""Curves of logs: keys, places, smoothing, and the files of the job."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.analyze import curves as job
from mtl_ray import storage
from mtl_ray.analysis.curves import axis_of, curves_of, smoothed
from mtl_ray.analysis.curves_figure import draw_curves, figure_bytes
from mtl_ray.analysis.logs import read_log
from tests.analysis.openmmlab_logs import by_iteration, mmcv1, mmengine, ours, write_log


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_keys_with_and_without_prefix(tmp_path: Path) -> None:
    """As written, without the prefix, or with one that the log does not have; brackets and
    blanks are part of a key.
    """
    new = read_log(write_log(tmp_path / "new.json", mmengine()))
    old = read_log(write_log(tmp_path / "old.json", mmcv1()))
    for key in ("bbox_mAP", "coco/bbox_mAP"):
        for curve in curves_of([new, old], [key]):
            assert curve.kind == "eval"
            assert curve.epochs.tolist() == [1, 2, 3]
            assert curve.values.tolist() == [0.1, 0.2, 0.3]
    assert curves_of([new], ["AP (L)"])[0].values.tolist() == [-1, -1, -1]
    kitti = [{"KITTI/Car_3D_AP11_moderate_strict": 70.0, "step": 1}]
    log = read_log(write_log(tmp_path / "kitti.json", kitti))
    for key in (
        "KITTI/Car_3D_moderate_strict",
        "Car_3D_AP11_moderate_strict",
        "pred_instances_3d/KITTI/Car_3D_AP11_moderate_strict",
    ):
        assert curves_of([log], [key])[0].values.tolist() == [70.0]
    own = [
        {
            "objects/KITTI/Car_3D_AP11_moderate_strict": 70.0,
            "objects/KITTI/Car_3D_AP40_moderate_strict": 71.0,
            "objects/KITTI/Car_3D_AP40exact_moderate_strict": 72.0,
            "step": 1,
        }
    ]
    log = read_log(write_log(tmp_path / "own.jsonl", own))
    for key, value in (
        ("KITTI/Car_3D_moderate_strict", 70.0),
        ("KITTI/Car_3D_AP40_moderate_strict", 71.0),
        ("Car_3D_AP40exact_moderate_strict", 72.0),
    ):
        assert curves_of([log], [key])[0].values.tolist() == [value]


def test_unknown_and_ambiguous_keys_are_explained(tmp_path: Path) -> None:
    """With the keys that there are, by the kind of line."""
    log = read_log(write_log(tmp_path / "a.jsonl", ours()))
    with pytest.raises(
        ValueError,
        match=r"no key 'mIoU'.*train: boxes/loss_box, loss, data_time, time; eval: boxes/mAP, time",
    ):
        curves_of([log], ["mIoU"])
    with pytest.raises(ValueError, match=r"no key 'loss'.*eval: boxes/mAP"):
        curves_of([log], ["loss"], kind="eval")
    lines = [{"mode": "val", "step": 1, "boxes/mAP": 0.1, "masks/mAP": 0.2}]
    with pytest.raises(ValueError, match="several keys 'mAP': boxes/mAP, masks/mAP"):
        curves_of([read_log(write_log(tmp_path / "b.jsonl", lines))], ["mAP"])
    with pytest.raises(ValueError, match="3 names for 1 logs x 2 keys"):
        curves_of([log], ["loss", "boxes/mAP"], labels=["a", "b", "c"])


def test_places_of_points(tmp_path: Path) -> None:
    """Training lines have a fraction of their epoch and the time that went by; evaluations those
    of the training before them.
    """
    (loss,) = curves_of(
        [read_log(write_log(tmp_path / "a.json", mmengine((1, 2), tail=0)))], ["loss"]
    )
    assert loss.steps.tolist() == [50, 100, 150, 200, 250, 300, 350, 400]
    assert loss.epochs.tolist() == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert loss.seconds[:3] == pytest.approx([50 * 0.9, 50 * 1.11, 50 * 1.32])
    (own,) = curves_of([read_log(write_log(tmp_path / "b.jsonl", ours()))], ["mAP"])
    assert (own.steps.tolist(), own.epochs.tolist()) == ([2, 4, 6], [1, 2, 3])
    assert own.seconds == pytest.approx([0.2, 0.4, 0.6])
    (plain,) = curves_of([read_log(write_log(tmp_path / "c.json", by_iteration()))], ["mIoU"])
    assert plain.steps.tolist() == [100, 200, 300]
    assert np.isnan(plain.epochs).all()


def test_axis(tmp_path: Path) -> None:
    """Epochs only where every curve has whole and different ones; mmcv's runner by iteration
    stays in its first epoch.
    """
    by_epoch = read_log(write_log(tmp_path / "a.json", mmengine()))
    assert axis_of(curves_of([by_epoch], ["bbox_mAP"])) == "epoch"
    assert axis_of(curves_of([by_epoch], ["bbox_mAP", "loss"])) == "step"
    assert (
        axis_of(curves_of([read_log(write_log(tmp_path / "b.json", by_iteration()))], ["mIoU"]))
        == "step"
    )
    lines = []
    for step in (100, 200, 300):
        lines += [{"mode": "train", "epoch": 1, "iter": step, "loss": 1.0, "time": 0.1}]
        lines += [{"mode": "val", "epoch": 1, "iter": 9, "mIoU": step / 1000}]
    (curve,) = curves_of([read_log(write_log(tmp_path / "c.json", lines))], ["mIoU"])
    assert curve.steps.tolist() == [100, 200, 300]
    assert axis_of([curve]) == "step"


def test_interval_places_evaluations_that_do_not_say_where(tmp_path: Path) -> None:
    """And changes nothing where they do."""
    log = read_log(
        write_log(tmp_path / "a.json", [{"coco/bbox_mAP": value} for value in (0.1, 0.2, 0.3)])
    )
    assert curves_of([log], ["bbox_mAP"], interval=5)[0].epochs.tolist() == [5, 10, 15]
    known = read_log(write_log(tmp_path / "b.json", mmengine(evaluate=2, epochs=(1, 2, 3, 4))))
    assert curves_of([known], ["bbox_mAP"], interval=5)[0].epochs.tolist() == [2, 4]


def test_smoothing() -> None:
    """A constant stays what it is, and the weights of the past sum to one."""
    assert smoothed(np.full(5, 3.0), 0.9) == pytest.approx(np.full(5, 3.0))
    assert smoothed(np.array([1.0, 2.0]), 0.5) == pytest.approx([1.0, (1 * 0.25 + 2 * 0.5) / 0.75])


def test_the_job_writes_figure_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In several formats, styles and back ends; the table holds each point."""
    logs = [
        write_log(tmp_path / name / "scalars.json", mmengine(), cut=4)
        for name in ("small", "large")
    ]
    options = [
        "--keys",
        "loss",
        "bbox_mAP",
        "--legend",
        "a",
        "b",
        "_c",
        "d $x$",
        "--title",
        "T",
        "--style",
        "dark",
        "--smooth",
        "0.5",
    ]
    assert job.main([*logs, *options, "--out", str(tmp_path / "out" / "c.png")]) == 0
    assert "1 lines are not JSON" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "c.png") as picture:
        assert picture.width > 600
    table = rows(tmp_path / "out" / "c.csv")
    assert [row["curve"] for row in table] == ["a"] * 12 + ["b"] * 2 + ["_c"] * 12 + ["d $x$"] * 2
    assert {row["key"] for row in table} == {"loss", "coco/bbox_mAP"}
    assert table[0] | {"log": "", "smoothed": ""} == {
        **{"curve": "a", "log": "", "key": "loss", "mode": "train"},
        **{
            "step": "50",
            "epoch": table[0]["epoch"],
            "seconds": "45",
            "value": "1.0",
            "smoothed": "",
        },
    }
    for name, backend in (("d.pdf", "pdf"), ("d.svg", "svg"), ("d.png", "TkAgg")):
        assert (
            job.main(
                [
                    logs[0],
                    "--keys",
                    "loss",
                    "--x",
                    "time",
                    "--backend",
                    backend,
                    "--out",
                    str(tmp_path / name),
                ]
            )
            == 0
        )
        assert (tmp_path / name).stat().st_size > 1000
    assert "<text" in (tmp_path / "d.svg").read_text()


def test_resumed_logs_are_joined_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two files of one training are one curve."""
    logs = [
        write_log(tmp_path / f"{number}.json", mmengine(epochs))
        for number, epochs in enumerate(((1, 2), (2, 3)))
    ]
    assert (
        job.main(
            [*logs, "--join", "--keys", "loss", "--mode", "train", "--out", str(tmp_path / "c.png")]
        )
        == 0
    )
    assert "5 earlier lines were left out" in capsys.readouterr().out
    assert [int(row["step"]) for row in rows(tmp_path / "c.csv")] == [
        50,
        100,
        150,
        200,
        257,
        307,
        357,
        407,
        464,
        514,
        564,
        614,
    ]


def test_logs_and_figures_in_a_bucket(capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever a path stands, a URI may stand; a folder there is read as one log."""
    lines = "".join(json.dumps(line) + "\n" for line in mmengine())
    storage.write("memory://curves/run/vis_data/scalars.json", lines.encode())
    assert (
        job.main(["memory://curves/run", "--keys", "loss", "--out", "memory://curves/out/c.svg"])
        == 0
    )
    assert (
        "12 points of 1 curves are in memory://curves/out/c.svg and memory://curves/out/c.csv"
        in capsys.readouterr().out
    )
    assert storage.names("memory://curves/out") == ["c.csv", "c.svg"]


@pytest.mark.parametrize(
    "name", ["c{}", "a name that has more letters than there is room beside it {}"]
)
def test_everything_of_many_curves_is_inside_the_figure(tmp_path: Path, name: str) -> None:
    """All names, and a long title; and no two curves look the same."""
    lines = [
        {
            "mode": "train",
            "epoch": 1,
            "iter": step,
            "time": 0.1,
            **{f"loss{n}": 1.0 for n in range(40)},
        }
        for step in (1, 2)
    ]
    log = read_log(write_log(tmp_path / "a.log.json", lines))
    curves = curves_of(
        [log], [f"loss{n}" for n in range(40)], labels=[name.format(n) for n in range(40)]
    )
    figure = draw_curves(curves, "step", title="a title of many words " * 8)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    texts = [
        axes.title,
        *(
            text
            for box in (*figure.legends, axes.get_legend())
            if box is not None
            for text in box.get_texts()
        ),
    ]
    assert len(texts) == 41
    edges = np.array([text.get_window_extent().extents for text in texts])
    assert (edges[:, :2] >= 0).all()
    assert (edges[:, 2:] <= figure.bbox.extents[2:]).all()
    assert (
        len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines})
        == 40
    )
    assert axes.get_position().height * figure.get_figheight() > 2


def test_a_single_evaluation_stands_at_a_whole_epoch(tmp_path: Path) -> None:
    """And not between 11.8 and 12.2."""
    curves = curves_of(
        [read_log(write_log(tmp_path / "a.log.json", mmcv1(epochs=(12,))))], ["bbox_mAP"]
    )
    ticks = draw_curves(curves, "epoch").axes[0].get_xticks()
    assert 12 in ticks
    assert (ticks == ticks.round()).all()


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    """A format that there is not, a back end that there is not or that does not write it, an
    axis that the log does not have.
    """
    log = read_log(write_log(tmp_path / "a.json", by_iteration()))
    curves = curves_of([log], ["loss"])
    figure = draw_curves(curves, "step")
    with pytest.raises(ValueError, match=r"one of .*png"):
        figure_bytes(figure, "a.docx")
    with pytest.raises(ValueError, match="no back end 'nix'"):
        figure_bytes(figure, "a.png", "nix")
    with pytest.raises(ValueError, match="png"):
        figure_bytes(figure, "a.png", "svg")
    with pytest.raises(ValueError, match="does not say the epoch"):
        draw_curves(curves, "epoch")
    with pytest.raises(ValueError, match="--smooth"):
        curves_of([log], ["loss"], smooth=1)


def test_real_logs(shared_data: Path, tmp_path: Path) -> None:
    """Values of the real logs are drawn as they stand there."""
    path = shared_data / "logs_openmmlab" / "mmpose1x_rtmpose_scalars.json"
    assert (
        job.main(
            [str(path), "--keys", "AP (L)", "coco/AP .5", "PCK", "--out", str(tmp_path / "c.png")]
        )
        == 0
    )
    found = [json.loads(line) for line in path.read_text().splitlines()]
    wanted = [
        line[key] for key in ("coco/AP (L)", "coco/AP .5", "PCK") for line in found if key in line
    ]
    assert [float(row["value"]) for row in rows(tmp_path / "c.csv")] == wanted
