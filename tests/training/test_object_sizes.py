"""The line about sizes of objects at the start of a training: right by hand, bounded, and no end
of any training.
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtl_ray.inputs.image import Canvas
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.detection.dense.config import RetinaNetHead, Yolov3Head
from mtl_ray.training.object_sizes import MOST_BLOCKS, log_object_sizes, note, object_sizes
from mtl_ray.tuning.anchor_boxes import shapes_of
from tests.shards.splits import write_split
from tests.training.conftest import MakeConfig
from tests.training.tiny import write_split as write_squares

CANVAS = Canvas(width=320, height=240)
HEAD = Yolov3Head(levels=("P4", "P3"), anchors=(((60, 60),), ((16, 16), (20, 25))))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (
            9.0,
            "below 1.25 cells of P3, the finest level; try a larger data.canvas, a finer level, "
            "python -m jobs.anchors",
        ),
        (14.0, "below the smallest anchor; try python -m jobs.anchors, a larger data.canvas"),
        (
            130.0,
            "more than 2 times the largest anchor; try python -m jobs.anchors, a smaller "
            "data.canvas",
        ),
    ],
)
def test_sizes_that_do_not_go_with_the_anchors_are_said_with_what_to_try(
    size: float, words: str
) -> None:
    told = note("boxes", HEAD, {"a": np.full(100, size)}, CANVAS)
    assert told.startswith(f"boxes: the median object has {size:.0f} px on this canvas of 320x240")
    assert "the anchors have 16 to 60" in told
    assert told.endswith(words)


def test_sizes_that_go_with_the_anchors_are_said_without_advice() -> None:
    assert note("boxes", HEAD, {"a": np.array([20.0, 30.0, 40.0])}, CANVAS).endswith(
        "the anchors have 16 to 60"
    )
    retina = RetinaNetHead(levels=("P3", "P4"), anchor_scale=4.0, octaves=2)
    assert note("boxes", retina, {"a": np.full(9, 50.0)}, CANVAS).endswith(
        "the anchors have 32 to 91"
    )
    assert "a smaller model.heads.boxes.anchor_scale" in note(
        "boxes", retina, {"a": np.full(9, 20.0)}, CANVAS
    )
    assert "a larger model.heads.boxes.anchor_scale" in note(
        "boxes", retina, {"a": np.full(9, 200.0)}, CANVAS
    )


def test_small_classes_are_named_where_most_objects_are_of_others() -> None:
    retina = RetinaNetHead(levels=("P3", "P4"), anchor_scale=4.0, octaves=2)
    cells = {"red": np.full(900, 41.0), "platelets": np.full(60, 16.0), "few": np.full(3, 9.0)}
    assert note("boxes", retina, cells, CANVAS).endswith(
        "the anchors have 32 to 91; far below the smallest anchor: platelets (median 16 px); try a "
        "smaller model.heads.boxes.anchor_scale, a larger data.canvas"
    )
    many = {"red": np.full(900, 41.0), **{f"c{i}": np.full(9, 10.0 + i) for i in range(6)}}
    assert (
        "c0 (median 10 px), c1 (median 11 px), c2 (median 12 px), c3 (median 13 px) and 2 more"
        in (note("boxes", retina, many, CANVAS))
    )


def detection(make_config: MakeConfig, uri: str):
    config = make_config()
    data = replace(config.data, train=replace(config.data.train, uri=uri))
    return replace(config, data=data, model=replace(config.model, heads={"boxes": HEAD}))


def test_sizes_are_those_on_the_canvas_and_no_image_is_read(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    write_squares(str(tmp_path / "s"), 7, 1)
    config = detection(make_config, str(tmp_path / "s"))
    shapes = shapes_of([str(tmp_path / "s")], config.data.canvas)
    found = np.concatenate(list(object_sizes(config, config.data.canvas).values()))
    assert np.sort(found) == pytest.approx(np.sort(np.sqrt(shapes.prod(axis=1))))


def test_of_many_blocks_some_are_looked_at_the_same_each_time(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    split = open_split(write_split(tmp_path / "s", [2] * (2 * MOST_BLOCKS)))
    assert len(split.block_rows) > MOST_BLOCKS
    config = detection(make_config, str(tmp_path / "s"))
    found = object_sizes(config, config.data.canvas)
    whole = shapes_of([str(tmp_path / "s")], config.data.canvas)
    assert 0 < sum(map(len, found.values())) < len(whole)
    again = object_sizes(config, config.data.canvas)
    assert {name: sizes.tolist() for name, sizes in again.items()} == {
        name: sizes.tolist() for name, sizes in found.items()
    }


def test_what_cannot_be_read_is_said_and_ends_nothing(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        log_object_sizes(detection(make_config, str(tmp_path / "nowhere")))
    assert "the sizes of objects could not be read" in caplog.text
    caplog.clear()
    log_object_sizes(make_config())
    assert caplog.text == "", "its heads find no boxes"
