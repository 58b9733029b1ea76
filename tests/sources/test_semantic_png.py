"""Index PNGs: every mode, every layout, values without a class, and maps that do not fit."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_ray.samples import Sample
from mtl_ray.sources.config import SemanticPng
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.semantic_pairs import read_map_values
from mtl_ray.sources.source import SkippedItem
from tests.sources.conftest import MakeImage

VALUES = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64) % 4


def write_map(path: Path, values: np.ndarray = VALUES, mode: str = "L") -> None:
    """An index PNG of some mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = (
        Image.fromarray(values.astype(np.uint16))
        if mode == "I;16"
        else Image.fromarray(values.astype(np.uint8), "L")
    )
    if mode == "P":
        image = Image.fromarray(values.astype(np.uint8), "P")
        image.putpalette([(7 * place) % 256 for place in range(768)])
    elif mode == "RGB":
        image = image.convert("RGB")
    image.save(path)


def read_all(config: SemanticPng) -> tuple[dict[str, Sample], list[SkippedItem]]:
    """All samples by key, and all skipped items of a split."""
    source = open_source(config)
    readings = [source.read(index) for index in range(len(source))]
    samples = {sample.key: sample for sample, _ in readings if sample is not None}
    return samples, [*source.skipped, *(item for _, found in readings for item in found)]


def classes_of(sample: Sample) -> np.ndarray:
    """The values of a sample's map."""
    assert sample.semantic is not None
    image = Image.open(io.BytesIO(sample.semantic))
    assert image.mode == "L"
    return np.asarray(image)


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_modes_are_read_as_indices(tmp_path: Path, make_image: MakeImage, mode: str) -> None:
    make_image(tmp_path / "train" / "a.jpg")
    write_map(tmp_path / "trainannot" / "a.png", mode=mode)
    samples, skipped = read_all(SemanticPng(root=str(tmp_path), split="train"))
    assert np.array_equal(classes_of(samples["a.jpg"]), VALUES)
    assert skipped == []
    vocabulary = open_source(SemanticPng(root=str(tmp_path), split="train")).vocabulary
    assert vocabulary.classes == {"semantic": ("0", "1", "2", "3")}
    assert bool(vocabulary.colours) == (mode == "P")


def test_ignored_and_unnamed_values(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "train" / "a.jpg")
    write_map(tmp_path / "trainannot" / "a.png")
    names = tmp_path / "names.txt"
    names.write_text("road\nsky\n")
    samples, skipped = read_all(
        SemanticPng(root=str(tmp_path), split="train", classes=str(names), ignore=(3, 0))
    )
    assert np.array_equal(classes_of(samples["a.jpg"]), np.where(VALUES == 1, 1, 255))
    assert [(item.file, item.object) for item in skipped] == [("trainannot/a.png", "value 2")]
    assert skipped[0].reason.endswith(": 768 pixels")


def test_classes_are_those_of_all_splits(tmp_path: Path, make_image: MakeImage) -> None:
    for split, highest in (("train", 1), ("val", 6)):
        make_image(tmp_path / split / "a.jpg")
        write_map(tmp_path / f"{split}annot" / "a.png", np.minimum(VALUES, 1) * highest)
        (tmp_path / f"{split}.txt").write_text(f"{split}/a.jpg {split}annot/a.png\n")
    for split in ("train", "val"):
        assert (
            len(
                open_source(SemanticPng(root=str(tmp_path), split=split)).vocabulary.classes[
                    "semantic"
                ]
            )
            == 7
        )


def test_maps_that_do_not_fit(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("a", "b", "c", "d", "e", "f"):
        make_image(tmp_path / "images" / f"{name}.jpg")
    write_map(tmp_path / "annotations" / "a.png", VALUES[:-1])
    write_map(tmp_path / "annotations" / "b.png", mode="RGB")
    write_map(tmp_path / "annotations" / "c.png", VALUES.astype(np.int64) + 300, mode="I;16")
    (tmp_path / "annotations" / "d.png").write_bytes(b"no image")
    write_map(tmp_path / "annotations" / "e.png")
    (tmp_path / "train.txt").write_text("a\nb\nc\nd\ne\nf\ng\n")
    samples, skipped = read_all(SemanticPng(root=str(tmp_path), split="train", ignore=(0,)))
    assert samples.keys() == {"e.jpg"}
    reasons = {item.file: item.reason for item in skipped}
    assert (
        reasons["annotations/a.png"]
        == "its size is not that of its image: 64 x 47, the image 64 x 48"
    )
    assert "one channel" in reasons["annotations/b.png"]
    assert "300" in reasons["annotations/c.png"] or "303" in reasons["annotations/c.png"]
    assert "not a whole map" in reasons["annotations/d.png"]
    assert reasons["f"] == "has no index PNG in annotations"
    assert reasons["g"] == "has no image in images"


@pytest.mark.parametrize(
    ("image", "label", "listed"),
    [
        ("images/train/a.jpg", "annotations/train/a.png", None),
        ("img_dir/train/a.png", "ann_dir/train/a.png", None),
        ("images/a.jpg", "annotations/a.png", "a"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png", "a"),
        (
            "train/a.jpg",
            "trainannot/a.png",
            "/SegNet/CamVid/train/a.jpg /SegNet/CamVid/trainannot/a.png",
        ),
    ],
)
def test_layouts(
    tmp_path: Path, make_image: MakeImage, image: str, label: str, listed: str | None
) -> None:
    make_image(tmp_path / image)
    write_map(tmp_path / label)
    if listed:
        (tmp_path / "train.txt").write_text(f"{listed}\n")
    samples, skipped = read_all(SemanticPng(root=str(tmp_path), split="train"))
    assert (len(samples), skipped) == (1, [])


def test_kinds_at_the_end_of_names(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("00", "01"):
        make_image(tmp_path / "imgs" / f"{name}_img.jpg")
        write_map(tmp_path / "gts" / f"{name}_gt.png")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("01\n")
    samples, skipped = read_all(SemanticPng(root=str(tmp_path), split="train"))
    assert (list(samples), skipped) == (["01_img.jpg"], [])


def test_missing_split(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "train" / "a.jpg")
    write_map(tmp_path / "annotations" / "train" / "a.png")
    with pytest.raises(FileNotFoundError, match=r"no list val\.txt.*no folder such as val"):
        open_source(SemanticPng(root=str(tmp_path), split="val"))


def test_zero_that_is_no_class(tmp_path: Path, make_image: MakeImage) -> None:
    values = np.array([0, 1, 2, 255], np.uint8)[VALUES]
    for place in ("train", "val"):
        make_image(tmp_path / "images" / place / "a.jpg")
        write_map(tmp_path / "annotations" / place / "a.png", values, mode="P")
    write_map(tmp_path / "annotations" / "val" / "a.png", np.where(values == 2, 3, values))
    config = SemanticPng(root=str(tmp_path), split="train", reduce_zero_label=True)
    samples, skipped = read_all(config)
    assert skipped == []
    assert np.array_equal(
        classes_of(samples["a.jpg"]), np.array([255, 0, 1, 255], np.uint8)[VALUES]
    )
    vocabulary = open_source(config).vocabulary
    assert vocabulary.classes == {"semantic": ("0", "1", "2")}
    assert vocabulary.colours["semantic"] == tuple(
        tuple(7 * place % 256 for place in range(3 * n, 3 * n + 3)) for n in (1, 2, 3)
    )
    (tmp_path / "classes.txt").write_text("wall\n")
    samples, skipped = read_all(config)
    assert np.array_equal(
        classes_of(samples["a.jpg"]), np.array([255, 0, 255, 255], np.uint8)[VALUES]
    )
    assert [item.object for item in skipped] == ["value 2"]


def test_label_ids_of_cityscapes(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "train" / "a.jpg")
    write_map(tmp_path / "trainannot" / "a.png", np.array([0, 7, 26, 33], np.uint8)[VALUES])
    config = SemanticPng(root=str(tmp_path), split="train", label_ids="cityscapes")
    samples, skipped = read_all(config)
    assert skipped == []
    assert np.array_equal(
        classes_of(samples["a.jpg"]), np.array([255, 0, 13, 18], np.uint8)[VALUES]
    )
    assert open_source(config).vocabulary.classes["semantic"][13] == "car"
    with pytest.raises(ValueError, match="give one of them"):
        open_source(
            SemanticPng(
                root=str(tmp_path), split="train", label_ids="cityscapes", reduce_zero_label=True
            )
        )


def test_values_by_a_file(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "train" / "a.jpg")
    write_map(tmp_path / "trainannot" / "a.png", np.array([0, 255, 9, 7], np.uint8)[VALUES])
    (names := tmp_path / "values.txt").write_text("255 fine vessel\n0 background\n9 fine vessel\n")
    config = SemanticPng(root=str(tmp_path), split="train", values=str(names))
    samples, skipped = read_all(config)
    assert open_source(config).vocabulary.classes == {"semantic": ("fine vessel", "background")}
    assert np.array_equal(classes_of(samples["a.jpg"]), np.array([1, 0, 0, 255], np.uint8)[VALUES])
    assert [item.object for item in skipped] == ["value 7"]
    before = open_source(config).fingerprint
    names.write_text("255 fine vessel\n0 background\n9 background\n")
    assert open_source(config).fingerprint != before


def test_colours_by_a_file(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "img_dir" / "train" / "a.jpg")
    colours = np.array([[255, 255, 255], [0, 0, 255], [0, 0, 0], [1, 2, 3]], np.uint8)
    (tmp_path / "ann_dir" / "train").mkdir(parents=True)
    Image.fromarray(colours[VALUES]).save(tmp_path / "ann_dir" / "train" / "a.png")
    (tmp_path / "values.txt").write_text(
        "0 0 255 building\n0 0 0 -\n255 255 255 paved ground\n0 0 254 building\n"
    )
    config = SemanticPng(root=str(tmp_path), split="train", values=str(tmp_path / "values.txt"))
    samples, skipped = read_all(config)
    vocabulary = open_source(config).vocabulary
    assert vocabulary.classes == {"semantic": ("building", "paved ground")}
    assert vocabulary.colours == {"semantic": ((0, 0, 255), (255, 255, 255))}
    assert np.array_equal(
        classes_of(samples["a.jpg"]), np.array([1, 0, 255, 255], np.uint8)[VALUES]
    )
    assert [item.reason for item in skipped] == [
        "pixels of colours without a class, which are ignored: 768 pixels of 1 colours, such as 1 "
        "2 3"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 a\n2\n", "'2' is neither"),
        ("1 2 3 a\nb 2 3 c\n", "'b 2 3 c' is neither"),
        ("256 a\n", "neither"),
        ("1 a\n1 b\n", "1 is repeated"),
        ("1 -\n", "names 0 classes"),
        ("", "names 0 classes"),
    ],
)
def test_files_of_values_that_make_no_sense(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "values.txt").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_map_values(str(tmp_path / "values.txt"))


def test_palette_maps_of_voc(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "JPEGImages" / "2007_1.jpg")
    make_image(tmp_path / "JPEGImages" / "2007_2.jpg")
    write_map(
        tmp_path / "SegmentationClass" / "2007_1.png",
        np.array([0, 5, 20, 255], np.uint8)[VALUES],
        mode="P",
    )
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_1\n")
    samples, skipped = read_all(SemanticPng(root=str(tmp_path), split="val"))
    assert skipped == []
    assert np.array_equal(
        classes_of(samples["2007_1.jpg"]), np.array([0, 5, 20, 255], np.uint8)[VALUES]
    )
