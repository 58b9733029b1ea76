"""What counts is said from annotations alone, before a network runs."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtl_ray.evaluation import preflight
from mtl_ray.evaluation.data import class_converter
from mtl_ray.evaluation.evaluate import EvaluationRequest, measure_rows
from mtl_ray.evaluation.preflight import counted_objects, log_counted_objects
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.lidar.metric import Detection3dMetric
from mtl_ray.tasks.lidar.task import DETECTION_3D
from mtl_ray.tasks.task import HeadKind, KnownHead
from mtl_ray.training.context import RunContext
from mtl_ray.training.trainer import run
from tests.inference.tiny_lidar import lidar_config, write_lidar_checkpoint
from tests.loading.clouds import CLASSES, cloud_sample, write_clouds

VOCABULARY = Vocabulary(classes={"boxes_3d": CLASSES})
HEADS: dict[str, HeadKind] = {
    "objects": KnownHead(type="x", task=DETECTION_3D, annotation="boxes_3d", exclusive=False)
}


def damaged(sample: Sample) -> Sample:
    """The same with points that no reader takes."""
    points = replace(sample.inputs["points"], data=b"\xff" * 7)
    return replace(sample, inputs={"points": points})


def test_the_lines_are_those_of_the_metric_and_no_cloud_is_decoded(tmp_path: Path) -> None:
    samples = [cloud_sample(seed) for seed in range(6)]
    metric = Detection3dMetric(CLASSES)
    for sample in samples:
        metric.update(sample, DETECTION_3D.nothing_found())
    split = open_split(write_clouds(tmp_path / "val", [*map(damaged, samples)]))
    convert, _ = class_converter(split, VOCABULARY)
    told = counted_objects(HEADS, VOCABULARY, [(split, convert)])
    assert told == [f"objects: {line}" for line in metric.notes()]
    assert any("moderate" in line and ": 0 easy" not in line for line in told)


def test_classes_are_those_of_the_run(tmp_path: Path) -> None:
    split = open_split(write_clouds(tmp_path / "val", [cloud_sample(seed) for seed in range(6)]))
    other = Vocabulary(classes={"boxes_3d": ("Car", "Tram")})
    convert, _ = class_converter(split, other)
    told = counted_objects(HEADS, other, [(split, convert)])
    counts = np.concatenate(list(split.scan_classes("boxes_3d")))
    assert f"of {(counts == CLASSES.index('Car')).sum()} objects count" in told[0]
    assert told[1].startswith("objects: KITTI Tram: 0 easy, 0 moderate, 0 hard of 0 objects")


def test_a_large_split_is_not_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = open_split(write_clouds(tmp_path / "val", [cloud_sample(seed) for seed in range(6)]))
    monkeypatch.setattr(preflight, "MOST_SECONDS", -1.0)
    told = counted_objects(HEADS, VOCABULARY, [(split, lambda sample: sample)])
    assert told[-1] == "only the first 0 of 6 samples were counted, to save time"


def test_a_damaged_split_is_a_line_and_no_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = write_clouds(tmp_path / "val", [cloud_sample(0)], shards=1)
    split = open_split(uri)
    shard = Path(uri) / "clouds-00000.arrow"
    shard.write_bytes(bytes(shard.stat().st_size))
    log_counted_objects(HEADS, VOCABULARY, [(split, lambda sample: sample)])
    assert "the objects that count could not be read" in caplog.text


def test_an_evaluation_says_it_before_the_network_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = write_clouds(tmp_path / "val", [cloud_sample(seed) for seed in range(3)])
    checkpoint = write_lidar_checkpoint(tmp_path / "checkpoint", lidar_config())
    seen: list[str] = []

    def watch(samples: Iterable[Sample], total: int) -> Iterable[Sample]:
        seen.append(caplog.text)
        return samples

    request = EvaluationRequest(target=checkpoint, data=uri)
    part = measure_rows(request, watch=watch)
    lines = [line for line in seen[0].splitlines() if "objects count" in line]
    assert len(lines) == len(part.metrics["objects"].notes()) > 0
    caplog.clear()
    measure_rows(request, 1, 3)
    assert "objects count" not in caplog.text


def test_a_training_says_it_before_the_first_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = write_clouds(tmp_path / "val", [cloud_sample(seed) for seed in range(3)])
    config = lidar_config(split=uri)
    runtime = replace(config.runtime, storage=str(tmp_path), device="cpu", wandb="disabled")
    told: list[str] = []
    context = RunContext(on_progress=lambda progress: told.append(caplog.text))
    head = replace(config.model.heads["objects"], classes=("Pedestrian", "Car"))
    model = replace(config.model, heads={"objects": head})
    run(replace(config, runtime=runtime, model=model), context)
    assert "objects: KITTI Car: " in told[0]
    assert "objects count" in told[0]
