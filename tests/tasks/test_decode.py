"""From arrays on the canvas to predictions on the image; suppression outside the graph is the
one inside.
"""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.inputs.frame import frame_of
from mtl_ray.inputs.image import Canvas
from mtl_ray.tasks.classification.config import LinearHead, MultilabelHead
from mtl_ray.tasks.classification.task import CLASSIFICATION
from mtl_ray.tasks.detection.candidates import select_detections
from mtl_ray.tasks.detection.decode import decode_detections
from mtl_ray.tasks.detection.dense.config import FcosHead, RetinaNetHead
from mtl_ray.tasks.detection.options import Selection
from mtl_ray.tasks.detection.selection import select_candidates
from mtl_ray.tasks.segmentation.config import FcnHead
from mtl_ray.tasks.segmentation.task import SEGMENTATION

RULE = Canvas(kind="letterbox", height=100, width=100)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    candidates=st.sampled_from([5, 40, 1000]),
    most=st.sampled_from([3, 50]),
)
def test_select_is_what_the_network_does(seed: int, candidates: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 120))
    corner = rng.uniform(0, 80, (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 60, (n, 2))], axis=1).astype(np.float32)
    objectness, scores = rng.random(n).astype(np.float32), rng.random((n, 3)).astype(np.float32)
    rule = Selection(
        score_threshold=0.1, iou_threshold=0.5, max_detections=most, candidates=candidates
    )
    inside = select_detections(
        {
            "boxes": torch.tensor(boxes)[None],
            "objectness": torch.tensor(objectness)[None],
            "scores": torch.tensor(scores)[None],
        },
        rule,
        False,
    )
    found_boxes, found_scores, found_classes = select_candidates(
        np.concatenate([boxes, objectness[:, None], scores], axis=1), rule
    )
    real = inside["scores"][0].numpy() > 0
    np.testing.assert_allclose(found_scores, inside["scores"][0].numpy()[real], rtol=1e-6)
    np.testing.assert_array_equal(found_boxes, inside["boxes"][0].numpy()[real])
    np.testing.assert_array_equal(found_classes, inside["classes"][0].numpy()[real])


def test_candidates_of_a_bundle_are_ranked_by_level() -> None:
    """The best pairs of each level, not of the image: a canvas of 32 has 16 cells and 4 cells."""
    frame = frame_of(32, 32, Canvas(kind="letterbox", height=32, width=32))
    rule = Selection(score_threshold=0.1, rank="pair", candidates=2, suppression="none")
    head = FcosHead(levels=("P3", "P4"), limits=(64.0,), select=asdict(rule))
    scores = np.linspace(0.9, 0.2, 20, dtype=np.float32)
    corner = np.arange(20, dtype=np.float32)
    rows = np.stack([corner, corner, corner + 5, corner + 5, np.ones(20), scores], axis=1)
    found = decode_detections({"candidates": rows.astype(np.float32)}, frame, head)
    assert found.scores.tolist() == [*scores[:2].tolist(), *scores[16:18].tolist()]


def test_boxes_come_back_to_the_image_without_padding() -> None:
    frame = frame_of(50, 200, RULE)
    arrays = {
        "boxes": np.array(
            [[10, 5, 20, 15], [0, 40, 100, 90], [20, 10, 300, 20], [0, 0, 0, 0]], np.float32
        ),
        "scores": np.array([0.4, 0.9, 0.6, 0.0], np.float32),
        "classes": np.array([1, 0, 2, 0]),
    }
    found = decode_detections(arrays, frame, RetinaNetHead())
    # the second lies below the image
    assert found.boxes_xyxy.tolist() == [
        [40, 20, 200, 40],
        [20, 10, 40, 30],
    ]
    assert found.classes.tolist() == [2, 1]
    assert found.scores.tolist() == pytest.approx([0.6, 0.4])
    assert (found.boxes_xyxy.dtype, found.scores.dtype, found.classes.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )


def test_candidates_are_chosen_by_the_rule_of_the_head() -> None:
    row = [10.0, 5, 20, 15, 0.5]
    arrays = {"candidates": np.array([[*row, 0.8, 0.1], [*row, 0.6, 0.1]], np.float32)}
    found = decode_detections(
        arrays, frame_of(100, 100, RULE), RetinaNetHead(select=Selection(score_threshold=0.2))
    )
    assert found.scores.tolist() == pytest.approx([0.4])
    nothing = decode_detections(
        {"candidates": np.zeros((0, 7), np.float32)}, frame_of(100, 100, RULE), RetinaNetHead()
    )
    assert len(nothing) == 0


@pytest.mark.parametrize(("height", "width"), [(50, 200), (200, 50), (1, 1), (100, 100), (333, 17)])
def test_a_map_comes_back_in_the_size_of_the_image(height: int, width: int) -> None:
    frame = frame_of(height, width, RULE)
    canvas = np.full((100, 100), 7, np.uint8)
    canvas[: frame.valid_height, : frame.valid_width] = 3
    found = SEGMENTATION.decode({"classes": canvas}, frame, FcnHead())
    assert found.classes.shape == (height, width)
    assert (found.classes == 3).all()


def test_labels_know_whether_they_exclude_each_other() -> None:
    arrays = {"scores": np.array([0.25, 0.75], np.float32)}
    frame = frame_of(10, 10, RULE)
    assert CLASSIFICATION.decode(arrays, frame, LinearHead()).exclusive
    assert not CLASSIFICATION.decode(arrays, frame, MultilabelHead()).exclusive
