"""The results JSON of nuScenes: frames, sizes, attributes, and how many boxes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.inputs.point_cloud import SensorCalibration
from mtl_ray.sources.lidar.dataset_configs import NuScenes
from mtl_ray.sources.lidar.objects import rotations
from mtl_ray.sources.writers.nuscenes_results import (
    attribute_of,
    quaternions,
    result_boxes,
    write_nuscenes_results,
)
from tests.sources.nuscenes_cases import World
from tests.sources.test_nuscenes import boxes_of, points_of, read_all


def test_ground_truth_as_results_is_what_the_tables_say(tmp_path: Path) -> None:
    world = World(tmp_path, tilt=0.0).write()
    samples, _ = read_all(NuScenes(root=str(tmp_path), split="mini_val"))
    results = {}
    for key, sample in samples.items():
        objects, (encoded, _) = boxes_of(sample), points_of(sample)
        scores = np.linspace(0.9, 0.1, len(objects))
        results[key] = result_boxes(
            encoded.calibration, objects.boxes, scores, objects.names, objects.velocity
        )
        for row, token in zip(results[key], objects.ids, strict=True):
            stated = world.find("sample_annotation", token)
            assert row["sample_token"] == key
            assert np.allclose(row["translation"], stated["translation"], atol=1e-4)
            assert np.allclose(row["size"], stated["size"], atol=1e-5)
            assert np.isclose(abs(np.dot(row["rotation"], stated["rotation"])), 1, atol=1e-6)
    write_nuscenes_results(str(tmp_path / "results.json"), results)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["meta"] == {
        "use_lidar": True,
        **dict.fromkeys(("use_camera", "use_radar", "use_map", "use_external"), False),
    }
    assert content["results"]["scene-0103-1"][0]["detection_name"] == "car"


@pytest.mark.parametrize(
    ("name", "slow", "fast"),
    [
        ("car", "vehicle.parked", "vehicle.moving"),
        ("bus", "vehicle.stopped", "vehicle.moving"),
        ("bicycle", "cycle.without_rider", "cycle.with_rider"),
        ("pedestrian", "pedestrian.standing", "pedestrian.moving"),
        ("barrier", "", ""),
    ],
)
def test_attributes(name: str, slow: str, fast: str) -> None:
    assert (attribute_of(name, 0.2), attribute_of(name, 0.21)) == (slow, fast)


POSED = SensorCalibration(
    benchmark="nuscenes", lidar_to_ego=np.eye(4), ego_to_global=np.eye(4), notes={"token": "t"}
)


def test_the_best_five_hundred_are_kept() -> None:
    boxes = np.tile([0.0, 0, 0, 4, 2, 1, 0], (600, 1))
    boxes[:, 0] = np.arange(600)
    rows = result_boxes(POSED, boxes, np.arange(600) / 600, ["car"] * 600)
    assert len(rows) == 500
    assert [row["translation"][0] for row in rows] == list(range(599, 99, -1))
    assert rows[0]["velocity"] == [0, 0]


def test_no_boxes() -> None:
    assert result_boxes(POSED, np.zeros((0, 7)), np.zeros(0), []) == []


def test_a_cloud_without_poses_is_refused() -> None:
    with pytest.raises(ValueError, match="no lidar_to_ego or no ego_to_global"):
        result_boxes(SensorCalibration(), np.zeros((0, 7)), np.zeros(0), [])
    unknown = SensorCalibration(lidar_to_ego=np.eye(4), ego_to_global=np.eye(4))
    with pytest.raises(ValueError, match="token"):
        result_boxes(unknown, np.zeros((0, 7)), np.zeros(0), [])


UNIT = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(
    lambda values: np.linalg.norm(values) > 1e-3
)


@given(values=UNIT)
def test_quaternions_and_matrices_are_inverse(values: list[float]) -> None:
    matrices = rotations(np.array([values]))
    assert np.allclose(matrices @ matrices.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    found = quaternions(matrices)
    assert found[0, 0] >= 0
    assert np.allclose(rotations(found), matrices, atol=1e-12)
