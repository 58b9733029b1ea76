"""Boxes in space as a kind of annotation: stored without loss, with and without a class."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.annotations.annotation import ClassMapper
from mtl_ray.annotations.boxes_3d import BOXES_3D, Boxes3d
from mtl_ray.geometry.motion import Motion
from mtl_ray.inputs.point_cloud import Camera, PointCloud, SensorCalibration, encoded_points
from mtl_ray.inputs.points import PointCanvas
from mtl_ray.layout import CLOUDS
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.shards.write import publish_manifest, shard_name, write_shard

CLASSES = ("Pedestrian", "Cyclist", "Car")
NAMES = (*CLASSES, "Van", "DontCare")
CANVAS = PointCanvas(type="points", minimum=(0, -10, -3), maximum=(20, 10, 1), voxel=(1, 1, 4))


def boxes_of(seed: int, count: int) -> Boxes3d:
    rng = np.random.default_rng(seed)
    values = rng.uniform(-15, 15, (count, 7)).astype(np.float32)
    values[:, 3:6] = rng.uniform(0.3, 5, (count, 3))
    names = [NAMES[i] for i in rng.integers(0, len(NAMES), count)]
    values[[name == "DontCare" for name in names]] = np.nan
    return Boxes3d.of(
        values,
        names,
        CLASSES,
        ids=tuple(f"{i:x}" for i in range(count)),
        num_points=rng.integers(-1, 50, count),
        velocity=rng.normal(0, 3, (count, 2)).astype(np.float32),
        attributes=tuple(rng.choice(["", "vehicle.moving"], count).tolist()),
        occlusion=rng.integers(-1, 4, count),
    )


def equal(first: Boxes3d, second: Boxes3d) -> None:
    for name in Boxes3d.__dataclass_fields__:
        ours, theirs = getattr(first, name), getattr(second, name)
        if isinstance(ours, tuple):
            assert ours == theirs
        else:
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("encoding", ["arrow", "tfrecord"])
def test_shards_hold_it_without_loss(encoding: str, tmp_path: Path) -> None:
    calibration = SensorCalibration(
        benchmark="kitti",
        cameras=(
            Camera(
                name="image_2",
                width=1242,
                height=375,
                lidar_to_camera=np.eye(4) / 3,
                projection=np.ones((3, 4)) / 7,
            ),
        ),
        ground=np.array([0, 0, 1, 1.7]),
        notes={"frame": "000008"},
    )
    samples = []
    for seed, count in enumerate((0, 1, 7, 30)):
        rng = np.random.default_rng(seed)
        cloud = PointCloud(
            points=rng.normal(0, 9, (count, 5)).astype(np.float32),
            features=("x", "y", "z", "intensity", "time"),
            calibration=calibration,
        )
        inputs = {"points": encoded_points(cloud, images=(b"an image",))}
        samples.append(
            Sample(key=f"{seed}", inputs=inputs, annotations={"boxes_3d": boxes_of(seed, count)})
        )
    samples.append(Sample(key="none", inputs=samples[1].inputs))
    uri = str(tmp_path / encoding)
    entry = write_shard(uri, shard_name("s", 0), samples, encoding=encoding, layout=CLOUDS)
    publish_manifest(
        uri,
        [entry],
        name="s",
        vocabulary=Vocabulary(classes={"boxes_3d": CLASSES}),
        shuffled=False,
        encoding=encoding,
        provenance={},
    )
    split = open_split(uri)
    for wanted, found in zip(samples, split.read(0, split.num_samples), strict=True):
        assert (found.key, found.annotated) == (wanted.key, wanted.annotated)
        ours, theirs = wanted.inputs["points"], found.inputs["points"]
        assert (ours.data, ours.features, ours.images) == (
            theirs.data,
            theirs.features,
            theirs.images,
        )
        assert ours.calibration.to_json() == theirs.calibration.to_json()
        if wanted.annotated:
            equal(wanted.annotations["boxes_3d"], found.annotations["boxes_3d"])


@given(st.integers(0, 10_000), st.integers(0, 40), st.permutations(CLASSES), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_objects_of_other_classes_stay_without_one(
    seed: int, count: int, order: list[str], kept: int
) -> None:
    value = boxes_of(seed, count)
    mapped = BOXES_3D.with_classes(value, ClassMapper.between(CLASSES, order[:kept]))
    assert sorted(zip(mapped.names, mapped.ids, strict=True)) == sorted(
        zip(value.names, value.ids, strict=True)
    )
    known = len(mapped.classes)
    assert [order[i] for i in mapped.classes] == list(mapped.names[:known])
    assert not set(mapped.names[known:]) & set(order[:kept])
    before = dict(zip(value.ids, value.boxes.tolist(), strict=True))
    for name, box in zip(mapped.ids, mapped.boxes.tolist(), strict=True):
        np.testing.assert_array_equal(box, before[name])


@given(st.integers(0, 10_000), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_a_batch_has_the_objects_in_the_grid_that_points_show(seed: int, count: int) -> None:
    value = boxes_of(seed, count)
    mapper = ClassMapper.between(CLASSES, CLASSES)
    part = BOXES_3D.load(value, mapper, None, 0, frozenset())
    batch = BOXES_3D.collate([part, None], CLASSES, CANVAS, frozenset())
    known = len(value.classes)
    x, y = value.boxes[:known, :2].T
    wanted = (x > 0) & (x < 20) & (np.abs(y) < 10) & (value.num_points[:known] != 0)
    assert batch["present"][0].sum() == wanted.sum()
    assert not batch["present"][1].any()
    present = batch["present"][0]
    np.testing.assert_array_equal(batch["boxes"][0][present], value.boxes[:known][wanted])
    np.testing.assert_array_equal(batch["classes"][0][present], value.classes[wanted])
    drawn = BOXES_3D.from_batch({name: array[0] for name, array in batch.items()})
    np.testing.assert_array_equal(drawn.boxes, value.boxes[:known][wanted])


def test_velocities_turn_with_the_cloud() -> None:
    value = boxes_of(3, 12)
    part = BOXES_3D.load(value, ClassMapper.between(CLASSES, CLASSES), None, 0, frozenset())
    motion = Motion(rotation=np.pi / 2, scale=2.0, shift=(5.0, 0.0, 0.0))
    moved = BOXES_3D.move(part, motion)
    np.testing.assert_allclose(moved.velocity, 2 * part.velocity[:, ::-1] * [-1, 1], atol=1e-5)
    np.testing.assert_allclose(moved.boxes[:, 3:6], 2 * part.boxes[:, 3:6], rtol=1e-6)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, 0.0, -1.0])
def test_a_size_that_is_none_is_refused(spoilt: float) -> None:
    boxes = np.array([[5, 0, 0, 4, 2, 1.5, 0]], np.float32)
    BOXES_3D.check(Boxes3d.of(boxes, ["Car"], CLASSES), {})
    boxes[0, 3] = spoilt
    with pytest.raises(ValueError, match="size that is not positive"):
        BOXES_3D.check(Boxes3d.of(boxes, ["Car"], CLASSES), {})
    BOXES_3D.check(Boxes3d.of(boxes, ["DontCare"], CLASSES), {})


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"cameras": 1}', '{"cameras": [{}]}', '{"ground": [1, 2]}', '{"notes": 3}']
)
def test_a_damaged_calibration_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="calibration of a cloud is damaged"):
        SensorCalibration.from_json(text)
