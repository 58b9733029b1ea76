"""Anchors: metrics computed by hand, published results on real data, and faults of other
programs.
"""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.inputs.image import Canvas
from mtl_ray.tuning.anchor_boxes import shapes_of
from mtl_ray.tuning.anchor_points import anchor_overlaps
from mtl_ray.tuning.anchors import (
    by_level,
    evolve_anchors,
    kmeans_anchors,
    level_of,
    measure_anchors,
    measure_on_levels,
)
from tests.shards.splits import write_split
from tests.training.tiny import write_split as write_squares


def test_overlap_recall_and_average_are_those_of_a_hand():
    shapes, anchors = np.array([[2.0, 4.0], [10.0, 10.0]]), np.array([[4.0, 2.0], [10.0, 5.0]])
    assert anchor_overlaps(shapes, anchors) == pytest.approx(
        np.array([[4 / 12, 8 / 100], [8 / 50, 0.5]])
    )
    found = measure_anchors(shapes, anchors)
    assert found.average_iou == pytest.approx((4 / 12 + 0.5) / 2)
    assert found.best_possible_recall == 1.0
    assert (
        measure_anchors(np.array([[1.0, 41.0]]), np.array([[1.0, 10.0]])).best_possible_recall
        == 0.0
    )


@given(seed=st.integers(0, 50), num=st.integers(1, 6), kinds=st.integers(1, 4))
def test_kmeans_gives_positive_anchors_by_area_also_where_boxes_are_fewer_in_kind_than_anchors(
    seed, num, kinds
):
    rng = np.random.default_rng(seed)
    shapes = rng.uniform(1, 100, (kinds, 2))[rng.integers(kinds, size=20)]
    found = kmeans_anchors(shapes, num, seed=seed, restarts=2)
    assert found.shape == (num, 2)
    assert (found > 0).all()
    assert (np.diff(found.prod(axis=1)) >= 0).all()
    if num >= len(np.unique(shapes, axis=0)):
        assert measure_anchors(shapes, found).average_iou > 0.999


def test_evolution_is_not_worse_than_kmeans():
    shapes = np.random.default_rng(1).lognormal(3, 0.7, (400, 2))
    few = evolve_anchors(shapes, 3, rounds=20)
    assert (
        measure_anchors(shapes, few).average_iou
        >= measure_anchors(shapes, kmeans_anchors(shapes, 3)).average_iou - 1e-9
    )
    assert (evolve_anchors(shapes, 3, rounds=20) == few).all()


PUBLISHED = [
    (10, 13),
    (16, 30),
    (33, 23),
    (30, 61),
    (62, 45),
    (59, 119),
    (116, 90),
    (156, 198),
    (373, 326),
]


@pytest.mark.parametrize("levels", [("P3", "P4", "P5"), ("P5", "P3", "P4")])
def test_the_published_anchors_of_yolov3_go_to_their_published_levels(levels):
    found = by_level(np.array(PUBLISHED, float), levels)
    assert tuple(found) == levels
    assert [found[level] for level in ("P3", "P4", "P5")] == [
        [list(anchor) for anchor in PUBLISHED[i : i + 3]] for i in (0, 3, 6)
    ]


def test_small_anchors_all_belong_to_the_finest_level_and_levels_without_any_are_left_out():
    small = np.array([[5, 6], [9, 9], [14, 15], [25, 28]], float)
    assert by_level(small, ("P3", "P4", "P5")) == {"P3": small.tolist()}
    assert by_level(small * 8, ("P3", "P4", "P5")) == {
        "P4": (small[:2] * 8).tolist(),
        "P5": (small[2:] * 8).tolist(),
    }
    assert by_level(small * 8, ("C5", "P6")) == {
        "C5": (small * 8)[:3].tolist(),
        "P6": (small[3:] * 8).tolist(),
    }


@given(size=st.floats(1, 4000), ratio=st.floats(0.2, 5))
def test_an_anchor_belongs_to_the_level_whose_stride_is_nearest_to_its_size(size, ratio):
    anchor = np.array([[size * ratio**0.5, size / ratio**0.5]])
    level = int(level_of(anchor, ["P2", "P3", "P4", "P5", "P6"])[0])
    apart = [abs(np.log(size / 3.75 / stride)) for stride in (4, 8, 16, 32, 64)]
    assert apart[level] == pytest.approx(min(apart))


def test_anchors_on_a_level_that_does_not_fit_them_do_not_count():
    boxes = np.array([[25.0, 28.0], [8.0, 8.0]])
    right, wrong = (
        measure_on_levels(boxes, boxes, np.array([8, 4])),
        measure_on_levels(boxes, boxes, np.array([32, 4])),
    )
    assert right.average_iou == 1
    assert wrong.average_iou == pytest.approx((1 + 64 / 700) / 2)
    assert measure_on_levels(boxes, boxes, np.array([64, 64])).best_possible_recall == 0


def test_boxes_are_those_on_the_canvas(tmp_path):
    write_squares(str(tmp_path / "s"), 7, 1)
    plain = shapes_of([str(tmp_path / "s")], Canvas(kind="stretch", height=32, width=32))
    wide = shapes_of([str(tmp_path / "s")], Canvas(kind="stretch", height=16, width=64))
    assert len(plain) == 7
    assert wide == pytest.approx(plain * [2, 0.5])
    with pytest.raises(ValueError, match="there are no boxes"):
        shapes_of([], Canvas(height=8, width=8))


@pytest.mark.parametrize("encoding", ["arrow", "tfrecord"])
def test_a_scan_for_objects_gives_what_reading_gives(tmp_path, encoding):
    from mtl_ray.shards.split import open_split

    split = open_split(write_split(tmp_path / "s", [5, 3], encoding=encoding))
    samples = list(split.read(0, 8))
    for sample, (height, width, objects) in zip(samples, split.scan_objects(), strict=True):
        assert (height, width) == (sample.height, sample.width)
        assert (objects is None) == (sample.instances is None)
        if objects is not None:
            assert (objects.boxes_xyxy == sample.instances.boxes_xyxy).all()
            assert (objects.crowd == sample.instances.crowd).all()


def test_real_boxes_reach_the_published_figures(shared_data):
    file = json.loads((shared_data / "det_bccd_voc" / "coco" / "instances_train.json").read_text())
    size = {image["id"]: (image["width"], image["height"]) for image in file["images"]}
    shapes = np.array(
        [
            [
                a["bbox"][2] / size[a["image_id"]][0] * 416,
                a["bbox"][3] / size[a["image_id"]][1] * 416,
            ]
            for a in file["annotations"]
        ]
    )
    assert measure_anchors(shapes, kmeans_anchors(shapes, 9)).average_iou >= 0.8826 - 0.002
    assert measure_anchors(shapes, kmeans_anchors(shapes, 6)).average_iou >= 0.8622 - 0.002
    assert measure_anchors(shapes, evolve_anchors(shapes, 6, rounds=60)).average_iou >= 0.8622
