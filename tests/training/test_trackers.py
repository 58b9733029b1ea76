"""What Weights & Biases gets of a run: every step once, through kills, replays and a server that
is not there. Real wandb, offline.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.wandb_sync import main as sync
from mtl_ray import storage
from mtl_ray.artifact import publish
from mtl_ray.training.checkpoint import claim
from mtl_ray.training.context import RunContext
from mtl_ray.training.trackers import EvaluationFigures
from mtl_ray.training.trainer import run
from mtl_ray.training.wandb_sync import run_id_of, send_bundle
from mtl_ray.training.wandb_tracker import (
    Wandb,
    held_in,
    records,
    step_of,
    tracked_numbers,
    wandb_files,
    wandb_mode,
)
from tests.training.conftest import MakeConfig, Train

KEY = "5ec2e7" + "0123456789abcdef" * 2 + "42"
CHARTS = {"labels/confusion", "labels/pr_curves", "semantic/confusion"}


@pytest.fixture(autouse=True)
def own_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))


def of_kind(run_uri: str, kind: str) -> Iterator[Any]:
    """The records of a kind in all files of a run, in the order of its attempts."""
    for uri in wandb_files(run_uri, run_id_of(run_uri)):
        yield from (
            getattr(record, kind) for record in records(storage.read(uri)) if record.HasField(kind)
        )


def steps(run_uri: str) -> list[int]:
    return [step_of(history) for history in of_kind(run_uri, "history")]


def keys(history: Any) -> set[str]:
    return {item.key or item.nested_key[0] for item in history.item}


def aliases(run_uri: str, kind: str) -> list[tuple[str, list[str]]]:
    """Where each artifact lies, and what it is called."""
    found = [
        artifact for artifact in of_kind(run_uri, "artifact") if artifact.name.endswith(f"-{kind}")
    ]
    return [
        (json.loads(artifact.metadata)["uri"].rpartition("/")[2], sorted(artifact.aliases))
        for artifact in found
    ]


def test_a_killed_run_is_replayed_and_goes_on_as_one_line(
    make_config: MakeConfig, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "runs" / "run")
    config = make_config("runtime.wandb=offline", "runtime.wandb_group=trials")
    assert train(config, kill_at=11) == [-9]
    lost = steps(folder)
    assert lost == [2, 4, 6, 8, 10][: len(lost)]
    assert len(lost) < 5
    assert sync([folder]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        f"{5 - len(lost)} of 5 logged steps were missing and have been sent: "
        f"{folder}/wandb/offline-run-"
    )
    assert steps(folder) == [2, 4, 6, 8, 10]
    count = len(wandb_files(folder, run_id_of(folder)))
    assert sync([folder, "--to", "offline"]) == 0
    assert capsys.readouterr().out.startswith("W&B had all 5 logged steps already")
    assert len(wandb_files(folder, run_id_of(folder))) == count
    run(config, RunContext())
    assert steps(folder) == [2, 4, 6, 8, 10, 12, 14]
    assert {made.run_group for made in of_kind(folder, "run")} == {"trials"}
    assert len({made.run_id for made in of_kind(folder, "run")}) == 1
    best = json.loads((tmp_path / "runs" / "run" / "best.json").read_text())["step"]
    called = aliases(folder, "checkpoint")
    newest = {alias: name for name, given in called for alias in given}
    assert (newest["best"][5:13], newest["latest"]) == (f"{best:08d}", "step-00000014-a0002")
    for history in of_kind(folder, "history"):
        measured = step_of(history) in (6, 12, 14)
        assert ("labels/top1" in keys(history)) == measured
        assert (CHARTS | {"predictions", "evaluation_time"} <= keys(history)) == measured
        assert {"loss", "lr", "time", "images_per_s"} <= keys(history)


def test_a_run_outlives_the_helper_process_of_wandb(
    make_config: MakeConfig, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "runs" / "run")
    assert train(make_config("runtime.wandb=offline"), kill_at=5, victim="wandb") == [0]
    assert max(steps(folder), default=0) <= 6, "what was logged after the helper's death"
    assert sync([folder]) == 0
    assert "were missing and have been sent" in capsys.readouterr().out
    assert steps(folder) == [2, 4, 6, 8, 10, 12, 14]


def test_a_bundle_joins_its_run(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config("schedule.steps=2", "runtime.wandb=offline")
    folder = run(config, RunContext())["run"]
    bundle = str(tmp_path / "bundle")
    publish(bundle, {"model.onnx": b"graph"}, kind="bundle")
    send_bundle(f"{folder}/checkpoints/step-00000002-a0001", bundle, config)
    assert aliases(folder, "bundle") == [("bundle", ["latest"])]
    assert steps(folder) == [2]
    before = wandb_files(folder, run_id_of(folder))
    send_bundle(folder, bundle, make_config("schedule.steps=2"))
    send_bundle(str(tmp_path / "elsewhere"), bundle, config)
    assert wandb_files(folder, run_id_of(folder)) == before


def test_a_run_without_wandb_is_sent_from_a_bucket(
    make_config: MakeConfig, s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(make_config("schedule.steps=6", f"runtime.storage={s3.folder()}"), RunContext())[
        "run"
    ]
    assert sync([folder]) == 0
    assert "3 of 3 logged steps were missing" in capsys.readouterr().out
    assert steps(folder) == [2, 4, 6]
    *_, last = of_kind(folder, "history")
    assert CHARTS | {"predictions", "labels/top1", "loss"} <= keys(last)


def test_images_of_different_sizes_come_without_a_warning_of_wandb(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = str(tmp_path / "runs" / "run")
    run_id = claim(folder, from_step=0, from_checkpoint=None, world_size=1, run_id="abcd").run_id
    tracker = Wandb(make_config(), folder, run_id, "offline")
    tracker.evaluation(
        1,
        EvaluationFigures(
            images=[("a", np.zeros((10, 20, 3), np.uint8)), ("b", np.zeros((30, 10, 3), np.uint8))],
            charts={},
        ),
    )
    tracker.close()
    assert "sizes do not match" not in caplog.text
    (history,) = of_kind(folder, "history")
    images = {
        item.nested_key[-1] if item.nested_key else item.key: item.value_json
        for item in history.item
    }
    assert "predictions" in keys(history)
    assert "30" in str(images)
    assert "20" in str(images)


def test_files_are_read_up_to_where_they_are_cut_off(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    folder = str(tmp_path / "runs" / "run")
    run_id = claim(folder, from_step=0, from_checkpoint=None, world_size=1, run_id="abcd").run_id
    tracker = Wandb(make_config(), folder, run_id, "offline")
    for step in range(1, 401):
        tracker.scalars(step, {"loss": 1 / step, "words" * step: 1.0})
    tracker.close()
    (uri,) = wandb_files(folder, run_id)
    whole = storage.read(uri)
    assert len(whole) > 5 * 32768
    assert steps(folder) == list(range(1, 401))
    for end in np.random.default_rng(0).integers(0, len(whole), 12):
        Path(uri).write_bytes(whole[:end])
        found = steps(folder)
        assert found == list(range(1, len(found) + 1))
        assert held_in(folder, run_id).step == len(found)
    assert len({len(steps(folder)), 400}) == 2


def test_steps_that_wandb_has_are_not_sent_again(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = str(tmp_path / "runs" / "run")
    claim(folder, from_step=0, from_checkpoint=None, world_size=1, run_id="abcd")
    for first, last in ((1, 8), (5, 9)):
        tracker = Wandb(make_config(), folder, "abcd", "offline")
        for step in range(first, last + 1):
            tracker.scalars(step, {"loss": float(first)})
        tracker.evaluation(last, EvaluationFigures([("a", np.zeros((8, 8, 3), np.uint8))], {}))
        tracker.close()
    assert steps(folder) == list(range(1, 10))


SCRIPT = """
import sys
from mtl_ray.training.trainer import run
from mtl_ray.training.context import RunContext
from tests.training.tiny import config_of
from pathlib import Path
run(config_of(Path(sys.argv[1]), sys.argv[2], "schedule.steps=2", "runtime.wandb=auto"), RunContext())
"""  # noqa: E501


def test_a_server_that_is_not_there_ends_no_run_and_no_secret_is_written(
    splits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    command = [sys.executable, "-c", SCRIPT, str(splits), str(tmp_path / "runs")]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "it is written offline, jobs.wandb_sync sends it later" in done.stderr
    folder = str(tmp_path / "runs" / "run")
    assert steps(folder) == [2]
    said = done.stdout + done.stderr + "".join(capsys.readouterr())
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    assert KEY not in said
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("wanted", "environment", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_MODE": "disabled"}, "disabled"),
        ("online", {"WANDB_MODE": "disabled"}, "online"),
    ],
)
def test_mode(
    wanted: Any, environment: dict[str, str], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode(wanted) == mode


def test_an_evaluation_and_the_training_of_its_step_share_no_name() -> None:
    train = tracked_numbers({"mode": "train", "step": 2, "iter": 2, "time": 0.5, "loss": None})
    val = tracked_numbers({"mode": "val", "step": 2, "time": 7.0, "labels/top1": 1})
    assert train == {"time": 0.5}
    assert val == {"evaluation_time": 7.0, "labels/top1": 1.0}


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no run's folder: it has no config\.yaml"):
        sync([str(tmp_path)])
