"""The source openmmlab_infos: both generations give the boxes of the real label files."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.boxes_3d import count_points
from mtl_ray.geometry.cameras import lidar_to_kitti
from mtl_ray.inputs.point_cloud import EncodedPoints
from mtl_ray.samples import Sample
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.lidar.dataset_configs import OpenmmlabInfos
from mtl_ray.sources.lidar.kitti_calibration import read_cameras
from mtl_ray.sources.lidar.kitti_labels import read_labels
from mtl_ray.sources.source import SkippedItem

CLASSES = ("Pedestrian", "Cyclist", "Car")


def read_all(
    root: Path, split: str = "train", **more: Any
) -> tuple[list[Sample], list[SkippedItem]]:
    """The samples, and all skipped items."""
    source = open_source(OpenmmlabInfos(root=str(root), split=split, **more))
    found, skipped = [], list(source.skipped)
    for index in range(len(source)):
        sample, items = source.read(index)
        skipped += items
        found += [] if sample is None else [sample]
    return found, skipped


def points_of(sample: Sample) -> tuple[EncodedPoints, np.ndarray]:
    encoded: EncodedPoints = sample.inputs["points"]
    return encoded, np.frombuffer(encoded.data, "<f4").reshape(-1, len(encoded.features))


def boxes_of(sample: Sample) -> Boxes3d:
    found: Boxes3d = sample.annotations["boxes_3d"]
    return found


# Real data.


def test_kitti_as_in_the_label_file(shared_data: Path) -> None:
    root = shared_data / "lidar_kitti_samples"
    (sample,), skipped = read_all(root, "000008")
    assert not skipped
    calib = (root / "training" / "calib" / "000008.txt").read_bytes()
    (camera,) = read_cameras(calib)
    to_camera, projection = camera.lidar_to_camera, camera.projection
    labels = (root / "training" / "label_2" / "000008.txt").read_bytes()
    expected, _ = read_labels(labels, "000008.txt", to_camera, CLASSES)
    boxes = boxes_of(sample)
    assert boxes.names == expected.names
    assert boxes.classes.tolist() == expected.classes.tolist()
    for name in ("boxes", "alpha", "truncation", "boxes_2d"):
        assert np.allclose(
            getattr(boxes, name), getattr(expected, name), rtol=0, atol=1e-5, equal_nan=True
        ), name
    assert boxes.occlusion.tolist() == expected.occlusion.tolist()
    encoded, points = points_of(sample)
    camera = encoded.calibration.cameras[0]
    assert (sample.key, camera.name, camera.width, camera.height) == (
        "000008",
        "image_2",
        1242,
        375,
    )
    assert np.allclose(camera.lidar_to_camera, to_camera, atol=1e-6)
    assert np.allclose(camera.projection, projection)
    counted = count_points(points[:, :3], boxes.boxes[:6])
    assert np.allclose(counted, boxes.num_points[:6], rtol=0.1, atol=2)


def test_nuscenes_key_frame(shared_data: Path) -> None:
    root = shared_data / "lidar_nuscenes_key"
    (sample,), skipped = read_all(root, "infos", camera_images=True)
    assert not skipped
    boxes = boxes_of(sample)
    assert (len(boxes), len(boxes.classes)) == (69, 68)
    encoded, points = points_of(sample)
    counted = count_points(points[:, :3], boxes.boxes)
    assert np.mean(counted == boxes.num_points) > 0.85  # the boxes are read with their centres
    assert len(encoded.images) == len(encoded.calibration.cameras) == 6
    assert points[:, 3].max() > 1  # intensities as in the file
    pickled = next((root / "infos").glob("*.pkl")).relative_to(root)
    (again,), _ = read_all(root, "any", infos=str(pickled))
    assert np.array_equal(boxes_of(again).boxes, boxes.boxes)
    assert np.isnan(boxes_of(again).velocity).any()


def test_files_of_the_unit_tests_of_mmdetection3d(shared_data: Path) -> None:
    root = shared_data / "fmt_openmmlab" / "mmdet3d"
    (sample,), _ = read_all(root / "kitti")
    assert boxes_of(sample).names == ("Pedestrian",)
    old, _ = read_all(root / "nuscenes", infos="nus_info.pkl", sweeps=2)
    boxes = boxes_of(old[0])  # width before length, and the other yaw
    assert np.allclose(boxes.boxes[0, 3:6], (4.257, 1.726, 1.489), atol=1e-3)
    heading = np.arctan2(boxes.velocity[0, 1], boxes.velocity[0, 0])
    assert abs(heading - boxes.boxes[0, 6]) < 0.1
    (sample,), _ = read_all(root / "lyft", infos="lyft_infos.pkl", sweeps=2)
    assert boxes_of(sample).names == ("car", "other_vehicle", "pedestrian")
    assert len(points_of(sample)[1]) == 15
    (sample,), _ = read_all(root / "waymo" / "kitti_format")
    assert sample.key == "0000000"
    assert points_of(sample)[0].features[5] == "range_index"
    _, skipped = read_all(root / "kitti", infos="kitti_infos_mono3d.pkl")
    assert [item.reason for item in skipped] == ["listed but not there"]


# Files as both generations write them, of one frame.

BOXES = np.array([(20.0, 5.0, -0.8, 3.9, 1.6, 1.5, 0.7), (12.0, -3.0, -0.7, 0.8, 0.6, 1.8, -2.9)])
TO_CAMERA = np.array([(0.0, -1, 0, 0.1), (0, 0, -1, -0.2), (1, 0, 0, -0.3), (0, 0, 0, 1)])
TO_EGO = np.array([(0.0, -1, 0, 0.9), (1, 0, 0, 0.1), (0, 0, 1, 1.8), (0, 0, 0, 1)])
TO_GLOBAL = np.array([(1.0, 0, 0, 400), (0, 1, 0, 1000), (0, 0, 1, 0), (0, 0, 0, 1)])
QUARTER = [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
"""The quaternion of TO_EGO."""


def kitti(generation: int) -> Any:
    location, sizes, turn = lidar_to_kitti(BOXES, TO_CAMERA)
    lhw = sizes[:, [2, 0, 1]]  # stated as length, height, width
    projection = np.eye(4) * (700, 700, 1, 1)
    if generation == 0:
        unknown = {"location": (-1000.0,) * 3, "dimensions": (-1.0,) * 3, "bbox": (9, 9, 20, 20)}
        return [
            {
                "image": {
                    "image_idx": 7,
                    "image_path": "x/image_2/000007.png",
                    "image_shape": (375, 1242),
                },
                "point_cloud": {"num_features": 4, "velodyne_path": "training/velodyne/000007.bin"},
                "calib": {"P2": projection, "R0_rect": np.eye(4), "Tr_velo_to_cam": TO_CAMERA},
                "annos": {
                    "name": np.array(["Car", "Van", "DontCare"]),
                    "location": np.array([*location, unknown["location"]]),
                    "dimensions": np.array([*lhw, unknown["dimensions"]]),
                    "rotation_y": np.array([*turn, -10]),
                    "bbox": np.array([(1, 2, 30, 40), (0, 0, 0, 0), unknown["bbox"]]),
                    "alpha": np.array([0.5, 1, -10]),
                    "truncated": np.array([0.1, 0, -1]),
                    "occluded": np.array([1, 0, -1]),
                    "num_points_in_gt": np.array([8, 9, -1]),
                },
            }
        ]
    instances = [
        {
            "bbox_3d": [*location[row], *lhw[row], turn[row]],
            "bbox_label_3d": label,
            "bbox": box,
            "alpha": alpha,
            "truncated": truncated,
            "occluded": occluded,
            "num_lidar_pts": points,
        }
        for row, label, box, alpha, truncated, occluded, points in (
            (0, 2, [1, 2, 30, 40], 0.5, 0.1, 1, 8),
            (1, 3, [0, 0, 0, 0], 1, 0, 0, 9),
            (1, -1, [9, 9, 20, 20], -10, -1, -1, -1),
        )
    ]
    camera = {"cam2img": projection.tolist(), "lidar2cam": TO_CAMERA.tolist()}
    image = {"img_path": "000007.png", "height": 375, "width": 1242, **camera}
    names = ("Pedestrian", "Cyclist", "Car", "Van")
    meta = {
        "dataset": "kitti",
        "info_version": "1.1",
        "categories": {**{name: place for place, name in enumerate(names)}, "DontCare": -1},
    }
    frame = {
        "sample_idx": 7,
        "images": {"CAM0": {"cam2img": projection.tolist()}, "CAM2": image, "R0_rect": []},
        "lidar_points": {"lidar_path": "000007.bin", "num_pts_feats": 4},
        "instances": instances,
    }
    return {"metainfo": meta, "data_list": [frame]}


def sensor(to_lidar: np.ndarray, path: str) -> dict[str, Any]:
    return {
        "data_path": f"./data/nuscenes/{path}",
        "sensor2lidar_rotation": to_lidar[:3, :3],
        "sensor2lidar_translation": to_lidar[:3, 3],
    }


SWEEP = np.array([(1.0, 0, 0, 2.5), (0, 1, 0, 0.25), (0, 0, 1, 0), (0, 0, 0, 1)])
SWEEP[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]


def nuscenes(generation: int, *, wide: bool = False) -> Any:
    boxes = BOXES.copy()
    if wide:
        boxes[:, 3:5] = boxes[:, [4, 3]]
        boxes[:, 6] = -boxes[:, 6] - np.pi / 2
    intrinsic = np.diag([1266.0, 1266.0, 1.0])
    if generation == 0:
        camera = {
            **sensor(np.linalg.inv(TO_CAMERA), "samples/CAM_FRONT/a.jpg"),
            "cam_intrinsic": intrinsic,
        }
        sweep = {**sensor(SWEEP, "sweeps/LIDAR_TOP/b.bin"), "timestamp": 1e15 - 50_000}
        frame = {
            "token": "t",
            "lidar_path": "./data/nuscenes/samples/LIDAR_TOP/a.bin",
            "timestamp": 1e15,
            "lidar2ego_rotation": QUARTER,
            "lidar2ego_translation": TO_EGO[:3, 3].tolist(),
            "ego2global_rotation": [1, 0, 0, 0],
            "ego2global_translation": TO_GLOBAL[:3, 3].tolist(),
            "sweeps": [sweep],
            "cams": {"CAM_FRONT": camera},
            "gt_boxes": boxes,
            "gt_names": np.array(["car", "static_object.bicycle_rack"]),
            "gt_velocity": np.array([(1.0, 2.0), (np.nan, np.nan)]),
            "num_lidar_pts": np.array([0, 5]),
            "num_radar_pts": np.array([2, 0]),
        }
        return {"infos": [frame], "metadata": {"version": "v1.0-trainval"}}
    instances = [
        {
            "bbox_3d": boxes[row].tolist(),
            "bbox_label_3d": label,
            "velocity": velocity,
            "num_lidar_pts": lidar,
            "num_radar_pts": radar,
        }
        for row, label, velocity, lidar, radar in (
            (0, 0, [1.0, 2.0], 0, 2),
            (1, -1, [float("nan")] * 2, 5, 0),
        )
    ]
    image = {
        "img_path": "a.jpg",
        "cam2img": intrinsic.tolist(),
        "lidar2cam": TO_CAMERA.tolist(),
    }
    sweep_points = {
        "lidar_path": "./data/nuscenes/sweeps/LIDAR_TOP/b.bin",
        "lidar2sensor": np.linalg.inv(SWEEP).tolist(),
    }
    frame = {
        "token": "t",
        "timestamp": 1e9,
        "ego2global": TO_GLOBAL.tolist(),
        "images": {"CAM_FRONT": image},
        "lidar_points": {"lidar_path": "a.bin", "num_pts_feats": 5, "lidar2ego": TO_EGO.tolist()},
        "lidar_sweeps": [{"timestamp": 1e9 - 0.05, "lidar_points": sweep_points}],
        "instances": instances,
    }
    categories = {"car": 0, "truck": 1, "static_object.bicycle_rack": -1}
    meta = {"dataset": "nuscenes", "version": "v1.0-trainval", "categories": categories}
    return {"metainfo": meta, "data_list": [frame]}


def put(root: Path, content: Any, name: str = "some_infos_train.pkl") -> Path:
    """The dataset with the info file."""
    rng = np.random.default_rng(0)
    for file, features in (
        ("training/velodyne/000007.bin", 4),
        ("samples/LIDAR_TOP/a.bin", 5),
        ("sweeps/LIDAR_TOP/b.bin", 5),
    ):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        rng.uniform(2, 30, (20, features)).astype("<f4").tofile(path)
    (root / name).write_bytes(
        json.dumps(content).encode() if name.endswith("json") else pickle.dumps(content)
    )
    return root


@pytest.mark.parametrize("generation", [0, 1])
def test_both_generations_of_kitti(tmp_path: Path, generation: int) -> None:
    (sample,), skipped = read_all(put(tmp_path, kitti(generation)))
    assert not skipped
    boxes = boxes_of(sample)
    assert boxes.names == ("Car", "Van", "DontCare")
    assert boxes.classes.tolist() == [2]
    assert np.allclose(boxes.boxes[:2], BOXES, atol=1e-5)
    assert np.isnan(boxes.boxes[2]).all()
    assert boxes.boxes_2d[0].tolist() == [1, 2, 30, 40]
    assert np.isnan(boxes.boxes_2d[1]).all()
    assert boxes.boxes_2d[2].tolist() == [9, 9, 20, 20]
    assert boxes.num_points.tolist() == [8, 9, -1]
    assert np.allclose(boxes.alpha, (0.5, 1, np.nan), equal_nan=True)
    calibration = points_of(sample)[0].calibration
    assert sample.key == "000007"
    assert calibration.benchmark == "kitti"
    assert np.allclose(calibration.cameras[0].lidar_to_camera, TO_CAMERA)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("generation", [0, 1])
def test_both_generations_of_nuscenes(tmp_path: Path, generation: int, wide: bool) -> None:
    root = put(tmp_path, nuscenes(generation, wide=wide))
    (sample,), skipped = read_all(root, sweeps=3)
    assert not [item for item in skipped if not item.note]
    boxes = boxes_of(sample)
    assert boxes.names == ("car", "static_object.bicycle_rack")
    assert np.allclose(boxes.boxes, BOXES, atol=1e-5)
    assert boxes.num_points.tolist() == [-1, 5]  # only a radar sees the first
    assert np.allclose(boxes.velocity, [(1, 2), (np.nan, np.nan)], equal_nan=True)
    encoded, points = points_of(sample)
    calibration = encoded.calibration
    assert np.allclose(calibration.lidar_to_ego, TO_EGO)
    assert np.allclose(calibration.ego_to_global, TO_GLOBAL)
    assert np.allclose(calibration.cameras[0].lidar_to_camera, TO_CAMERA)
    assert (calibration.cameras[0].width, calibration.notes["token"]) == (1600, "t")
    sweep = np.fromfile(root / "sweeps/LIDAR_TOP/b.bin", "<f4").reshape(-1, 5)
    expected = sweep[:, :3] @ SWEEP[:3, :3].T + SWEEP[:3, 3]
    assert np.allclose(points[20:, :3], expected, atol=1e-4)
    assert np.allclose(points[20:, 4], 0.05, atol=1e-6)
    assert not points[:20, 4].any()


@pytest.mark.parametrize("newest", [False, True])
def test_waymo_in_the_frame_of_the_camera_or_of_the_lidar(tmp_path: Path, newest: bool) -> None:
    content = kitti(1)
    content["metainfo"] = {"dataset": "waymo", "info_version": "1.1"}
    if newest:
        content["metainfo"]["info_version"] = "mmdet3d_v1.4"
        bottom = BOXES - [0, 0, 1, 0, 0, 0, 0] * BOXES[:, 5:6] / 2
        instances = content["data_list"][0]["instances"]
        for row, instance in zip((*bottom, bottom[1]), instances, strict=True):
            instance["bbox_3d"] = row.tolist()
    frame = content["data_list"][0]
    frame["images"] = {"CAM_FRONT": frame["images"]["CAM2"]}
    root = put(tmp_path, content)
    np.zeros((4, 6), "<f4").tofile(root / "training/velodyne/000007.bin")
    (sample,), _ = read_all(root)
    boxes = boxes_of(sample)
    assert boxes.names == ("Cyclist", "Sign", "unknown")
    assert np.allclose(boxes.boxes[:2], BOXES, atol=1e-5)
    assert sample.key == "0000007"
    assert points_of(sample)[0].calibration.benchmark == ""


def test_json_is_read_as_the_pickle(tmp_path: Path) -> None:
    root = put(tmp_path, kitti(1), "kitti_infos_val.json")
    (sample,), _ = read_all(root, "val")
    assert np.allclose(boxes_of(sample).boxes[:2], BOXES, atol=1e-5)


def test_without_annotations(tmp_path: Path) -> None:
    content = kitti(1)
    del content["data_list"][0]["instances"]
    (sample,), _ = read_all(put(tmp_path, content))
    assert not sample.annotated


# Defects.


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"data_list": [Attack()], "metainfo": {}}, "could execute code"),
        ("text", "is no info file of MMDetection3D"),
        ({"data_list": 5}, "is no info file of MMDetection3D"),
        ({"data_list": [{}], "metainfo": {}}, "does not say of which dataset it is"),
        ([{"a": 1}], "does not say of which dataset it is"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: Any, reason: str) -> None:
    root = put(tmp_path, content)
    with pytest.raises(ValueError, match=reason):
        read_all(root)


def test_cut_short(tmp_path: Path) -> None:
    path = put(tmp_path, kitti(0)) / "some_infos_train.pkl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"some_infos_train\.pkl cannot be read: this pickle"):
        read_all(tmp_path)


def test_names_of_files(tmp_path: Path) -> None:
    put(tmp_path, kitti(1), "kitti_dbinfos_train.pkl")
    with pytest.raises(FileNotFoundError, match=r"no file \*infos_train"):
        read_all(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no info file other\.pkl"):
        read_all(tmp_path, infos="other.pkl")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("bbox_3d", [1, 2, 3], "a box has 3 numbers"),
        ("bbox_3d", "here", "the frame is invalid"),
        ("bbox_label_3d", "car", "the frame is invalid"),
        ("velocity", 5, "the frame is invalid"),
    ],
)
def test_invalid_frames_are_skipped(tmp_path: Path, key: str, value: Any, reason: str) -> None:
    content = kitti(1)
    content["data_list"][0]["instances"][0][key] = value
    content["data_list"].append(None)
    samples, skipped = read_all(put(tmp_path, content))
    assert not samples
    assert skipped[0].reason == "it is no frame"
    assert reason in skipped[1].reason


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("token", None, "has no token"),
        ("lidar_path", None, "it states no cloud"),
        ("num_lidar_pts", None, "'NoneType' object is not iterable"),
    ],
)
def test_frames_of_0_x_without_what_they_need(
    tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    content = nuscenes(0)
    content["infos"][0][key] = value
    samples, skipped = read_all(put(tmp_path, content))
    assert not samples
    assert skipped[0].reason == f"the frame is invalid: {reason}"


def test_a_frame_of_kitti_without_a_number(tmp_path: Path) -> None:
    """As number 0 it would replace another frame."""
    content = kitti(0)
    content[0]["image"] = None
    samples, skipped = read_all(put(tmp_path, content))
    assert not samples
    assert skipped[0].reason == "the frame is invalid: has no 'image_idx'"


def test_sweeps_of_no_known_time_or_place(tmp_path: Path) -> None:
    """Their points would have numbers that are not finite, and the cloud could not be read."""
    content = nuscenes(0)
    content["infos"][0]["sweeps"][0]["timestamp"] = float("nan")
    (sample,), skipped = read_all(put(tmp_path, content), sweeps=1)
    assert len(points_of(sample)[1]) == 20
    assert skipped[0].reason == "sweep left out: its time is not known"
    content = nuscenes(0)
    content["infos"][0]["sweeps"][0]["sensor2lidar_translation"] = [1.0, float("nan"), 0.0]
    samples, skipped = read_all(put(tmp_path, content), sweeps=1)
    assert not samples
    assert "4 x 4 finite numbers" in skipped[0].reason


def test_invalid_boxes_are_skipped(tmp_path: Path) -> None:
    content = nuscenes(1)
    content["data_list"][0]["instances"][1]["bbox_3d"][4] = -1.0
    (sample,), skipped = read_all(put(tmp_path, content))
    assert len(boxes_of(sample)) == 1
    assert "its size is not positive" in skipped[0].reason


def test_cloud_that_is_not_there_or_outside(tmp_path: Path) -> None:
    content = kitti(1)
    root = put(tmp_path, content)
    shutil.rmtree(root / "training")
    assert read_all(root)[1][0].reason == "listed but not there"
    content["data_list"][0]["lidar_points"]["lidar_path"] = "../../etc/passwd"
    (root / "some_infos_train.pkl").write_bytes(pickle.dumps(content))
    assert read_all(root)[1][0].reason == "listed but not there"
