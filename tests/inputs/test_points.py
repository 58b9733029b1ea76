"""Point clouds as an input: decoded within limits, put into voxels, padded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.geometry.voxels import hard_voxels
from mtl_ray.inputs.input import TooLargeError
from mtl_ray.inputs.point_cloud import Camera, EncodedPoints, PointCloud, SensorCalibration
from mtl_ray.inputs.points import POINTS, PointCanvas, select_features

CANVAS = PointCanvas(
    type="points",
    minimum=(0, -8, -3),
    maximum=(16, 8, 1),
    voxel=(0.5, 0.5, 4),
    max_points=4,
    max_voxels=60,
    max_train_voxels=20,
)


def cloud(count: int, seed: int = 0) -> PointCloud:
    points = np.random.default_rng(seed).uniform(-3, 12, (count, 4)).astype(np.float32)
    points[:, 2] = 0
    return PointCloud(points=points)


def empty_batch(size: int) -> dict[str, np.ndarray]:
    """Memory with the rests of another batch."""
    return {
        name: np.full((size, *spec.shape), 77, spec.dtype)
        for name, spec in POINTS.arrays(CANVAS).items()
    }


@given(counts=st.lists(st.integers(0, 90), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_batch_has_the_voxels_of_each_cloud_and_clean_padding(
    counts: list[int], seed: int
) -> None:
    batch = empty_batch(len(counts))
    clouds = [cloud(count, seed + row) for row, count in enumerate(counts)]
    for row, each in enumerate(clouds):
        POINTS.fill(each, CANVAS, {name: values[row] for name, values in batch.items()})
    trimmed = POINTS.trim(batch)
    found = [hard_voxels(each.points, CANVAS.grid, 4, 60) for each in clouds]
    most = max(2, *(len(each.counts) for each in found))
    for row, each in enumerate(found):
        used = len(each.counts)
        assert trimmed["voxels"].shape == (len(counts), most, 4, 4)
        assert np.array_equal(trimmed["voxels"][row, :used], each.points)
        assert np.array_equal(trimmed["num_points"][row, :used], each.counts)
        assert np.array_equal(trimmed["coordinates"][row, :used], each.coordinates)
        assert (trimmed["voxels"][row, used:] == 0).all()
        assert (trimmed["num_points"][row, used:] == 0).all()
        assert (trimmed["coordinates"][row, used:] == -1).all()


def test_training_has_its_own_limit_of_voxels() -> None:
    assert POINTS.training_rule(CANVAS).max_voxels == 20
    assert POINTS.training_rule(replace(CANVAS, max_train_voxels=None)).max_voxels == 60


def calibrated() -> EncodedPoints:
    rng = np.random.default_rng(3)
    camera = Camera(
        name="image_2",
        width=1242,
        height=375,
        lidar_to_camera=rng.normal(size=(4, 4)),
        projection=rng.normal(size=(3, 4)),
    )
    return EncodedPoints(
        data=cloud(9).points.tobytes(),
        calibration=SensorCalibration(
            benchmark="kitti",
            cameras=(camera,),
            ground=rng.normal(size=4),
            ego_to_global=rng.normal(size=(4, 4)),
            notes={"token": "ü"},
        ),
        images=(b"\xff\xd8",),
    )


def test_rows_keep_every_bit() -> None:
    before = calibrated()
    after = POINTS.from_row(POINTS.to_row(before))
    assert (after.data, after.features, after.images) == (
        before.data,
        before.features,
        before.images,
    )
    assert after.calibration.to_json() == before.calibration.to_json()
    assert np.array_equal(
        after.calibration.cameras[0].projection, before.calibration.cameras[0].projection
    )
    assert after.calibration.lidar_to_ego is None


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"cameras": 3}', '{"ground": [1, 2]}', "[" * 100_000, '{"notes": 1}']
)
def test_a_damaged_calibration_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="calibration of a cloud is damaged"):
        SensorCalibration.from_json(text)


def test_damaged_clouds_are_refused() -> None:
    encoded = calibrated()
    assert len(POINTS.decode(encoded, 36).points) == 9
    with pytest.raises(TooLargeError, match="36 numbers"):
        POINTS.decode(encoded, 35)
    with pytest.raises(ValueError, match="no multiple of 4"):
        POINTS.decode(replace(encoded, data=encoded.data[:-1]), 99)
    invalid = cloud(9).points
    invalid[[2, 4], 1] = np.nan
    with pytest.raises(ValueError, match="2 of 9 points"):
        POINTS.decode(replace(encoded, data=invalid.tobytes()), 99)


def test_features_are_selected_by_name() -> None:
    points = np.arange(10, dtype=np.float32).reshape(2, 5)
    named = PointCloud(points=points, features=("z", "time", "x", "y", "ring"))
    found = select_features(named, ("x", "y", "z", "intensity", "time"))
    assert found.tolist() == [[2, 3, 0, 0, 1], [7, 8, 5, 0, 6]]
    with pytest.raises(ValueError, match="no x"):
        select_features(PointCloud(points=points, features=("a", "y", "z", "b", "c")), ("x",))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"voxel": (0.3, 0.5, 4)}, "along x"),
        ({"maximum": (16, -8, 1)}, "along y"),
        ({"voxel": (0.5, 0.5, 0)}, "along z"),
        ({"features": ("x", "z", "y")}, "begin with x, y, z"),
        ({"features": ("x", "y", "z", "time", "time")}, "each name once"),
    ],
)
def test_a_canvas_that_is_no_grid_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(CANVAS, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1])
def test_clouds_of_no_and_one_point_are_clouds(count: int) -> None:
    few = cloud(count)
    assert len(POINTS.decode_file(POINTS.encode_file(few), 99).points) == count
    assert POINTS.show(few).shape == (720, 800, 3)


def test_features_that_clouds_lack_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    cloud = PointCloud(points=np.ones((3, 4), np.float32), features=("x", "y", "z", "intensity"))
    for _ in range(3):
        select_features(cloud, ("x", "y", "z"))
        select_features(cloud, ("x", "y", "z", "velocity", "echo"))
    assert caplog.messages == [
        "there are clouds without velocity, echo: the network reads 0 in their place"
    ]
