"""Samples written in each format of files are the same Samples when they are read again."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.geometry import masks
from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.sources.config import RawConfig, SemanticPng
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Coco, Voc, Yolo
from mtl_ray.sources.source import SkippedItem, UnreadableError
from mtl_ray.sources.writers.open import FileFormat, open_writer
from mtl_ray.sources.writers.writer import Target, Writer, path_of

HEIGHT, WIDTH = 40, 60
VOCABULARY = Vocabulary(
    classes={"instances": ("cat", "dog", "sheep dog"), "semantic": ("ground", "sky")},
    keypoints=("left_eye", "right_eye"),
    skeleton=((0, 1),),
    mirror=(1, 0),
)
JPEG = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))[1].tobytes()


def map_png(seed: int) -> bytes:
    values = np.random.default_rng(seed).choice(np.array([0, 1, 255], np.uint8), (HEIGHT, WIDTH))
    return bytes(cv2.imencode(".png", values)[1].tobytes())


def sample(key: str, count: int, seed: int, *, drawn: bool = True, points: bool = True) -> Sample:
    """An image with objects at random, the last of which is a crowd, and one with a mask of two
    parts and a hole.
    """
    random = np.random.default_rng(seed)
    low = random.uniform(0, 30, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(1, 9, (count, 2))], axis=1).astype(np.float32)
    encoded = []
    for number in range(count):
        pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
        pixels[3 : 9 + number, 4:20], pixels[5, 6:9], pixels[30:33, 2:9] = 1, 0, 1
        encoded.append(masks.encode_rle(pixels) if number != 1 else b"")
    keypoints = np.concatenate(
        [random.uniform(0, 30, (count, 2, 2)), np.full((count, 2, 1), 2)], axis=2
    ).astype(np.float32)
    crowd = np.arange(count) == count - 1
    return image_sample(
        key=key,
        image=JPEG,
        height=HEIGHT,
        width=WIDTH,
        instances=Instances(
            boxes_xyxy=boxes,
            classes=random.integers(0, 3, count),
            ids=np.full(count, -1),
            areas=random.uniform(1, 99, count).astype(np.float32),
            crowd=crowd,
            difficult=(np.arange(count) == 0) & ~crowd,
            truncated=np.arange(count) == 1,
            masks=tuple(encoded) if drawn else None,
            keypoints=keypoints if points else None,
        ),
        semantic=map_png(seed),
    )


SAMPLES = [sample("a.jpg", 4, 0), sample("sub/b.jpg", 0, 1), sample("no_suffix", 3, 2)]


def write(
    form: FileFormat, uri: Path, samples: list[Sample], split: str = "train", **options: Any
) -> list[SkippedItem]:
    """Writes a split; what the format cannot say."""
    writer: Writer = open_writer(
        form, Target(uri=str(uri), split=split, vocabulary=VOCABULARY, **options)
    )
    written = [writer.write(each) for each in samples]
    writer.finish([record for record, _ in written])
    return [item for _, skipped in written for item in skipped]


def read(config: RawConfig) -> tuple[dict[str, Sample], Vocabulary]:
    source = open_source(config)
    readings = [source.read(index) for index in range(len(source))]
    assert [*source.skipped, *(item for _, found in readings for item in found)] == []
    return {each.key: each for each, _ in readings if each is not None}, source.vocabulary


def found_in(each: Sample) -> Instances:
    assert each.instances is not None
    return each.instances


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_coco(tmp_path: Path, form: Any) -> None:
    assert write("coco", tmp_path, SAMPLES, masks=form) == []
    assert write("coco", tmp_path, SAMPLES[:1], split="val") == []
    again, vocabulary = read(Coco(root=str(tmp_path), split="train"))
    assert list(again) == ["a.jpg", "sub/b.jpg", "no_suffix.jpg"]
    assert vocabulary.classes["instances"] == VOCABULARY.classes["instances"]
    assert (vocabulary.keypoints, vocabulary.skeleton, vocabulary.mirror) == (
        VOCABULARY.keypoints,
        VOCABULARY.skeleton,
        VOCABULARY.mirror,
    )
    for before, after in zip(SAMPLES, again.values(), strict=True):
        one, other = found_in(before), found_in(after)
        for name in ("boxes_xyxy", "classes", "areas", "crowd", "difficult", "truncated"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert one.masks == other.masks
        assert after.image == JPEG
    content = json.loads((tmp_path / "annotations" / "instances_train.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2, 3]
    assert (tmp_path / "annotations" / "semantic_masks" / "sub" / "b.png").read_bytes() == SAMPLES[
        1
    ].semantic
    assert (tmp_path / "annotations" / "semantic_classes.txt").read_text() == "ground\nsky\n"
    assert [each["id"] for each in content["annotations"]] == list(range(1, 8))
    assert [each["id"] for each in content["categories"]] == [1, 2, 3]
    assert [each["iscrowd"] for each in content["annotations"]] == [1, 0, 0, 1, 1, 0, 1]
    assert all(
        isinstance(each["segmentation"], dict)
        for each in content["annotations"]
        if each["iscrowd"] and not each.get("difficult")
    )


def test_coco_as_pycocotools_reads_it(tmp_path: Path) -> None:
    write("coco", tmp_path / "one.json", SAMPLES, images=False)
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]
    coco = COCO(str(tmp_path / "one.json"))
    encoded = found_in(SAMPLES[0]).masks
    assert encoded is not None
    first = coco.loadAnns([1])[0]
    said = {
        type(each["segmentation"]) for each in coco.dataset["annotations"] if not each["iscrowd"]
    }
    assert said == {list}, "objects are polygons unless something else is asked for"
    assert np.array_equal(coco.annToMask(first), masks.decode_rle(encoded[0], HEIGHT, WIDTH))
    assert first["num_keypoints"] == 2


def test_coco_keeps_category_numbers_that_count_from_one(tmp_path: Path) -> None:
    for ids, expected in (((24, 26, 33), [24, 26, 33]), ((0, 1, 2), [1, 2, 3])):
        vocabulary = Vocabulary(classes=VOCABULARY.classes, category_ids={"instances": ids})
        writer = open_writer(
            "coco",
            Target(uri=str(tmp_path / "x.json"), split="x", vocabulary=vocabulary, images=False),
        )
        writer.finish([writer.write(SAMPLES[0])[0]])
        content = json.loads((tmp_path / "x.json").read_text())
        assert [category["id"] for category in content["categories"]] == expected
        assert {each["category_id"] for each in content["annotations"]} <= set(expected)


def test_yolo_boxes(tmp_path: Path) -> None:
    skipped = write("yolo", tmp_path, SAMPLES, masks="none")
    write("yolo", tmp_path, SAMPLES[:1], split="val")
    assert [(item.file, item.object) for item in skipped] == [
        ("a.jpg", "1 objects"),
        ("no_suffix.jpg", "1 objects"),
    ]
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {
        "train": "images/train",
        "nc": 3,
        "names": ["cat", "dog", "sheep dog"],
        "val": "images/val",
    }
    again, _ = read(Yolo(root=str(tmp_path), split="train"))
    assert again.keys() == {"a.jpg", "sub/b.jpg", "no_suffix.jpg"}
    one, other = found_in(SAMPLES[0]), found_in(again["a.jpg"])
    assert np.array_equal(one.classes[:-1], other.classes)
    assert np.abs(one.boxes_xyxy[:-1] - other.boxes_xyxy).max() < 1e-5


def test_yolo_polygons(tmp_path: Path) -> None:
    write("yolo", tmp_path, SAMPLES)
    again, _ = read(Yolo(root=str(tmp_path), split="train"))
    one, other = found_in(SAMPLES[0]), found_in(again["a.jpg"])
    assert one.masks is not None
    assert other.masks is not None
    assert (one.masks[0], one.masks[2]) == (other.masks[0], other.masks[2])
    # it has no mask: its box is a polygon, too
    assert np.abs(one.boxes_xyxy[1] - other.boxes_xyxy[1]).max() < 1e-5
    assert all(
        len(line.split()) >= 7
        for line in (tmp_path / "labels" / "train" / "a.txt").read_text().splitlines()
    )


def test_voc(tmp_path: Path) -> None:
    skipped = write("voc", tmp_path, SAMPLES, masks="none")
    assert skipped == []
    assert [item.object for item in write("voc", tmp_path, SAMPLES)] == ["3 masks", "2 masks"]
    names = tmp_path / "semantic_classes.txt"
    again, vocabulary = read(Voc(root=str(tmp_path), split="train", semantic_classes=str(names)))
    assert again.keys() == {"a.jpg", "sub_b.jpg", "no_suffix.jpg"}
    assert vocabulary.classes == VOCABULARY.classes
    for before, after in zip(SAMPLES, again.values(), strict=True):
        one, other = found_in(before), found_in(after)
        assert np.array_equal(one.boxes_xyxy, other.boxes_xyxy)
        assert np.array_equal(one.classes, other.classes)
        assert np.array_equal(one.difficult | one.crowd, other.difficult)
        assert np.array_equal(one.truncated, other.truncated)
        assert before.semantic is not None
        assert after.semantic is not None
        assert np.array_equal(decoded(before.semantic), decoded(after.semantic))


def decoded(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("blank", [False, True])
def test_semantic_png(tmp_path: Path, blank: bool) -> None:
    samples = [sample("with blank.jpg", 0, 5)] if blank else SAMPLES
    assert write("semantic_png", tmp_path, samples) == []
    again, vocabulary = read(SemanticPng(root=str(tmp_path), split="train"))
    assert vocabulary.classes == {"semantic": ("ground", "sky")}
    for before, after in zip(samples, again.values(), strict=True):
        assert before.semantic is not None
        assert after.semantic is not None
        assert np.array_equal(decoded(before.semantic), decoded(after.semantic))


@pytest.mark.parametrize("form", ["coco", "yolo", "voc", "semantic_png"])
def test_names_that_lead_elsewhere(tmp_path: Path, form: FileFormat) -> None:
    writer = open_writer(
        form, Target(uri=str(tmp_path / "out"), split="train", vocabulary=VOCABULARY)
    )
    for key in ("../a.jpg", "/etc/a.jpg", "x/../../a.jpg", "x\\..\\a.jpg", "", "a//b.jpg", "."):
        with pytest.raises(UnreadableError, match="not a path inside a folder"):
            writer.write(sample(key, 1, 0))
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=20))
def test_a_path_stays_inside(key: str) -> None:
    try:
        path = path_of(sample(key, 0, 0))
    except UnreadableError:
        return
    assert Path("/root/folder", path).resolve().is_relative_to("/root/folder")


@pytest.mark.parametrize("form", ["yolo", "voc", "semantic_png"])
def test_names_that_fall_together(tmp_path: Path, form: FileFormat) -> None:
    with pytest.raises(ValueError, match="two images would have the same"):
        write(form, tmp_path, [sample("a.jpg", 1, 0), sample("a.png", 1, 1)])


@pytest.mark.parametrize("form", ["yolo", "voc", "semantic_png"])
def test_other_classes_in_the_same_folder(tmp_path: Path, form: FileFormat) -> None:
    write(form, tmp_path, SAMPLES)
    other = Vocabulary(classes={"instances": ("x", "y", "z"), "semantic": ("p", "q")})
    writer = open_writer(form, Target(uri=str(tmp_path), split="val", vocabulary=other))
    with pytest.raises(ValueError, match="names other classes"):
        writer.finish([writer.write(SAMPLES[0])[0]])


def test_what_a_format_cannot_say(tmp_path: Path) -> None:
    labels = Vocabulary(classes={"labels": ("x",)})
    for form in ("coco", "yolo", "voc", "semantic_png"):
        with pytest.raises(ValueError, match=f"--format {form} needs .*; the dataset has labels"):
            open_writer(form, Target(uri="x", split="x", vocabulary=labels))  # type: ignore[arg-type]
    for form, option in (("yolo", "rle"), ("voc", "polygons"), ("semantic_png", "none")):
        with pytest.raises(ValueError, match="--masks"):
            open_writer(form, Target(uri="x", split="x", vocabulary=VOCABULARY, masks=option))  # type: ignore[arg-type]
    bare = image_sample(key="bare.jpg", image=JPEG, height=HEIGHT, width=WIDTH)
    assert [item.file for item in write("coco", tmp_path, [bare])] == ["bare.jpg"]
    for form in ("yolo", "voc", "semantic_png"):
        with pytest.raises(UnreadableError):
            write(form, tmp_path, [bare])  # type: ignore[arg-type]
