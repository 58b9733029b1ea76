"""Overlap of class maps against a plain count, and the laws of its state."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.tasks.segmentation.config import FcnHead
from mtl_ray.tasks.segmentation.decode import SemanticMap
from mtl_ray.tasks.segmentation.metric import SemanticMetric, pixel_confusion
from mtl_ray.tasks.segmentation.task import SEGMENTATION

VOCABULARY = Vocabulary(classes={"semantic": ("sky", "road", "tree", "unseen")})


def sample(gt: NDArray[np.uint8], key: str = "a") -> Sample:
    _, png = cv2.imencode(".png", gt)
    return image_sample(
        key=key, image=b"", height=gt.shape[0], width=gt.shape[1], semantic=png.tobytes()
    )


def random_pair(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 40, 2))
    gt = rng.choice(np.array([0, 1, 2, 255], np.uint8), shape)
    found = np.where(rng.random(shape) < 0.7, gt, rng.integers(0, 3, shape)).astype(np.uint8)
    found[found == 255] = 0
    return gt, found


def measured(seeds: list[int]) -> SemanticMetric:
    counted = SEGMENTATION.metric(FcnHead(), VOCABULARY)
    for seed in seeds:
        gt, found = random_pair(seed)
        counted.update(sample(gt), SemanticMap(classes=found))
    return counted


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_figures_are_a_plain_count(seed: int) -> None:
    gt, found = random_pair(seed)
    known = gt != 255
    table = measured([seed]).per_class()
    right = 0
    for number, name in enumerate(("sky", "road", "tree")):
        mine, theirs = (gt == number) & known, (found == number) & known
        both, either = int((mine & theirs).sum()), int((mine | theirs).sum())
        right += both
        assert table[name]["IoU"] == pytest.approx(both / either if either else np.nan, nan_ok=True)
        assert table[name]["Dice"] == pytest.approx(
            2 * both / (mine.sum() + theirs.sum()) if either else np.nan, nan_ok=True
        )
        assert table[name]["Acc"] == pytest.approx(
            both / mine.sum() if mine.any() else np.nan, nan_ok=True
        )
    result = measured([seed]).result()
    assert result["aAcc"] == pytest.approx(
        right / known.sum() if known.any() else np.nan, nan_ok=True
    )
    values = [table[name]["IoU"] for name in table]
    assert result["mIoU"] == pytest.approx(
        np.nanmean(values) if np.isfinite(values).any() else np.nan, nan_ok=True
    )


def test_a_class_that_is_nowhere_is_left_out_and_one_only_predicted_counts_zero() -> None:
    counted = SEGMENTATION.metric(FcnHead(), VOCABULARY)
    gt = np.zeros((4, 4), np.uint8)
    found = gt.copy()
    found[0, 0] = 1
    counted.update(sample(gt), SemanticMap(classes=found))
    table = counted.per_class()
    assert table["road"]["IoU"] == table["road"]["Dice"] == 0.0
    assert np.isnan(table["road"]["Acc"])
    assert np.isnan(table["unseen"]["IoU"])
    assert counted.result()["mIoU"] == pytest.approx((15 / 16 + 0) / 2)


@settings(max_examples=20, deadline=None)
@given(seeds=st.lists(st.integers(0, 10**6), max_size=6), cut=st.integers(0, 6))
def test_merging_any_split_is_one_pass(seeds: list[int], cut: int) -> None:
    first, second, whole = measured(seeds[:cut]), measured(seeds[cut:]), measured(seeds)
    second.counts.flags.writeable = False  # as the arrays are that come back from another process
    second.merge(first)
    assert np.array_equal(second.counts, whole.counts)
    assert second.result() == pytest.approx(whole.result(), nan_ok=True)


def test_large_maps_are_counted_exactly() -> None:
    gt = np.zeros((5000, 4000), np.uint8)
    gt[-1, -1] = 1
    counts = pixel_confusion(gt, np.zeros_like(gt))
    assert counts[0, 0] == gt.size - 1
    assert counts[1, 0] == 1


def test_a_sample_without_a_map_is_left_out_and_a_map_of_another_size_refused() -> None:
    counted = SEGMENTATION.metric(FcnHead(), VOCABULARY)
    found = SemanticMap(classes=np.zeros((4, 4), np.uint8))
    counted.update(image_sample(key="a", image=b"", height=4, width=4), found)
    assert np.isnan(counted.result()["mIoU"])
    with pytest.raises(ValueError, match="'odd'"):
        counted.update(sample(np.zeros((3, 4), np.uint8), "odd"), found)


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "1"])
def test_a_map_is_measured_however_its_png_stores_indices(mode: str) -> None:
    """A palette's colours are not its classes: what trains can be measured."""
    gt = (
        np.array([[0, 1], [1, 0]], np.uint8)
        if mode == "1"
        else np.array([[0, 1], [2, 255]], np.uint8)
    )
    picture = Image.fromarray(gt.astype(np.uint16) if mode == "I;16" else gt)
    if mode == "P":
        picture.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200] + [0] * 753)
    if mode == "1":
        picture = Image.fromarray(gt.astype(bool))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    counted = SEGMENTATION.metric(FcnHead(), VOCABULARY)
    counted.update(
        image_sample(key="a", image=b"", height=2, width=2, semantic=buffer.getvalue()),
        SemanticMap(classes=gt % 255),
    )
    assert counted.result()["aAcc"] == 1.0


def test_a_map_that_cannot_be_read_is_named() -> None:
    counted = SEGMENTATION.metric(FcnHead(), VOCABULARY)
    with pytest.raises(ValueError, match="'odd'"):
        counted.update(
            image_sample(key="odd", image=b"", height=2, width=2, semantic=b"no map"),
            SemanticMap(classes=np.zeros((2, 2), np.uint8)),
        )
