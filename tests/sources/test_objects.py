"""Whatever numbers an annotation file has, only boxes inside the image with an area get through,
and nothing is lost without a word.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.sources.objects import FoundObject, box_error, to_instances

anything = st.floats(allow_nan=True, allow_infinity=True)
around = st.floats(-50, 150)
boxes = st.lists(st.one_of(st.tuples(*[around] * 4), st.tuples(*[anything] * 4)), max_size=8)


@given(corners=boxes, height=st.integers(1, 100), width=st.integers(1, 100))
def test_boxes_are_sound_or_rejected(
    corners: list[tuple[float, float, float, float]], height: int, width: int
) -> None:
    found = [
        FoundObject(name=str(number), box_xyxy=box, class_index=number, id=number)
        for number, box in enumerate(corners)
    ]
    instances, skipped = to_instances(
        found, "file", height, width, masks=True, keypoints=2, attributes=("age",)
    )
    assert sorted([*instances.ids.tolist(), *(int(item.object) for item in skipped)]) == list(
        range(len(corners))
    )
    x1, y1, x2, y2 = instances.boxes_xyxy.T
    assert np.isfinite(instances.boxes_xyxy).all()
    assert ((x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height) & (x1 <= x2) & (y1 <= y2)).all()
    assert instances.masks == (b"",) * len(instances)
    assert instances.keypoints is not None
    assert instances.keypoints.shape == (len(instances), 2, 3)
    assert instances.attributes["age"].tolist() == [-1] * len(instances)
    for number, box in zip(instances.ids, instances.boxes_xyxy, strict=True):
        inside = np.clip(corners[number], 0, [width, height] * 2)
        assert np.allclose(box, inside, rtol=1e-6, atol=1e-4)
    assert all(
        box_error(corners[int(item.object)], height, width) == item.reason != "" for item in skipped
    )


def test_a_stated_area_is_kept() -> None:
    found = [
        FoundObject(name="a", box_xyxy=(0, 0, 4, 5), class_index=0, area=7.5),
        FoundObject(name="b", box_xyxy=(-2, 0, 4, 5), class_index=0),
    ]
    instances, _ = to_instances(found, "file", 10, 10)
    assert instances.areas.tolist() == [7.5, 20]
    assert (instances.masks, instances.keypoints) == (None, None)
