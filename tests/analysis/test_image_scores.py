"""The score of an image is what the rule's plain loops say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mtl_ray.analysis.image_scores import THRESHOLDS, image_scores
from mtl_ray.tasks.detection.columns import ScoredImage
from tests.tasks.random_objects import detections, instances, random_images


def plain_iou(one: NDArray[np.float32], others: NDArray[np.float32]) -> list[np.float32]:
    """In float32, without the pixel that VOC adds."""
    found = []
    for other in others:
        wide = max(np.float32(0), min(one[2], other[2]) - max(one[0], other[0]))
        high = max(np.float32(0), min(one[3], other[3]) - max(one[1], other[1]))
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
        found.append(wide * high / max(areas[0] + areas[1] - wide * high, np.float32(1e-6)))
    return found


def plain_score(image: ScoredImage, crowd_counts: bool) -> float:
    gt, found = image.ground_truth, image.predicted
    ignored = gt.difficult if crowd_counts else gt.difficult | gt.crowd
    values = []
    for threshold in THRESHOLDS:
        precisions = []
        for label in sorted(set(gt.classes[~ignored].tolist())):
            boxes = np.concatenate(
                [
                    gt.boxes_xyxy[(gt.classes == label) & ~ignored],
                    gt.boxes_xyxy[(gt.classes == label) & ignored],
                ]
            )
            wanted = int(((gt.classes == label) & ~ignored).sum())
            mine = [
                i for i in np.argsort(-found.scores, kind="stable") if found.classes[i] == label
            ]
            taken: set[int] = set()
            right, wrong, recalls, precision = 0, 0, [0.0], [0.0]
            for i in mine:
                overlap = plain_iou(found.boxes_xyxy[i], boxes)
                best = int(np.argmax(overlap))
                if float(overlap[best]) >= threshold and best >= wanted:
                    pass
                elif float(overlap[best]) >= threshold and best not in taken:
                    taken.add(best)
                    right += 1
                else:
                    wrong += 1
                recalls.append(right / wanted)
                precision.append(right / max(right + wrong, 1e-7))
            recalls, precision = [*recalls, 1.0], [*precision, 0.0]
            for k in range(len(precision) - 1, 0, -1):
                precision[k - 1] = max(precision[k - 1], precision[k])
            precisions.append(
                sum(
                    (recalls[k + 1] - recalls[k]) * precision[k + 1]
                    for k in range(len(recalls) - 1)
                )
            )
        values.append(np.mean(precisions) if precisions else np.nan)
    return float(np.mean(values))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), crowd_counts=st.booleans())
def test_scores_are_those_of_plain_loops(seed: int, crowd_counts: bool) -> None:
    images = random_images(seed, count=6)
    expected = [plain_score(image, crowd_counts) for image in images]
    np.testing.assert_allclose(image_scores(images, crowd_counts=crowd_counts), expected, atol=1e-6)


def test_a_second_detection_of_an_object_is_wrong_and_one_on_a_crowd_is_not() -> None:
    one, other = [10.0, 10, 60, 60], [100.0, 100, 180, 180]
    twice = ScoredImage(
        "a", 200, 200, instances([one, other]), detections([one, one, other], [0.9, 0.8, 0.7])
    )
    crowd = ScoredImage(
        "b",
        200,
        200,
        instances([one, other], crowd=[False, True]),
        detections([other, one], [0.9, 0.8]),
    )
    nothing = ScoredImage("c", 200, 200, instances([]), detections([one], [0.9]))
    scores = image_scores([twice, crowd, nothing])
    assert scores[:2].tolist() == pytest.approx([0.5 + 0.5 * 2 / 3, 1.0])
    assert np.isnan(scores[2])
    assert image_scores([crowd], crowd_counts=True).tolist() == pytest.approx([1.0])
