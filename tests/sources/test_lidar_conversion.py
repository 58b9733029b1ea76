"""Clouds through whole conversions: shards of both encodings, parts, databases, KITTI's files."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.distributed.cloud_objects import FEW_POINTS, UNKNOWN_DIFFICULTY, has_difficulty
from mtl_ray.distributed.convert import Conversion, convert, summary
from mtl_ray.distributed.convert_files import convert_files, files_summary
from mtl_ray.distributed.split import SplitOptions, split_data
from mtl_ray.geometry.boxes_3d import points_in_boxes
from mtl_ray.inputs.cloud_files import SUFFIXES
from mtl_ray.inputs.point_cloud import encoded_points
from mtl_ray.inputs.points import POINTS
from mtl_ray.samples import Sample
from mtl_ray.shards.split import open_split
from mtl_ray.sources.config import ConvertConfig, Shards, SourceConfig
from mtl_ray.sources.folders import PASSED_OVER
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.lidar.config import CloudObjects, Clouds, Kitti, Street
from mtl_ray.sources.lidar.kitti import NO_IMAGE
from mtl_ray.sources.writers.kitti import NO_CAMERA, OTHER_FEATURES, open_kitti_writer
from mtl_ray.sources.writers.writer import Target
from tests.evaluation.conftest import png

PNG = png(np.zeros((20, 30, 3), np.uint8))
Encoding = Literal["arrow", "tfrecord"]


def converted(source: SourceConfig, to: Path, **options: Any) -> Conversion:
    return convert(ConvertConfig(source=source, to=str(to), **{"workers": 1, **options}))


def samples_of(uri: Path | str) -> dict[str, Sample]:
    split = open_split(str(uri))
    return {sample.key: sample for sample in split.read(0, split.num_samples)}


def points_of(sample: Sample) -> np.ndarray:
    return POINTS.decode(sample.inputs["points"], 10**7).points


def objects_of(sample: Sample) -> Boxes3d:
    found: Boxes3d = sample.annotations["boxes_3d"]
    return found


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of six generated streets."""
    folder = tmp_path_factory.mktemp("streets") / "train"
    converted(Street(split="train", num=6, resolution=0.4), folder)
    return folder


@pytest.mark.parametrize("encoding", ["arrow", "tfrecord"])
def test_a_split_holds_what_the_source_gives(tmp_path: Path, encoding: Encoding) -> None:
    config = Street(split="train", num=5, resolution=0.4)
    done = converted(config, tmp_path / "out", format=encoding)
    source = open_source(config)
    stored = samples_of(tmp_path / "out")
    assert len(stored) == 5
    for index in range(5):
        sample, _ = source.read(index)
        assert sample is not None
        found = stored[sample.key]
        assert points_of(found).tobytes() == points_of(sample).tobytes()
        one, other = (BOXES(objects_of(each)) for each in (sample, found))
        assert one == other
        calibrations = [each.inputs["points"].calibration.to_json() for each in (sample, found)]
        assert calibrations[0] == calibrations[1]
    again = converted(config, tmp_path / "out", format=encoding)
    assert not again.fresh
    for said in (summary(done), summary(again)):
        assert "Pedestrian" in said
        assert "point clouds" in said
        assert "images" not in said
    counts = json.loads((tmp_path / "out" / "class_counts.json").read_text())["boxes_3d"]
    assert sum(counts["boxes"].values()) == sum(len(objects_of(each)) for each in stored.values())


def BOXES(value: Boxes3d) -> str:  # noqa: N802
    """A value as text, with NaN equal to NaN."""
    from mtl_ray.annotations.boxes_3d import BOXES_3D

    return repr(
        {name: np.array(column).tolist() for name, column in BOXES_3D.to_row(value).items()}
    )


@pytest.mark.usefixtures("ray_session")
def test_ray_tasks_write_the_same_shards(tmp_path: Path, streets: Path) -> None:
    config = Street(split="train", num=6, resolution=0.4)
    converted(config, tmp_path / "out", workers=2, shard_bytes=200_000)
    assert len(list((tmp_path / "out").glob("*.arrow"))) > 1
    one, other = samples_of(streets), samples_of(tmp_path / "out")
    assert {key: points_of(each).tobytes() for key, each in one.items()} == {
        key: points_of(each).tobytes() for key, each in other.items()
    }


@pytest.mark.parametrize("encoding", ["arrow", "tfrecord"])
def test_objects_are_a_split_of_their_own(
    tmp_path: Path, streets: Path, encoding: Encoding
) -> None:
    again = tmp_path / "again"
    converted(Shards(root=str(streets), split="train"), again, format=encoding)
    done = converted(CloudObjects(root=str(again), split="database"), tmp_path / "database")
    scenes, found = samples_of(streets), samples_of(tmp_path / "database")
    expected = Counter[str]()
    for scene in scenes.values():
        objects = objects_of(scene)
        kept = has_difficulty(objects) & (objects.num_points >= 5)
        expected.update(name for name, keep in zip(objects.names, kept, strict=True) if keep)
    assert Counter(objects_of(each).names[0] for each in found.values()) == expected
    for key, each in found.items():
        only, points = objects_of(each), points_of(each)
        assert len(only) == len(only.classes) == 1
        assert len(points) == only.num_points[0] >= 5
        assert points_in_boxes(points, only.boxes).all()
        assert key.rpartition("/")[0] in scenes
    notes = done.findings.notes
    assert set(notes) <= {FEW_POINTS, UNKNOWN_DIFFICULTY}
    assert notes.total() + len(found) == sum(len(objects_of(each)) for each in scenes.values())
    assert done.findings.rejected == 0


def test_every_object_on_request(tmp_path: Path, streets: Path) -> None:
    config = CloudObjects(
        root=str(streets), split="database", min_points=1, unknown_difficulty=True
    )
    converted(config, tmp_path / "database")
    whole = [objects_of(scene) for scene in samples_of(streets).values()]
    assert len(samples_of(tmp_path / "database")) == sum(
        int((each.num_points > 0).sum()) for each in whole
    )


def test_objects_need_clouds(tmp_path: Path) -> None:
    from mtl_ray.sources.config import Digits

    converted(Digits(split="train", num=2, size=64), tmp_path / "digits")
    with pytest.raises(ValueError, match="no split of point clouds"):
        converted(CloudObjects(root=str(tmp_path / "digits"), split="a"), tmp_path / "out")


def test_kitti_files_come_back(tmp_path: Path, streets: Path) -> None:
    config = ConvertConfig(
        source=Shards(root=str(streets), split="val"),
        to=str(tmp_path / "kitti"),
        format="kitti",
        workers=1,
    )
    files = convert_files(config)
    converted(Kitti(root=str(tmp_path / "kitti"), split="val"), tmp_path / "again")
    before, after = samples_of(streets), samples_of(tmp_path / "again")
    assert before.keys() == after.keys()
    assert files.images == len(before)
    assert sum(files.objects.values()) == sum(len(objects_of(each)) for each in before.values())
    assert "Cyclist" in files_summary(files)
    assert "images" not in files_summary(files)
    for key, sample in before.items():
        one, other = objects_of(sample), objects_of(after[key])
        assert points_of(sample).tobytes() == points_of(after[key]).tobytes()
        assert one.names == other.names
        assert np.array_equal(one.classes, other.classes)
        assert np.array_equal(one.occlusion, other.occlusion)
        assert other.boxes == pytest.approx(one.boxes, abs=2e-4)
        assert other.boxes_2d == pytest.approx(one.boxes_2d, abs=1e-3)
        assert other.truncation == pytest.approx(one.truncation, abs=1e-4)
        assert other.alpha == pytest.approx(one.alpha, abs=1e-3)
        grounds = [
            each.inputs["points"].calibration.ground for each in (sample, after[key])
        ]  # fmt: skip
        unit = grounds[0] / np.linalg.norm(grounds[0][:3])
        assert grounds[1] == pytest.approx(unit, abs=1e-9)


@pytest.mark.parametrize("both", [False, True])
def test_kitti_files_of_several_cameras_come_back(
    tmp_path: Path, streets: Path, both: bool
) -> None:
    """As Waymo's, also those of MMDetection3D, where label_2 is of one of the cameras."""
    (name, before), *_ = samples_of(streets).items()
    (camera,) = before.inputs["points"].calibration.cameras
    turned = replace(
        camera, lidar_to_camera=np.diag([-1.0, 1, -1, 1]) @ camera.lidar_to_camera, name="back"
    )
    cloud = POINTS.decode(before.inputs["points"], 10**7)
    calibration = replace(cloud.calibration, cameras=(camera, turned, camera))
    sample = Sample(
        key=name,
        inputs={
            "points": encoded_points(
                replace(cloud, calibration=calibration), (b"\xff\xd8a", PNG, b"\xff\xd8c")
            )
        },
        annotations=before.annotations,
    )
    vocabulary = open_split(str(streets)).vocabulary
    target = Target(uri=str(tmp_path), split="val", vocabulary=vocabulary)
    writer = open_kitti_writer(target)
    writer.finish([writer.write(sample)[0]])
    if both:
        (tmp_path / "training" / "label_2").mkdir()
        (tmp_path / "training" / "label_2" / f"{name}.txt").write_text("")
        file = tmp_path / "training" / "calib" / f"{name}.txt"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if "Tr_velo_to_cam:" not in line))
    source = open_source(Kitti(root=str(tmp_path), split="val", camera_images=True))
    after, items = source.read(0)
    assert after is not None
    one, other = objects_of(before), objects_of(after)
    assert one.names == other.names
    assert other.boxes == pytest.approx(one.boxes, abs=2e-4)
    found = after.inputs["points"]
    assert found.calibration.benchmark == ""
    assert [each.name for each in found.calibration.cameras] == ["image_0", "image_1", "image_2"]
    for read, written in zip(found.calibration.cameras, calibration.cameras, strict=True):
        assert read.lidar_to_camera == pytest.approx(written.lidar_to_camera, abs=1e-9)
        assert read.projection == pytest.approx(written.projection, abs=1e-9)
    assert found.images == (b"", PNG, b"")
    assert {item.reason.partition(":")[0] for item in items} == {NO_IMAGE}  # two are damaged


def test_the_formats_of_images_refuse_clouds(tmp_path: Path, streets: Path) -> None:
    for form in ("coco", "yolo", "voc", "semantic_png"):
        with pytest.raises(ValueError, match="boxes_3d"):
            convert_files(
                ConvertConfig(
                    source=Shards(root=str(streets), split="val"),
                    to=str(tmp_path / form),
                    format=form,
                    workers=1,
                )
            )


def test_parts_of_a_split_of_clouds(tmp_path: Path, streets: Path) -> None:
    parts = split_data(
        str(streets), str(tmp_path), SplitOptions(shares={"one": 1, "other": 1}), workers=1
    )
    assert [part.images for part in parts] == [3, 3]
    whole = {**samples_of(tmp_path / "one"), **samples_of(tmp_path / "other")}
    assert whole.keys() == samples_of(streets).keys()


def test_a_folder_of_clouds(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(50, 5)).astype("<f4")
    folder = tmp_path / "raw" / "night" / "deeper"
    folder.mkdir(parents=True)
    (folder / "a.pcd.bin").write_bytes(points.tobytes())
    (folder / "cut.bin").write_bytes(points.tobytes()[:-2])
    (folder / "empty.bin").write_bytes(b"")
    (folder / "misnamed.ply").write_bytes(points.tobytes())
    (folder / "notes.doc").write_text("no cloud")
    done = converted(
        Clouds(root=str(tmp_path / "raw"), split="night", features=5), tmp_path / "out"
    )
    assert "classes    none" in summary(done)
    found = samples_of(tmp_path / "out")
    assert sorted(found) == ["deeper/a.pcd.bin", "deeper/empty.bin"]
    assert np.array_equal(points_of(found["deeper/a.pcd.bin"]), points)
    features = found["deeper/a.pcd.bin"].inputs["points"].features
    assert features == ("x", "y", "z", "intensity", "ring")
    assert not found["deeper/a.pcd.bin"].annotated
    rejects = json.loads((tmp_path / "out" / "rejects.json").read_text())
    assert [(each["file"], each.get("note", False)) for each in rejects] == [
        ("deeper/notes.doc", True),
        ("deeper/cut.bin", False),
        ("deeper/misnamed.ply", False),
    ]
    assert rejects[0]["reason"].startswith(PASSED_OVER)
    here = open_source(Clouds(root=str(folder), split="anything", features=5))
    assert list(here.records) == ["a.pcd.bin", "cut.bin", "empty.bin", "misnamed.ply"]
    with pytest.raises(FileNotFoundError, match=SUFFIXES[0]):
        open_source(Clouds(root=str(tmp_path), split="none"))


def test_clouds_of_another_number_of_features_are_rejected(
    tmp_path: Path, shared_data: Path
) -> None:
    (file,) = (shared_data / "lidar_nuscenes_key" / "samples" / "LIDAR_TOP").iterdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.bin").symlink_to(file)
    source = open_source(Clouds(root=str(tmp_path / "raw"), split="val"))
    sample, (item,) = source.read(0)
    assert sample is None
    assert "with 5 it is; the option features" in item.reason
    source = open_source(Clouds(root=str(tmp_path / "raw"), split="val", features=5))
    sample, _ = source.read(0)
    assert sample is not None
    assert len(points_of(sample)) == 34_688


def test_clouds_of_no_camera_become_kitti_files(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a b.bin").write_bytes(np.ones((10, 5), "<f4").tobytes())
    config = ConvertConfig(
        source=Clouds(root=str(tmp_path / "raw"), split="test", features=5),
        to=str(tmp_path / "kitti"),
        format="kitti",
        workers=1,
    )
    files = convert_files(config)
    assert {item.reason.partition(":")[0] for item in files.skipped} == {NO_CAMERA, OTHER_FEATURES}
    samples = samples_of(
        converted(
            Kitti(root=str(tmp_path / "kitti"), split="test", features=5), tmp_path / "again"
        ).uri
    )
    assert list(samples) == ["a_b.bin"]
    assert not samples["a_b.bin"].annotated


def test_numbers_of_a_point_keep_the_names_that_are_stated(tmp_path: Path) -> None:
    """Clouds of Waymo in KITTI's form; files that name their numbers keep their own names."""
    names = "x,y,z,intensity,elongation"
    (tmp_path / "raw").mkdir()
    points = np.random.default_rng(0).uniform(0, 1, (10, 5)).astype("<f4")
    (tmp_path / "raw" / "a.bin").write_bytes(points.tobytes())
    np.save(tmp_path / "raw" / "b.npy", points)
    np.save(tmp_path / "raw" / "c.npy", np.zeros(3, [(name, "<f4") for name in "zyxi"]))
    source = Clouds(root=str(tmp_path / "raw"), split="val", features=names)
    done = convert_files(
        ConvertConfig(source=source, to=str(tmp_path / "kitti"), format="kitti", workers=1)
    )
    assert f"{OTHER_FEATURES}: {names}" in {item.reason for item in done.skipped}
    converted(source, tmp_path / "out")
    found = {key: each.inputs["points"] for key, each in samples_of(tmp_path / "out").items()}
    assert found["a.bin"].features == found["b.npy"].features == tuple(names.split(","))
    assert found["a.bin"].data == found["b.npy"].data == points.tobytes()
    assert found["c.npy"].features == ("x", "y", "z", "intensity")
    kitti = Kitti(root=str(tmp_path / "kitti"), split="val", features=names)
    sample, _ = open_source(kitti).read(0)
    assert sample is not None
    assert sample.inputs["points"].features == tuple(names.split(","))


@pytest.mark.parametrize("features", [2, "33", "q", "y,x,z", "x,y,z,a,a", "x,y"])
def test_numbers_of_a_point_that_cannot_be_are_refused(features: int | str) -> None:
    with pytest.raises(ValidationError, match="features is"):
        Kitti(root=".", split="val", features=features)
    assert Kitti(root=".", split="val", features="5") == Kitti(root=".", split="val", features=5)
