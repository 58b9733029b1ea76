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
    assert masks.mask_box(counts, *mask.shape) == (x, y, x + width, y + height)
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


@given(mask=some_masks, data=st.data())
def test_a_part_is_encoded_where_it_lies(mask: np.ndarray, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    whole = np.pad(
        mask, ((top, data.draw(st.integers(0, 3))), (left, data.draw(st.integers(0, 3))))
    )
    assert masks.encode_part(mask, top, left, *whole.shape) == masks.encode_rle(whole)
    nothing = np.zeros((0, 0), np.bool_)
    assert masks.encode_part(nothing, top, left, 5, 7) == masks.encode_rle(np.zeros((5, 7), bool))


@given(first=st.lists(some_masks, max_size=3), second=st.lists(some_masks, max_size=3))
def test_overlaps(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    one, other = ([np.resize(mask, (6, 5)) for mask in group] for group in (first, second))
    found = masks.ious([*map(masks.encode_rle, one)], [*map(masks.encode_rle, other)], 6, 5)
    expected = [[(a & b).sum() / max((a | b).sum(), 1) for b in other] for a in one]
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), atol=1e-12)


def test_no_mask() -> None:
    assert not masks.decode_rle(b"", 3, 4).any()
    assert masks.area(b"", 3, 4) == 0
    assert masks.mask_box(b"", 3, 4) == (0, 0, 0, 0)
    for lengths in ([5, 8], [-1, 13], []):
        with pytest.raises(ValueError, match="run lengths add up"):
            masks.from_counts(lengths, 3, 4)
