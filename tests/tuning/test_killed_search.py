"""A search whose process is killed and started again."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mtl_ray.tuning.record import Records
from tests.tuning.searches import LR, text_of

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.jobs

PROGRAM = """
    import sys, time
    from pathlib import Path
    from mtl_ray.config.load import load_tree
    from mtl_ray.distributed.tune import search

    def main():
        def train(config, *, on_metrics):
            folder = Path(config.runtime.storage) / config.runtime.name
            with (folder / "starts").open("a") as file:
                file.write("x")
            number = int(config.runtime.name)
            on_metrics(1, 1.0, {"m": config.schedule.optimizer.lr})
            while number == 2 and not (folder.parents[2] / "go").exists():
                time.sleep(0.1)
            on_metrics(2, 2.0, {"m": config.schedule.optimizer.lr})
            return {"run": str(folder), "step": 1, "finished": True, "metrics": {"m": config.schedule.optimizer.lr}, "best": None}

        found = search(load_tree(sys.argv[1]), train=train)
        print("DONE", found.done, len(found.results))

    main()
"""  # noqa: E501


def start(program, config):
    env = os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": "/tmp"}
    return subprocess.Popen(
        [sys.executable, str(program), str(config)],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_search_that_is_killed_goes_on_and_ends_with_the_trials_it_was_asked_for_none_twice(
    splits, tmp_path
):
    tune = {
        "metric": "m",
        "trials": 5,
        "startup": 2,
        "concurrent": 1,
        "space": {LR: {"type": "uniform", "low": 0.1, "high": 1}},
    }
    (tmp_path / "tune.yaml").write_text(text_of(splits, tmp_path, tune))
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    first = start(program, tmp_path / "tune.yaml")
    try:
        reported = tmp_path / "run" / "trials" / "0002" / "reports.json"
        while not reported.exists():
            assert first.poll() is None
            time.sleep(0.1)
        before = Records(str(tmp_path / "run")).read()
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert sorted(before[1]) == [0, 1]
    (tmp_path / "go").touch()
    second = start(program, tmp_path / "tune.yaml")
    output, _ = second.communicate()
    assert "DONE True 5" in output
    trials, results = Records(str(tmp_path / "run")).read()
    assert sorted(trials) == sorted(results) == [0, 1, 2, 3, 4]
    assert {number: trials[number] for number in (0, 1, 2)} == before[0]
    starts = [
        (tmp_path / "run" / "trials" / f"{number:04d}" / "starts").read_text()
        for number in range(5)
    ]
    assert starts == ["x", "x", "xx", "x", "x"]
    assert [each.epoch for each in results[2].reports] == [1.0, 2.0]
    assert len({trial.parameters[LR] for trial in trials.values()}) == 5
    assert "trial 2 " in output
