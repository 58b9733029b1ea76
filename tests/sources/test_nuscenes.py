"""nuScenes and Lyft: frames of sensors, sweeps, velocities, splits, and defects of tables."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.inputs.point_cloud import EncodedPoints
from mtl_ray.samples import Sample
from mtl_ray.sources.image_reading import ImageRule, open_source
from mtl_ray.sources.lidar import nuscenes_tables
from mtl_ray.sources.lidar.dataset_configs import Lyft, NuScenes
from mtl_ray.sources.lidar.kitti import NO_IMAGE
from mtl_ray.sources.lidar.nuscenes import CLASSES, open_nuscenes
from mtl_ray.sources.lidar.nuscenes_frames import ABSENT
from mtl_ray.sources.lidar.nuscenes_scenes import SPLITS
from mtl_ray.sources.lidar.nuscenes_tables import read_rows
from mtl_ray.sources.source import SkippedItem
from tests.sources.nuscenes_cases import KEY_STEP, SWEEP_STEP, World


def read_all(config: NuScenes | Lyft) -> tuple[dict[str, Sample], list[SkippedItem]]:
    """The samples by key, and all skipped items."""
    source = open_source(config)
    found, skipped = {}, list(source.skipped)
    for index in range(len(source)):
        sample, items = source.read(index)
        skipped += items
        if sample is not None:
            found[sample.key] = sample
    return found, skipped


def points_of(sample: Sample) -> tuple[EncodedPoints, np.ndarray]:
    encoded: EncodedPoints = sample.inputs["points"]
    return encoded, np.frombuffer(encoded.data, "<f4").reshape(-1, len(encoded.features))


def boxes_of(sample: Sample) -> Boxes3d:
    found: Boxes3d = sample.annotations["boxes_3d"]
    return found


def lidar_token(world: World, sample: str) -> str:
    return next(
        row["token"]
        for row in world.rows["sample_data"]
        if row["sample_token"] == sample and row["is_key_frame"] and "LIDAR" in row["token"]
    )


def test_key_frames(tmp_path: Path) -> None:
    world = World(tmp_path).write()
    samples, skipped = read_all(NuScenes(root=str(tmp_path), split="mini_train"))
    assert list(samples) == ["scene-0061-0", "scene-0061-1", "scene-0061-2"]
    assert not skipped
    encoded, points = points_of(samples["scene-0061-1"])
    assert encoded.features == ("x", "y", "z", "intensity", "ring")
    token = lidar_token(world, "scene-0061-1")
    assert np.allclose(points[:-1, :3], world.seen(token), atol=1e-4)
    assert points[5, 3] == 5  # as in the file
    calibration = encoded.calibration
    assert calibration.benchmark == "nuscenes"
    assert calibration.notes["token"] == "scene-0061-1"
    to_global = calibration.ego_to_global @ calibration.lidar_to_ego
    assert np.allclose(to_global, world.to_global(token), atol=1e-9)
    assert [camera.name for camera in calibration.cameras][:2] == ["CAM_FRONT", "CAM_FRONT_RIGHT"]
    for camera in calibration.cameras:  # the vehicle moves between the two
        other = next(
            row["token"]
            for row in world.rows["sample_data"]
            if row["sample_token"] == "scene-0061-1" and f"-{camera.name}-" in row["token"]
        )
        expected = np.linalg.inv(world.to_global(other)) @ world.to_global(token)
        assert np.allclose(camera.lidar_to_camera, expected, atol=1e-9)


def test_boxes(tmp_path: Path) -> None:
    world = World(tmp_path, tilt=0.0).write()
    samples, _ = read_all(NuScenes(root=str(tmp_path), split="mini_train"))
    boxes = boxes_of(samples["scene-0061-1"])
    assert boxes.names == ("car", "pedestrian", "static_object.bicycle_rack")
    assert [CLASSES[index] for index in boxes.classes] == ["car", "pedestrian"]
    assert boxes.attributes == ("vehicle.moving", "", "")
    assert boxes.num_points.tolist() == [0, 7, 14]
    to_global = world.to_global(lidar_token(world, "scene-0061-1"))
    heading = np.arctan2(to_global[1, 0], to_global[0, 0])
    for row, token in enumerate(boxes.ids):
        stated = world.find("sample_annotation", token)
        centre = to_global[:3, :3] @ boxes.boxes[row, :3] + to_global[:3, 3]
        assert np.allclose(centre, stated["translation"], atol=1e-4)
        assert np.allclose(boxes.boxes[row, 3:6], np.array(stated["size"])[[1, 0, 2]])
        yaw = 2 * np.arctan2(stated["rotation"][3], stated["rotation"][0])
        assert np.isclose(np.cos(yaw - heading - boxes.boxes[row, 6]), 1, atol=1e-6)
        before, after = (
            np.array(world.find("sample_annotation", stated[end])["translation"])
            for end in ("prev", "next")
        )
        velocity = to_global[:2, :2] @ boxes.velocity[row]
        assert np.allclose(velocity, (after - before)[:2] / (2 * KEY_STEP / 1e6), atol=1e-5)


def test_objects_that_only_a_radar_sees_are_not_unseen(tmp_path: Path) -> None:
    world = World(tmp_path)
    for row in world.rows["sample_annotation"]:
        row["num_lidar_pts"] = 0
    world.write()
    samples, _ = read_all(NuScenes(root=str(tmp_path), split="mini_val"))
    assert boxes_of(samples["scene-0103-1"]).num_points.tolist() == [0, -1, -1]


def test_velocity_needs_a_near_annotation(tmp_path: Path) -> None:
    world = World(tmp_path, frames=2)
    for row in world.rows["sample"]:
        if row["token"].endswith("-1"):
            row["timestamp"] += 1_100_000  # 1.6 seconds after the first
    world.write()
    samples, _ = read_all(NuScenes(root=str(tmp_path), split="mini_train"))
    assert np.isnan(boxes_of(samples["scene-0061-0"]).velocity).all()


@pytest.mark.parametrize("sweeps", [1, 3, 10])
def test_sweeps_show_the_same_world(tmp_path: Path, sweeps: int) -> None:
    world = World(tmp_path).write()
    samples, skipped = read_all(NuScenes(root=str(tmp_path), split="mini_val", sweeps=sweeps))
    encoded, points = points_of(samples["scene-0103-2"])
    assert not skipped
    assert encoded.features == ("x", "y", "z", "intensity", "time")
    seen = world.seen(lidar_token(world, "scene-0103-2"))
    count = len(seen)
    assert np.allclose(points[:count, :3], seen, atol=1e-4)
    assert points[count, :3].tolist() == [0.5, -0.5, 0.0]  # of the key frame nothing is removed
    earlier = points[count + 1 :]
    steps = (1, 2, 3, 10, 11, 12, 13, 20)[:sweeps]  # three sweeps are before each key frame
    assert len(earlier) == len(steps) * count
    for sweep, step in enumerate(steps):
        part = earlier[sweep * count : (sweep + 1) * count]
        assert np.allclose(part[:, :3], seen, atol=1e-4)
        assert np.array_equal(part[:, 3], np.arange(count))
        assert np.allclose(part[:, 4], step * SWEEP_STEP / 1e6, atol=1e-6)


def test_first_frame_of_a_scene_is_repeated(tmp_path: Path) -> None:
    world = World(tmp_path).write()
    samples, _ = read_all(NuScenes(root=str(tmp_path), split="mini_val", sweeps=2))
    _, points = points_of(samples["scene-0103-0"])
    count = len(world.points)
    assert len(points) == 3 * count + 1
    assert np.array_equal(points[count + 1 : 2 * count + 1], points[:count])
    assert not points[:, 4].any()


def test_official_splits() -> None:
    sizes = {name: len(scenes) for name, scenes in SPLITS.items()}
    assert sizes == {
        **{"train": 700, "val": 150, "trainval": 850, "test": 150},
        **{"mini_train": 8, "mini_val": 2},
    }
    assert not SPLITS["train"] & SPLITS["val"]
    assert not SPLITS["trainval"] & SPLITS["test"]
    assert SPLITS["mini_train"] <= SPLITS["trainval"]


def test_splits(tmp_path: Path) -> None:
    World(tmp_path).write()
    assert len(read_all(NuScenes(root=str(tmp_path), split="mini"))[0]) == 6
    assert len(read_all(NuScenes(root=str(tmp_path), split="v1.0-mini"))[0]) == 6
    names = tmp_path / "names.txt"
    names.write_text("scene-0103\n")
    own = NuScenes(root=str(tmp_path), split="mini_train", scenes=str(names))
    assert all(key.startswith("scene-0103") for key in read_all(own)[0])
    with pytest.raises(FileNotFoundError, match=r"no folder v1\.0-trainval"):
        open_source(NuScenes(root=str(tmp_path), split="val"))
    names.write_text("scene-0001\n")
    with pytest.raises(ValueError, match="has no scene of"):
        open_source(own)


def test_camera_images(tmp_path: Path) -> None:
    World(tmp_path, frames=1).write()
    samples, _ = read_all(NuScenes(root=str(tmp_path), split="mini_val", camera_images=True))
    encoded, _ = points_of(samples["scene-0103-0"])
    assert encoded.images == (b"\xff\xd8\xff\xd9",) * 6


def test_a_frame_without_the_image_of_a_camera_stays(tmp_path: Path) -> None:
    """As of KITTI: its cloud and its objects are there."""
    World(tmp_path, frames=1).write()
    missing = sorted((tmp_path / "samples" / "CAM_BACK").iterdir())
    for file in missing:
        file.unlink()
    config = NuScenes(root=str(tmp_path), split="mini_val", camera_images=True)
    samples, (item,) = read_all(config)
    assert item.note
    assert item.reason.startswith(NO_IMAGE)
    assert item.file.startswith("samples/CAM_BACK/")
    encoded, _ = points_of(samples["scene-0103-0"])
    assert sorted(map(len, encoded.images)) == [0, 4, 4, 4, 4, 4]


def test_annotations_without_clouds(tmp_path: Path) -> None:
    world = World(tmp_path).write()
    config = NuScenes(root=str(tmp_path), split="mini_val")
    whole, _ = read_all(config)
    for folder in ("samples", "sweeps"):
        shutil.rmtree(world.data / folder)
    assert not read_all(config)[0]
    for source, notes in (
        (open_source(config, ImageRule(needed=False)), [ABSENT]),
        (open_nuscenes(config, files=False), []),
    ):
        sample, items = source.read(1)
        assert sample is not None
        assert [item.reason for item in items] == notes
        assert np.array_equal(boxes_of(sample).boxes, boxes_of(whole[sample.key]).boxes)
        assert not len(points_of(sample)[1])


def test_without_annotations(tmp_path: Path) -> None:
    world = World(tmp_path, tables="v1.0-test", scenes=("scene-0077",)).write()
    for name in ("sample_annotation", "instance", "category"):
        (world.tables / f"{name}.json").unlink()
    samples, _ = read_all(NuScenes(root=str(tmp_path), split="test"))
    assert len(samples) == 3
    assert not any(sample.annotated for sample in samples.values())


def test_scenes_without_an_object_are_annotated(tmp_path: Path) -> None:
    """The table has objects of other scenes; that of the test data is empty."""
    world = World(tmp_path)
    rows = world.rows["sample_annotation"]
    world.rows["sample_annotation"] = [row for row in rows if "0061" in row["token"]]
    world.write()
    samples, _ = read_all(NuScenes(root=str(tmp_path), split="mini_val"))
    assert [len(boxes_of(sample)) for sample in samples.values()] == [0, 0, 0]
    world.rows["sample_annotation"] = []
    world.write()
    samples, _ = read_all(NuScenes(root=str(tmp_path), split="mini_val"))
    assert not any(sample.annotated for sample in samples.values())


# Defects.


@pytest.mark.parametrize("table", ["category", "instance"])
def test_annotations_without_the_table_of_their_classes(tmp_path: Path, table: str) -> None:
    world = World(tmp_path).write()
    (world.tables / f"{table}.json").unlink()
    with pytest.raises(FileNotFoundError, match=f"no table v1.0-mini/{table}.json"):
        read_all(NuScenes(root=str(tmp_path), split="mini"))


def test_measurements_without_a_time(tmp_path: Path) -> None:
    """The lag of a sweep would be no number, and the cloud could not be read again."""
    world = World(tmp_path)
    del world.find("sample", "scene-0103-0")["timestamp"]
    previous = world.find("sample_data", lidar_token(world, "scene-0103-1"))["prev"]
    world.find("sample_data", previous)["timestamp"] = "soon"
    world.write()
    samples, skipped = read_all(NuScenes(root=str(tmp_path), split="mini_val", sweeps=1))
    assert list(samples) == ["scene-0103-2"]
    reasons = [item.reason for item in skipped]
    assert "has no timestamp" in reasons
    assert f"a row of sample_data is invalid: {previous}: timestamp" in reasons


def test_missing_rows(tmp_path: Path) -> None:
    world = World(tmp_path)
    lidar = lidar_token(world, "scene-0103-1")
    pose = world.find("sample_data", lidar)["ego_pose_token"]
    world.rows["ego_pose"] = [row for row in world.rows["ego_pose"] if row["token"] != pose]
    world.rows["instance"] = [
        row for row in world.rows["instance"] if row["token"] != "i-scene-0103-1"
    ]
    world.rows["sample"].append({"token": "odd"})
    world.write()
    samples, skipped = read_all(NuScenes(root=str(tmp_path), split="mini_val"))
    assert list(samples) == ["scene-0103-0", "scene-0103-2"]
    reasons = [item.reason for item in skipped]
    assert f"a row that sample_data refers to is missing: ego_pose {pose}" in reasons
    assert "a row that sample_annotation refers to is missing: i-scene-0103-1" in reasons
    assert "a row without token or scene_token" in reasons
    names = boxes_of(samples["scene-0103-0"]).names
    assert names == ("car", "bus", "static_object.bicycle_rack")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": [1.0, 0.0, 1.0]}, "its size is not positive"),
        ({"translation": [1.0, float("nan"), 1.0]}, "has numbers that are not finite"),
        ({"translation": "here"}, "has numbers that are not finite"),
        ({"rotation": [0.0, 0.0, 0.0, 0.0]}, "has numbers that are not finite"),
    ],
)
def test_invalid_objects(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    world = World(tmp_path, frames=1)
    world.rows["sample_annotation"][0] |= change
    world.write()
    samples, skipped = read_all(NuScenes(root=str(tmp_path), split="mini_train"))
    assert len(boxes_of(samples["scene-0061-0"])) == 3
    assert [item.reason.partition(":")[0] for item in skipped] == [reason.partition(",")[0]] or (
        skipped[0].reason.startswith(reason)
    )


def test_damaged_clouds(tmp_path: Path) -> None:
    world = World(tmp_path).write()
    files = [
        world.data
        / world.find("sample_data", lidar_token(world, f"scene-0103-{number}"))["filename"]
        for number in range(3)
    ]
    files[0].write_bytes(files[0].read_bytes()[:-8])
    points = np.fromfile(files[1], "<f4")
    points[3] = np.nan
    points.tofile(files[1])
    files[2].unlink()
    samples, skipped = read_all(NuScenes(root=str(tmp_path), split="mini_val"))
    assert not samples
    assert len(skipped) == 3
    assert "no multiple of 5" in skipped[0].reason
    assert "NaN" in skipped[1].reason
    assert "not there" in skipped[2].reason


def test_sweep_that_is_not_there(tmp_path: Path) -> None:
    world = World(tmp_path).write()
    shutil.rmtree(world.data / "sweeps")
    samples, skipped = read_all(NuScenes(root=str(tmp_path), split="mini_val", sweeps=1))
    assert len(samples) == 3
    assert [item.reason for item in skipped] == ["sweep left out: listed but not there"] * 2
    assert all(item.note for item in skipped)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "[{]", '[{"token": "a"}', "[" * 100_000, '[{"a": [' + "[" * 9999]
)
def test_damaged_tables(tmp_path: Path, text: str) -> None:
    world = World(tmp_path, frames=1).write()
    (world.tables / "sample.json").write_text(text)
    with pytest.raises(ValueError, match=r"v1.0-mini/sample.json is (not|cut)"):
        open_source(NuScenes(root=str(tmp_path), split="mini"))


def test_missing_table(tmp_path: Path) -> None:
    world = World(tmp_path, frames=1).write()
    (world.tables / "ego_pose.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no table v1\.0-mini/ego_pose\.json"):
        open_source(NuScenes(root=str(tmp_path), split="mini"))


ROWS = st.lists(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.integers(), st.text(max_size=9), st.floats(allow_nan=False), st.none()),
        max_size=4,
    ),
    max_size=9,
)


@given(rows=ROWS, at_once=st.integers(1, 40), indent=st.sampled_from([None, 0, 2]))
def test_tables_are_read_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], at_once: int, indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("table") / "table.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nuscenes_tables, "_AT_ONCE", at_once)
        assert list(read_rows(str(path), "table.json")) == rows


# Lyft.


def lyft_world(root: Path) -> World:
    folder = "v1.01-train/v1.01-train"
    categories = ("car", "animal", "other_vehicle", "boat")
    return World(root, folder, "v1.01-train", scenes=("host-a", "host-b"), categories=categories)


def test_lyft(tmp_path: Path) -> None:
    lyft_world(tmp_path).write()
    (tmp_path / "val.txt").write_text("host-b\n")
    samples, skipped = read_all(Lyft(root=str(tmp_path), split="val", sweeps=1))
    assert not skipped
    assert list(samples) == ["host-b-0", "host-b-1", "host-b-2"]
    boxes = boxes_of(samples["host-b-0"])
    assert boxes.names == ("car", "animal", "other_vehicle", "boat")
    assert boxes.classes.tolist() == [0, 8, 4]
    assert len(read_all(Lyft(root=str(tmp_path), split="trainval"))[0]) == 6
    with pytest.raises(FileNotFoundError, match="no list of scenes"):
        open_source(Lyft(root=str(tmp_path), split="train"))


def test_lyft_has_one_corrupt_cloud(tmp_path: Path) -> None:
    world = lyft_world(tmp_path).write()
    token = lidar_token(world, "host-a-1")
    file = world.data / world.find("sample_data", token)["filename"]
    file.write_bytes(file.read_bytes()[:-8])
    samples, skipped = read_all(Lyft(root=str(tmp_path), split="trainval"))
    assert len(samples) == 5
    assert "no multiple of 5" in skipped[0].reason
    assert "host-a-1" in skipped[0].file


def test_real_tables_of_lyft(shared_data: Path) -> None:
    """One sample of the real tables, whose cloud is not there; the boxes that OpenMMLab's converter
    made of it are.
    """
    from mtl_ray.pickles.unpickle import load_pickle
    from mtl_ray.sources.lidar.nuscenes_frames import KeyFrame, _found

    root = shared_data / "fmt_openmmlab" / "mmdet3d" / "lyft"
    source = open_source(Lyft(root=str(root), split="val"))
    frame: KeyFrame = source.records[0]
    info = load_pickle((root / "lyft_infos_val.pkl").read_bytes())["infos"][0]
    assert frame.token == info["token"]
    found = _found(frame, {}, [])
    assert np.allclose([each.box for each in found], info["gt_boxes"], atol=1e-9)
    assert [each.name for each in found] == list(info["gt_names"])
    for (camera, _), name in zip(frame.cameras, info["cams"], strict=True):
        stated = info["cams"][name]
        back = np.linalg.inv(camera.lidar_to_camera)
        assert camera.name == name
        assert np.allclose(back[:3, :3], stated["sensor2lidar_rotation"], atol=1e-9)
        assert np.allclose(back[:3, 3], stated["sensor2lidar_translation"], atol=1e-9)
