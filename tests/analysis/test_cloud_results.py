"""Best and worst clouds of stored predictions, their confusion, and eval-metric with its notes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtl_ray.analysis.cloud_results import cloud_results, frame_scores
from mtl_ray.analysis.confusion import cloud_confusion, head_confusion
from mtl_ray.analysis.executor import run_serial
from mtl_ray.analysis.paired import Pairs
from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.evaluation.config import EvaluateConfig
from mtl_ray.evaluation.data import SplitData
from mtl_ray.evaluation.metrics import head_metrics
from mtl_ray.evaluation.predictions_file import StoredPredictions
from mtl_ray.evaluation.report import report
from mtl_ray.inputs.point_cloud import PointCloud, SensorCalibration, encoded_points
from mtl_ray.layout import CLOUDS
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.shards.write import publish_manifest, write_shard
from mtl_ray.tasks.lidar.confusion import ConfusionRule
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.nuscenes.frames import nuscenes_frame
from mtl_ray.tasks.lidar.task import DETECTION_3D
from mtl_ray.tasks.task import KnownHead

NAMES = ("Car", "Pedestrian")
VOCABULARY = Vocabulary(classes={"boxes_3d": NAMES})
HEAD = KnownHead(type="any", task=DETECTION_3D, annotation="boxes_3d", exclusive=False)


def gt(seed: int, count: int = 6) -> Boxes3d:
    rng = np.random.default_rng(seed)
    place = rng.uniform((5, -30, -1), (60, 30, 0), (count, 3))
    sizes = np.tile([4.0, 2.0, 1.5], (count, 1))
    boxes = np.column_stack([place, sizes, rng.uniform(-3, 3, count)])
    return Boxes3d.of(boxes, [NAMES[each] for each in rng.integers(0, 2, count)], NAMES)


def detections(value: Boxes3d, moved: float = 0.0, turned: int = 0) -> Detections3d:
    """The objects, moved by some metres; the first ``turned`` get the other class."""
    boxes, classes = value.boxes.copy(), value.classes.copy()
    boxes[:, 0] += moved
    classes[:turned] = 1 - classes[:turned]
    scores = np.linspace(0.9, 0.5, len(classes)).astype(np.float32)
    return Detections3d(boxes=boxes, scores=scores, classes=classes)


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    """Six clouds, of which the last ones are found worst; one has no object."""
    rng = np.random.default_rng(0)
    points = rng.uniform((0, -40, -2), (70, 40, 1), (3000, 3))
    cloud = PointCloud(points=np.column_stack([points, points[:, 0] / 70]).astype(np.float32))
    boxes = [gt(seed) for seed in range(5)] + [gt(0, 0)]
    samples = [
        Sample(
            key=f"{number:06}",
            inputs={"points": encoded_points(cloud)},
            annotations={"boxes_3d": each},
        )
        for number, each in enumerate(boxes)
    ]
    uri = str(tmp_path / "split")
    entries = [write_shard(uri, "val-00000", samples, layout=CLOUDS)]
    publish_manifest(uri, entries, name="val", vocabulary=VOCABULARY, shuffled=False, provenance={})
    found = {
        sample.key: {"objects": detections(each, moved=0.4 * number, turned=number // 2)}
        for number, (sample, each) in enumerate(zip(samples, boxes, strict=True))
    }
    stored = StoredPredictions(
        heads={"objects": HEAD}, vocabulary=VOCABULARY, by_name=found, complete=True
    )
    return Pairs(data=SplitData(open_split(uri)), stored=stored, notes=())


def test_best_and_worst_are_drawn(pairs: Pairs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = cloud_results(pairs, "objects", str(out), run_serial, topk=2)
    assert [line.num_truth for line in found.table] == [6] * 5 + [0]
    assert found.table[0].score == 1
    assert [found.table[each.place].image for each in found.bad] == ["000004", "000003"]
    assert found.good[-1].place == 0
    assert len(list((out / "good").iterdir())) == len(list((out / "bad").iterdir())) == 2
    assert json.loads((out / "images.json").read_text())[0]["score"] == 1


def test_scores_of_clouds() -> None:
    value = gt(3)
    calibration = SensorCalibration()

    def score(found: Detections3d) -> float:
        frame = nuscenes_frame(value, found, NAMES, calibration)
        return float(frame_scores([frame, frame], 2)[1])

    whole = detections(value)
    assert score(whole) == 1
    assert score(detections(value, turned=6)) == 0
    nothing = replace(
        whole, boxes=whole.boxes[:0], scores=whole.scores[:0], classes=whole.classes[:0]
    )
    assert score(nothing) == 0
    assert np.isnan(frame_scores([nuscenes_frame(gt(0, 0), whole, NAMES, calibration)], 2)[0])
    twice = replace(
        whole,
        boxes=np.concatenate([whole.boxes, whole.boxes]),
        scores=np.concatenate([whole.scores, whole.scores - 0.45]),
        classes=np.concatenate([whole.classes, whole.classes]),
    )
    assert score(twice) == 1  # the second ones come after all objects were found


def test_confusion_by_overlap_and_by_distance(pairs: Pairs) -> None:
    by_overlap = cloud_confusion(pairs, "objects", min_score=0.3, rule=ConfusionRule(overlap=0.5))
    by_distance = cloud_confusion(pairs, "objects", min_score=0.3, rule=ConfusionRule(metres=2.0))
    assert by_distance.counts[:2, :2].sum() == 30  # all objects are near a detection
    assert by_distance.counts[0, 1] + by_distance.counts[1, 0] > 0
    assert by_overlap.counts[2].sum() > 0
    assert head_confusion(pairs, "objects").counts.sum() == by_overlap.counts.sum()


def test_the_report_says_what_counts(pairs: Pairs) -> None:
    metrics = head_metrics(pairs.stored.heads, VOCABULARY, EvaluateConfig())
    for sample, found in pairs:
        assert found is not None
        metrics["objects"].update(sample, found["objects"])
    made = report(metrics, {"notes": ["first"]})
    assert made.facts["notes"][0] == "first"
    assert made.facts["notes"][1].startswith("KITTI Car: ")
    assert 0 < made.figures["objects/mAP"] < 1
    assert "objects/KITTI/Car_3D_AP40_moderate_strict" in made.figures
