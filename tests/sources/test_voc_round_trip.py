"""Boxes of VOC become shards and VOC again: none is lost, and none changes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.shards.split import open_split
from mtl_ray.shards.write import publish_manifest, write_shard
from mtl_ray.sources.image_reading import ABSENT, ImageRule, open_source
from mtl_ray.sources.object_configs import Voc
from mtl_ray.sources.source import SkippedItem, Source
from mtl_ray.sources.writers.open import open_writer
from mtl_ray.sources.writers.writer import Target
from tests.sources.test_voc import an_object, write_xml

WIDTH, HEIGHT = 64, 48
JPEG = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))[1].tobytes()
LABELS_ONLY = ImageRule(needed=False)
Box = tuple[int, int, int, int]


def boxes(first: int) -> st.SearchStrategy[list[Box]]:
    """Boxes of whole pixels inside an image, the last pixel inclusive, counted from ``first``."""

    def span(size: int) -> st.SearchStrategy[tuple[int, int]]:
        return st.tuples(*[st.integers(first, size - 1 + first)] * 2).map(
            lambda pair: (min(pair), max(pair))
        )

    box = st.tuples(span(WIDTH), span(HEIGHT)).map(
        lambda spans: (spans[0][0], spans[1][0], spans[0][1], spans[1][1])
    )
    return st.lists(box, min_size=1, max_size=8)


def read_all(source: Source) -> tuple[list[Sample], list[SkippedItem]]:
    """All samples, and everything that was said."""
    readings = [source.read(index) for index in range(len(source))]
    items = [*source.skipped, *(item for _, found in readings for item in found)]
    return [sample for sample, _ in readings if sample is not None], items


def objects_in(sample: Sample) -> Instances:
    assert sample.instances is not None
    return sample.instances


def through_shards(source: Source, folder: Path) -> list[Sample]:
    """The samples as shards give them back."""
    samples, skipped = read_all(source)
    assert [item for item in skipped if not item.note] == []
    entry = write_shard(str(folder), "x-00000", samples)
    publish_manifest(
        str(folder),
        [entry],
        name="x",
        encoding="arrow",
        vocabulary=source.vocabulary,
        shuffled=False,
        provenance={},
    )
    return list(open_split(str(folder)).read(0, len(samples)))


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("first", [0, 1])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_box_is_lost(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, first: int, compat: bool
) -> None:
    drawn = data.draw(boxes(first))
    root = tmp_path_factory.mktemp("voc")
    (root / "JPEGImages").mkdir()
    (root / "JPEGImages" / "a.jpg").write_bytes(JPEG)
    write_xml(root, "a", "".join(an_object("x", *box) for box in drawn))
    source = open_source(Voc(root=str(root), split="all", compat=compat))
    (sample,) = through_shards(source, root / "shards")
    found = objects_in(sample).boxes_xyxy
    assert len(found) == len(drawn)
    assert (found[:, 2:] > found[:, :2]).all()
    if first == 1 and not compat:
        assert found.tolist() == [[x1 - 1, y1 - 1, x2, y2] for x1, y1, x2, y2 in drawn]
    writer = open_writer(
        "voc", Target(uri=str(root / "again"), split="all", vocabulary=source.vocabulary)
    )
    writer.finish([writer.write(sample)[0]])
    (again,), skipped = read_all(open_source(Voc(root=str(root / "again"), split="all")))
    assert all(item.note for item in skipped)
    assert objects_in(again).boxes_xyxy.tolist() == found.tolist()


@given(
    st.lists(
        st.tuples(
            *[
                st.floats(0, 30, width=32),
                st.floats(0, 30, width=32),
                *[st.floats(2**-6, 15, width=32)] * 2,
            ]
        ),
        max_size=5,
    )
)
@settings(max_examples=25, deadline=None)
def test_our_own_boxes_come_back(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[float, ...]]
) -> None:
    root = tmp_path_factory.mktemp("own")
    array = np.array(drawn, np.float32).reshape(-1, 4)
    array[:, 2:] += array[:, :2]
    count, flags = len(array), np.zeros(len(array), np.bool_)
    instances = Instances(
        boxes_xyxy=array,
        classes=np.zeros(count, np.int64),
        ids=np.full(count, -1),
        areas=np.ones(count, np.float32),
        crowd=flags,
        difficult=flags,
        truncated=flags,
    )
    vocabulary = Vocabulary(classes={"instances": ("x",)})
    writer = open_writer(
        "voc", Target(uri=str(root), split="all", vocabulary=vocabulary, images=False)
    )
    writer.finish(
        [
            writer.write(
                image_sample(
                    key="a.jpg", image=b"", height=HEIGHT, width=WIDTH, instances=instances
                )
            )[0]
        ]
    )
    (again,), skipped = read_all(open_source(Voc(root=str(root), split="all"), LABELS_ONLY))
    assert ABSENT in [item.reason for item in skipped]
    assert all(item.note for item in skipped)
    assert np.allclose(objects_in(again).boxes_xyxy, array, atol=1e-5)
