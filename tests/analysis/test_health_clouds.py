"""The check of a dataset of clouds: what is wrong with them, and what a network reaches."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtl_ray.analysis.health_clouds import CloudHealth, CloudNetwork, look_at_cloud
from mtl_ray.analysis.health_data import network_of
from mtl_ray.analysis.health_figures import draw_health
from mtl_ray.distributed.dataset_health import check_health
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.lidar.config import Anchor3d, Anchor3dHead
from tests.loading.clouds import CANVAS, CLASSES, cloud_sample, objects, write_clouds

HEAD = Anchor3dHead(
    anchors=(
        Anchor3d(classes=("Pedestrian",), size=(4.0, 4.0, 2.0), bottom=-1.7),
        Anchor3d(classes=("Car",), size=(3.9, 1.6, 1.56), bottom=-1.7),
    )
)
NETWORK = CloudNetwork(
    canvas=replace(
        CANVAS, maximum=(20.0, 20.0, 1.0), voxel=(4.0, 4.0, 4.0), max_points=1, max_train_voxels=10
    ),
    heads={"boxes": HEAD},
)


def changed(sample: Sample, **columns: object) -> Sample:
    value = replace(sample.annotations["boxes_3d"], **columns)
    return sample.with_annotations(boxes_3d=value)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> str:
    samples = [cloud_sample(seed) for seed in range(8)]
    boxes = samples[1].annotations["boxes_3d"].boxes.copy()
    boxes[0, 3], boxes[1, 6], boxes[2, :3] = 0.0, 4.0, (5.0, 90.0, 0.0)
    samples[1] = changed(samples[1], boxes=boxes)
    samples[3] = replace(samples[2], key="again")
    points = samples[4].inputs["points"]
    bright = np.frombuffer(points.data, "<f4").reshape(-1, 4).copy()
    bright[:, 3] *= 255
    samples[4] = replace(samples[4], inputs={"points": replace(points, data=bright.tobytes())})
    return write_clouds(tmp_path_factory.mktemp("odd"), samples)


def test_what_is_wrong_is_named(odd: str) -> None:
    report, sets = check_health([odd], network=NETWORK)
    text = report.to_text()
    for sentence in (
        "1 x empty box, such as 000001",
        "1 x yaw beyond pi, such as 000001",
        "1 x box without points, such as 000001",
        "1 clouds are there more than once",
        "intensities are between",
        "are outside the grid of the network",
        "100% of the Pedestrian have less than IoU 0.45 to every anchor of boxes",
        "boxes has no anchor for Cyclist",
        "100% of the clouds have more than 10 voxels",
        "are dropped by voxels that hold 1",
    ):
        assert sentence in text, sentence
    drawn = draw_health(report, sets)
    assert {"clouds-1.png", "samples-1.jpg", "same.jpg", "classes-boxes_3d.png"} <= drawn.keys()
    assert "sizes.png" not in drawn
    found = json.loads(json.dumps(report.to_json()))["data"][0]["clouds"]
    counts = np.bincount(
        np.concatenate([objects(seed, 3 + seed % 4)[1] for seed in (0, 1, 2, 2, 4, 5, 6, 7)]),
        minlength=3,
    )
    counts[objects(1, 4)[1][0]] -= 1  # the empty box
    assert [found["classes"][name]["objects"] for name in CLASSES] == counts.tolist()


def test_a_good_set_has_no_findings(tmp_path: Path) -> None:
    uri = write_clouds(tmp_path, [cloud_sample(seed) for seed in range(8)])
    report, _ = check_health([uri])
    assert [each for each in report.findings if "pixels in height" not in each] == []
    assert "pixels in height: KITTI's metric ignores" in report.findings[0]
    facts = report.to_text()
    assert "Car: " in facts
    assert "bottom at -1.70 m" in facts


def test_parts_add_up_to_the_whole() -> None:
    vocabulary = Vocabulary(classes={"boxes_3d": CLASSES})
    parts = [
        look_at_cloud(
            each.inputs["points"], each.annotations["boxes_3d"], each.key, vocabulary, NETWORK
        )[0]
        for each in (cloud_sample(seed) for seed in range(4))
    ]
    left, right = CloudHealth(), CloudHealth()
    for part in parts:
        left.merge(part)
    for part in parts[::-1]:
        right.merge(part)
    assert sorted(left.objects.tolist()) == sorted(right.objects.tolist())
    assert len(left.overlaps["boxes"]) == len(left.objects) == 3 + 4 + 5 + 6
    assert left.column("points").tolist()[:3] == [5, 6, 7]
    assert left.low == right.low


def test_the_best_anchor_of_a_box_is_found() -> None:
    boxes = np.array(
        [
            [9, 9, 9, 3.9, 1.6, 1.5, 0.3],
            [0, 0, 0, 3.9, 1.6, 9.0, np.pi / 2],
            [0, 0, 0, 7.8, 1.6, 1.5, 0.0],
            [0, 0, 0, 0.8, 0.6, 1.7, 0.0],
        ]
    )
    found = HEAD.best_overlaps(boxes, ["Car", "Car", "Car", "Cyclist"])
    assert found[:3] == pytest.approx([1, 1, 0.5])
    assert np.isnan(found[3])
    assert HEAD.least_overlaps(["Car", "Cyclist"])[0] == 0.45


def test_a_config_of_images_is_refused() -> None:
    config = Path(__file__).parents[2] / "configs" / "detection" / "retinanet_bccd.yaml"
    with pytest.raises(ValueError, match="takes image; --config is for networks of clouds"):
        network_of(str(config))


def test_what_was_left_out_is_counted_as_clouds(tmp_path: Path) -> None:
    split = write_clouds(tmp_path / "split", [cloud_sample(seed) for seed in range(4)])
    left_out = {"file": "a.bin", "object": "", "reason": "listed but not there"}
    (tmp_path / "split" / "rejects.json").write_text(json.dumps([left_out] * 4))
    report, _ = check_health([split])
    assert "4 of 8 point clouds were rejected" in report.to_text()
