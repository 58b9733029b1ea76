"""YOLO's and ObjectiveMTL's text files: each line by hand, and YOLO's shares against the boxes
they were made from.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.samples import Sample
from mtl_ray.sources.config import List, RawConfig
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Text, Yolo
from mtl_ray.sources.source import SkippedItem
from mtl_ray.sources.yolo_lines import LineRule, yolo_objects
from tests.sources.conftest import MakeImage


def read_all(config: RawConfig) -> tuple[dict[str, Sample], list[SkippedItem]]:
    """All samples by key, and all skipped items of a split, without notes."""
    source = open_source(config)
    readings = [source.read(index) for index in range(len(source))]
    samples = {sample.key: sample for sample, _ in readings if sample is not None}
    items = [*source.skipped, *(item for _, found in readings for item in found)]
    return samples, [item for item in items if not item.note]


def write(path: Path, *lines: str) -> None:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    box=st.tuples(*[st.floats(0, 1)] * 4).filter(lambda box: box[0] < box[2] and box[1] < box[3]),
)
def test_yolo_shares_are_pixels_again(
    height: int, width: int, box: tuple[float, float, float, float]
) -> None:
    x1, y1, x2, y2 = box
    line = f"0 {(x1 + x2) / 2!r} {(y1 + y2) / 2!r} {x2 - x1!r} {y2 - y1!r}"
    (found,), skipped = yolo_objects(line, "f", LineRule((0,)), height, width)
    assert skipped == []
    assert np.allclose(
        found.box_xyxy, [x1 * width, y1 * height, x2 * width, y2 * height], atol=1e-6
    )


def test_yolo_lines(tmp_path: Path, make_image: MakeImage) -> None:
    write(
        tmp_path / "data.yaml", "train: images/train", "val: images/val", "names: {0: cat, 1: dog}"
    )
    make_image(tmp_path / "images" / "train" / "a.jpg", 64, 48)
    make_image(tmp_path / "images" / "train" / "deep" / "b.png", 64, 48)
    square = "1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5"
    bad = [
        "2 .5 .5 .1 .1",
        "0 .5 .5 .1",
        "0 .5 .5 .1 .1 .9",
        "x .5 .5 .1 .1",
        "0.5 .5 .5 .1 .1",
        "0 nan .5 .1 .1",
        "0 .5 .5 0 .1",
        "0 3 3 .1 .1",
    ]
    write(
        tmp_path / "labels" / "train" / "a.txt", "0 0.5 0.5 0.5 0.5", "", square, "0 0 0 1 1", *bad
    )
    samples, skipped = read_all(Yolo(root=str(tmp_path), split="train"))
    found = samples["a.jpg"].instances
    assert found is not None
    assert found.boxes_xyxy.tolist() == [[16, 12, 48, 36], [16, 12, 32, 24], [0, 0, 32, 24]]
    assert found.classes.tolist() == [0, 1, 0]
    assert found.areas.tolist() == [32 * 24, 16 * 12, 32 * 24]
    assert found.masks is not None
    assert [bool(mask) for mask in found.masks] == [False, True, False]
    assert sorted(int(item.object.removeprefix("line ")) for item in skipped) == [
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
    ]
    background = samples["deep/b.png"].instances
    assert background is not None
    assert (len(background), background.masks) == (0, ())


@pytest.mark.parametrize(
    ("image", "label", "description"),
    [
        ("images/val/a.jpg", "labels/val/a.txt", None),
        ("valid/images/a.jpg", "valid/labels/a.txt", "val: ../valid/images"),
        ("val/a.jpg", "val/a.txt", None),
        ("images/a.jpg", "labels/a.txt", None),
    ],
)
def test_yolo_layouts(
    tmp_path: Path, make_image: MakeImage, image: str, label: str, description: str | None
) -> None:
    make_image(tmp_path / image)
    write(tmp_path / label, "3 .5 .5 .5 .5")
    if description:
        write(tmp_path / "data.yaml", description)
    if image.count("/") == 1 and image.startswith("images"):
        write(tmp_path / "val.txt", "a")
    samples, skipped = read_all(Yolo(root=str(tmp_path), split="val"))
    found = samples["a.jpg"].instances
    assert found is not None
    assert found.classes.tolist() == [3]
    assert skipped == []
    assert open_source(Yolo(root=str(tmp_path), split="val")).vocabulary.classes == {
        "instances": ("0", "1", "2", "3")
    }
    with pytest.raises(FileNotFoundError, match=r"test\.txt"):
        open_source(Yolo(root=str(tmp_path), split="test"))


def test_text(tmp_path: Path, make_image: MakeImage) -> None:
    write(tmp_path / "meta" / "train.txt", "a", "b", "a", "no_labels", "no_image")
    write(
        tmp_path / "labels" / "a.txt",
        "dog 1 2 11 22",
        "cat 0 0 64.5 48",
        "dog 1 2 3",
        "dog 1 2 x 4",
        "dog 5 5 5 9",
    )
    write(tmp_path / "labels" / "b.txt")
    write(tmp_path / "labels" / "no_image.txt", "bird 1 2 11 22")
    make_image(tmp_path / "images" / "a.jpg", 64, 48)
    make_image(tmp_path / "images" / "b.png", 64, 48)
    make_image(tmp_path / "images" / "no_labels.jpg", 64, 48)
    config = Text(root=str(tmp_path), split="train")
    samples, skipped = read_all(config)
    assert open_source(config).vocabulary.classes == {"instances": ("bird", "cat", "dog")}
    first, second = samples["a.jpg"].instances, samples["b.png"].instances
    assert first is not None
    assert second is not None
    assert first.boxes_xyxy.tolist() == [[1, 2, 11, 22], [0, 0, 64, 48]]
    assert first.classes.tolist() == [2, 1]
    assert len(second) == 0
    assert [(item.file, item.object) for item in skipped if not item.note] == [
        ("labels/a.txt", "line 3"),
        ("labels/a.txt", "line 4"),
        ("labels/a.txt", "line 5"),
        ("labels/no_labels.txt", ""),
        ("no_image", ""),
    ]
    assert ("meta/train.txt", "a") in [
        (item.file, item.object) for item in open_source(config).skipped if item.note
    ]


def test_text_with_numbers_and_commas(tmp_path: Path, make_image: MakeImage) -> None:
    write(tmp_path / "train.txt", "a")
    write(tmp_path / "labels" / "a.txt", "0, 1, 2, 11, 22", "2,1,2,3,4")
    make_image(tmp_path / "images" / "a.jpg")
    config = Text(root=str(tmp_path), split="train", separator=",")
    found = read_all(config)[0]["a.jpg"].instances
    assert found is not None
    assert found.classes.tolist() == [0, 2]
    assert open_source(config).vocabulary.classes == {"instances": ("0", "1", "2")}
    write(tmp_path / "classes.txt", "zero", "one")
    samples, skipped = read_all(config)
    assert samples["a.jpg"].instances is not None
    assert samples["a.jpg"].instances.classes.tolist() == [0]
    assert [item.object for item in skipped] == ["line 2"]


def test_list(tmp_path: Path, make_image: MakeImage) -> None:
    write(tmp_path / "train.txt", "a 0 48 64", "b.png 2 1 1", "a 1 48 64", "gone 0 48 64", "c")
    write(tmp_path / "val.txt", "v 3 48 64")
    for name in ("a.jpg", "b.png", "c.jpg"):
        make_image(tmp_path / "images" / name)
    config = List(root=str(tmp_path), split="train")
    samples, skipped = read_all(config)
    vocabulary = open_source(config).vocabulary
    assert (vocabulary.classes, vocabulary.exclusive_labels) == (
        {"labels": ("0", "1", "2", "3")},
        True,
    )
    assert {
        key: sample.labels.tolist() for key, sample in samples.items() if sample.labels is not None
    } == {"a.jpg": [0], "b.png": [2]}
    assert [item.object for item in skipped] == ["line 3", "line 4", "line 5"]
    write(tmp_path / "classes.txt", "ape", "bee", "cow", "dog")
    write(tmp_path / "train.txt", "a bee 48 64", "b.png 3 48 64", "c eel 48 64")
    samples, skipped = read_all(config)
    assert {
        key: sample.labels.tolist() for key, sample in samples.items() if sample.labels is not None
    } == {"a.jpg": [1], "b.png": [3]}
    assert [item.reason for item in skipped] == ["unknown class: eel"]
    with pytest.raises(FileNotFoundError, match=r"no list test\.txt"):
        open_source(List(root=str(tmp_path), split="test"))


@pytest.mark.parametrize("within", ["set", "./set/", "set/", "/elsewhere/set", "../sets/set", "."])
def test_yolo_path_in_the_description(tmp_path: Path, make_image: MakeImage, within: str) -> None:
    folder = tmp_path / "set" if within in ("set", "./set/", "set/") else tmp_path
    make_image(folder / "images" / "train" / "a.jpg")
    write(folder / "labels" / "train" / "a.txt", "0 0.5 0.5 0.5 0.5")
    write(tmp_path / "data.yaml", f"path: {within}", "train: images/train", "names: [thing]")
    samples, skipped = read_all(Yolo(root=str(tmp_path), split="train"))
    assert skipped == []
    assert [
        len(sample.instances) for sample in samples.values() if sample.instances is not None
    ] == [1]


def test_yolo_keypoints_are_refused(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "train" / "a.jpg")
    # a box and 4 keypoints, or 8 corners
    write(tmp_path / "labels" / "train" / "a.txt", "0 " + " ".join(["0.5"] * 16))
    write(tmp_path / "data.yaml", "train: images/train", "names: [thing]", "kpt_shape: [4, 3]")
    with pytest.raises(ValueError, match="kpt_shape"):
        open_source(Yolo(root=str(tmp_path), split="train"))


def test_names_in_a_file_of_windows(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt")
    (tmp_path / "classes.txt").write_bytes("\ufeffcat\r\ndog\r\n\r\n".encode())
    write(tmp_path / "train.txt", "a")
    assert open_source(Yolo(root=str(tmp_path), split="train")).vocabulary.classes == {
        "instances": ("cat", "dog")
    }


def test_yolo_splits_of_several_folders(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("images/x/a.jpg", "images/y/a.jpg", "images/y/a.png"):
        make_image(tmp_path / name)
    write(tmp_path / "labels" / "y" / "a.txt", "0 .5 .5 .5 .5")
    write(tmp_path / "data.yaml", "train: [images/x, ../images/y]", "names: [thing]")
    samples, skipped = read_all(Yolo(root=str(tmp_path), split="train"))
    counts = {
        key: len(sample.instances)
        for key, sample in samples.items()
        if sample.instances is not None
    }
    assert (counts, skipped) == (
        {"images/x/a.jpg": 0, "images/y/a.jpg": 1, "images/y/a.png": 1},
        [],
    )
