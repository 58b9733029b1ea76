"""Waymo: range images become points, labels, cameras; damaged files; the wire format."""

import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.cameras import project
from mtl_ray.inputs.point_cloud import EncodedPoints
from mtl_ray.samples import Sample
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.lidar import waymo_frames
from mtl_ray.sources.lidar.dataset_configs import Waymo
from mtl_ray.sources.lidar.protobuf_wire import Message
from mtl_ray.sources.lidar.waymo import EMPTY
from mtl_ray.sources.lidar.waymo_frames import Laser, read_frame
from mtl_ray.sources.source import SkippedItem
from tests.sources.waymo_cases import (
    compressed,
    encode_camera,
    encode_label,
    encode_laser,
    encode_rectangle,
    field,
    point_of,
    transform,
    varint,
    write_tfrecord,
)

WIDTH = 30


def pose(yaw: float, place: Sequence[float]) -> np.ndarray:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    matrix = np.eye(4)
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    matrix[:3, 3] = place
    return matrix


FRAME_POSE = pose(0.4, (1000.0, -200.0, 5.0))


def lasers() -> tuple[Laser, Laser]:
    """One on the roof with two returns and a pose for each pixel, and one in front."""
    rng = np.random.default_rng(3)
    poses = np.zeros((4, WIDTH, 6), np.float32)
    poses[..., :3] = (0.02, -0.01, 0.4) + rng.normal(size=(4, WIDTH, 3)) * 0.01
    poses[..., 3:] = np.array([1000, -200, 5]) + rng.normal(size=(4, WIDTH, 3))
    top = Laser(
        name=1,
        inclinations=np.array([0.05, 0.0, -0.1, -0.3]),
        extrinsic=pose(2.6, (1.4, 0.0, 2.2)),
        returns=(image(rng, 4), image(rng, 4)),
        poses=poses,
    )
    front = Laser(
        name=2,
        inclinations=np.array([0.1, -0.2, -0.5]),
        extrinsic=pose(0.1, (4.0, 0.0, 0.7)),
        returns=(image(rng, 3),),
        poses=None,
    )
    return top, front


def image(rng: np.random.Generator, height: int) -> np.ndarray:
    """A range image with holes, and with pixels in a zone without labels."""
    found = rng.uniform(2, 60, (height, WIDTH, 4)).astype(np.float32)
    found[..., 1:3] /= 60
    found[..., 3] = rng.uniform(size=(height, WIDTH)) < 0.1
    found[rng.uniform(size=(height, WIDTH)) < 0.3] = (-1, -1, -1, 0)
    return found


LABELS = (
    encode_label("Car", (10, 2, 1, 4.5, 2, 1.6, 0.5), "c1", 40, (3.0, 4.0)),
    encode_label("Pedestrian", (5, -2, 1, 0.7, 0.8, 1.7, -1), "p1", 4),
    encode_label("Sign", (20, 5, 3, 0.1, 0.5, 0.5, 0), "s1", 9, level=2),
    encode_label("Cyclist", (15, 5, 1, 1.7, 0.6, 1.7, 3), "b1", 0),
)
INTRINSIC = (2059.6, 2062.4, 952.4, 634.6, 0.03, -0.3, 0.0, 0.0, 0.0)
CAMERA_POSE = pose(0.0, (1.5, 0.0, 2.1))


def frame_bytes(labels: Sequence[bytes] = LABELS) -> bytes:
    encoded = [encode_laser(laser) for laser in lasers()]
    context = field(1, "segment-1")
    context += field(2, encode_camera(1, INTRINSIC, CAMERA_POSE, (1920, 1280)))
    context += b"".join(field(3, calibration) for calibration, _ in reversed(encoded))
    content = field(1, context) + field(2, 1_550_083_467_346_370) + field(3, transform(FRAME_POSE))
    content += field(4, field(1, 1) + field(2, b"\xff\xd8jpeg"))
    content += b"".join(field(5, laser) for _, laser in encoded)
    content += b"".join(field(6, label) for label in labels)
    rectangle = encode_rectangle("c1_FRONT", (100.0, 200.0, 300.0, 350.0))
    return content + field(9, field(1, 1) + field(2, rectangle))


def read_all(config: Waymo) -> tuple[dict[str, Sample], list[SkippedItem]]:
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


def expected_points() -> np.ndarray:
    """Pixel by pixel: the first returns of all lasers, then the second."""
    rows = []
    for which in range(2):
        for laser in lasers():
            for (row, column), metres in (
                np.ndenumerate(laser.returns[which][..., 0]) if which < len(laser.returns) else ()
            ):
                _, intensity, elongation, zone = laser.returns[which][row, column]
                if metres > 0 and zone != 1:
                    xyz = point_of(laser, row, column, float(metres), WIDTH, FRAME_POSE)
                    index = (which * 4 + row) * WIDTH + column if laser.name == 1 else -1
                    rows.append((*xyz, intensity, elongation, index))
    return np.array(rows)


def test_range_images_become_points(tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "training" / "a.tfrecord", [frame_bytes()])
    samples, _ = read_all(Waymo(root=str(tmp_path), split="train"))
    encoded, points = points_of(samples["0000000"])
    assert encoded.features == ("x", "y", "z", "intensity", "elongation", "range_index")
    expected = expected_points()
    assert points.shape == expected.shape
    assert np.allclose(points[:, :3], expected[:, :3], atol=1e-4)
    assert np.allclose(points[:, 3:], expected[:, 3:], atol=1e-6)


def test_labels_and_calibration(tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "training" / "a.tfrecord", [frame_bytes()])
    samples, skipped = read_all(Waymo(root=str(tmp_path), split="train", camera_images=True))
    sample = samples["0000000"]
    boxes: Boxes3d = sample.annotations["boxes_3d"]
    assert boxes.names == ("Car", "Pedestrian", "Sign")
    assert boxes.classes.tolist() == [0, 1]
    assert np.allclose(boxes.boxes[0], (10, 2, 1, 4.5, 2, 1.6, 0.5))
    assert boxes.num_points.tolist() == [40, 4, 9]
    assert boxes.attributes == ("level_1", "level_2", "level_2")
    assert boxes.boxes_2d[0].tolist() == [100, 200, 300, 350]
    assert np.isnan(boxes.boxes_2d[1]).all()
    assert np.allclose(boxes.velocity[0], (FRAME_POSE[:3, :3].T @ (3, 4, 0))[:2])
    assert [(item.reason, item.note) for item in skipped] == [(EMPTY, True)]
    encoded, _ = points_of(sample)
    calibration = encoded.calibration
    assert encoded.images == (b"\xff\xd8jpeg",)
    assert calibration.notes == {"context": "segment-1", "microseconds": "1550083467346370"}
    assert calibration.benchmark == ""
    camera = calibration.cameras[0]
    pixels, depth = project(np.array([[11.5, 1.0, 2.1]]), camera)
    assert np.allclose(depth, 10)
    assert np.allclose(pixels, [[952.4 - 205.96, 634.6]])
    assert (camera.name, camera.width, camera.height) == ("CAM_FRONT", 1920, 1280)


def test_boxes_without_points_and_own_classes(tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "training" / "a.tfrecord", [frame_bytes()])
    (tmp_path / "names.txt").write_text("Sign\nCyclist\n")
    config = Waymo(
        root=str(tmp_path), split="train", empty_boxes=True, classes=str(tmp_path / "names.txt")
    )
    boxes = read_all(config)[0]["0000000"].annotations["boxes_3d"]
    assert boxes.names == ("Sign", "Cyclist", "Car", "Pedestrian")
    assert boxes.classes.tolist() == [0, 1]


def test_names_of_frames(tmp_path: Path) -> None:
    frame = frame_bytes()
    for name, count in (("a", 2), ("b", 5)):
        path = tmp_path / "waymo_format" / "validation" / f"{name}.tfrecord"
        write_tfrecord(path, [frame] * count)
    keys = list(read_all(Waymo(root=str(tmp_path), split="val"))[0])
    assert keys == ["1000000", "1000001", *(f"100100{number}" for number in range(5))]
    keys = list(read_all(Waymo(root=str(tmp_path), split="val", stride=2, prefix=7))[0])
    assert keys == ["7000000", "7001000", "7001002", "7001004"]
    with pytest.raises(FileNotFoundError, match=r"no \.tfrecord files"):
        open_source(Waymo(root=str(tmp_path), split="train"))


def test_inclinations_between_the_lowest_and_the_highest() -> None:
    low, high = -0.9, 0.3
    calibration = field(3, low) + field(4, high)
    found = waymo_frames._inclinations(Message(calibration), 4)
    assert np.allclose(found, [0.15, -0.15, -0.45, -0.75])


def test_test_frames_have_no_labels(tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "testing" / "a.tfrecord", [frame_bytes(())])
    samples, _ = read_all(Waymo(root=str(tmp_path), split="test"))
    assert not samples["2000000"].annotated


# Defects.


def test_damaged_files(tmp_path: Path) -> None:
    good = frame_bytes()
    folder = tmp_path / "training"
    write_tfrecord(folder / "a.tfrecord", [good, good])
    cut = (folder / "a.tfrecord").read_bytes()
    (folder / "a.tfrecord").write_bytes(cut[:-100])
    (folder / "b.tfrecord").write_bytes(b"no records at all, but text")
    write_tfrecord(folder / "c.tfrecord", [b"", good[: len(good) // 2], b"\x0b" * 40])
    changed = bytearray(cut)
    changed[200] ^= 1
    (folder / "d.tfrecord").write_bytes(changed[: len(cut) // 2])
    samples, skipped = read_all(Waymo(root=str(tmp_path), split="train"))
    assert list(samples) == ["0000000"]
    reasons = {item.file[0]: item.reason for item in skipped if not item.note}
    assert "cut short" in reasons["a"]
    assert "no TFRecord file" in reasons["b"]
    assert "CRC-32C" in reasons["d"]
    of_c = [item.reason for item in skipped if item.file.startswith("c")]
    assert len(of_c) == 3
    assert all(reason.startswith("the frame is damaged: ") for reason in of_c)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"poses": None}, "no pose for each pixel"),
        ({"extrinsic": np.zeros((4, 4))}, "is no rotation"),
        ({"extrinsic": np.eye(3)}, "is not of 16 finite numbers"),
        ({"inclinations": np.zeros(9)}, "has 9 inclinations for 4 rows"),
        ({"returns": (np.zeros((4, WIDTH, 3), np.float32),)}, "does not have 4 channels"),
        ({"returns": (np.full((4, WIDTH, 4), np.inf, np.float32),)}, "infinite number"),
    ],
)
def test_damaged_lasers(
    tmp_path: Path, change: dict[str, np.ndarray], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, front = lasers()
    monkeypatch.setattr("tests.sources.test_waymo.lasers", lambda: (replace(top, **change), front))
    write_tfrecord(tmp_path / "training" / "a.tfrecord", [frame_bytes()])
    with np.errstate(invalid="ignore"):
        samples, skipped = read_all(Waymo(root=str(tmp_path), split="train"))
    assert not samples
    assert reason in skipped[0].reason


def test_a_range_image_that_unpacks_to_gigabytes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waymo_frames, "_MOST_NUMBERS", 1000)
    with pytest.raises(ValueError, match="absurdly large"):
        waymo_frames._matrix(memoryview(zlib.compress(bytes(1_000_000))), 4)
    with pytest.raises(ValueError, match="cut short"):
        waymo_frames._matrix(memoryview(compressed(np.zeros((2, 2, 4)))[:-3]), 4)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        message = Message(data)
        for number in range(4):
            message.integers(number)
            message.messages(number)


GOOD = frame_bytes()


@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), cut=st.integers(0, 9))
def test_a_changed_frame_is_read_or_refused(place: int, value: int, cut: int) -> None:
    changed = bytearray(GOOD)
    changed[place] = value
    with suppress(ValueError):
        read_frame(bytes(changed[: len(changed) - cut]))


@given(numbers=st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=9), packed=st.booleans())
def test_integers(numbers: list[int], packed: bool) -> None:
    data = (
        field(5, b"".join(map(varint, numbers)))
        if packed
        else b"".join(field(5, number) for number in numbers)
    )
    assert Message(data).integers(5) == numbers


@given(numbers=st.lists(st.floats(allow_nan=False), max_size=9), packed=st.booleans())
def test_doubles(numbers: list[float], packed: bool) -> None:
    whole = struct.pack(f"<{len(numbers)}d", *numbers)
    data = field(3, whole) if packed else field(3, np.array(numbers))
    assert Message(data).doubles(3).tolist() == numbers
