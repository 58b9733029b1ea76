"""Tasks over items: order, limits, lost workers and errors."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from mtl_ray.distributed.executor import fan_out


def _square(number: int) -> int:
    time.sleep(0.02 * (number % 3))
    return number * number


def _fail_at(bad: int, number: int) -> int:
    if number == bad:
        raise ValueError(f"{number} is too much")
    return number


def _die_once(folder: Path, number: int) -> int:
    mark = folder / str(number)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _note(folder: Path, number: int) -> int:
    (folder / str(number)).touch()
    return number


@pytest.mark.usefixtures("ray_session")
def test_results_come_in_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # on a terminal, progress is drawn
    assert list(fan_out(_square, range(20), description="squares")) == [
        number * number for number in range(20)
    ]
    assert list(fan_out(_square, [], description="nothing")) == []
    assert "squares" in capsys.readouterr().err


@pytest.mark.usefixtures("ray_session")
def test_an_error_keeps_its_type_and_words() -> None:
    results = fan_out(partial(_fail_at, 3), range(100), description="failing")
    with pytest.raises(ValueError, match=r"^3 is too much$") as caught:
        list(results)
    assert type(caught.value) is ValueError


@pytest.mark.usefixtures("ray_session")
def test_a_lost_worker_is_replaced(tmp_path: Path) -> None:
    assert list(fan_out(partial(_die_once, tmp_path), range(3), description="dying")) == [0, 1, 2]


@pytest.mark.usefixtures("ray_session")
def test_nothing_runs_far_ahead(tmp_path: Path) -> None:
    results = fan_out(partial(_note, tmp_path), range(1000), description="ahead", workers=2)
    assert next(results) == 0
    results.close()
    assert 1 <= len(list(tmp_path.iterdir())) <= 10
