"""Samples with any combination of what a Sample may know, and how to tell that two are the same."""

from dataclasses import fields

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.samples import Sample, image_sample

_WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_BYTES = st.binary(max_size=60)


@st.composite
def _instances(draw: st.DrawFn) -> Instances:
    rows = draw(st.integers(0, 5))
    points = draw(st.none() | st.integers(0, 4))

    def numbers(dtype: type, *shape: int) -> np.ndarray:
        return draw(npst.arrays(dtype, (rows, *shape)))

    return Instances(
        boxes_xyxy=numbers(np.float32, 4),
        classes=numbers(np.int64),
        ids=numbers(np.int64),
        areas=numbers(np.float32),
        crowd=numbers(np.bool_),
        difficult=numbers(np.bool_),
        truncated=numbers(np.bool_),
        masks=draw(st.none() | st.lists(_BYTES, min_size=rows, max_size=rows).map(tuple)),
        keypoints=None if points is None else numbers(np.float32, points, 3),
        attributes={
            name: numbers(np.int64) for name in draw(st.lists(_WORDS, unique=True, max_size=3))
        },
    )


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    return image_sample(
        key=draw(_WORDS),
        image=draw(_BYTES),
        height=draw(st.integers(0, 2**31 - 1)),
        width=draw(st.integers(0, 2**31 - 1)),
        labels=draw(st.none() | npst.arrays(np.int64, st.integers(0, 4))),
        instances=draw(st.none() | _instances()),
        semantic=draw(st.none() | _BYTES),
    )


def assert_same(found: object, expected: object) -> None:
    """Equal in value, type, shape and dtype, with NaN equal to itself; None differs from empty."""
    assert type(found) is type(expected)
    if isinstance(expected, Sample | Instances):
        for field in fields(expected):
            assert_same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)  # type: ignore[call-overload]
        for name in expected:
            assert_same(found[name], expected[name])  # type: ignore[index]
    else:
        assert found == expected
