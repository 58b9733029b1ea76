"""The confusion of objects in clouds."""

import numpy as np
import pytest

from mtl_ray.tasks.lidar.confusion import ConfusionRule, object_confusion
from mtl_ray.tasks.lidar.nuscenes.columns import NuscenesColumns, NuscenesFrame

NAMES = ("car", "pedestrian")


def columns(rows: list[tuple[int, float, float, float]], state: int = 0) -> NuscenesColumns:
    """Class, x, yaw, score of boxes of 4 x 2 m."""
    table = np.array(rows, np.float64).reshape(-1, 4)
    count = len(table)
    return NuscenesColumns(
        classes=table[:, 0].astype(np.int64),
        centres=np.column_stack([table[:, 1], np.zeros((count, 2))]),
        sizes=np.tile([4.0, 2.0, 1.5], (count, 1)),
        yaw=table[:, 2],
        velocity=np.zeros((count, 2)),
        attributes=np.full(count, ""),
        scores=table[:, 3],
        state=np.full(count, state, np.int64),
        frames=np.zeros(count, np.int64),
    )


def test_own_class_first_then_any() -> None:
    gt = columns([(0, 0, 0, 0), (0, 10, 0, 0), (1, 20, 0, 0)])
    found = columns(
        [
            (0, 0.1, 0, 0.5),  # right
            (1, 0.0, 0, 0.9),  # on the same car, which its own class takes
            (1, 10.2, 0, 0.8),  # a car taken for a pedestrian
            (0, 40, 0, 0.7),  # nothing
            (1, 20, 0, 0.1),  # below the score
        ]
    )
    frame = NuscenesFrame(gt=gt, found=found)
    counts = object_confusion([frame, frame], NAMES, rule=ConfusionRule()).counts
    assert counts.tolist() == [[2, 2, 0], [0, 0, 2], [2, 2, 0]]


def test_overlap_or_distance() -> None:
    crossed = NuscenesFrame(
        gt=columns([(0, 0, 0, 0)]), found=columns([(0, 0.5, np.pi / 2, 0.9)])
    )  # IoU 4 / 12
    for rule, right in (
        (ConfusionRule(), 0),
        (ConfusionRule(overlap=0.3), 1),
        (ConfusionRule(metres=1), 1),
    ):
        assert object_confusion([crossed], NAMES, rule=rule).counts[0, 0] == right
    for wrong in ({"overlap": 0.0}, {"metres": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            ConfusionRule(**wrong)


def test_objects_that_do_not_count_absorb() -> None:
    far = NuscenesFrame(gt=columns([(0, 0, 0, 0)], state=1), found=columns([(0, 0, 0, 0.9)]))
    assert object_confusion([far], NAMES, rule=ConfusionRule()).counts.sum() == 0
    assert object_confusion([], NAMES, rule=ConfusionRule()).counts.shape == (3, 3)
