"""The metric of a task of boxes in space: frames in, figures out, in any order."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.evaluation.report import report
from mtl_ray.inputs.point_cloud import Camera, PointCloud, SensorCalibration, encoded_points
from mtl_ray.samples import Sample
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.kitti.frames import as_written
from mtl_ray.tasks.lidar.metric import Detection3dMetric

CLASSES = ("Car", "Pedestrian", "Cyclist")
SIZES = np.array([(3.9, 1.6, 1.5), (0.8, 0.6, 1.75), (1.8, 0.6, 1.7)])
AXES = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
CAMERA = Camera(
    name="image_2",
    width=1242,
    height=375,
    lidar_to_camera=AXES,
    projection=np.array([[720.0, 0, 621, 0], [0, 720, 187, 0], [0, 0, 1, 0]]),
)
KITTI = SensorCalibration(benchmark="kitti", cameras=(CAMERA,))
NUSCENES = SensorCalibration(
    benchmark="nuscenes",
    lidar_to_ego=np.array([[0.0, 1, 0, 0.9], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]]),
    ego_to_global=np.array([[0.6, -0.8, 0, 400], [0.8, 0.6, 0, 1100], [0, 0, 1, 0], [0, 0, 0, 1]]),
)


def frame(
    seed: int, calibration: SensorCalibration, *, copies: float = 1.5
) -> tuple[Sample, Detections3d]:
    """A cloud without points, with objects and detections of them."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 14))
    labels = rng.integers(0, 3, count)
    place = rng.uniform((6, -8, -1.2), (45, 8, -0.6), (count, 3))
    boxes = np.column_stack([place, SIZES[labels], rng.uniform(-3, 3, count)])
    names = [*(CLASSES[each] for each in labels), "Van", "DontCare"]
    extra = np.array([[30, 0, -1, 5, 2, 2, 0], [np.nan] * 7])
    gt = Boxes3d.of(
        np.vstack([boxes, extra]),
        names,
        CLASSES,
        boxes_2d=np.vstack([np.full((count + 1, 4), np.nan), (0, 0, 90, 90)]).astype(np.float32),
        num_points=rng.integers(0, 20, count + 2),
    )
    of = np.repeat(np.arange(count), rng.poisson(copies, count))
    found = Detections3d(
        boxes=(boxes[of] + rng.normal(0, 0.15, (len(of), 7))).astype(np.float32),
        scores=rng.random(len(of)).astype(np.float32),
        classes=labels[of],
        velocity=rng.normal(0, 1, (len(of), 2)).astype(np.float32),
    )
    cloud = PointCloud(points=np.zeros((0, 4), np.float32), calibration=calibration)
    sample = Sample(
        key=f"{seed}",
        inputs={"points": encoded_points(cloud)},
        annotations={"boxes_3d": gt},
    )
    return sample, found


def measured(frames: list[tuple[Sample, Detections3d]]) -> Detection3dMetric:
    metric = Detection3dMetric(CLASSES)
    for sample, found in frames:
        metric.update(sample, found)
    return metric


@pytest.mark.parametrize("calibration", [KITTI, NUSCENES, SensorCalibration()])
def test_merged_parts_equal_one_pass(calibration: SensorCalibration) -> None:
    frames = [frame(seed, calibration) for seed in range(12)]
    whole = measured(frames)
    parts = [measured(frames[start::3]) for start in (2, 0, 1)]
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    assert dict(parts[0].result()) == pytest.approx(dict(whole.result()), nan_ok=True, abs=0)
    assert parts[0].notes() == whole.notes()
    assert 0 < whole.result()["mAP"] < 1
    curves = whole.charts().precision_recall
    assert curves is not None
    assert curves.precision.shape == (3, 101)


def test_main_figure_is_that_of_the_benchmark() -> None:
    kitti = measured([frame(seed, KITTI) for seed in range(9)])
    figures = kitti.result()
    named = [figures[f"KITTI/{name}_3D_AP40_moderate_strict"] for name in CLASSES]
    assert figures["mAP"] == pytest.approx(np.mean(named) / 100)
    assert figures["mAP"] == pytest.approx(figures["KITTI/Overall_3D_AP40_moderate"] / 100)
    assert {"mATE", "mAOE", "mAP_nuscenes"} <= set(figures)
    nuscenes = measured([frame(seed, NUSCENES) for seed in range(9)])
    figures = nuscenes.result()
    assert figures["mAP"] == figures["mAP_nuscenes"]
    assert not any(name.startswith("KITTI") for name in figures)
    assert list(figures)[-5:] == ["mATE", "mASE", "mAOE", "mAVE", "mAAE"]
    assert "NDS" in figures
    assert "mATE" in nuscenes.lower_is_better
    assert nuscenes.per_class()["Car"]["objects"] > 0


def test_what_the_data_does_not_state_has_no_error() -> None:
    """KITTI has no velocities and no attributes: an error of 1 would blame the network."""
    still = measured([frame(seed, KITTI) for seed in range(9)])
    assert not {"NDS", "mAVE", "mAAE"} & set(still.result())
    assert not {"AVE", "AAE"} & set(still.per_class()["Car"])
    frames = [frame(seed, SensorCalibration()) for seed in range(9)]  # such as Waymo's
    frames[0][0].annotations["boxes_3d"].velocity[:] = 1
    moving = measured(frames)
    assert "mAVE" in moving.result()
    assert "AVE" in moving.per_class()["Car"]
    assert not {"NDS", "mAAE"} & set(moving.result())


def test_a_class_without_objects_lowers_no_mean_of_data_that_is_not_of_nuscenes() -> None:
    frames = [frame(seed, KITTI) for seed in range(9)]
    more = Detection3dMetric((*CLASSES, "Tram"))
    for sample, found in frames:
        more.update(sample, found)
    plain, figures = measured(frames).result(), more.result()
    for name in ("mAP", "mAP_nuscenes", "mATE", "mASE", "mAOE"):
        assert figures[name] == plain[name]


def test_the_pose_of_the_vehicle_changes_nothing_but_ranges() -> None:
    plain = SensorCalibration(benchmark="nuscenes")
    one, other = (
        measured([frame(seed, each) for seed in range(9)]).result() for each in (plain, NUSCENES)
    )
    assert one["mATE"] == pytest.approx(other["mATE"], abs=1e-5)
    assert one["mAVE"] == pytest.approx(other["mAVE"], abs=1e-5)
    assert one["mAOE"] == pytest.approx(other["mAOE"], abs=1e-5)


def test_detections_outside_the_image_are_dropped() -> None:
    sample, _ = frame(0, KITTI)
    behind = Detections3d(
        boxes=np.array([[-20, 0, -1, 4, 2, 1.5, 0], [20, 0, -1, 4, 2, 1.5, 0]], np.float32),
        scores=np.array([0.9, 0.8], np.float32),
        classes=np.zeros(2, np.int64),
    )
    (kept,) = measured([(sample, behind)]).frames
    assert kept.kitti is not None
    assert len(kept.kitti.found) == 1
    (kept,) = measured([(frame(0, SensorCalibration())[0], behind)]).frames
    assert kept.kitti is not None
    assert len(kept.kitti.found) == 2


@pytest.mark.parametrize("benchmark", ["kitti", ""])
def test_several_cameras_are_judged_in_the_whole_cloud(benchmark: str) -> None:
    """One of four cars is in the image of the front camera; the others are not lost."""
    boxes = [[20, 0, -1, 4, 2, 1.5, 0], [-20, 0, -1, 4, 2, 1.5, 0], [0, 20, -1, 4, 2, 1.5, 0]]
    boxes.append([0, -20, -1, 4, 2, 1.5, 0])
    seen = np.full((4, 4), np.nan, np.float32)
    seen[0] = (100, 100, 120, 110)  # too low for KITTI's levels
    back = np.diag([-1.0, 1, -1, 1]) @ AXES
    cameras = (CAMERA, replace(CAMERA, name="back", lidar_to_camera=back))
    cloud = PointCloud(
        points=np.zeros((0, 4), np.float32),
        calibration=SensorCalibration(benchmark=benchmark, cameras=cameras),
    )
    gt = Boxes3d.of(np.array(boxes, np.float64), ["Car"] * 4, CLASSES, boxes_2d=seen)
    sample = Sample(key="0", inputs={"points": encoded_points(cloud)}, annotations={"boxes_3d": gt})
    some = [
        Detections3d(
            boxes=np.array(boxes[:count], np.float32),
            scores=np.full(count, 0.9, np.float32),
            classes=np.zeros(count, np.int64),
        )
        for count in (1, 4)
    ]
    one, whole = (measured([(sample, found)]) for found in some)
    assert one.per_class()["Car"]["objects"] == 4
    exact = "KITTI/Car_3D_AP40exact_moderate_strict"
    assert one.result()[exact] == pytest.approx(25)
    assert whole.result()[exact] == pytest.approx(100)
    assert "measured in the whole cloud" in one.notes()[-1]


def test_notes_say_what_counts() -> None:
    lines = measured([frame(0, SensorCalibration())]).notes()
    assert lines[0].startswith("KITTI Car: ")
    assert "1 of the class van cost nothing" in lines[0]
    assert measured([frame(0, NUSCENES)]).notes()[0].startswith("nuScenes Car: ")


def test_the_curve_of_a_few_objects_that_are_all_found_is_full() -> None:
    """KITTI's own samples end at the recall 2 / 40 with three objects."""
    sample, _ = frame(1, SensorCalibration())
    gt: Boxes3d = sample.annotations["boxes_3d"]
    count = len(gt.classes)
    found = Detections3d(
        boxes=gt.boxes[:count], scores=np.full(count, 0.9, np.float32), classes=gt.classes
    )
    metric = measured([(sample, found)])
    curves = metric.charts().precision_recall
    assert curves is not None
    there = np.unique(gt.classes)
    assert (curves.precision[there] == 1).all()
    assert metric.result()["mAP"] < 0.5


def test_nothing_annotated_is_nan() -> None:
    sample, found = frame(0, KITTI)
    metric = measured([(sample.with_annotations(boxes_3d=None), found)])
    assert np.isnan(metric.result()["mAP"])
    assert metric.charts().precision_recall is not None


def test_numbers_at_a_limit_are_those_of_the_label() -> None:
    """0.15 as float32 is above 0.15: the object would not be easy any more."""
    values = np.array([0.15, 0.3, 215.33, np.nan, -1], np.float32)
    np.testing.assert_array_equal(as_written(values), [0.15, 0.3, 215.33, np.nan, -1])
    assert as_written(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_a_terminal_shows_the_figures_that_people_read_and_the_file_has_all() -> None:
    metric = Detection3dMetric(CLASSES)
    metric.update(*frame(3, KITTI))
    facts = {"target": "t", "data": "d", "samples": 1, "seconds": 1.0}
    made = report({"boxes": metric}, facts)
    text = made.to_text()
    assert "boxes/KITTI/Car_3D_AP40_moderate_strict" in text
    assert "AP11" not in text
    hidden = len(made.figures) - text.count("  boxes/") - text.count("\nboxes/")
    assert f"{hidden} more figures are in report.json" in text
    exact = "boxes/KITTI/Car_3D_AP40exact_moderate_strict"
    assert exact in text, "of few objects"
    assert "boxes/KITTI/Car_3D_AP11_easy_loose" in json.loads(made.to_json())
    many = measured([frame(seed, SensorCalibration()) for seed in range(40)])
    assert exact not in report({"boxes": many}, facts).to_text()
