"""What a run leaves in its folder and with its trackers."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import psutil
import pytest
import safetensors.torch
import torch
import yaml

from mtl_ray import storage
from mtl_ray.inference.checkpoint import find_checkpoint, open_checkpoint
from mtl_ray.training import checkpoint
from mtl_ray.training.__main__ import main
from mtl_ray.training.context import RunContext
from mtl_ray.training.learner import load_from
from mtl_ray.training.scalars import Scalars, read_scalars
from mtl_ray.training.trainer import run
from tests.training.tiny import values, write_split


def strict(path: Path) -> list[dict]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_run_folder(make_config, tmp_path):
    told, published = [], []
    context = RunContext(
        on_progress=told.append,
        on_checkpoint=lambda uri, metrics: published.append((uri, dict(metrics))),
    )
    summary = run(make_config("runtime.keep=1", "schedule.ema=0.5"), context)
    folder = tmp_path / "runs" / "run"
    rows = strict(folder / "scalars.jsonl")
    train, val = ([row for row in rows if row["mode"] == mode] for mode in ("train", "val"))
    assert [row["step"] for row in train] == [2, 4, 6, 8, 10, 12, 14]
    assert {
        "epoch",
        "iter",
        "step",
        "lr",
        "loss",
        "time",
        "data_time",
        "labels/loss_class",
        "semantic/loss_pixel",
    } <= train[0].keys()
    assert train[0]["loss"] == pytest.approx(
        train[0]["labels/loss_class"] + train[0]["semantic/loss_pixel"]
    )
    assert [(row["step"], row["epoch"]) for row in val] == [(6, 2), (12, 3), (14, 4)]
    assert {"labels/top1", "semantic/mIoU"} <= val[0].keys()
    for name in ("loss", "lr", "speed", "metrics-labels", "metrics-semantic"):
        assert cv2.imread(str(folder / "plots" / f"{name}.png")).shape[1] > 800
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == [
        "val-00.png",
        "val-01.png",
    ]
    assert told[-1].step == told[-1].steps == 14
    assert told[-1].metrics["labels/top1"] == summary["metrics"]["labels/top1"]
    assert [(Path(uri).name, bool(metrics)) for uri, metrics in published] == [
        (f"step-{step:08d}-a0001", step in (6, 12, 14)) for step in (4, 6, 8, 12, 14)
    ]
    best = json.loads((folder / "best.json").read_text())
    assert best["value"] == max(row["labels/top1"] for row in val)
    kept = {best["step"], 14}
    assert (
        set(checkpoint.steps(str(folder)))
        == kept
        == {int(path.name[5:13]) for path in (folder / "checkpoints").iterdir()}
    )


def test_what_was_measured_is_what_a_checkpoint_predicts(make_config, splits, tmp_path):
    """The moving average, not the weights of the last step."""
    from mtl_ray.evaluation.measure import measure
    from mtl_ray.evaluation.metrics import head_metrics
    from mtl_ray.shards.split import open_split

    summary = run(make_config("schedule.ema=0.9", "schedule.steps=6"), RunContext())
    predictor = open_checkpoint(find_checkpoint(summary["run"], "last"))
    metrics = head_metrics(predictor.heads, predictor.vocabulary)
    measure(predictor, open_split(str(splits / "val")).read(0, 13), metrics)
    found = {
        f"{name}/{key}": value
        for name, metric in metrics.items()
        for key, value in metric.result().items()
    }
    assert found == pytest.approx(summary["metrics"], abs=1e-6)
    files = tmp_path / "runs" / "run" / "checkpoints" / "step-00000006-a0001"
    plain, averaged = (
        safetensors.torch.load_file(files / f"{name}.safetensors") for name in ("model", "ema")
    )
    assert not torch.equal(
        plain["heads.labels.linear.weight"], averaged["heads.labels.linear.weight"]
    )


def test_training_pt_holds_no_code(make_config):
    summary = run(make_config("schedule.steps=2"), RunContext())
    assert set(checkpoint.read_training(find_checkpoint(summary["run"], "last"))) == {
        "optimizer",
        "scaler",
    }


def test_lines_after_the_resumed_step_go(tmp_path):
    uri = str(tmp_path / "scalars.jsonl")
    first = Scalars(uri, 0)
    for step in (2, 4, 6):
        first.add({"mode": "train", "step": step, "loss": float("nan") if step == 2 else 1.0})
    with open(uri, "a") as file:
        file.write('{"mode": "train", "st')
    again = Scalars(uri, 4)
    again.add({"mode": "train", "step": 6, "loss": 2.0})
    assert read_scalars(uri) == [
        {"mode": "train", "step": 2, "loss": None},
        {"mode": "train", "step": 4, "loss": 1.0},
        {"mode": "train", "step": 6, "loss": 2.0},
    ]


def test_trackers_are_resumed_under_one_id(make_config, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    options = ("runtime.wandb=auto", "runtime.tensorboard=true", "schedule.steps=6")
    run(make_config(*options), RunContext(should_stop=lambda: True))
    run(make_config(*options), RunContext())
    folder = tmp_path / "runs" / "run"
    offline = sorted(path.name for path in (folder / "wandb").glob("offline-run-*"))
    assert len(offline) == 2
    assert len({name.split("-")[3] for name in offline}) == 1, (
        "offline-run-TIME-ID, and -1 if both began in the same second"
    )
    records = b"".join(map(wandb_records, folder.glob("wandb/offline-run-*/*.wandb")))
    for word in (b"labels/loss_class", b"labels/top1", b"-checkpoint"):
        assert word in records
    assert list(folder.glob("wandb/offline-run-*/files/media/images/predictions*"))
    assert tensorboard_steps(folder / "tensorboard", "loss") == [2, 4, 6]


def wandb_records(path: Path) -> bytes:
    """The records of an offline run without the headers (CRC-32, length, type) that its file, a
    LevelDB log, puts into them.
    """
    data, records, place = path.read_bytes(), b"", 7
    while place + 7 <= len(data):
        if -place % 32768 in range(1, 7):
            place += -place % 32768
        _, length, _ = struct.unpack_from("<IHB", data, place)
        records += data[place + 7 : place + 7 + length]
        place += 7 + length
    return records


def tensorboard_steps(folder: Path, tag: str) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


def test_load_from_takes_what_fits(make_config, tmp_path, caplog):
    first = run(make_config("schedule.steps=2", "runtime.name=first"), RunContext())
    weights = safetensors.torch.load_file(
        tmp_path / "runs" / "first" / "checkpoints" / "step-00000002-a0001" / "model.safetensors"
    )
    from mtl_ray.experiment import build_model
    from mtl_ray.samples import Vocabulary

    vocabulary = Vocabulary(
        classes={"labels": ("a", "b", "c", "d"), "semantic": ("a", "b")}, exclusive_labels=True
    )
    for uri in (first["run"], find_checkpoint(first["run"], "last")):
        model = build_model(make_config().model, vocabulary)
        load_from(model, uri)
        assert torch.equal(
            model.state_dict()["trunk.backbone.net.conv1.weight"],
            weights["trunk.backbone.net.conv1.weight"],
        )
        assert "heads.labels.linear.weight is (3, 16) there and (4, 16) here" in caplog.text
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="none of its 1 entries fits"):
        load_from(model, str(other))
    with pytest.raises(FileNotFoundError, match="there is nothing there"):
        load_from(model, str(tmp_path / "nowhere"))


def test_fine_tuning_starts_from_the_weights_of_another_run(make_config):
    first = run(make_config("schedule.steps=3", "runtime.name=first"), RunContext())["run"]
    still = (
        "schedule.steps=1",
        "schedule.optimizer.lr=1e-9",
        "runtime.name=second",
        f"runtime.load_from={first}",
    )
    second = run(make_config(*still), RunContext())["run"]
    before, after = (
        checkpoint.read_tensors(find_checkpoint(uri), "model.safetensors")
        for uri in (first, second)
    )
    name = "trunk.backbone.net.conv1.weight"
    torch.testing.assert_close(after[name], before[name], atol=1e-7, rtol=0)


def test_bucket_holds_the_same_as_a_folder(make_config, s3, splits, tmp_path, monkeypatch):
    for name in ("train", "val"):
        for path in (splits / name).iterdir():
            storage.upload(
                path, storage.join(data := f"s3://tests/splits-{os.getpid()}", name, path.name)
            )
    place = s3.folder()
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    options = ("schedule.steps=6", "runtime.wandb=offline", "runtime.tensorboard=true")
    remote = (
        f"runtime.storage={place}",
        f"data.train.uri={data}/train",
        f"data.val.uri={data}/val",
    )
    run(make_config(*options, *remote), RunContext(should_stop=lambda: True))
    there = run(make_config(*options, *remote), RunContext())
    here = run(make_config(*options), RunContext())
    assert there["metrics"] == here["metrics"]
    names = {
        uri.removeprefix(f"{place}/run/").split("/")[0] for uri in storage.files(f"{place}/run")
    }
    assert names == {path.name for path in (tmp_path / "runs" / "run").iterdir()}
    steps = [row["step"] for row in read_scalars(f"{place}/run/scalars.jsonl")]
    assert steps == [row["step"] for row in read_scalars(f"{here['run']}/scalars.jsonl")]
    assert checkpoint.newest(f"{place}/run").endswith("step-00000006-a0002")


@pytest.mark.jobs
def test_a_command_without_ray_and_its_words(splits, tmp_path, capsys, caplog):
    """Ray is made impossible to import; the processes are started as on a machine that has none."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values(splits, tmp_path / "runs")))
    code = (
        "import sys, runpy; sys.modules['ray'] = None; runpy.run_module('mtl_ray.training', "
        "run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", code, str(path), "runtime.workers=2", "schedule.steps=4"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "finished after 4 steps" in done.stdout
    assert "labels/top1" in done.stdout
    assert "4/4" in done.stderr
    assert main([str(path), "schedule.steps=4"]) == 0
    assert capsys.readouterr().out == done.stdout
    assert "is finished already" in caplog.text
    assert main([str(path), f"data.train.uri={splits}/absent", "runtime.name=other"]) == 2
    assert main([str(path), "schedule.step=4"]) == 2
    absent, misspelt = capsys.readouterr().err.splitlines()
    assert absent.startswith("error: ")
    assert "absent" in absent
    assert "steps" in misspelt


@pytest.mark.jobs
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_stops_with_a_checkpoint_and_only_this_machine_reaches_the_ranks(
    splits, tmp_path, workers
):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values(splits, tmp_path / "runs")))
    options = [
        "schedule.steps=100000",
        "schedule.evaluate_every_steps=90000",
        "runtime.checkpoint_every_steps=90000",
    ]
    command = [
        sys.executable,
        "-m",
        "mtl_ray.training",
        str(path),
        f"runtime.workers={workers}",
        *options,
    ]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    run_uri = str(tmp_path / "runs" / "run")
    while not read_scalars(f"{run_uri}/scalars.jsonl"):
        assert process.poll() is None
        time.sleep(0.1)
    ranks = psutil.Process(process.pid).children(recursive=True)
    ports = [
        each.laddr.ip
        for rank in ranks
        for each in rank.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    ]
    assert {ip.removeprefix("::ffff:") for ip in ports} == ({"127.0.0.1"} if workers > 1 else set())
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 143, said
    found = checkpoint.newest(run_uri)
    assert found is not None
    assert f"stopped after {checkpoint.read_state(found).step} steps" in said


def test_bad_samples_above_the_limit_end_the_run_with_status_1(tmp_path, splits, capsys):
    write_split(str(tmp_path / "bad"), 24, 3, broken=(5, 7))
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values(splits, tmp_path / "runs")))
    options = [str(path), f"data.train.uri={tmp_path / 'bad'}", "schedule.steps=4"]
    assert main(options) == 1
    assert "data.max_bad allows 0" in capsys.readouterr().err
    assert main([*options, "data.max_bad=2"]) == 0
    assert capsys.readouterr().out.startswith(
        f"{tmp_path / 'runs' / 'run'}: finished after 4 steps"
    )
