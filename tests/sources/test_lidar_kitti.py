"""KITTI objects: real frames, defects of hand-made ones, labels there and back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.inputs.point_cloud import EncodedPoints
from mtl_ray.samples import Sample
from mtl_ray.sources.image_reading import USUAL_RULE, open_source
from mtl_ray.sources.lidar import kitti, kitti_labels
from mtl_ray.sources.lidar.config import Kitti
from mtl_ray.sources.lidar.kitti_calibration import plane_lines, read_cameras, read_plane
from mtl_ray.sources.lidar.kitti_labels import kitti_lines, label_lines, read_labels
from mtl_ray.sources.lidar.street import CAMERA
from mtl_ray.sources.source import SkippedItem

CALIBRATION = (
    "P0: 700 0 600 0 0 700 180 0 0 0 1 0\nP2: 700 0 600 40 0 700 180 0 0 0 1 0\n"
    "R0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: 0 -1 0 0 0 0 -1 -0.1 1 0 0 -0.3\n"
)
CAR = "Car 0.10 1 -1.50 500 150 600 250 1.5 1.6 4.0 2.0 1.7 20.0 -1.57"
IGNORED = "DontCare -1 -1 -10 10 20 30 40 -1 -1 -1 -1000 -1000 -1000 -10"
CLASSES = ("Pedestrian", "Cyclist", "Car")


def write_frame(
    root: Path,
    name: str,
    points: bytes | None = None,
    labels: str | None = f"{CAR}\n{IGNORED}\n",
    calibration: str | None = CALIBRATION,
    part: str = "training",
) -> None:
    """The files of a frame; None leaves one out."""
    cloud = np.ones((100, 4), "<f4").tobytes() if points is None else points
    texts = {"calib": calibration, "label_2": labels}
    for folder, text in texts.items():
        if text is not None:
            (root / part / folder).mkdir(parents=True, exist_ok=True)
            (root / part / folder / f"{name}.txt").write_bytes(
                text.encode(errors="surrogateescape")
            )
    if points != b"-":
        (root / part / "velodyne").mkdir(parents=True, exist_ok=True)
        (root / part / "velodyne" / f"{name}.bin").write_bytes(cloud)


def read_all(config: Kitti) -> tuple[dict[str, Sample], list[SkippedItem]]:
    source = open_source(config)
    readings = [source.read(index) for index in range(len(source))]
    samples = {sample.key: sample for sample, _ in readings if sample is not None}
    return samples, [*source.skipped, *(item for _, found in readings for item in found)]


def objects_of(sample: Sample) -> Boxes3d:
    found: Boxes3d = sample.annotations["boxes_3d"]
    return found


def points_of(sample: Sample) -> EncodedPoints:
    found: EncodedPoints = sample.inputs["points"]
    return found


@pytest.mark.parametrize(
    ("split", "frames", "counts"),
    [
        ("train", 26, {"Car": 92, "Tram": 26, "Cyclist": 17}),
        ("val", 8, {"Tram": 8, "Cyclist": 16, "Car": 18}),
    ],
)
def test_real_drive(shared_data: Path, split: str, frames: int, counts: dict[str, int]) -> None:
    samples, skipped = read_all(Kitti(root=str(shared_data / "lidar_kitti_raw0001"), split=split))
    names = [name for sample in samples.values() for name in objects_of(sample).names]
    assert len(samples) == frames
    assert {name: names.count(name) for name in names} == counts
    assert skipped == []
    classes = np.concatenate([objects_of(sample).classes for sample in samples.values()])
    assert np.bincount(classes, minlength=3).tolist() == [0, counts["Cyclist"], counts["Car"]]


def test_real_frame_has_the_numbers_of_the_original_converter(shared_data: Path) -> None:
    root = str(shared_data / "lidar_kitti_samples")
    samples, _ = read_all(Kitti(root=root, split="val"))
    found = objects_of(samples["000008"])
    assert found.names == ("Car",) * 6 + ("DontCare",) * 4
    # num_lidar_pts of infos/000008.pkl, which mmdet3d wrote
    assert found.num_points.tolist() == [1325, 1900, 881, 659, 55, 162, -1, -1, -1, -1]
    assert np.isnan(found.boxes[6:]).all()
    assert np.isfinite(found.boxes_2d[6:]).all()
    assert found.boxes[1] == pytest.approx(
        [8.149441, 1.186376, -0.842597, 3.68, 1.5, 1.57, 2.812389], abs=2e-6
    )
    cloud = points_of(samples["000008"])
    (camera,) = cloud.calibration.cameras
    assert (camera.width, camera.height, cloud.calibration.benchmark) == (1242, 375, "kitti")
    assert cloud.images[0].startswith(b"\x89PNG")
    without, _ = read_all(Kitti(root=root, split="val", camera_images=False))
    assert points_of(without["000008"]).images == (b"",)


def test_reduced_clouds_are_made_from_whole_ones(shared_data: Path, tmp_path: Path) -> None:
    # the original converter kept just these points
    root = shared_data / "lidar_kitti_samples" / "training"
    reduced = np.fromfile(root / "velodyne_reduced" / "000134.bin", "<f4").reshape(-1, 4)
    behind = reduced * np.array([-1, 1, 1, 1], np.float32)
    write_frame(
        tmp_path,
        "000134",
        np.concatenate([behind, reduced]).tobytes(),
        calibration=(root / "calib" / "000134.txt").read_text(),
    )
    images = tmp_path / "training" / "image_2"
    images.mkdir()
    (images / "000134.png").write_bytes((root / "image_2" / "000134.png").read_bytes())
    samples, _ = read_all(Kitti(root=str(tmp_path), split="all", clouds="velodyne_reduced"))
    assert points_of(samples["000134"]).data == reduced.tobytes()
    whole, _ = read_all(Kitti(root=str(tmp_path), split="all"))
    assert len(points_of(whole["000134"]).data) == 2 * reduced.nbytes


def test_hand_made_frame(tmp_path: Path) -> None:
    write_frame(tmp_path, "000007", labels=f"Van{CAR[3:]}\n{IGNORED}\n{CAR} 0.9\n")
    (tmp_path / "training" / "planes").mkdir()
    plane = "# Plane\nWidth 4\nHeight 1\n0 -1 0 1.65\n"
    (tmp_path / "training" / "planes" / "000007.txt").write_text(plane)
    samples, skipped = read_all(Kitti(root=str(tmp_path), split="anything"))
    found = objects_of(samples["000007"])
    assert skipped == []
    assert found.names == ("Car", "Van", "DontCare")
    assert found.ids == ("3", "1", "2")
    # camera (2, 1.7, 20) is lidar (20.3, -2, -1.8), the bottom; ry -1.57 looks to the front
    assert found.boxes[0] == pytest.approx([20.3, -2, -1.05, 4, 1.6, 1.5, -0.000796], abs=1e-5)
    assert (found.truncation[0], found.occlusion[0]) == (pytest.approx(0.1), 1)
    assert found.alpha[0] == pytest.approx(-1.5)
    assert np.isnan(found.alpha[2])
    assert found.boxes_2d[2].tolist() == [10, 20, 30, 40]
    cloud = points_of(samples["000007"])
    assert cloud.calibration.cameras[0].width == 1242
    ground = cloud.calibration.ground
    assert ground is not None
    # 1.65 m below the camera, which is 0.1 m below the lidar
    assert ground == pytest.approx([0, 0, 1, 1.75])


def nan_points() -> bytes:
    points = np.ones((10, 4), "<f4")
    points[3, 1] = np.nan
    return points.tobytes()


DEFECTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "truncated": (
        lambda root: write_frame(root, "000001", bytes(103)),
        "training/velodyne/000001.bin",
        "the cloud cannot be read: ",
    ),
    "nan": (
        lambda root: write_frame(root, "000001", nan_points()),
        "training/velodyne/000001.bin",
        "the cloud cannot be read: 1 of 10 points",
    ),
    "no cloud": (
        lambda root: write_frame(root, "000001", b"-"),
        "training/label_2/000001.txt",
        kitti.NO_CLOUD,
    ),
    "no calibration": (
        lambda root: write_frame(root, "000001", calibration=None),
        "training/velodyne/000001.bin",
        "its calibration is not there",
    ),
    "lines missing": (
        lambda root: write_frame(root, "000001", calibration=CALIBRATION.replace("R0_rect", "R")),
        "training/calib/000001.txt",
        "the calibration cannot be used: its lines R0_rect are missing",
    ),
    "numbers missing": (
        lambda root: write_frame(root, "000001", calibration=CALIBRATION.replace("40 0", "0")),
        "training/calib/000001.txt",
        "the calibration cannot be used: its line P2 does not have 12 finite numbers",
    ),
    "no text": (
        lambda root: write_frame(root, "000001", labels="\udc80abc"),
        "training/label_2/000001.txt",
        "the labels cannot be read: ",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
@pytest.mark.parametrize("listed", [True, False])
def test_a_damaged_frame_is_left_out(tmp_path: Path, name: str, listed: bool) -> None:
    spoil, file, reason = DEFECTS[name]
    write_frame(tmp_path, "000000")
    spoil(tmp_path)
    if listed:
        (tmp_path / "ImageSets").mkdir()
        (tmp_path / "ImageSets" / "train.txt").write_text("0\n000001\n")
    samples, skipped = read_all(Kitti(root=str(tmp_path), split="train"))
    assert list(samples) == ["000000"]
    (item,) = skipped
    assert (item.file, item.note) == (file, False)
    assert item.reason.startswith(reason)


@pytest.mark.parametrize(
    ("line", "reason", "kept"),
    [
        (CAR.replace("1.5 1.6 4.0", "0 1.6 4.0"), "its size is not positive: ", False),
        (CAR.replace("1.5 1.6 4.0", "1.5 1.6 -4.0"), "its size is not positive: ", False),
        (CAR.removesuffix(" -1.57"), "a label has 15 or 16 columns: the line has 14", False),
        (CAR.replace("20.0", "nan"), "has numbers that are not finite", False),
        (CAR.replace("20.0", "far"), "has something else than numbers", False),
        (CAR.replace("-1.57", "5.0"), f"{kitti_labels.WRAPPED}: 5", True),
        (CAR.replace("500 150 600 250", "0 0 0 0"), kitti_labels.NO_RECTANGLE, True),
    ],
)
def test_an_invalid_object_is_left_out_alone(
    tmp_path: Path, line: str, reason: str, kept: bool
) -> None:
    write_frame(tmp_path, "000000", labels=f"{CAR}\n\n{line}\n")
    samples, (item,) = read_all(Kitti(root=str(tmp_path), split="train"))
    assert (item.file, item.object) == ("training/label_2/000000.txt", "line 3")
    assert item.reason.startswith(reason)
    assert item.note == kept
    found = objects_of(samples["000000"])
    assert len(found) == 1 + kept
    assert (found.boxes[:, 6] >= -np.pi).all()
    assert (found.boxes[:, 6] < np.pi).all()


@pytest.mark.parametrize("count", [0, 1])
def test_clouds_of_few_points_are_fine(tmp_path: Path, count: int) -> None:
    write_frame(tmp_path, "000000", bytes(16 * count))
    samples, skipped = read_all(Kitti(root=str(tmp_path), split="train"))
    assert len(points_of(samples["000000"]).data) == 16 * count
    assert skipped == []


def test_another_number_of_features_is_noticed(tmp_path: Path) -> None:
    five = np.tile(np.array([10, 2, -1, 0.5, 31], "<f4"), (60, 1))  # too few points to be sure
    write_frame(tmp_path, "000000", five.tobytes())
    _, (item,) = read_all(Kitti(root=str(tmp_path), split="train"))
    assert item.note
    assert item.reason.startswith(kitti.INTENSITY)
    samples, skipped = read_all(Kitti(root=str(tmp_path), split="train", features=5))
    assert points_of(samples["000000"]).features == ("x", "y", "z", "intensity", "ring")
    assert skipped == []


def test_a_cloud_that_is_one_with_another_number_of_features_alone_is_left_out(
    tmp_path: Path,
) -> None:
    """25 points of 4 numbers have the bytes of 20 points of 5."""
    rng = np.random.default_rng(3)
    five = rng.uniform((0, -40, -2, 0, 0), (70, 40, 1, 1, 1), (400, 5)).astype("<f4")
    write_frame(tmp_path, "000000", five.tobytes())
    samples, (item,) = read_all(Kitti(root=str(tmp_path), split="train"))
    assert samples == {}
    assert not item.note
    assert "with 5 it is" in item.reason
    samples, skipped = read_all(Kitti(root=str(tmp_path), split="train", features=5))
    assert points_of(samples["000000"]).data == five.tobytes()
    assert skipped == []


def test_the_test_split_has_no_labels(tmp_path: Path) -> None:
    write_frame(tmp_path, "000000")
    write_frame(tmp_path, "000003", labels=None, part="testing")
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "train.txt").write_text("000000\n")
    samples, skipped = read_all(Kitti(root=str(tmp_path), split="test"))
    assert (list(samples), skipped) == (["000003"], [])
    assert not samples["000003"].annotated
    with pytest.raises(FileNotFoundError, match=r"no list val\.txt"):
        open_source(Kitti(root=str(tmp_path), split="val"))
    with pytest.raises(FileNotFoundError, match="no clouds"):
        open_source(Kitti(root=str(tmp_path / "elsewhere"), split="val"))


def test_an_empty_label_file_is_annotated_and_a_missing_one_is_not(tmp_path: Path) -> None:
    write_frame(tmp_path, "000000", labels="")
    write_frame(tmp_path, "000001", labels=None)
    samples, (item,) = read_all(Kitti(root=str(tmp_path), split="train"))
    assert len(objects_of(samples["000000"])) == 0
    assert not samples["000001"].annotated
    assert (item.note, item.reason) == (True, kitti.NO_LABELS)


def test_calibrations_are_read_by_name() -> None:
    lines = CALIBRATION.splitlines()
    (one,), (other,) = (read_cameras("\n".join(each).encode()) for each in (lines, lines[::-1]))
    tracking = CALIBRATION.replace("R0_rect:", "R_rect").replace("Tr_velo_to_cam:", "Tr_velo_cam")
    (again,) = read_cameras(tracking.encode())
    for each in (other, again):
        assert np.array_equal(each.lidar_to_camera, one.lidar_to_camera)
        assert np.array_equal(each.projection, one.projection)


def test_the_fingerprint_changes_with_a_label(tmp_path: Path) -> None:
    write_frame(tmp_path, "000000")
    before = open_source(Kitti(root=str(tmp_path), split="train"), USUAL_RULE).fingerprint
    (tmp_path / "training" / "label_2" / "000000.txt").write_text("")
    assert open_source(Kitti(root=str(tmp_path), split="train")).fingerprint != before


numbers = st.floats(0.3, 6.0)
some_boxes = st.lists(
    st.tuples(
        st.floats(3, 70), st.floats(-30, 30), st.floats(-3, 2), numbers, numbers, numbers,
        st.floats(-3.14, 3.14), st.sampled_from(["Car", "Van", "Cyclist"]),
    ),
    max_size=6,
)  # fmt: skip


@given(some_boxes)
def test_labels_come_back(boxes: list[tuple[float, ...]]) -> None:
    values = np.array([box[:7] for box in boxes], np.float64).reshape(-1, 7)
    written = Boxes3d.of(values, [str(box[7]) for box in boxes], CLASSES)
    text = "\n".join(label_lines(written, CAMERA)).encode()
    found, items = read_labels(text, "file", CAMERA.lidar_to_camera, CLASSES)
    assert all(item.note for item in items)
    assert found.names == written.names
    assert np.array_equal(found.classes, written.classes)
    assert np.abs(found.boxes[:, :6] - written.boxes[:, :6]).max(initial=0) < 2e-4
    turn = found.boxes[:, 6] - written.boxes[:, 6]
    assert np.abs(np.sin(turn)).max(initial=0) < 2e-4
    assert (np.cos(turn) > 0).all()


@given(some_boxes)
def test_predictions_are_lines_of_16_columns(boxes: list[tuple[float, ...]]) -> None:
    values = np.array([box[:7] for box in boxes], np.float64).reshape(-1, 7)
    scores = np.linspace(0, 1, len(boxes))
    lines = kitti_lines(values, [str(box[7]) for box in boxes], scores, CAMERA)
    found, _ = read_labels("\n".join(lines).encode(), "file", CAMERA.lidar_to_camera, CLASSES)
    assert all(len(line.split()) == 16 for line in lines)
    assert len(found) == len(lines) <= len(boxes)
    assert np.isfinite(found.boxes_2d).all()
    assert (found.boxes_2d >= 0).all()


def test_what_the_camera_does_not_see_has_no_line() -> None:
    boxes = np.array([[-10, 0, -1, 4, 2, 1.5, 0], [10, 0, -1, 4, 2, 1.5, 0]])
    (line,) = kitti_lines(boxes, ["Car", "Car"], np.array([0.25, 0.75]), CAMERA)
    assert line.startswith("Car -1 -1 -1.5708 ")
    assert line.endswith(" 0.7500")


@given(st.tuples(*[st.floats(-0.2, 0.2)] * 2, st.floats(1, 3)))
def test_planes_come_back(numbers: tuple[float, float, float]) -> None:
    plane = np.array([numbers[0], numbers[1], 1, numbers[2]])
    plane /= np.linalg.norm(plane[:3])
    text = "\n".join(plane_lines(plane, CAMERA.lidar_to_camera)).encode()
    assert read_plane(text, CAMERA.lidar_to_camera) == pytest.approx(plane, abs=1e-9)


@given(st.binary(max_size=200) | st.text("PCar0Tr_:.-1e \n", max_size=200).map(str.encode))
def test_any_bytes_give_a_sentence(data: bytes) -> None:
    for read in (
        lambda: read_labels(data, "file", np.eye(4), CLASSES),
        lambda: read_cameras(data),
        lambda: read_plane(data, np.eye(4)),
    ):
        try:
            read()
        except ValueError as error:
            assert str(error)  # noqa: PT017


def test_images_may_be_damaged(tmp_path: Path) -> None:
    write_frame(tmp_path, "000000")
    (tmp_path / "training" / "image_2").mkdir()
    (tmp_path / "training" / "image_2" / "000000.png").write_bytes(b"\x89PNG no")
    samples, (item,) = read_all(Kitti(root=str(tmp_path), split="train"))
    assert item.note
    assert item.reason.startswith(kitti.NO_IMAGE)
    assert points_of(samples["000000"]).images == (b"",)
    source = open_source(
        Kitti(root=str(tmp_path), split="train"), replace(USUAL_RULE, needed=False)
    )
    assert source.read(0)[0] is not None
