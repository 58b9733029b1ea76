"""The built-in set: the same scenes from the same seed, annotations that agree with each other,
splits that share nothing.
"""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from mtl_ray.geometry import masks
from mtl_ray.samples import Sample
from mtl_ray.sources import digits
from mtl_ray.sources.config import Digits
from mtl_ray.sources.image_reading import open_source


def scenes(num: int = 40, **options: Any) -> list[Sample]:
    """Some scenes."""
    source = open_source(Digits(**{"split": "train", "num": num, **options}))
    readings = [source.read(index) for index in range(num)]
    assert not any(skipped for _, skipped in readings)
    return [sample for sample, _ in readings if sample is not None]


def test_a_seed_is_a_set() -> None:
    first, again, other, val = scenes(5), scenes(5), scenes(5, seed=1), scenes(5, split="val")
    assert [sample.image for sample in first] == [sample.image for sample in again]
    assert [sample.semantic for sample in first] == [sample.semantic for sample in again]
    assert not {sample.image for sample in first} & {sample.image for sample in [*other, *val]}
    assert open_source(Digits(split="train")).take([3, 1]).read(0)[0].image == scenes(5)[3].image  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [64, 128, 200])
def test_annotations_agree(size: int) -> None:
    for sample in scenes(20, size=size):
        found = sample.instances
        assert found is not None
        assert found.masks is not None
        assert found.keypoints is not None
        assert sample.semantic is not None
        assert sample.labels is not None
        assert (
            Image.open(io.BytesIO(sample.image)).size
            == (size, size)
            == (sample.width, sample.height)
        )
        assert 1 <= len(found) <= 5
        assert sample.labels.tolist() == sorted(set(found.classes.tolist()))
        covered = np.zeros((size, size), np.uint8)
        for counts, digit, box, area in zip(
            found.masks, found.classes, found.boxes_xyxy, found.areas, strict=True
        ):
            mask = masks.decode_rle(counts, size, size)
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert area == mask.sum() > 20
            assert not covered[mask == 1].any()
            covered[mask == 1] = digit + 1
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(sample.semantic))), covered)


def test_keypoints_lie_on_the_digits_axis() -> None:
    for sample in scenes(30):
        found = sample.instances
        assert found is not None
        assert found.keypoints is not None
        for points in found.keypoints:
            if (points[:, 2] > 0).all():
                assert np.allclose(points[1, :2], (points[0, :2] + points[2, :2]) / 2, atol=1e-3)
                assert points[0, 1] < points[1, 1] < points[2, 1]
    visible = np.concatenate([sample.instances.keypoints[..., 2].ravel() for sample in scenes(30)])  # type: ignore[union-attr, index]
    assert (visible == 2).mean() > 0.7
    assert (visible == 1).any()


def test_overlaps_happen_but_little_is_hidden() -> None:
    overlaps = 0
    for sample in scenes(40):
        boxes = sample.instances.boxes_xyxy  # type: ignore[union-attr]
        overlaps += sum(
            bool((np.minimum(one[2:], other[2:]) > np.maximum(one[:2], other[:2])).all())
            for place, one in enumerate(boxes)
            for other in boxes[place + 1 :]
        )
    assert overlaps > 5


def test_splits_share_no_handwriting_and_no_place() -> None:
    train = {alpha.tobytes() for glyphs in digits._handwriting(True) for alpha, _ in glyphs}
    others = {alpha.tobytes() for glyphs in digits._handwriting(False) for alpha, _ in glyphs}
    assert not train & others
    assert len(train) + len(others) > 1790
    photo = np.zeros((100, 200, 3), np.uint8)
    photo[:, :140] = 200
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "_photographs", lambda: (photo, photo))
        assert {digits._background(rng, 64, True).mean() for _ in range(20)} == {200}


def test_what_ships_inside_scikit_learn() -> None:
    data = load_digits()
    glyph, _ = digits._handwriting(True)[3][0]
    assert np.array_equal(
        glyph, digits._enlarge(data.images[data.target == 3][0].astype(np.float32))[0]
    )
    for own, theirs in zip(digits._photographs(), load_sample_images().images, strict=True):
        assert np.array_equal(own, theirs)
