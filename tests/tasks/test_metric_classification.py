"""Accuracy, precision and average precision against scikit-learn, and the laws of their state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.tasks.classification.config import LinearHead, MultilabelHead
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.classification.metric import ExclusiveMetric, MultilabelMetric
from mtl_ray.tasks.classification.task import CLASSIFICATION

NAMES = tuple("abcdefg")
VOCABULARY = Vocabulary(classes={"labels": NAMES})
SEEDS = st.integers(0, 10**6)


def sample(labels: list[int] | None) -> Sample:
    return image_sample(
        key="k",
        image=b"",
        height=1,
        width=1,
        labels=None if labels is None else np.array(labels, np.int64),
    )


def exclusive(gt: list[int], scores: list[list[float]]) -> ExclusiveMetric:
    counted = CLASSIFICATION.metric(LinearHead(), VOCABULARY)
    assert isinstance(counted, ExclusiveMetric)
    for label, row in zip(gt, scores, strict=True):
        counted.update(
            sample([label]), LabelScores(scores=np.array(row, np.float32), exclusive=True)
        )
    return counted


def multilabel(gt: np.ndarray, scores: np.ndarray) -> MultilabelMetric:
    counted = CLASSIFICATION.metric(MultilabelHead(), VOCABULARY)
    assert isinstance(counted, MultilabelMetric)
    for present, row in zip(gt, scores, strict=True):
        counted.update(
            sample(np.flatnonzero(present).tolist()),
            LabelScores(scores=row.astype(np.float32), exclusive=False),
        )
    return counted


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_exclusive_figures_are_those_of_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gt, scores = rng.integers(0, 7, 60), rng.random((60, 7)).round(2)
    scores[np.arange(60), gt] += rng.random(60) * 0.5
    counted = exclusive(gt.tolist(), scores.tolist())
    best = scores.argmax(1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        gt, best, labels=range(7), zero_division=0
    )
    result = counted.result()
    assert result["top1"] == pytest.approx((best == gt).mean())
    rank = np.argsort(-scores.astype(np.float32), axis=1, kind="stable")[:, :5]
    assert result["top5"] == pytest.approx((rank == gt[:, None]).any(1).mean())
    used = np.array([label in gt or label in best for label in range(7)])
    assert result["precision"] == pytest.approx(precision[used].mean())
    assert result["f1"] == pytest.approx(f1[used].mean())
    assert result["recall"] == pytest.approx(recall[np.unique(gt)].mean())


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_multilabel_figures_are_those_of_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gt = rng.random((50, 7)) < np.linspace(0, 0.6, 7)
    scores = (
        np.clip(gt * rng.random((50, 7)) + rng.random((50, 7)) * 0.5, 0, 1)
        .round(1)
        .astype(np.float32)
    )
    counted = multilabel(gt, scores)
    table, result = counted.per_class(), counted.result()
    known = []
    for number, name in enumerate(NAMES):
        if gt[:, number].any():
            known.append(average_precision_score(gt[:, number], scores[:, number]))
            assert table[name]["AP"] == pytest.approx(known[-1])
        else:
            assert np.isnan(table[name]["AP"])
    assert result["mAP"] == pytest.approx(np.mean(known))
    assert result["micro_f1"] == pytest.approx(
        f1_score(gt, scores >= 0.5, average="micro", zero_division=0)
    )


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, cut=st.integers(0, 20))
def test_merging_any_split_is_one_pass(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    gt, scores = rng.integers(0, 7, 20), rng.random((20, 7)).round(1)
    first, second = (
        exclusive(gt[:cut].tolist(), scores[:cut].tolist()),
        exclusive(gt[cut:].tolist(), scores[cut:].tolist()),
    )
    second.confusion.flags.writeable = (
        False  # as the arrays are that come back from another process
    )
    second.merge(first)
    assert second.result() == pytest.approx(
        exclusive(gt.tolist(), scores.tolist()).result(), nan_ok=True
    )
    many = rng.random((20, 7)) < 0.3
    left, right = multilabel(many[:cut], scores[:cut]), multilabel(many[cut:], scores[cut:])
    right.merge(left)
    assert right.result() == pytest.approx(multilabel(many, scores).result(), nan_ok=True)


def test_images_without_labels_are_left_out_or_negative() -> None:
    one = CLASSIFICATION.metric(LinearHead(), VOCABULARY)
    many = CLASSIFICATION.metric(MultilabelHead(), VOCABULARY)
    scores = LabelScores(scores=np.linspace(0, 1, 7, dtype=np.float32), exclusive=True)
    for counted in (one, many):
        counted.update(sample(None), scores)
        assert all(np.isnan(value) for value in counted.result().values())
    one.update(sample([]), scores)
    assert np.isnan(one.result()["top1"])
    many.update(sample([]), scores)
    many.update(sample([2]), scores)
    assert many.result()["micro_precision"] == 0.0
    assert many.per_class()["c"]["AP"] == pytest.approx(0.5)


def test_several_labels_are_too_many_for_one() -> None:
    counted = CLASSIFICATION.metric(LinearHead(), VOCABULARY)
    with pytest.raises(ValueError, match="2 labels"):
        counted.update(sample([1, 2]), LabelScores(scores=np.zeros(7, np.float32), exclusive=True))
