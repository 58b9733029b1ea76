"""Logs of every generation become the same records."""

import json
from pathlib import Path

import pytest

from mtl_ray.analysis.logs import Log, join_logs, read_log
from tests.analysis.openmmlab_logs import by_iteration, mmcv1, mmengine, ours, write_log


def places(log: Log, kind: str) -> list[tuple[int | None, int]]:
    return [(record.epoch, record.step) for record in log.records if record.kind == kind]


def test_steps_and_epochs_of_each_generation(tmp_path: Path) -> None:
    """The line after an epoch's end is the next epoch's, evaluations stand after the training
    before them.
    """
    old = read_log(write_log(tmp_path / "old.log.json", mmcv1((1, 2))))
    assert places(old, "train") == [
        (1, 50),
        (1, 100),
        (1, 150),
        (1, 200),
        (2, 250),
        (2, 300),
        (2, 350),
        (2, 400),
    ]
    assert places(old, "eval") == [(1, 200), (2, 400)]
    new = read_log(write_log(tmp_path / "new.json", mmengine((1, 2))))
    assert places(new, "train") == [
        (1, 50),
        (1, 100),
        (1, 150),
        (1, 200),
        (2, 257),
        (2, 307),
        (2, 357),
        (2, 407),
    ]
    assert places(new, "eval") == [(1, 200), (2, 407)]
    plain = read_log(write_log(tmp_path / "iter.json", by_iteration()))
    assert places(plain, "train") == [(None, step) for step in range(50, 301, 50)]
    assert places(plain, "eval") == [(None, 100), (None, 200), (None, 300)]
    own = read_log(write_log(tmp_path / "scalars.jsonl", ours()))
    assert places(own, "eval") == [(1, 2), (2, 4), (3, 6)]


def test_which_line_is_an_evaluation(tmp_path: Path) -> None:
    """By what is in it, not by names that contain mAP; single values of a loss are of training,
    a wrong label is seen.
    """
    lines = [
        {"epoch": 1, "iter": 10, "time": 0.3, "step": 10},
        {"loss_extra": 0.5, "step": 10},
        {"base_lr": 0.1, "acc": 3.0, "step": 20},
        {"PCK": 0.5, "AUC": 0.1, "step": 20},
        {"my/score": 1.0, "time": 2.0, "step": 20},
        {"loss": 1.0, "loss_cls": 0.5, "acc": 90.0, "time": 0.2, "step": 30},
        {"loss_cls": 0.5, "val_loss": 0.5, "coco/bbox_mAP": 0.1, "step": 30},
    ]
    assert [record.kind for record in read_log(write_log(tmp_path / "a.json", lines)).records] == [
        *(["train"] * 3),
        *("eval", "eval", "train", "eval"),
    ]
    labelled = [
        {"mode": "train", "epoch": 1, "iter": 50, "lr": 0.1, "loss": 1.0, "time": 0.2},
        {"mode": "train", "epoch": 1, "iter": 17, "lr": 0.1, "mIoU": 0.5, "aAcc": 0.9},
        {"mode": "val", "epoch": 1, "iter": 17, "lr": 0.1, "loss": 0.7},
    ]
    log = read_log(write_log(tmp_path / "b.json", labelled))
    assert [(record.kind, record.step) for record in log.records] == [
        ("train", 50),
        ("eval", 50),
        ("eval", 50),
    ]


def test_iterations_of_all_epochs(tmp_path: Path) -> None:
    """Some runners count iterations through the epochs: nothing is added then."""
    lines = [
        {"mode": "train", "epoch": 1 + step // 100, "iter": step, "loss": 1.0, "time": 0.1}
        for step in range(50, 301, 50)
    ]
    log = read_log(write_log(tmp_path / "a.json", lines))
    assert [record.step for record in log.records] == list(range(50, 301, 50))


def test_a_log_may_be_damaged(tmp_path: Path) -> None:
    """A line that was cut off is counted, NaN is no value, words are none either."""
    lines = [
        *mmengine((1,)),
        {"coco/a": float("nan"), "coco/b": 0.5, "step": 1},
        {"loss": 1.0, "lr": 0.1, "step": 300},
    ]
    log = read_log(write_log(tmp_path / "a.json", lines, cut=9))
    assert log.unread == 1
    assert "coco/b" in log.keys("eval")
    known = log.keys()
    assert "coco/a" not in known
    known = read_log(write_log(tmp_path / "b.json", mmcv1())).keys()
    assert "bbox_mAP_copypaste" not in known
    for text in ("", "not json\n", "[1, 2]\n", '{"config": "x", "seed": 1}\n'):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(ValueError, match="no line of JSON with values"):
            read_log(str(tmp_path / "c.json"))
    with pytest.raises(FileNotFoundError):
        read_log(str(tmp_path / "nowhere.json"))


def test_a_resumed_log_goes_on_where_its_checkpoint_was(tmp_path: Path) -> None:
    """Of steps that were done twice the later lines count, whether they stand in one file or in
    two.
    """
    first, second = mmengine((1, 2, 3)), mmengine((3, 4))
    whole = read_log(write_log(tmp_path / "whole.json", [*first[:-3], *second])).joined()
    parts = [
        read_log(write_log(tmp_path / name, lines))
        for name, lines in (("1.json", first[:-3]), ("2.json", second))
    ]
    assert places(whole, "train") == places(
        read_log(write_log(tmp_path / "plain.json", mmengine((1, 2, 3, 4)))), "train"
    )
    assert places(whole, "eval") == [(1, 200), (2, 407), (3, 614), (4, 821)]
    assert join_logs(parts).joined().records == whole.records


def test_a_run_that_begins_anew_replaces_another(tmp_path: Path) -> None:
    """Also where it logs less often, so that its first line stands after lines of the other."""
    other = [
        {"mode": "train", "epoch": 1, "iter": step, "loss": 9.0, "time": 0.1}
        for step in range(10, 100, 10)
    ]
    log = read_log(write_log(tmp_path / "a.log.json", [*other, *mmcv1(every=50)])).joined()
    assert log.records == read_log(write_log(tmp_path / "b.log.json", mmcv1(every=50))).records


def test_all_logs_of_a_folder_are_one(tmp_path: Path) -> None:
    """As a resumed training of mmengine leaves them; TIME.json, which says the same, is not
    read.
    """
    for time, epochs in (("20240101_000000", (1, 2)), ("20240102_000000", (3,))):
        write_log(tmp_path / time / "vis_data" / "scalars.json", mmengine(epochs))
        write_log(tmp_path / time / "vis_data" / f"{time}.json", mmengine(epochs))
    assert (
        read_log(str(tmp_path)).records
        == read_log(write_log(tmp_path / "one" / "all.json", mmengine())).records
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="no log"):
        read_log(str(tmp_path / "empty"))


def test_real_logs(shared_data: Path) -> None:
    """Every line of the real logs is a record, of the kind that the pack's description counts."""
    counts = {
        "mmdet3x_rtmdet_scalars.json": (4200, 57),
        "mmpose1x_rtmpose_scalars.json": (1800, 30),
        "mmpretrain1x_cls_scalars.json": (100, 100),
        "mmdet2x_fasterrcnn_None.log.json": (1022, 19),
    }
    for name, (train, evaluated) in counts.items():
        path = shared_data / "logs_openmmlab" / name
        log = read_log(str(path))
        assert (len(places(log, "train")), len(places(log, "eval"))) == (train, evaluated)
        if "3x" in name or "1x" in name:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            assert [record.step for record in log.records if record.kind == "train"] == [
                line["step"] for line in lines if "lr" in line
            ]
            assert [record.epoch for record in log.records if record.kind == "eval"] == [
                line["step"] for line in lines if "lr" not in line
            ]
