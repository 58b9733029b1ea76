"""The time of training steps: the documented lines, epochs by their number."""

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.analyze import train_time as job
from mtl_ray.analysis.logs import read_log
from mtl_ray.analysis.train_time import train_time
from tests.analysis.openmmlab_logs import by_iteration, mmcv1, mmengine, write_log


@pytest.mark.parametrize("form", [mmcv1, mmengine])
def test_first_record_of_each_epoch_is_left_out(form: object, tmp_path: Path) -> None:
    """Both generations say the same: 0.9 s is the start of an epoch, and belongs to that epoch."""
    assert callable(form)
    log = read_log(write_log(tmp_path / "a.json", form((5, 6, 7))))
    found = train_time(log)
    assert [(each.epoch, each.records) for each in found.epochs] == [(5, 3), (6, 3), (7, 3)]
    assert [each.seconds for each in found.epochs] == pytest.approx([0.25, 0.26, 0.27])
    assert (found.slowest.epoch, found.fastest.epoch) == (7, 5)
    assert found.average == pytest.approx(0.26)
    assert found.std == pytest.approx(np.std([0.25, 0.26, 0.27]))
    assert train_time(log, include_outliers=True).epochs[0].seconds == pytest.approx(
        (0.9 + 3 * 0.25) / 4
    )


def test_epochs_of_one_record_count(tmp_path: Path) -> None:
    """There is nothing else to average, and no NaN."""
    found = train_time(read_log(write_log(tmp_path / "a.json", mmengine(logged=1))))
    assert [each.seconds for each in found.epochs] == [0.9, 0.9, 0.9]
    assert found.std == 0


def test_without_epochs(tmp_path: Path) -> None:
    """A training by iteration is one epoch; the time of its evaluations is not that of its
    steps.
    """
    found = train_time(read_log(write_log(tmp_path / "a.json", by_iteration())))
    assert [(each.epoch, each.seconds) for each in found.epochs] == [(1, 0.5)]
    with pytest.raises(ValueError, match="says a time"):
        train_time(read_log(write_log(tmp_path / "b.json", [{"loss": 1.0, "step": 1}])))


def test_the_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As they are documented, one block a log; the figures of each epoch as JSON."""
    logs = [
        write_log(tmp_path / "a.log.json", mmcv1((3, 4))),
        write_log(tmp_path / "b.json", mmengine()),
    ]
    assert job.main([*logs, "--json", str(tmp_path / "out.json")]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    assert blocks[0].splitlines() == [
        f"-----Analyze train time of {logs[0]}-----",
        "slowest epoch 4, average time is 0.2400 s/iter",
        "fastest epoch 3, average time is 0.2300 s/iter",
        "time std over epochs is 0.0050",
        "average iter time: 0.2350 s/iter",
    ]
    assert len(blocks) == 2
    assert [len(each["epochs"]) for each in json.loads((tmp_path / "out.json").read_text())] == [
        2,
        3,
    ]


def test_real_logs(shared_data: Path) -> None:
    """Against a few lines of NumPy over the raw JSON."""
    for path in sorted((shared_data / "logs_openmmlab").glob("*.json")):
        by_epoch: dict[int, list[float]] = {}
        for line in map(json.loads, path.read_text().splitlines()):
            if line.get("mode", "train") == "train" and "lr" in line:
                by_epoch.setdefault(line["epoch"], []).append(line["time"])
        means = [np.mean(times[1:] or times) for _, times in sorted(by_epoch.items())]
        found = train_time(read_log(str(path)))
        assert [each.seconds for each in found.epochs] == pytest.approx(means)
        assert (found.average, found.std) == pytest.approx((np.mean(means), np.std(means)))
        assert found.slowest.epoch == sorted(by_epoch)[int(np.argmax(means))]
