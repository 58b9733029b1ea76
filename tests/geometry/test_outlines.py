"""Polygons of masks: filled as COCO fills polygons, they are the same masks again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mtl_ray.geometry import masks
from mtl_ray.geometry.outlines import polygons_of, ring_of

MASKS = npst.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1)
)


@given(MASKS)
def test_the_same_mask_again(mask: np.ndarray) -> None:
    height, width = mask.shape
    polygons, ring = polygons_of(mask), ring_of(mask)
    if not mask.any():
        assert (polygons, ring) == ([], [])
        return
    assert np.array_equal(
        masks.decode_rle(masks.from_polygons(polygons, height, width), height, width), mask
    )
    assert np.array_equal(
        masks.decode_rle(masks.from_polygons([ring], height, width), height, width), mask
    )


def test_corners_of_a_rectangle() -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:7] = 1
    assert polygons_of(mask) == [[2, 1, 7, 1, 7, 4, 2, 4]]
    assert ring_of(mask) == polygons_of(mask)[0]


def test_parts_are_polygons_of_their_own_unless_there_is_a_hole() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[1:3, 1:3], mask[4:8, 4:8] = 1, 1
    assert len(polygons_of(mask)) == 2
    mask[5, 5] = 0
    assert polygons_of(mask) == [ring_of(mask)]
