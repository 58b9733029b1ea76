"""What the comparison with torch lets through, and what it does not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.experiment import tasks
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.parity import (
    SIDES,
    BatchArrays,
    ParityCheck,
    compare_arrays,
    compare_predictions,
)
from mtl_ray.geometry.masks import encode_rle
from mtl_ray.inputs.frame import frame_of
from mtl_ray.inputs.image import Canvas
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.classification.task import CLASSIFICATION
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.difference import array_difference, match_boxes
from mtl_ray.tasks.detection.task import DETECTION
from mtl_ray.tasks.difference import Comparison
from mtl_ray.tasks.segmentation.decode import SemanticMap
from mtl_ray.tasks.segmentation.task import SEGMENTATION
from mtl_ray.tasks.task import Task

CONFIG = ExportConfig()
Arrays_ = dict[str, np.ndarray]


def boxes(seed: int = 0, batch: int = 2, count: int = 20) -> Arrays_:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 80, (batch, count, 2))
    side = rng.uniform(5, 40, (batch, count, 2))
    scores = -np.sort(-rng.uniform(0.05, 1, (batch, count)), axis=1)
    scores[:, count - 3 :] = 0
    return {
        "boxes": np.concatenate([corner, corner + side], axis=2).astype(np.float32),
        "scores": scores.astype(np.float32),
        "classes": rng.integers(0, 3, (batch, count)),
    }


def failures(
    expected: BatchArrays, found: BatchArrays, task: Task[Any, Any] = DETECTION
) -> list[str]:
    return compared(expected, found, task)[1]


def compared(
    expected: BatchArrays, found: BatchArrays, task: Task[Any, Any] = DETECTION
) -> tuple[ParityCheck, list[str]]:
    batch = len(next(iter(expected.values())))
    return compare_arrays(
        replace(CHECK, batch=batch), task, expected, found, PLACEMENTS[:1] * batch, CONFIG
    )


def changed(arrays: Arrays_, name: str, change: Callable[[np.ndarray], None]) -> Arrays_:
    copy = {key: value.copy() for key, value in arrays.items()}
    change(copy[name])
    return copy


def test_equal_arrays_agree() -> None:
    check, sentences = compared(boxes(), boxes())
    assert sentences == []
    assert (check.max_abs, check.max_score, check.agree, check.count) == (0, 0, 1, 68)


def test_order_and_padding_do_not_matter() -> None:
    expected = boxes()
    turned = {name: value[:, ::-1].copy() for name, value in expected.items()}
    turned["boxes"][turned["scores"] == 0] = 7
    assert failures(expected, turned) == []


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        ("boxes", lambda a: a.__setitem__((0, 3, 0), a[0, 3, 0] + 0.02), "max_abs"),
        ("boxes", lambda a: a.__setitem__((1, 0), [0, 0, 1, 1]), "agree"),
        ("boxes", lambda a: a.__setitem__((1, 0, 2), np.nan), "agree"),
        ("scores", lambda a: a.__setitem__((0, 0), a[0, 0] - 2e-4), "max_score"),
        ("scores", lambda a: a.__setitem__((0, 0), 0), "agree"),
        ("scores", lambda a: a.__setitem__((0, 19), 0.5), "agree"),
        ("scores", lambda a: a.__setitem__((0, 0), np.nan), "agree"),
        ("classes", lambda a: a.__setitem__((0, 0), 2 - a[0, 0] // 2), "agree"),
    ],
)
def test_boxes_that_differ(name: str, change: Callable[[np.ndarray], None], part: str) -> None:
    (sentence, *_) = failures(boxes(), changed(boxes(), name, change))
    assert part in sentence


def test_equal_scores_at_the_cut_have_no_order() -> None:
    """Of objects with the lowest score of a full list either may be kept, but no better one."""
    expected = boxes(batch=1)
    expected["scores"][:, 15:] = expected["scores"][:, 15:16]
    found = changed(expected, "boxes", lambda a: a.__setitem__((0, 19), [90, 90, 99, 99]))
    assert failures(expected, found) == []
    better = changed(expected, "boxes", lambda a: a.__setitem__((0, 14), [90, 90, 99, 99]))
    assert failures(expected, better)
    padded = [
        changed(each, "scores", lambda a: a.__setitem__((0, 0), 0)) for each in (expected, found)
    ]
    assert failures(*padded)


@pytest.mark.parametrize("count", [1, 3])
def test_a_full_list_without_one_equal_box_is_refused(count: int) -> None:
    """All of its scores are the lowest one, as where a head gives one box of each image."""
    expected = boxes(batch=1, count=20)
    expected = {name: values[:, :count] for name, values in expected.items()}
    expected["scores"][:] = 0.9
    found = changed(expected, "boxes", lambda a: np.add(a, [300, 0, 300, 0], out=a))
    assert "0.0000% agree" in failures(expected, found)[0]
    ours, theirs = (
        Detections(
            boxes_xyxy=each["boxes"][0], scores=each["scores"][0], classes=each["classes"][0]
        )
        for each in (expected, found)
    )
    assert refused([ours, OBJECTS[1]], [ours, OBJECTS[1]]) == []
    assert refused([ours, OBJECTS[1]], [theirs, OBJECTS[1]])


def test_one_box_is_nobody_elses_partner_too() -> None:
    near = np.array([[[0, 0, 100, 100], [0, 0, 100, 101], [0] * 4]], np.float32)
    expected = {"boxes": near, "scores": np.array([[0.9, 0.8, 0]]), "classes": np.zeros((1, 3))}
    other = [[[0, 0, 100, 100], [50, 50, 60, 60], [0] * 4]]
    found = {**expected, "boxes": np.array(other, np.float32)}
    check, sentences = compared(expected, found)
    assert check.agree == 0.5
    assert sentences


def test_maps_and_labels_and_candidates() -> None:
    rng = np.random.default_rng(0)
    classes = {"classes": rng.integers(0, 3, (2, 40, 40)).astype(np.uint8)}
    assert failures(classes, classes, SEGMENTATION) == []
    few = changed(classes, "classes", lambda a: a.__setitem__((0, 0, slice(0, 3)), 9))
    assert failures(classes, few, SEGMENTATION) == [], "three pixels in 3,200 are within 0.1 %"
    many = changed(classes, "classes", lambda a: a.__setitem__((0, 0, slice(0, 4)), 9))
    assert failures(classes, many, SEGMENTATION)
    scores = {"scores": rng.dirichlet(np.ones(5), 4).astype(np.float32)}
    assert failures(scores, scores, CLASSIFICATION) == []
    assert failures(scores, {"scores": scores["scores"] + 2e-4}, CLASSIFICATION)
    assert failures(scores, {"scores": scores["scores"][:3]}, CLASSIFICATION)
    raw = {"candidates": rng.uniform(0, 1, (2, 50, 8)).astype(np.float32)}
    assert failures(raw, raw) == []
    assert failures(
        raw, changed(raw, "candidates", lambda a: a.__setitem__((0, 0, 0), a[0, 0, 0] + 0.02))
    )
    assert failures(
        raw, changed(raw, "candidates", lambda a: a.__setitem__((0, 0, 7), a[0, 0, 7] + 2e-4))
    )
    assert failures(raw, changed(raw, "candidates", lambda a: a.__setitem__((0, 0, 7), np.nan)))


def test_candidates_far_outside_the_canvas_count_by_their_edge() -> None:
    raw = {"candidates": np.full((1, 1, 6), 1e7, np.float32)}
    assert (
        failures(raw, changed(raw, "candidates", lambda a: a.__setitem__((0, 0, 2), 1e7 + 5))) == []
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(range(8)))
def test_any_order_is_matched_back(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 500, (8, 2))
    ours = (
        np.concatenate([corner, corner + rng.uniform(20, 60, (8, 2))], 1),
        rng.random(8),
        rng.integers(0, 2, 8),
    )
    theirs = tuple(values[list(order)] for values in ours)
    first, second = match_boxes(ours, theirs)
    assert len(first) == 8
    np.testing.assert_array_equal(ours[0][first], theirs[0][second])


PLACEMENTS = [
    frame_of(480, 640, Canvas(height=96, width=128)),
    frame_of(700, 300, Canvas(height=96, width=128)),
]
CHECK = ParityCheck(head="head", canvas="128x96", batch=2)


def blob(x: int, y: int, height: int, width: int) -> bytes:
    mask = np.zeros((height, width), bool)
    mask[y : y + 60, x : x + 60] = True
    return encode_rle(mask)


def objects(frame: Any) -> Detections:
    corner = np.array([[20, 30], [120, 200], [150, 30]], np.float32)
    return Detections(
        boxes_xyxy=np.concatenate([corner, corner + 60], axis=1),
        scores=np.array([0.9, 0.5, 0.2], np.float32),
        classes=np.array([0, 1, 1]),
        masks=tuple(blob(int(x), int(y), frame.height, frame.width) for x, y in corner),
        keypoints=np.concatenate(
            [corner[:, None] + np.array([[5.0, 5], [40, 50]]), np.full((3, 2, 1), 0.7)], axis=2
        ).astype(np.float32),
    )


OBJECTS = [objects(frame) for frame in PLACEMENTS]


def refused(expected: list[Any], found: list[Any], task: Task[Any, Any] = DETECTION) -> list[str]:
    return compare_predictions(CHECK, task, expected, found, PLACEMENTS, CONFIG)[1]


def test_equal_predictions_agree_whatever_their_order() -> None:
    order = [2, 0, 1]
    turned = [
        Detections(
            boxes_xyxy=each.boxes_xyxy[order],
            scores=each.scores[order],
            classes=each.classes[order],
            masks=tuple(each.masks[i] for i in order) if each.masks else None,
            keypoints=None if each.keypoints is None else each.keypoints[order],
        )
        for each in OBJECTS
    ]
    check, sentences = compare_predictions(CHECK, DETECTION, OBJECTS, turned, PLACEMENTS, CONFIG)
    assert sentences == []
    assert (check.agree, check.count, check.max_abs) == (1, 12, 0)


def test_the_end_of_a_list_is_open_only_where_the_arrays_agree() -> None:
    each = OBJECTS[0]
    boxes = each.boxes_xyxy.copy()
    boxes[each.scores.argmin()] = [1, 1, 3, 3]
    other = replace(each, boxes_xyxy=boxes)
    counted = [
        DETECTION.difference(each, other, Comparison(frame=PLACEMENTS[0], sides=SIDES, cut=cut))
        for cut in (False, True)
    ]
    assert counted[0].agreeing < counted[0].count
    assert counted[1].agreeing == counted[1].count == counted[0].agreeing


def moved(array: Any, index: Any, by: float) -> Any:
    copy = np.array(array)
    copy[index] += by
    return copy


@pytest.mark.parametrize(
    ("field", "change", "part"),
    [
        ("boxes_xyxy", lambda found: moved(found.boxes_xyxy, (0, 0), 0.5), "max_abs"),
        ("boxes_xyxy", lambda found: moved(found.boxes_xyxy, (0, slice(None)), 200), "agree"),
        ("scores", lambda found: moved(found.scores, 1, 0.01), "max_score"),
        ("classes", lambda found: moved(found.classes, 0, 1), "agree"),
        ("masks", lambda found: (found.masks[1], *found.masks[1:]), "agree"),
        ("masks", lambda found: (b"", *found.masks[1:]), "agree"),
        ("masks", lambda found: None, "only torch has 'masks'"),
        ("keypoints", lambda found: moved(found.keypoints, (2, 1, 0), 500), "max_abs"),
        ("keypoints", lambda found: moved(found.keypoints, (2, 1, 2), 0.1), "max_score"),
        ("keypoints", lambda found: moved(found.keypoints, (2, 1, 1), np.nan), "max_abs"),
        ("keypoints", lambda found: found.keypoints[:, :1], "shapes"),
        ("keypoints", lambda found: found.keypoints[:2], "shapes"),
        ("keypoints", lambda found: None, "only torch has 'keypoints'"),
    ],
)
def test_objects_that_differ_in_one_field(
    field: str, change: Callable[[Detections], Any], part: str
) -> None:
    found = [OBJECTS[0], replace(OBJECTS[1], **{field: change(OBJECTS[1])})]
    assert any(part in sentence for sentence in refused(OBJECTS, found))


def test_a_few_pixels_of_a_small_mask_do_not_matter() -> None:
    """Rounding changes a large share of a mask with few pixels in a large box."""
    spot, none = np.zeros((480, 640), bool), encode_rle(np.zeros((480, 640), bool))
    spot[40:43, 30:33] = True
    small = replace(OBJECTS[0], masks=(encode_rle(spot), *(OBJECTS[0].masks or ())[1:]))
    empty = replace(OBJECTS[0], masks=(none, *(OBJECTS[0].masks or ())[1:]))
    assert refused([small, OBJECTS[1]], [empty, OBJECTS[1]]) == []
    spot[40:60, 30:60] = True
    large = replace(OBJECTS[0], masks=(encode_rle(spot), *(OBJECTS[0].masks or ())[1:]))
    assert refused([large, OBJECTS[1]], [empty, OBJECTS[1]]) != []


def test_probabilities_of_masks_are_compared_as_scores_are() -> None:
    rng = np.random.default_rng(0)
    more = {**boxes(), "masks": rng.random((2, 20, 28, 28)).astype(np.float32)}
    assert failures(more, changed(more, "masks", lambda a: a.__iadd__(1e-6))) == []
    (sentence,) = failures(more, changed(more, "masks", lambda a: a[1, 2].__iadd__(1e-2)))
    assert "max_score is 0.01" in sentence


def test_maps_and_labels_that_differ_in_one_field() -> None:
    rng = np.random.default_rng(0)
    maps = [
        SemanticMap(classes=rng.integers(0, 3, (each.height, each.width)).astype(np.uint8))
        for each in PLACEMENTS
    ]
    assert refused(maps, maps, SEGMENTATION) == []
    shifted = [maps[0], SemanticMap(classes=np.roll(maps[1].classes, 1, axis=0))]
    assert any("agree" in sentence for sentence in refused(maps, shifted, SEGMENTATION))
    assert any(
        "shapes" in sentence
        for sentence in refused(
            maps, [maps[0], SemanticMap(classes=maps[1].classes[:-1])], SEGMENTATION
        )
    )
    labels = [
        LabelScores(scores=rng.dirichlet(np.ones(4)).astype(np.float32), exclusive=True)
        for _ in PLACEMENTS
    ]
    assert refused(labels, labels, CLASSIFICATION) == []
    assert any(
        "max_score" in sentence
        for sentence in refused(
            labels, [replace(labels[0], scores=labels[0].scores + 0.01), labels[1]], CLASSIFICATION
        )
    )
    assert any(
        "agree" in sentence
        for sentence in refused(
            labels, [replace(labels[0], exclusive=False), labels[1]], CLASSIFICATION
        )
    )
    assert any("types" in sentence for sentence in refused(labels, [labels[0], maps[1]]))


@dataclass(frozen=True)
class Deep:
    scores: Any
    depth: Any


def test_what_nobody_can_compare_is_refused_and_never_equal() -> None:
    deep = [Deep(scores=np.ones(3), depth=np.ones((4, 4))) for _ in PLACEMENTS]
    for task in tasks():
        assert any(
            "'depth' is a field that cannot be compared" in sentence
            for sentence in refused(deep, deep, task)
        ), task.name
    more = {**boxes(), "depth": np.ones((2, 20))}
    assert any("'depth' is a field" in sentence for sentence in failures(more, more))
    assert any(
        "only the bundle has 'keypoints'" in sentence
        for sentence in failures(boxes(), {**boxes(), "keypoints": np.ones((2, 20, 5, 3))})
    )
    assert any(
        "only torch has 'classes'" in sentence
        for sentence in failures(boxes(), {k: v for k, v in boxes().items() if k != "classes"})
    )


def test_arrays_of_masks_and_keypoints_are_compared_too() -> None:
    rng = np.random.default_rng(0)
    more = {
        **boxes(),
        "masks": rng.random((2, 20, 8, 8)) > 0.5,
        "keypoints": rng.uniform(0, 90, (2, 20, 5, 3)).astype(np.float32),
    }
    assert failures(more, more) == []
    assert failures(more, changed(more, "masks", lambda a: np.logical_not(a, out=a)))
    assert failures(
        more, changed(more, "keypoints", lambda a: a.__setitem__((0, 0, 0, 0), a[0, 0, 0, 0] + 60))
    )
    assert failures(more, changed(more, "keypoints", lambda a: a.__setitem__((0, 19), 60))) == [], (
        "padding"
    )


@pytest.mark.parametrize(("moved", "agreeing"), [(0.0, 6), (0.01, 6), (5.0, 2)])
def test_boxes_without_area_are_compared_too(moved: float, agreeing: int) -> None:
    """A network that has learnt little gives many; they overlap nothing, not even themselves."""
    boxes = np.array([[5, 5, 20, 20], [30, 10, 20, 40], [50, 50, 40, 45]], np.float32)
    fields = {
        "boxes": boxes,
        "scores": np.array([0.5, 0.4, 0.3], np.float32),
        "classes": np.zeros(3, np.int64),
    }
    other = {**fields, "boxes": boxes + np.array([[0], [moved], [moved]], np.float32)}
    how = Comparison(frame=frame_of(64, 64, Canvas(height=64, width=64)), sides=("a", "b"))
    found = array_difference(fields, other, how)
    assert (found.agreeing, found.max_px) == (
        agreeing,
        pytest.approx(moved % 5, abs=1e-4),
    )
