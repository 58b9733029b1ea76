"""The KITTI metric against its rules object by object, and against known results."""

from dataclasses import replace

import numpy as np
import pytest

from mtl_ray.tasks.lidar.kitti.columns import KittiColumns, KittiFrame, columns
from mtl_ray.tasks.lidar.kitti.keys import named_figures
from mtl_ray.tasks.lidar.kitti.levels import LEVELS, OVERLAPS, count_line, least_overlaps
from mtl_ray.tasks.lidar.kitti.overlaps import AREAS
from mtl_ray.tasks.lidar.kitti.table import kitti_table, sampled_precision
from tests.tasks.lidar.random_kitti import random_frame
from tests.tasks.lidar.reference_kitti import reference_ap

CLASSES = ("Car", "Pedestrian", "Cyclist")


@pytest.mark.parametrize(("seed", "count", "copies"), [(0, 30, 1.5), (1, 12, 4.0), (2, 3, 0.7)])
def test_equals_the_rules_one_by_one(seed: int, count: int, copies: float) -> None:
    rng = np.random.default_rng(seed)
    frames = [random_frame(rng, copies=copies) for _ in range(count)]
    table = kitti_table(frames, CLASSES)
    for c, name in enumerate(CLASSES):
        for a, area in enumerate(AREAS):
            for k, kind in enumerate(OVERLAPS):
                for level in range(len(LEVELS)):
                    if not table.objects[c, level]:
                        continue
                    precision, orientation = reference_ap(
                        frames, name, area, level, least_overlaps(name, kind)[area]
                    )
                    np.testing.assert_allclose(table.precision[c, a, level, k], precision)
                    if area == "2D":
                        np.testing.assert_allclose(table.orientation[c, level, k], orientation)


def test_objects_as_detections_are_all_found() -> None:
    """SECOND's first GPU kernel lost identical boxes: 100 became 6 to 10."""
    rng = np.random.default_rng(3)
    frames = [_perfect(random_frame(rng, most=30)) for _ in range(250)]
    figures = named_figures(kitti_table(frames, CLASSES))
    for area in ("3D", "BEV", "2D", "AOS"):
        for kind in OVERLAPS:
            assert figures[f"KITTI/Car_{area}_AP40_moderate_{kind}"] == pytest.approx(100)
            assert figures[f"KITTI/Car_{area}_AP11_hard_{kind}"] == pytest.approx(100)
    assert figures["KITTI/Overall_3D_AP40_moderate"] == pytest.approx(100)


def _perfect(frame: KittiFrame) -> KittiFrame:
    gt = frame.gt
    kept = gt.take(np.isin(gt.names, CLASSES))
    return KittiFrame(gt=gt, found=replace(kept, scores=np.full(len(kept), 0.9)))


def test_a_low_detection_of_another_class_hides_an_object() -> None:
    """As in the original: it takes the object, which is neither found nor missing then."""
    box = np.array([[0.0, 20, 1, 4, 2, 1.5, 0]])
    tall, flat = np.array([[100.0, 100, 200, 200]]), np.array([[100.0, 100, 200, 120]])
    gt = columns(["Car", "Car"], np.vstack([box, box + 9]), boxes_2d=np.vstack([tall, tall + 200]))
    found = columns(
        ["Car", "Cyclist", "Car"],
        np.vstack([box, box, box + 9]),
        boxes_2d=np.vstack([tall, flat, tall + 200]),
        scores=np.array([0.5, 0.9, 0.6]),
    )
    table = kitti_table([KittiFrame(gt=gt, found=found)], ("Car",))
    three = AREAS.index("3D")
    assert table.precision[0, three, 0, 0].tolist() == [1.0] + [0.0] * 40


def test_dont_care_regions_absorb_only_in_the_image() -> None:
    box = np.array([[0.0, 20, 1, 4, 2, 1.5, 0]])
    image = np.array([[100.0, 100, 200, 200]])
    gt = columns(
        ["Car", "DontCare"],
        np.vstack([box, np.full((1, 7), np.nan)]),
        boxes_2d=np.vstack([image, image + 300 + [[-10.0, -10, 10, 10]]]),
    )
    found = columns(
        ["Car", "Car"],
        np.vstack([box, box + 30]),
        boxes_2d=np.vstack([image, image + 300]),
        scores=np.array([0.5, 0.9]),
    )
    table = kitti_table([KittiFrame(gt=gt, found=found)], ("Car",))
    assert table.precision[0, AREAS.index("2D"), 0, 0, 0] == 1
    assert table.precision[0, AREAS.index("3D"), 0, 0, 0] == 0.5


def test_without_images_every_level_has_all_objects() -> None:
    rng = np.random.default_rng(5)
    frames = [_without_image(random_frame(rng)) for _ in range(20)]
    table = kitti_table(frames, CLASSES)
    assert (table.objects == table.objects[:, :1]).all()
    assert (sampled_precision(table.precision[:, AREAS.index("2D")], 40) == 0).all()
    assert sampled_precision(table.precision[0, AREAS.index("3D")], 40)[0, 0] > 0


def _without_image(frame: KittiFrame) -> KittiFrame:
    def blind(values: KittiColumns) -> KittiColumns:
        none = np.zeros(len(values))
        return replace(
            values,
            boxes_2d=np.full((len(values), 4), np.nan),
            truncation=none,
            occlusion=none.astype(np.int64),
        )

    return KittiFrame(gt=blind(frame.gt), found=blind(frame.found))


def test_names_of_figures() -> None:
    table = kitti_table([random_frame(np.random.default_rng(0))], CLASSES)
    figures = named_figures(table)
    assert len(figures) == 3 * 4 * 2 * 3 * 2 + 4 * 2 * 3 + 3 * 2 * 2
    assert "KITTI/Car_3D_AP40_moderate_strict" in figures
    assert "KITTI/Overall_BEV_AP11_hard" in figures
    assert not any("Overall" in name for name in named_figures(kitti_table([], ("Car",))))


def test_says_why_objects_do_not_count() -> None:
    low, tall = (0.0, 0, 50, 20), (0.0, 0, 50, 60)
    gt = columns(
        ["Car", "Car", "Car", "Car", "Car", "Van"],
        np.zeros((6, 7)),
        boxes_2d=np.array([low, tall, tall, tall, (0, 0, 0, 0), tall]),
        occlusion=np.array([0, 2, 0, 0, 0, 0]),
        truncation=np.array([0, 0, 0.4, 0, 0, 0]),
    )
    assert count_line(gt, "Car") == (
        "KITTI Car: 1 easy, 1 moderate, 3 hard of 5 objects count; at moderate 1 have no box in "
        "the image, 1 are not higher than 25 pixels, 1 are more than partly occluded (above 1), 1 "
        "are cut off by more than 0.3; 1 of the class van cost nothing; so few that AP40 is at "
        "most 0.0 (see AP40exact)"
    )


def test_no_frames_and_no_detections() -> None:
    assert not kitti_table([], CLASSES).objects.any()
    frame = random_frame(np.random.default_rng(1), most=30)
    nothing = replace(frame, found=frame.found.take(np.zeros(0, np.int64)))
    assert not kitti_table([nothing], CLASSES).precision.any()


def test_few_objects_limit_the_samples_but_not_the_true_recalls() -> None:
    rng = np.random.default_rng(7)
    frames = [_perfect(random_frame(rng, most=20)) for _ in range(8)]
    table = kitti_table(frames, ("Car",))
    count = int(table.objects[0, 1])
    assert 2 < count < 41
    figures = named_figures(table)
    most = (count - 1) / 40 * 100
    assert figures["KITTI/Car_BEV_AP40_moderate_loose"] == pytest.approx(most)
    assert figures["KITTI/Car_BEV_AP40exact_moderate_loose"] == pytest.approx(100)


def test_orientation_is_not_known_without_angles() -> None:
    frame = _perfect(random_frame(np.random.default_rng(7), most=30))
    blind = replace(frame, found=replace(frame.found, alpha=np.full(len(frame.found), -10.0)))
    figures = named_figures(kitti_table([blind], ("Car",)))
    assert np.isnan(figures["KITTI/Car_AOS_AP40_hard_strict"])
    assert figures["KITTI/Car_2D_AP40_hard_strict"] >= 0
