"""Run-length masks: equal to pycocotools' in every byte, and back."""

import numpy as np
import pycocotools.mask as reference
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl_ray.geometry import masks

some_masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))
sizes = st.integers(1, 60)
polygons = st.lists(
    st.lists(st.tuples(*[st.floats(-20, 80)] * 2), min_size=3, max_size=8), min_size=1, max_size=3
)


@given(mask=some_masks)
def test_encoding_is_that_of_pycocotools(mask: np.ndarray) -> None:
    expected = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = masks.encode_rle(mask)
    assert counts == expected["counts"]
    assert np.array_equal(masks.decode_rle(counts, *mask.shape), mask)
    assert masks.area(counts, *mask.shape) == mask.sum()
    x, y, width, height = reference.toBbox(expected)
    assert masks.box_of(counts, *mask.shape) == (x, y, x + width, y + height)
    assert masks.from_compressed(counts, *mask.shape) == counts


@given(height=sizes, width=sizes, points=polygons)
def test_polygons_are_filled_as_pycocotools_does(
    height: int, width: int, points: list[list[tuple[float, float]]]
) -> None:
    flat = [[value for point in polygon for value in point] for polygon in points]
    expected = reference.merge(reference.frPyObjects(flat, height, width))
    assert masks.from_polygons(flat, height, width) == expected["counts"]


@given(mask=some_masks)
def test_plain_run_lengths(mask: np.ndarray) -> None:
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask.ravel(order="F")[-1]]])
    lengths = np.diff(np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1])])).tolist()
    assert sum(lengths) == mask.size
    assert masks.from_counts(lengths, *mask.shape) == masks.encode_rle(mask)


@given(counts=st.binary(max_size=12))
def test_foreign_bytes_never_become_a_wrong_mask(counts: bytes) -> None:
    try:
        checked = masks.from_compressed(counts, 5, 7)
    except ValueError:
        return
    assert np.array_equal(
        masks.decode_rle(checked, 5, 7), reference.decode({"size": [5, 7], "counts": counts})
    )


def test_no_mask() -> None:
    assert not masks.decode_rle(b"", 3, 4).any()
    assert masks.area(b"", 3, 4) == 0
    assert masks.box_of(b"", 3, 4) == (0, 0, 0, 0)
    for lengths in ([5, 8], [-1, 13], []):
        with pytest.raises(ValueError, match="run lengths add up"):
            masks.from_counts(lengths, 3, 4)
