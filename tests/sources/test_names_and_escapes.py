"""Names that no text can hold, blanks around them, folders of macOS, and further ways to write
masks and skeletons.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mtl_ray.evaluation.coco_file import read_mask
from mtl_ray.geometry import masks
from mtl_ray.sources.coco_masks import mask_of
from mtl_ray.sources.config import ImageFolder, RawConfig
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.json_values import parse_json
from mtl_ray.sources.object_configs import Coco, Labelme, Yolo
from mtl_ray.sources.source import NOT_UTF8, SkippedItem
from mtl_ray.vocabulary import skeleton_of
from tests.sources.conftest import MakeImage

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
LATIN = os.fsdecode(b"caf\xe9.png")
"""A name as unpacked from an archive of another system: its last letter is no UTF-8."""


def coco_of(*names: str) -> dict[str, Any]:
    return {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "bbox": [1, 2, 3, 4]}
            for number in range(len(names))
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }


def as_folders(root: Path, make_image: MakeImage) -> RawConfig:
    make_image(root / "train" / "cat" / LATIN)
    return ImageFolder(root=str(root), split="train")


def as_yolo(root: Path, make_image: MakeImage) -> RawConfig:
    make_image(root / "images" / "train" / LATIN)
    labels = root / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / LATIN.replace(".png", ".txt")).write_text("0 .5 .5 .2 .2\n")
    (root / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    return Yolo(root=str(root), split="train")


def as_labelme(root: Path, make_image: MakeImage) -> RawConfig:
    make_image(root / LATIN)
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}
    (root / LATIN.replace(".png", ".json")).write_text(
        json.dumps({"imagePath": LATIN, "shapes": [shape]})
    )
    return Labelme(root=str(root), split="train")


@pytest.mark.parametrize("made", [as_folders, as_yolo])
def test_an_image_whose_name_is_not_utf8_is_used_with_a_note(
    tmp_path: Path, make_image: MakeImage, made: Any
) -> None:
    source = open_source(made(tmp_path, make_image))
    sample, skipped = source.read(0)
    assert sample is not None
    assert sample.key.rpartition("/")[2] == "caf%E9.png"
    assert [(item.reason, item.note) for item in skipped] == [(NOT_UTF8, True)]


def test_a_labelme_set_whose_names_are_not_utf8_can_be_opened(
    tmp_path: Path, make_image: MakeImage
) -> None:
    source = open_source(as_labelme(tmp_path, make_image))
    assert all(
        text.encode()
        for index in range(len(source))
        for item in source.read(index)[1]
        for text in (item.file, item.reason)
    )


def test_a_class_whose_name_is_not_utf8_is_refused_in_a_sentence(
    tmp_path: Path, make_image: MakeImage
) -> None:
    make_image(tmp_path / "train" / os.fsdecode(b"caf\xe9") / "a.png")
    with pytest.raises(
        ValueError, match="the class name 'caf%E9' is not UTF-8 text; Fix: rename its folder"
    ):
        open_source(ImageFolder(root=str(tmp_path), split="train"))


def test_what_is_rejected_can_always_be_written() -> None:
    item = SkippedItem("a\udce4", "b\ud800", "plain ä")
    assert (item.file, item.object, item.reason) == ("a%E4", "b\ufffd", "plain ä")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"a\ud800b"', "a\ufffdb"),
        (rb'"\uDC00\ud83d"', "\ufffd\ufffd"),
        (rb'"\\ud800"', r"\ud800"),
        (rb'"\\\ud800"', "\\\ufffd"),
        (rb'"\ud800\n"', "\ufffd\n"),
    ],
)
def test_half_a_character_is_no_text(written: bytes, read: str) -> None:
    assert parse_json(written) == read


@pytest.mark.parametrize(
    ("name", "file"), [(" a.png", "a.png"), ("a.png ", "a.png"), ("C:\\x\\a%20b.png\n", "a b.png")]
)
def test_blanks_around_a_name_do_not_count(
    tmp_path: Path, make_image: MakeImage, name: str, file: str
) -> None:
    make_image(tmp_path / "images" / file)
    (tmp_path / "train.json").write_text(json.dumps(coco_of(name)))
    sample, skipped = open_source(Coco(root=str(tmp_path), split="train")).read(0)
    assert sample is not None
    assert (sample.key, skipped) == (file, [])


def test_what_macos_leaves_is_no_annotation_file(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "a.png")
    for folder in (".", "__MACOSX", ".ipynb_checkpoints"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "train.json").write_text(json.dumps(coco_of("a.png")))
    assert len(open_source(Coco(root=str(tmp_path), split="train"))) == 1


def test_a_file_whose_images_are_all_unusable_is_refused_for_that(tmp_path: Path) -> None:
    content = coco_of("a.png")
    content["images"][0]["id"] = None
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"none of its 1 images can be used; the first: .*has no id"
    ):
        open_source(Coco(root=str(tmp_path), split="train"))


@pytest.mark.parametrize(
    "segmentation",
    [
        [[SQUARE]],
        [[[[10, 10], [30, 10], [30, 30], [10, 30]]]],
        [[SQUARE], SQUARE],
        [[SQUARE, SQUARE]],
    ],
)
def test_polygons_with_a_list_too_many(segmentation: Any) -> None:
    mask, dropped = mask_of(segmentation, 48, 64)
    assert (masks.area(mask, 48, 64), dropped) == (400, "")


def test_a_skeleton_of_numbers_in_texts() -> None:
    assert skeleton_of([["1", " 2"], [1.0, 3]], 3) == ((0, 1), (0, 2))
    assert skeleton_of([["1", "nose"]], 3) == ()


@pytest.mark.parametrize("write", [str, float, int])
def test_run_lengths_are_the_same_in_training_and_evaluation(write: Any) -> None:
    written = {
        "size": [write(48), write(64)],
        "counts": [write(count) for count in (48, 2, 48 * 64 - 50)],
    }
    mask, dropped = mask_of(written, 48, 64)
    assert (read_mask(written, 48, 64), dropped) == (mask, "")
    assert masks.area(mask, 48, 64) == 2


@pytest.mark.parametrize("opened", ["[", '{"a":', "[1,", '{"b": 1, "a": ', "[[], "])
@pytest.mark.parametrize("depth", [100, 600, 10_000])
def test_what_is_nested_too_deep_is_refused(opened: str, depth: int) -> None:
    closed = "".join("]" if opened[0] == "[" else "}" for _ in range(depth))
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(f"{opened * depth}0{closed}".encode())


def test_brackets_in_names_are_not_nested() -> None:
    names = ["a [1", '"[{', "\\"] * 500
    assert parse_json(json.dumps({"names": names}).encode()) == {"names": names}
