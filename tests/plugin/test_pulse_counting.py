"""A user's package with a kind of annotation, an input, a source, a backbone, a head, a task, a
method and an engine of its own.

It goes from raw files to HTTP with the jobs of mtl_ray, on one process and on Ray, with no line of
mtl_ray changed.
"""

import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
import yaml

from mtl_ray.inference.predictor import open_predictor
from mtl_ray.shards.split import open_split
from mtl_ray.training.scalars import read_scalars
from tests.plugin.conftest import CONFIG, PACKAGES, Workplace

pytestmark = pytest.mark.jobs

CONVERT = ("--plugins", "pulse_counting", "pulse_files", "raw")


@pytest.fixture(scope="module")
def converted(workplace: Workplace) -> Workplace:
    for split in ("train", "val"):
        said = workplace.run(
            "jobs.convert", *CONVERT, "--split", split, "--to", f"shards/{split}", "--workers", "1"
        )
        assert ("1 signals and annotations" in said) == (split == "train"), said
    return workplace


@pytest.fixture(scope="module")
def trained(converted: Workplace) -> Workplace:
    """Trained without Ray and without an interruption, and exported."""
    converted.run("mtl_ray.training", "config.yaml")
    said = converted.run("jobs.export", "runs/pulses", "--to", "bundle")
    assert "100.000%" in said
    return converted


def checkpoint(place: Workplace, run: str) -> Path:
    return (
        place.folder
        / "runs"
        / run
        / json.loads((place.folder / "runs" / run / "best.json").read_text())["checkpoint"]
    )


def test_shards_hold_the_annotations_and_name_the_plugin(converted: Workplace) -> None:
    split = open_split(str(converted.folder / "shards" / "val"))
    assert (split.manifest.layout.plugins, list(split.annotations)) == (
        ("pulse_counting",),
        ["pulses"],
    )
    assert list(split.manifest.layout.columns) == ["key", "num_pulses", "signal"]
    lines = (converted.folder / "raw" / "val" / "counts.csv").read_text().split()
    counts = {name: int(count) for name, _, count in (line.partition(",") for line in lines)}
    samples = list(split.read(0, split.num_samples))
    assert {sample.key: sample.annotations["pulses"] for sample in samples} == counts
    skipped = json.loads((converted.folder / "shards" / "train" / "rejects.json").read_text())
    assert [item["file"] for item in skipped] == ["bad.f32"]


def test_tfrecords_and_rewritten_shards_hold_the_same(converted: Workplace) -> None:
    converted.run(
        "jobs.convert",
        *CONVERT,
        "--split",
        "val",
        "--to",
        "records/val",
        "--format",
        "tfrecord",
        "--workers",
        "1",
    )
    converted.run(
        "jobs.convert",
        "shards",
        "records/val",
        "--split",
        "val",
        "--to",
        "again/val",
        "--workers",
        "1",
    )
    splits = [
        open_split(str(converted.folder / folder / "val"))
        for folder in ("shards", "records", "again")
    ]
    first, *others = [
        [(each.key, each.inputs["signal"], each.annotations) for each in split.read(0, 40)]
        for split in splits
    ]
    assert all(other == first for other in others)


def test_it_learns(trained: Workplace) -> None:
    best = json.loads((trained.folder / "runs" / "pulses" / "best.json").read_text())
    assert best["metric"] == "pulses/mae"
    values = [
        row["pulses/mae"]
        for row in read_scalars(str(trained.folder / "runs" / "pulses" / "scalars.jsonl"))
        if row["mode"] == "val"
    ]
    assert best["value"] == min(values) < 0.6, "less is better; always saying the mean is off by 2"
    for name in ("plots/metrics-pulses.png", "pictures/val-00.png"):
        assert (trained.folder / "runs" / "pulses" / name).stat().st_size > 1000


def test_an_interrupted_run_ends_with_the_same_weights(trained: Workplace) -> None:
    command = trained.command(
        "mtl_ray.training", "config.yaml", "runtime.name=again", "runtime.checkpoint_every_steps=10"
    )
    process = subprocess.Popen(
        command,
        cwd=trained.folder,
        env=trained.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = trained.folder / "runs" / "again" / "checkpoints"
    give_up = time.monotonic() + 120
    while not list(folder.glob("*/MANIFEST.json")):
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    trained.run(
        "mtl_ray.training", "config.yaml", "runtime.name=again", "runtime.checkpoint_every_steps=10"
    )
    assert json.loads((checkpoint(trained, "again") / "state.json").read_text())["attempt"] == 2
    one, other = (
        safetensors.numpy.load_file(checkpoint(trained, run) / "model.safetensors")
        for run in ("pulses", "again")
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_on_ray_and_over_http(trained: Workplace) -> None:
    trained.run(
        "jobs.train",
        "config.yaml",
        "runtime.name=ray",
        "runtime.workers=2",
        "schedule.steps=60",
        "schedule.evaluate_every_steps=30",
    )
    trained.run(
        "jobs.evaluate",
        "runs/pulses",
        "--data",
        "shards/val",
        "--out",
        "evaluation",
        "--workers",
        "2",
    )
    report = json.loads((trained.folder / "evaluation" / "report.json").read_text())
    best = json.loads((trained.folder / "runs" / "pulses" / "best.json").read_text())
    assert report["pulses/mae"] == pytest.approx(best["value"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, log = (
        trained.command("jobs.serve", "bundle", "--port", str(port)),
        trained.folder / "serve.log",
    )
    with open(log, "w") as out:
        server = subprocess.Popen(
            command,
            cwd=trained.folder,
            env=trained.environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        give_up = time.monotonic() + 200
        while "curl" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.2)
        (model,) = httpx.get(f"http://127.0.0.1:{port}/models").json()["models"]
        assert model["input"]["name"] == "signal"
        body = (trained.folder / "raw" / "val" / "0001.f32").read_bytes()
        answer = httpx.post(
            f"http://127.0.0.1:{port}/predictions/{model['name']}", content=body, timeout=60
        ).json()
        predictor = open_predictor(str(trained.folder / "runs" / "pulses"))
        (expected,) = predictor.predict([np.frombuffer(body, "<f4")])
        assert answer == {"count": pytest.approx(expected["pulses"].count, abs=1e-4)}
        assert (
            httpx.post(
                f"http://127.0.0.1:{port}/predictions/{model['name']}", content=b"odd", timeout=60
            ).status_code
            == 400
        )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(120)


def test_a_pipeline_of_all_stages(converted: Workplace) -> None:
    """A source of the plugin is converted, and what follows is checked to the HTTP answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    experiment: dict[str, Any] = yaml.safe_load(CONFIG)
    experiment["data"] |= {split: {"uri": f"piped/{split}"} for split in ("train", "val")}
    experiment["runtime"]["name"] = "piped"
    experiment["schedule"] |= {"steps": 60, "evaluate_every_steps": 60}
    experiment["serve"] = {"port": port}
    convert = {
        split: {"type": "pulse_files", "root": "raw", "split": split} for split in ("train", "val")
    }
    (converted.folder / "pipeline.yaml").write_text(
        yaml.safe_dump({"experiment": experiment, "convert": convert, "expect": {"pulses/mae": 5}})
    )
    said = converted.run("jobs.pipeline", "pipeline.yaml")
    assert "every check held" in said
    manifest = json.loads((converted.folder / "piped" / "val" / "manifest.json").read_text())
    assert manifest["plugins"] == ["pulse_counting"]


@pytest.mark.parametrize(
    ("job", "arguments"),
    [
        ("jobs.browse", ("shards/val", "--out", "drawn")),
        ("jobs.export", ("runs/pulses", "--to", "elsewhere")),
        ("jobs.evaluate", ("bundle", "--data", "shards/val", "--out", "elsewhere")),
        ("jobs.train", ("config.yaml", "runtime.name=elsewhere")),
    ],
)
def test_where_it_is_missing_one_sentence_names_it(
    trained: Workplace, job: str, arguments: tuple[str, ...]
) -> None:
    said = Workplace(trained.folder, path=()).run(job, *arguments, status=2)
    assert said.count("the plugin 'pulse_counting' is needed and cannot be imported here") == 1, (
        said
    )
    assert "Traceback" not in said


def test_an_installed_package_needs_no_entry_in_the_config(
    trained: Workplace, tmp_path: Path
) -> None:
    installed = tmp_path / "site"
    info = installed / "pulse_counting-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pulse_counting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mtl_ray]\npulses = pulse_counting\n")
    (trained.folder / "installed.yaml").write_text(
        CONFIG.replace("plugins: [pulse_counting]\n", "").replace("steps: 200", "steps: 5")
    )
    place = Workplace(trained.folder, path=(PACKAGES, installed))
    place.run(
        "mtl_ray.training",
        "installed.yaml",
        "runtime.name=installed",
        "schedule.evaluate_every_steps=5",
    )
    place.run(
        "jobs.convert",
        "pulse_files",
        "raw",
        "--split",
        "val",
        "--to",
        "installed/val",
        "--workers",
        "1",
    )
    assert (
        "plugins: [pulse_counting]\n" in (checkpoint(place, "installed") / "model.yaml").read_text()
    )
    assert open_predictor(str(checkpoint(place, "installed"))).canvas.length == 128  # type: ignore[attr-defined]


def test_two_parts_of_one_name_are_refused(converted: Workplace, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("import pulse_counting\n\nPLUGIN = pulse_counting.PLUGIN\n")
    (tmp_path / "clash.py").write_text(
        "from dataclasses import replace\nfrom mtl_ray.annotations.labels import LabelsKind\nfrom "
        "mtl_ray.plugin import Plugin\n"
        "class Other(LabelsKind):\n    pass\nPLUGIN = Plugin(annotations=(Other(),))\n"
    )
    place = Workplace(converted.folder, path=(PACKAGES, tmp_path))
    place.run(
        "jobs.convert",
        "--plugins",
        "other",
        *CONVERT,
        "--split",
        "val",
        "--to",
        "twice/val",
        "--workers",
        "1",
    )
    said = place.run("jobs.train", "config.yaml", "plugins=[clash]", "runtime.name=clash", status=2)
    assert "conv1d" in said or "labels" in said


def test_a_plugin_changes_nothing_for_other_configs(trained: Workplace, tmp_path: Path) -> None:
    """A mapping without a type means what it means without plugins, and is refused where it is."""
    (tmp_path / "a.yaml").write_text(CONFIG.replace("{type: count}", "{levels: [S2]}"))
    for named in ("plugins=[pulse_counting]", "plugins=[]"):
        said = trained.run("jobs.train", str(tmp_path / "a.yaml"), named, status=2)
        assert "model.heads.pulses needs a type: one of yolov3" in said
    (tmp_path / "b.yaml").write_text(
        CONFIG.replace("{type: conv1d, width: 16}", "{name: resnet10t}")
    )
    said = trained.run("mtl_ray.training", str(tmp_path / "b.yaml"), "runtime.name=b", status=2)
    assert "head 'pulses' reads S2, but the trunk gives C3, C4, C5" in said
