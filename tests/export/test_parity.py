"""What the comparison with torch lets through, and what it does not."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.export.config import ExportConfig
from mtl_ray.export.parity import Arrays, compare, match

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


def failures(expected: Arrays, found: Arrays) -> list[str]:
    return compare("head", expected, found, (96, 128), CONFIG)[1]


def changed(arrays: Arrays_, name: str, change: Callable[[np.ndarray], None]) -> Arrays_:
    copy = {key: value.copy() for key, value in arrays.items()}
    change(copy[name])
    return copy


def test_equal_arrays_agree() -> None:
    check, sentences = compare("head", boxes(), boxes(), (96, 128), CONFIG)
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


def test_one_box_is_nobody_elses_partner_too() -> None:
    near = np.array([[[0, 0, 100, 100], [0, 0, 100, 101]]], np.float32)
    expected = {"boxes": near, "scores": np.array([[0.9, 0.8]]), "classes": np.zeros((1, 2))}
    found = {**expected, "boxes": np.array([[[0, 0, 100, 100], [50, 50, 60, 60]]], np.float32)}
    check, sentences = compare("head", expected, found, (96, 128), CONFIG)
    assert check.agree == 0.5
    assert sentences


def test_maps_and_labels_and_candidates() -> None:
    rng = np.random.default_rng(0)
    classes = {"classes": rng.integers(0, 3, (2, 40, 40)).astype(np.uint8)}
    assert failures(classes, classes) == []
    few = changed(classes, "classes", lambda a: a.__setitem__((0, 0, slice(0, 3)), 9))
    assert failures(classes, few) == [], "three pixels in 3,200 are within 0.1 %"
    many = changed(classes, "classes", lambda a: a.__setitem__((0, 0, slice(0, 4)), 9))
    assert failures(classes, many)
    scores = {"scores": rng.dirichlet(np.ones(5), 4).astype(np.float32)}
    assert failures(scores, scores) == []
    assert failures(scores, {"scores": scores["scores"] + 2e-4})
    assert failures(scores, {"scores": scores["scores"][:3]})
    raw = {"candidates": rng.uniform(0, 1, (2, 50, 8)).astype(np.float32)}
    assert failures(raw, raw) == []
    assert failures(raw, changed(raw, "candidates", lambda a: a.__setitem__((0, 0, 0), a[0, 0, 0] + 0.02)))
    assert failures(raw, changed(raw, "candidates", lambda a: a.__setitem__((0, 0, 7), a[0, 0, 7] + 2e-4)))
    assert failures(raw, changed(raw, "candidates", lambda a: a.__setitem__((0, 0, 7), np.nan)))


def test_candidates_far_outside_the_canvas_count_by_their_edge() -> None:
    raw = {"candidates": np.full((1, 1, 6), 1e7, np.float32)}
    assert failures(raw, changed(raw, "candidates", lambda a: a.__setitem__((0, 0, 2), 1e7 + 5))) == []


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(range(8)))
def test_any_order_is_matched_back(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 500, (8, 2))
    ours = (np.concatenate([corner, corner + rng.uniform(20, 60, (8, 2))], 1), rng.random(8), rng.integers(0, 2, 8))
    theirs = tuple(values[list(order)] for values in ours)
    first, second = match(ours, theirs)
    assert len(first) == 8
    np.testing.assert_array_equal(ours[0][first], theirs[0][second])
