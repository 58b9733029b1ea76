"""The task of boxes in space: JSON, rows, drawings and differences."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.birds_eye import draw_points
from mtl_ray.geometry.panels import beneath
from mtl_ray.inputs.point_cloud import Camera, EncodedPoints, SensorCalibration
from mtl_ray.inputs.points import CloudFrame
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.difference import Comparison
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.task import DETECTION_3D
from mtl_ray.tasks.task import KnownHead
from tests.evaluation.conftest import png

VOCABULARY = Vocabulary(classes={"boxes_3d": ("Car", "Pedestrian", "Cyclist")})
HEAD = KnownHead(type="any", task=DETECTION_3D, annotation="boxes_3d", exclusive=False)
HOW = Comparison(frame=CloudFrame(), sides=("one", "other"))


def detections(count: int, seed: int = 0, *, velocity: bool = False) -> Detections3d:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform((2, -30, -2, 0.5, 0.5, 0.5, -3), (60, 30, 0, 5, 2, 2, 3), (count, 7))
    return Detections3d(
        boxes=boxes.astype(np.float32),
        scores=np.sort(rng.random(count))[::-1].astype(np.float32),
        classes=rng.integers(0, 3, count),
        velocity=rng.normal(0, 5, (count, 2)).astype(np.float32) if velocity else None,
    )


@given(st.integers(0, 6), st.integers(0, 99), st.booleans())
def test_json_and_rows_are_without_loss(count: int, seed: int, velocity: bool) -> None:
    made = detections(count, seed, velocity=velocity and count > 0)
    text = json.dumps(DETECTION_3D.to_response(made, VOCABULARY, 0.0))
    assert_equal(DETECTION_3D.from_response(json.loads(text), VOCABULARY, HEAD), made)
    rows = pa.array([DETECTION_3D.to_row(made)], DETECTION_3D.row_type())
    assert_equal(DETECTION_3D.from_row(rows[0].as_py()), made)


def assert_equal(found: Detections3d, wanted: Detections3d) -> None:
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_array_equal(found.classes, wanted.classes)
    assert (found.velocity is None) == (wanted.velocity is None)
    if found.velocity is not None and wanted.velocity is not None:
        np.testing.assert_array_equal(found.velocity, wanted.velocity)


def test_response_has_names_and_obeys_the_threshold() -> None:
    made = replace(detections(2), scores=np.array([0.9, 0.2], np.float32))
    (item,) = DETECTION_3D.to_response(made, VOCABULARY, 0.5)
    assert item["class_name"] == VOCABULARY.classes["boxes_3d"][item["class_label"]]
    assert len(item["box_3d"]) == 7
    assert set(item) == {"class_label", "class_name", "box_3d", "score"}


@pytest.mark.parametrize(
    "change",
    [
        {"box_3d": [1, 2, 3]},
        {"box_3d": [1, 2, 3, 4, 5, 6, float("nan")]},
        {"class_label": 3},
        {"class_label": 0.5},
        {"score": "high"},
        {"velocity": [1]},
    ],
)
def test_damaged_responses_are_refused(change: dict[str, object]) -> None:
    items = DETECTION_3D.to_response(detections(3), VOCABULARY, 0.0)
    with pytest.raises((ValueError, TypeError)):
        DETECTION_3D.from_response([items[0] | change, *items[1:]], VOCABULARY, HEAD)


def test_equal_predictions_in_another_order_do_not_differ() -> None:
    made = detections(30, velocity=True)
    order = np.random.default_rng(0).permutation(30)
    assert made.velocity is not None
    turned = made.boxes[order].copy()
    turned[:, 6] += 2 * np.pi
    other = Detections3d(
        boxes=turned,
        scores=made.scores[order],
        classes=made.classes[order],
        velocity=made.velocity[order],
    )
    apart = DETECTION_3D.difference(made, other, HOW)
    assert apart.compared == 30
    assert apart.max_px is not None
    assert apart.max_px < 1e-5
    assert apart.max_score == 0
    assert apart.agreeing == apart.count == 60


def test_differences_are_found() -> None:
    made = detections(5)
    moved = made.boxes.copy()
    moved[2, 0] += 0.25
    apart = DETECTION_3D.difference(made, replace(made, boxes=moved), HOW)
    assert apart.max_px == pytest.approx(0.25, abs=1e-5)
    moved[2, 0] += 9
    apart = DETECTION_3D.difference(made, replace(made, boxes=moved), HOW)
    assert (apart.agreeing, apart.count) == (8, 10)
    assert len(apart.alone) == 2
    broken = made.boxes.copy()
    broken[1, 3] = np.nan
    nan = DETECTION_3D.difference(made, replace(made, boxes=broken), HOW).max_px
    assert nan is not None
    assert np.isnan(nan)
    velocity = detections(5, velocity=True)
    assert "velocity" in DETECTION_3D.difference(made, velocity, HOW).incomparable[0]


def test_arrays_with_scores_of_all_classes_are_compared() -> None:
    rng = np.random.default_rng(0)
    one = {
        "boxes": detections(20).boxes,
        "scores": rng.random((20, 3)).astype(np.float32),
    }
    other = {name: values[::-1] for name, values in one.items()}
    apart = DETECTION_3D.array_difference(one, other, HOW)
    assert (apart.compared, apart.max_px, apart.max_score) == (20, 0, 0)
    assert DETECTION_3D.array_difference({}, {}, HOW).incomparable
    elsewhere = {"boxes": one["boxes"] + np.float32(300), "scores": np.ones((20, 3), np.float32)}
    apart = DETECTION_3D.array_difference(one, elsewhere, HOW)
    assert (apart.agreeing, apart.count) == (0, 40), "none of them is the end of an equal list"


def test_drawings_show_boxes() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform((0, -30, -2), (60, 30, 1), (4000, 3)).astype(np.float32)
    image = draw_points(points)
    made = detections(6)
    drawn = DETECTION_3D.draw_prediction(image, made, VOCABULARY, 0.0)
    assert drawn.shape == image.shape
    assert (drawn != image).any()
    names = [VOCABULARY.classes["boxes_3d"][each] for each in made.classes] + ["Van"]
    boxes = np.vstack([made.boxes, np.full((1, 7), 20)])
    value = Boxes3d.of(boxes, names, VOCABULARY.classes["boxes_3d"])
    sample = Sample(key="0", inputs={}, annotations={"boxes_3d": value})
    assert (DETECTION_3D.draw_ground_truth(image, sample, VOCABULARY) != image).any()
    without = DETECTION_3D.draw_ground_truth(
        image, sample.with_annotations(boxes_3d=None), VOCABULARY
    )
    assert (without == image).all()


@pytest.mark.parametrize(("cameras", "wide"), [(1, 1200), (2, 600), (6, 600)])
def test_images_of_cameras_are_drawn_in_the_size_in_which_they_are_shown(
    cameras: int, wide: int
) -> None:
    """Else the names of six cameras are three pixels high. A camera may not know its size."""
    camera = Camera(
        name="front",
        width=0,
        height=0,
        lidar_to_camera=np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
        projection=np.array([[1000.0, 0, 800, 0], [0, 1000, 400, 0], [0, 0, 1, 0]]),
    )
    encoded = EncodedPoints(
        data=b"",
        calibration=SensorCalibration(cameras=(camera,) * cameras),
        images=(png(np.zeros((800, 1600, 3), np.uint8)),) * cameras,
    )
    found = Detections3d(
        boxes=np.array([[20, 0, 0, 0.01, 8, 4, 0]], np.float32),
        scores=np.array([0.9], np.float32),
        classes=np.array([0]),
    )
    sample = Sample(key="0", inputs={"points": encoded})
    views = DETECTION_3D.draw_views(sample, VOCABULARY, found, 0.5)
    assert [title for title, _ in views] == ["front"] * cameras
    assert {image.shape for _, image in views} == {(wide // 2, wide, 3)}
    assert beneath(np.zeros((9, 900, 3), np.uint8), views).shape[1] >= min(3, cameras) * wide
    scale, (_, image) = wide / 1600, views[0]
    rows, columns = np.nonzero(image[round(420 * scale) :].any(axis=2))  # below the name
    assert columns.min() == pytest.approx(600 * scale, abs=3)
    assert columns.max() == pytest.approx(1000 * scale, abs=3)
    assert rows.max() + round(420 * scale) == pytest.approx(500 * scale, abs=3)


def test_results_of_nuscenes_have_its_classes_alone(tmp_path: Path) -> None:
    """Its evaluation, and eval-metric, refuse a file with others."""
    calibration = SensorCalibration(
        benchmark="nuscenes",
        lidar_to_ego=np.eye(4),
        ego_to_global=np.eye(4),
        notes={"token": "t"},
    )
    sample = Sample(key="t", inputs={"points": EncodedPoints(data=b"", calibration=calibration)})
    for name, fits in (("car", True), ("Car", False)):
        vocabulary = Vocabulary(classes={"boxes_3d": (name, name + "2", name + "3")})
        writer = DETECTION_3D.results_writer("nuscenes", str(tmp_path), vocabulary, 0.0)
        found = replace(detections(2), classes=np.zeros(2, np.int64))
        if fits:
            writer.write(sample, found)
            continue
        with pytest.raises(ValueError, match="Car is predicted, which is no class of nuScenes"):
            writer.write(sample, found)
