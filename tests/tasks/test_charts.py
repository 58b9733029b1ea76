"""Confusion matrices and precision-recall curves: what a plain count finds, and the law that
parts merge to the whole.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix

from mtl_ray.evaluation.charts import draw_charts
from mtl_ray.samples import image_sample
from mtl_ray.tasks.charts import (
    Charts,
    Confusion,
    PrecisionRecall,
    chart_file,
    chart_of,
    charted_classes,
    interpolated_precision,
)
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.classification.metric import ExclusiveMetric, MultilabelMetric, _bins
from mtl_ray.tasks.detection.columns import ScoredImage
from mtl_ray.tasks.detection.confusion import detection_confusion
from mtl_ray.tasks.detection.metric import DetectionMetric
from tests.tasks.random_objects import detections, instances, random_images, sample_of

NAMES = ("a", "b", "c")
SEEDS = st.integers(0, 10**6)
LEFT, RIGHT = [10.0, 10, 60, 60], [100.0, 100, 180, 180]


def softmax_scores(rng: np.random.Generator, gt: NDArray[np.int64]) -> NDArray[np.float64]:
    odds = rng.normal(size=(len(gt), len(NAMES))) * 2
    odds[np.arange(len(gt)), gt] += 1.5
    return np.asarray(np.exp(odds) / np.exp(odds).sum(1, keepdims=True))


def labelled(
    metric: ExclusiveMetric | MultilabelMetric, gt: list[list[int]], scores: NDArray[np.float64]
) -> None:
    for labels, row in zip(gt, scores, strict=True):
        sample = image_sample(
            key="k", image=b"", height=1, width=1, labels=np.array(labels, np.int64)
        )
        metric.update(
            sample,
            LabelScores(
                scores=row.astype(np.float32), exclusive=isinstance(metric, ExclusiveMetric)
            ),
        )


@settings(max_examples=15)
@given(seed=SEEDS)
def test_one_label_an_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gt = rng.integers(0, 3, 300)
    scores = softmax_scores(rng, gt)
    metric = ExclusiveMetric(NAMES)
    labelled(metric, [[int(label)] for label in gt], scores)
    chart = metric.charts()
    assert chart.confusion is not None
    assert chart.precision_recall is not None
    np.testing.assert_array_equal(chart.confusion.counts, confusion_matrix(gt, scores.argmax(1)))
    binned = np.array([_bins(row) for row in scores])
    for label in range(3):
        np.testing.assert_allclose(
            chart.precision_recall.precision[label],
            plain_curve(binned[:, label], gt == label),
            atol=1e-12,
        )
    exact = [average_precision_score(gt == label, scores[:, label]) for label in range(3)]
    # what the steps of scores and of recalls may cost
    np.testing.assert_allclose(chart.precision_recall.average, exact, atol=0.04)


def plain_curve(scores: NDArray[np.int64], gt: NDArray[np.bool_]) -> list[float]:
    """At each recall the best precision of any threshold that reaches it, score by score."""
    points = []
    for threshold in sorted(set(scores.tolist())):
        right, found = int((gt & (scores >= threshold)).sum()), int((scores >= threshold).sum())
        points.append((right / int(gt.sum()), right / found))
    return [
        max(
            (precision for recall, precision in points if recall >= wanted / 100 - 1e-12),
            default=0.0,
        )
        for wanted in range(101)
    ]


def test_scores_that_are_no_numbers_or_beyond_the_range_are_counted() -> None:
    metric = ExclusiveMetric(NAMES)
    labelled(metric, [[0], [1], [2]], np.array([[np.nan] * 3, [0, 1.0000001, 0], [0, 0, 1]]))
    assert metric.scores.sum() == 9


@settings(max_examples=15)
@given(seed=SEEDS, cut=st.integers(0, 40))
def test_any_number_of_labels(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random((40, 3)) < (0.0, 0.3, 0.6)
    scores = np.clip(present * 0.3 + rng.random((40, 3)) * 0.6, 0, 1).round(2)
    labels = [np.flatnonzero(row).tolist() for row in present]
    whole, first, second = (MultilabelMetric(NAMES) for _ in range(3))
    for metric, part in ((whole, slice(None)), (first, slice(cut)), (second, slice(cut, None))):
        labelled(metric, labels[part], scores[part])
    first.merge(second)
    chart, merged = whole.charts().precision_recall, first.charts().precision_recall
    assert chart is not None
    assert merged is not None
    np.testing.assert_array_equal(chart.precision, merged.precision)
    assert whole.charts().confusion is None
    assert np.isnan(chart.precision[0]).all() == (not present[:, 0].any())
    assert (np.diff(chart.precision[2]) <= 0).all()


@settings(max_examples=15)
@given(seed=SEEDS, cut=st.integers(0, 10))
def test_parts_of_the_objects_merge_to_the_whole(seed: int, cut: int) -> None:
    images = random_images(seed)
    whole, first, second = (DetectionMetric(NAMES) for _ in range(3))
    for metric, part in ((whole, images), (first, images[cut:]), (second, images[:cut])):
        for image in part:
            metric.update(sample_of(image), image.predicted)
    first.merge(second)
    one, other = whole.charts(), first.charts()
    assert one.confusion is not None
    assert other.confusion is not None
    assert one.precision_recall is not None
    assert other.precision_recall is not None
    np.testing.assert_array_equal(one.confusion.counts, other.confusion.counts)
    np.testing.assert_array_equal(one.precision_recall.precision, other.precision_recall.precision)


@settings(max_examples=15)
@given(seed=SEEDS)
def test_every_object_and_every_detection_is_counted_once(seed: int) -> None:
    images = [
        image._replace(
            ground_truth=instances(
                image.ground_truth.boxes_xyxy.tolist(), image.ground_truth.classes.tolist()
            )
        )
        for image in random_images(seed)
    ]
    counts = detection_confusion(images, NAMES).counts
    wanted = np.bincount(
        np.concatenate([image.ground_truth.classes for image in images]), minlength=3
    )
    found = np.bincount(
        np.concatenate(
            [image.predicted.classes[image.predicted.scores >= 0.3] for image in images]
        ),
        minlength=3,
    )
    np.testing.assert_array_equal(counts[:3].sum(1), wanted)
    np.testing.assert_array_equal(counts[:, :3].sum(0), found)
    assert counts[3, 3] == 0


@pytest.mark.parametrize(
    ("boxes", "scores", "classes", "expected"),
    [
        ([LEFT, RIGHT], [0.9, 0.8], [0, 1], {(0, 0): 1, (1, 1): 1}),
        ([LEFT, RIGHT], [0.9, 0.8], [1, 1], {(0, 1): 1, (1, 1): 1}),
        # its own class first, though another is surer
        (
            [LEFT, LEFT],
            [0.4, 0.8],
            [0, 1],
            {(0, 0): 1, (2, 1): 1, (1, 2): 1},
        ),
        ([LEFT, LEFT], [0.4, 0.8], [1, 1], {(0, 1): 1, (2, 1): 1, (1, 2): 1}),
        ([LEFT, RIGHT], [0.2, 0.8], [0, 1], {(0, 2): 1, (1, 1): 1}),
        ([[200.0, 0, 220, 20]], [0.9], [0], {(2, 0): 1, (0, 2): 1, (1, 2): 1}),
        ([], [], [], {(0, 2): 1, (1, 2): 1}),
    ],
)
def test_objects_by_hand(
    boxes: list[list[float]],
    scores: list[float],
    classes: list[int],
    expected: dict[tuple[int, int], int],
) -> None:
    image = ScoredImage(
        "a", 300, 300, instances([LEFT, RIGHT], [0, 1]), detections(boxes, scores, classes)
    )
    counts = detection_confusion([image], ("a", "b")).counts
    assert {
        place: int(counts[place])
        for place in zip(*map(np.ndarray.tolist, np.nonzero(counts)), strict=True)
    } == expected


@pytest.mark.parametrize("kind", ["difficult", "crowd"])
def test_what_need_not_be_found_is_in_no_cell(kind: str) -> None:
    gt = instances([LEFT, RIGHT], [0, 0], **{kind: [False, True]})  # type: ignore[arg-type]
    image = ScoredImage(
        "a", 300, 300, gt, detections([LEFT, RIGHT, RIGHT], [0.5, 0.9, 0.8], [0, 0, 0])
    )
    assert detection_confusion([image], ("a",)).counts.tolist() == [[1, 0], [0, 0]]


def test_classes_beyond_the_limit_share_a_row() -> None:
    counts = np.diag(np.arange(1, 7))
    counts[4, 1], counts[2, 0] = 5, 1
    short = Confusion(names=tuple("abcdef"), counts=counts, unit="images").condensed(3)
    assert short.names == ("b", "e", "4 others")
    assert short.counts.tolist() == [[2, 0, 0], [5, 5, 0], [0, 0, 1 + 3 + 4 + 6 + 1]]


def test_a_curve_by_hand() -> None:
    curve = interpolated_precision(np.array([1, 1, 2]), np.array([1, 2, 3]), 4)
    assert curve[[0, 25, 26, 50, 51, 100]].tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3, 0, 0])
    assert np.isnan(interpolated_precision(np.array([0]), np.array([1]), 0)).all()


def test_pictures_of_what_there_is() -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"class $ number {number} with a long name" for number in range(60))
    precision = np.sort(rng.random((60, 101)))[:, ::-1]
    precision[3] = np.nan
    many = Charts(
        Confusion(names=names, counts=rng.integers(0, 9, (60, 60)), unit="pixels"),
        PrecisionRecall(names=names, precision=precision),
    )
    nothing = Charts(
        Confusion(names=("a",), counts=np.zeros((1, 1), np.int64), unit="images"), None
    )
    drawn = draw_charts({"boxes": many, "labels": nothing})
    assert list(drawn) == ["boxes/confusion", "boxes/pr_curves"]
    assert all(data.startswith(b"\x89PNG") and len(data) > 10_000 for data in drawn.values())
    assert [chart_of(chart_file(name)) for name in drawn] == list(drawn)
    assert chart_of("loss.png") is None
    assert many.precision_recall is not None
    worst = charted_classes(many.precision_recall, 5)
    rest = set(range(60)) - set(worst) - {3}
    average = many.precision_recall.average
    assert all(average[one] <= average[other] for one, other in itertools.product(worst, rest))
