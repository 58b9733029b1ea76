"""Average precision is the reference's to the last digit, merges in any order, and VOC's is what
a plain loop finds.
"""

import dataclasses
import random
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.geometry.boxes import iou_matrix
from mtl_ray.geometry.masks import encode_rle
from mtl_ray.tasks.detection.coco import OTHER_SIGMA, CocoKind, coco_curves
from mtl_ray.tasks.detection.columns import ScoredImage
from mtl_ray.tasks.detection.metric import DetectionMetric
from mtl_ray.tasks.detection.voc import voc_table
from tests.tasks.random_objects import (
    HEIGHT,
    WIDTH,
    detections,
    instances,
    random_images,
    sample_of,
)
from tests.tasks.reference_coco import reference

NAMES = ("a", "b", "c")
SEEDS = st.integers(0, 10**6)


def measured(images: list[ScoredImage], names: tuple[str, ...] = NAMES) -> DetectionMetric:
    metric = DetectionMetric(names)
    for image in images:
        metric.update(sample_of(image), image.predicted)
    return metric


def same(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key], equal_nan=True) for key in first
    )


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_curves_are_those_of_pycocotools(kind: CocoKind, seed: int) -> None:
    images = random_images(seed)
    if not any(len(image.predicted) for image in images):
        return
    precision, recall = reference(kind, images, 3)
    ours = coco_curves(kind, images, 3)
    np.testing.assert_allclose(ours.precision, precision, atol=1e-9)
    np.testing.assert_allclose(ours.recall, recall, atol=1e-9)


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_the_comparison_can_fail(kind: CocoKind) -> None:
    images = random_images(3)
    precision, _ = reference(kind, images, 3)
    crowd_lost = [
        image._replace(
            ground_truth=dataclasses.replace(
                image.ground_truth,
                crowd=np.zeros_like(image.ground_truth.crowd),
                areas=image.ground_truth.areas / 2,
            )
        )
        for image in images
    ]
    assert (precision > -1).any()
    assert np.abs(coco_curves(kind, crowd_lost, 3).precision - precision).max() > 1e-3


def test_masks_have_their_own_area_with_and_without_boxes() -> None:
    """pycocotools takes the area of a mask from a box that stands beside it."""
    images = random_images(5)
    bare = [
        image._replace(
            predicted=dataclasses.replace(
                image.predicted, boxes_xyxy=image.predicted.boxes_xyxy * np.nan
            )
        )
        for image in images
    ]
    for each in (bare, images):
        np.testing.assert_allclose(
            coco_curves("segm", each, 3).precision, reference("segm", bare, 3)[0], atol=1e-9
        )
    result = measured(bare).result()
    assert result["segm_mAP"] > 0
    assert all(name.startswith(("segm_", "keypoints_")) for name in result), (
        "what was not measured has no figure"
    )
    chart = measured(bare).charts()
    assert chart.confusion is None
    assert chart.precision_recall is not None
    assert chart.precision_recall.note == "mask IoU 0.5"


def test_keypoints_of_another_set_have_one_spread_for_all() -> None:
    images = random_images(8, points=4)
    precision, _ = reference("keypoints", images, 3, sigmas=[OTHER_SIGMA] * 4)
    np.testing.assert_allclose(coco_curves("keypoints", images, 3).precision, precision, atol=1e-9)


def test_an_object_whose_id_is_zero_is_found() -> None:
    boxes = [[10.0, 10, 60, 60], [100, 100, 180, 180]]
    image = ScoredImage("0.jpg", 200, 200, instances(boxes), detections(boxes, [0.9, 0.8]))
    assert image.ground_truth.ids.tolist() == [0, 1]
    assert measured([image], ("a",)).result()["mAP"] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["difficult", "crowd"])
def test_what_need_not_be_found_counts_neither_way(kind: str) -> None:
    boxes = [[10.0, 10, 60, 60], [100, 100, 180, 180]]
    gt = instances(boxes, **{kind: [False, True]})  # type: ignore[arg-type]
    found = ScoredImage("a", 200, 200, gt, detections(boxes, [0.5, 0.9]))
    missed = ScoredImage("a", 200, 200, gt, detections(boxes[:1], [0.5]))
    for image in (found, missed):
        result = measured([image], ("a",)).result()
        assert result["mAP"] == pytest.approx(1.0)
        assert result["voc_mAP"] == result["voc_recall"] == 1.0
    assert measured([found], ("a",)).per_class()["a"]["objects"] == 1


def test_an_object_without_a_mask_is_ignored_among_masks() -> None:
    image = next(
        image
        for image in random_images(2)
        if len(image.ground_truth) > 1 and not image.ground_truth.crowd.any()
    )
    masks = image.ground_truth.masks
    assert masks is not None
    found = dataclasses.replace(
        detections(
            image.ground_truth.boxes_xyxy.tolist(),
            [0.9] * len(masks),
            image.ground_truth.classes.tolist(),
        ),
        masks=masks,
    )
    undrawn = dataclasses.replace(image.ground_truth, masks=(b"", *masks[1:]))
    result = measured([image._replace(ground_truth=undrawn, predicted=found)]).result()
    assert result["segm_mAP"] >= 0.5


def empty_masks(images: list[ScoredImage], seed: int) -> list[ScoredImage]:
    """The same, where some of the predicted and the annotated masks have no pixel."""
    rng = np.random.default_rng(seed)
    nothing = encode_rle(np.zeros((HEIGHT, WIDTH), bool))
    changed = []
    for image in images:
        gt, found = (
            tuple(nothing if rng.random() < 0.2 else mask for mask in each.masks or ())
            for each in (image.ground_truth, image.predicted)
        )
        changed.append(
            image._replace(
                ground_truth=dataclasses.replace(image.ground_truth, masks=gt),
                predicted=dataclasses.replace(image.predicted, masks=found),
            )
        )
    return changed


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_masks_without_a_pixel_count_as_in_pycocotools(seed: int) -> None:
    images = empty_masks(random_images(seed), seed)
    if not any(len(image.predicted) for image in images):
        return
    precision, recall = reference("segm", images, 3)
    ours = coco_curves("segm", images, 3)
    np.testing.assert_allclose(ours.precision, precision, atol=1e-12)
    np.testing.assert_allclose(ours.recall, recall, atol=1e-12)


def test_images_with_boxes_only_do_not_count_for_masks() -> None:
    images = random_images(7, count=12)
    bare = [
        image._replace(ground_truth=dataclasses.replace(image.ground_truth, masks=None))
        if place % 3 == 0
        else image._replace(
            ground_truth=dataclasses.replace(
                image.ground_truth, masks=(b"",) * len(image.ground_truth)
            )
        )
        if place % 3 == 1 and len(image.ground_truth)
        else image
        for place, image in enumerate(images)
    ]
    kept = [image for image in bare if image.ground_truth.masks is not None]
    kept = [
        image for image in kept if not image.ground_truth.masks or any(image.ground_truth.masks)
    ]
    assert 0 < len(kept) < len(images)
    result, whole, of_kept = (measured(each).result() for each in (bare, images, kept))
    assert result["mAP"] == whole["mAP"]
    names = [name for name in result if name.startswith("segm_")]
    assert names
    assert same({name: result[name] for name in names}, {name: of_kept[name] for name in names})
    only_boxes = [
        image._replace(ground_truth=dataclasses.replace(image.ground_truth, masks=None))
        for image in images
    ]
    assert not any(name.startswith("segm_") for name in measured(only_boxes).result())


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, cut=st.integers(0, 10))
def test_merging_any_split_in_any_order_is_one_pass(seed: int, cut: int) -> None:
    images = random_images(seed)
    shuffled = images.copy()
    random.Random(seed).shuffle(shuffled)
    first, second = measured(shuffled[:cut]), measured(shuffled[cut:])
    first.merge(second)
    whole = measured(images)
    assert same(first.result(), whole.result())
    assert all(same(first.per_class()[name], whole.per_class()[name]) for name in NAMES)


def test_equal_scores_are_met_in_the_order_of_the_numbers_in_the_keys() -> None:
    box = [10.0, 10, 60, 60]
    right = ScoredImage("b/9\u00b2.jpg", 99, 99, instances([box]), detections([box], [0.5]))
    wrong = ScoredImage("b/10.jpg", 99, 99, instances([box]), detections([[0, 0, 5, 5]], [0.5]))
    first_right, first_wrong = (
        measured([wrong, right], ("a",)),
        measured([right._replace(key="b/11.jpg"), wrong], ("a",)),
    )
    assert first_right.result()["voc_mAP"] == pytest.approx(0.5)
    assert first_wrong.result()["voc_mAP"] == pytest.approx(0.25)


def test_nothing_annotated_is_nan() -> None:
    metric = DetectionMetric(NAMES)
    metric.update(
        sample_of(random_images(0)[0]).with_annotations(instances=None), detections([], [])
    )
    assert not metric.images
    assert all(np.isnan(value) for value in metric.result().values())
    empty = measured([ScoredImage("a", 9, 9, instances([]), detections([[1, 1, 3, 3]], [0.5]))])
    assert np.isnan(empty.result()["mAP"])


def plain_voc(images: list[ScoredImage], label: int) -> tuple[float, float, float]:
    """VOC's protocol as a loop over detections, best first; area, eleven points, recall."""
    pool = sorted(
        (
            (-float(score), i, n)
            for i, image in enumerate(images)
            for n, score in enumerate(image.predicted.scores)
            if image.predicted.classes[n] == label
        )
    )
    wanted = sum(
        int(((image.ground_truth.classes == label) & ~image.ground_truth.crowd).sum())
        for image in images
    )
    taken: set[tuple[int, int]] = set()
    marks: list[bool] = []
    for _, i, n in pool:
        gt = images[i].ground_truth
        overlaps = [
            (
                iou_matrix(images[i].predicted.boxes_xyxy[n : n + 1], gt.boxes_xyxy[m : m + 1])[
                    0, 0
                ],
                -m,
            )
            for m in range(len(gt))
            if gt.classes[m] == label
        ]
        best, place = max(overlaps, default=(0.0, 0))
        if best >= 0.5 and gt.crowd[-place]:
            continue
        marks.append(best >= 0.5 and (i, place) not in taken)
        taken.add((i, place)) if best >= 0.5 else None
    hits, curve = 0, []
    for seen, mark in enumerate(marks, 1):
        hits += mark
        curve.append((hits / wanted, hits / seen))
    area = sum(
        (r - (curve[k - 1][0] if k else 0.0)) * max(p for _, p in curve[k:])
        for k, (r, _) in enumerate(curve)
    )
    eleven = (
        sum(max((p for r, p in curve if r >= level / 10), default=0.0) for level in range(11)) / 11
    )
    return area, eleven, hits / wanted


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_voc_is_what_a_plain_loop_finds(seed: int) -> None:
    images = random_images(seed)
    table = voc_table(images, 4)
    for label in range(4):
        if any(
            ((image.ground_truth.classes == label) & ~image.ground_truth.crowd).any()
            for image in images
        ):
            area, eleven, recall = plain_voc(images, label)
            assert (table.area[label], table.eleven[label], table.recall[label]) == pytest.approx(
                (area, eleven, recall)
            )
        else:
            assert np.isnan(table.area[label])
            assert np.isnan(table.recall[label])


def test_voc_counts_a_second_hit_as_wrong() -> None:
    box = [10.0, 10, 60, 60]
    image = ScoredImage(
        "a",
        99,
        99,
        instances([box]),
        detections([box, box, [200, 200, 210, 210]], [0.9, 0.8, 0.95]),
    )
    table = voc_table([image], 1)
    assert table.area[0] == table.eleven[0] == pytest.approx(0.5)
    assert table.recall[0] == 1.0
