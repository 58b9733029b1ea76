"""Index maps of objects: one value an object, class numbers in values, and maps that are none."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.convert import main
from mtl_ray.geometry.masks import decode_rle
from mtl_ray.samples import Sample
from mtl_ray.sources.config import InstancePng
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.instance_png import read_ranges
from mtl_ray.sources.source import SkippedItem
from tests.sources.conftest import MakeImage
from tests.sources.test_semantic_png import write_map

OBJECTS: NDArray[np.int64] = np.zeros((48, 64), np.int64)
OBJECTS[2:10, 3:9] = 1
OBJECTS[5:20, 30:60] = 2
OBJECTS[12:15, 40:50] = 3  # before the second one, which has a hole there
OBJECTS[40:, 60:] = 2  # and a second part


def read_all(root: Path, **options: object) -> tuple[dict[str, Sample], list[SkippedItem]]:
    """All samples by key, and all skipped items."""
    config = InstancePng(root=str(root), split="train", **options)  # type: ignore[arg-type]
    source = open_source(config)
    readings = [source.read(index) for index in range(len(source))]
    samples = {sample.key: sample for sample, _ in readings if sample is not None}
    return samples, [*source.skipped, *(item for _, found in readings for item in found)]


def one(root: Path, make_image: MakeImage, values: NDArray[np.int64], mode: str = "I;16") -> Path:
    """A dataset of one image."""
    make_image(root / "train" / "a.jpg")
    write_map(root / "instances" / "train" / "a.png", values, mode=mode)
    return root


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB"])
def test_each_value_is_an_object(tmp_path: Path, make_image: MakeImage, mode: str) -> None:
    samples, skipped = read_all(one(tmp_path, make_image, OBJECTS, mode), class_name="pedestrian")
    found = samples["a.jpg"].instances
    assert found is not None
    assert found.boxes_xyxy.tolist() == [[3, 2, 9, 10], [30, 5, 64, 48], [40, 12, 50, 15]]
    assert found.areas.tolist() == [(value == OBJECTS).sum() for value in (1, 2, 3)]
    assert found.masks is not None
    for value, mask in enumerate(found.masks, start=1):
        assert np.array_equal(decode_rle(mask, 48, 64), value == OBJECTS)
    assert not found.crowd.any()
    assert [item.reason for item in skipped] == (
        ["map of three equal channels, read as one"] if mode == "RGB" else []
    )
    assert all(item.note for item in skipped)


def test_penn_fudan_as_it_is_packed(tmp_path: Path, make_image: MakeImage) -> None:
    for number in (1, 2, 12):
        make_image(tmp_path / "PNGImages" / f"FudanPed{number:05d}.png")
        write_map(tmp_path / "PedMasks" / f"FudanPed{number:05d}_mask.png", OBJECTS)
    out = tmp_path / "shards"
    arguments = ["instance_png", str(tmp_path), "--split", "all", "--class-name", "pedestrian"]
    arguments += ["--to", str(out), "--workers", "1", "--background", "0"]
    arguments += ["--background", "3"]
    assert main(arguments) == 0
    assert json.loads((out / "class_counts.json").read_text())["instances"] == {
        "images": {"pedestrian": 3},
        "instances": {"pedestrian": 6},
    }


def test_class_numbers_in_values(tmp_path: Path, make_image: MakeImage) -> None:
    """As in Cityscapes and MOTS: a value below the divisor is a region with many objects."""
    values = np.choose(OBJECTS, [0, 1001, 2007, 2])
    classes = tmp_path / "classes.txt"
    classes.write_text("car\nperson\n")
    root = one(tmp_path / "data", make_image, values)
    samples, skipped = read_all(root, divisor=1000, classes=str(classes))
    found = samples["a.jpg"].instances
    assert found is not None
    assert skipped == []
    assert found.classes.tolist() == [1, 0, 1]
    assert found.crowd.tolist() == [True, False, False]


def test_ranges_of_values(tmp_path: Path, make_image: MakeImage) -> None:
    values = np.choose(OBJECTS, [0, 130, 7, 9000])
    listed = tmp_path / "values.txt"
    listed.write_text("1-99 car\n100 - 199 traffic light\n9000 -\n")
    root = one(tmp_path / "data", make_image, values)
    samples, skipped = read_all(root, values=str(listed))
    found = samples["a.jpg"].instances
    assert found is not None
    assert found.classes.tolist() == [0, 1]
    assert open_source(
        InstancePng(root=str(root), split="train", values=str(listed))
    ).vocabulary.classes == {"instances": ("car", "traffic light")}
    assert skipped == []
    listed.write_text("1-99 car\n")
    samples, skipped = read_all(root, values=str(listed))
    assert [(item.object, item.reason) for item in skipped] == [
        ("1 object", "unknown class: 130"),
        ("1 object", "unknown class: 9000"),
    ]


def test_other_values_without_an_object(tmp_path: Path, make_image: MakeImage) -> None:
    values = np.choose(OBJECTS, [0, 1, 2, 255])  # the outlines of VOC's SegmentationObject
    make_image(tmp_path / "JPEGImages" / "a.jpg")
    write_map(tmp_path / "SegmentationObject" / "a.png", values, mode="P")
    samples, _ = read_all(tmp_path, images="JPEGImages", background=(0, 255))
    found = samples["a.jpg"].instances
    assert found is not None
    assert len(found) == 2


def test_a_map_without_objects_is_a_negative(tmp_path: Path, make_image: MakeImage) -> None:
    samples, skipped = read_all(one(tmp_path, make_image, 0 * OBJECTS))
    found = samples["a.jpg"].instances
    assert found is not None
    assert (len(found), found.masks, skipped) == (0, (), [])


def test_defects_are_skipped_with_a_sentence(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("small", "colour", "noise", "jpeg", "cut", "alone", "good"):
        make_image(tmp_path / "train" / f"{name}.jpg")
    folder = tmp_path / "instances" / "train"
    rng = np.random.default_rng(0)
    write_map(folder / "small.png", OBJECTS[:20])
    Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / "colour.png")
    write_map(folder / "noise.png", rng.permutation(48 * 64).reshape(48, 64) * 20, mode="I;16")
    Image.fromarray(OBJECTS.astype(np.uint8)).save(folder / "jpeg.jpg")
    write_map(folder / "cut.png", OBJECTS)
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:60])
    write_map(folder / "good.png", OBJECTS)
    write_map(folder / "nobody.png", OBJECTS)
    samples, skipped = read_all(tmp_path)
    assert list(samples) == ["good.jpg"]
    reasons = {item.file: item.reason for item in skipped}
    expected = {
        "instances/train/small.png": "annotated as an image of another size: 64 x 20 pixels",
        "instances/train/colour.png": "one channel of whole numbers: it has 3 channels",
        "instances/train/noise.png": "too many values for a map of objects: 3072",
        "instances/train/jpeg.jpg": "a JPEG, which changes the values",
        "instances/train/cut.png": "not a whole map",
        "alone": "has no index PNG",
        "nobody": "has no image",
    }
    assert set(reasons) == set(expected)
    for file, part in expected.items():
        assert part in reasons[file]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_name": "a", "values": "x"}, "exclude each other"),
        ({"classes": "two"}, "which values are of which"),
        ({"values": "nowhere"}, "there is no file of values"),
    ],
)
def test_mistakes_in_options(
    tmp_path: Path, make_image: MakeImage, options: dict[str, str], message: str
) -> None:
    root = one(tmp_path, make_image, OBJECTS)
    (tmp_path / "two").write_text("a\nb\n")
    given = {
        key: value if key == "class_name" else str(tmp_path / value)
        for key, value in options.items()
    }
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_all(root, **given)


@pytest.mark.parametrize("text", ["car", "1 car\n1-3 bus", "5-2 car", "1.5 car", "0 -"])
def test_mistakes_in_a_file_of_values(tmp_path: Path, text: str) -> None:
    (tmp_path / "values.txt").write_text(text)
    with pytest.raises(ValueError, match=r"values\.txt"):
        read_ranges(str(tmp_path / "values.txt"))
