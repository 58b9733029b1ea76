"""The nuScenes metric against its rules one by one, and against known results."""

from dataclasses import replace

import numpy as np
import pytest

from mtl_ray.tasks.lidar.nuscenes.columns import NuscenesFrame, nuscenes_count_line
from mtl_ray.tasks.lidar.nuscenes.table import ERRORS, nuscenes_table
from tests.tasks.lidar.random_nuscenes import CLASSES, random_sample
from tests.tasks.lidar.reference_nuscenes import reference_class


@pytest.mark.parametrize(
    ("seed", "count", "copies", "reach"), [(0, 12, 2.0, 60.0), (1, 4, 8.0, 25.0), (2, 2, 0.3, 60.0)]
)
def test_equals_the_rules_one_by_one(seed: int, count: int, copies: float, reach: float) -> None:
    rng = np.random.default_rng(seed)
    frames = [random_sample(rng, copies=copies, reach=reach) for _ in range(count)]
    table = nuscenes_table(frames, CLASSES)
    for c, name in enumerate(CLASSES):
        precisions, errors = reference_class(frames, c, name)
        np.testing.assert_allclose(table.average_precision[c], precisions, atol=1e-12)
        np.testing.assert_allclose(table.errors[c], errors, atol=1e-12)


def test_objects_as_detections_are_all_found() -> None:
    rng = np.random.default_rng(3)
    frames = []
    for _ in range(30):
        gt = random_sample(rng).gt
        gt = gt.take(gt.state == 0)
        found = replace(gt, scores=np.full(len(gt), 0.5))
        frames.append(NuscenesFrame(gt=gt, found=found))
    table = nuscenes_table(frames, CLASSES)
    np.testing.assert_allclose(table.average_precision[:-1], 1)
    assert table.mean_ap == pytest.approx(0.9)  # no barrier has an object
    assert np.nanmax(table.errors[:-1]) < 1e-9
    assert np.isnan(table.errors[CLASSES.index("traffic_cone")]).tolist() == [
        each in ("AOE", "AVE", "AAE") for each in ERRORS
    ]
    # errors of 1 of the barriers weigh a tenth, an eighth (AVE and AAE they do not have)
    assert table.score == pytest.approx((5 * 0.9 + 2 * 0.9 + (1 - 1 / 9) + 2) / 10)


def test_without_detections() -> None:
    rng = np.random.default_rng(4)
    frames = [random_sample(rng, copies=0) for _ in range(3)]
    table = nuscenes_table(frames, CLASSES)
    assert table.mean_ap == 0
    assert table.score == 0
    assert set(table.mean_errors.values()) == {1.0}
    assert nuscenes_table([], CLASSES).mean_ap == 0


def test_says_why_objects_do_not_count() -> None:
    gt = random_sample(np.random.default_rng(0), most=9).gt
    gt = replace(
        gt,
        classes=np.zeros(len(gt), np.int64),
        state=np.arange(len(gt), dtype=np.int64) % 4,
    )
    assert len(gt) >= 4
    line = nuscenes_count_line(gt, 0, "car")
    counts = [int((gt.state == state).sum()) for state in range(4)]
    assert line == (
        f"nuScenes car: {counts[0]} of {len(gt)} objects count; {counts[1]} are beyond the "
        f"range, {counts[2]} have no point, {counts[3]} are in a bicycle rack"
    )
