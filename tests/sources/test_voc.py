"""Pascal VOC: coordinates that count from 1, attributes and key nodes, index PNGs, and what is
wrong with real files.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_ray.samples import Sample
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Voc
from mtl_ray.sources.source import SkippedItem
from mtl_ray.sources.voc_xml import ATTRIBUTES, MIRROR, NODES
from tests.sources.conftest import MakeImage


def write_xml(
    root: Path, name: str, objects: str, size: str = "<width>64</width><height>48</height>"
) -> None:
    """An annotation file; ``objects`` are XML elements."""
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><size>{size}</size>{objects}</annotation>"
    )


def an_object(name: str, *box: object, more: str = "") -> str:
    """The XML of an object."""
    corners = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def write_list(root: Path, split: str, *names: str) -> None:
    """A list of ids."""
    (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")


def read_all(config: Voc) -> tuple[list[Sample], list[SkippedItem]]:
    """All samples and all skipped items of a split."""
    source = open_source(config)
    readings = [source.read(index) for index in range(len(source))]
    return [sample for sample, _ in readings if sample is not None], [
        *source.skipped,
        *(item for _, found in readings for item in found),
    ]


def test_values_by_hand(tmp_path: Path, make_image: MakeImage) -> None:
    write_list(tmp_path, "train", "a", "b  1")
    write_list(tmp_path, "val", "c")
    more = "<truncated>1</truncated><difficult>1</difficult>"
    write_xml(
        tmp_path, "a", an_object("dog", 1, 2, 10, 20, more=more) + an_object("cat", 5.5, 6, 64, 48)
    )
    write_xml(tmp_path, "b", "", size="<width>0</width><height>0</height>")
    write_xml(tmp_path, "c", an_object("bird", 1, 1, 2, 2))
    make_image(tmp_path / "JPEGImages" / "a.jpg")
    make_image(tmp_path / "JPEGImages" / "b.png")
    source = open_source(Voc(root=str(tmp_path), split="train"))
    (first, second), skipped = read_all(Voc(root=str(tmp_path), split="train"))
    assert source.vocabulary.classes == {"instances": ("bird", "cat", "dog")}
    assert skipped == []
    assert (first.key, second.key) == ("a.jpg", "b.png")
    assert first.instances is not None
    assert second.instances is not None
    assert first.instances.boxes_xyxy.tolist() == [[0, 1, 10, 20], [4.5, 5, 64, 48]]
    assert first.instances.classes.tolist() == [2, 1]
    assert first.instances.difficult.tolist() == [True, False]
    assert first.instances.truncated.tolist() == [True, False]
    assert first.instances.ids.tolist() == [-1, -1]
    assert first.instances.areas.tolist() == [190, 59.5 * 43]
    assert first.instances.masks is None
    assert len(second.instances) == 0


def test_what_is_wrong_is_rejected(tmp_path: Path, make_image: MakeImage) -> None:
    write_list(tmp_path, "train", "a", "a", "gone", "broken", "no_image", "other_size", "torn")
    good = an_object("x", 1, 1, 5, 5)
    bad = [
        an_object("x", 5, 5, 4, 5),
        an_object("x", 9, 1, 5, 5),
        an_object("x", 1, "one", 5, 5),
        an_object("x", 100, 100, 120, 120),
    ]
    write_xml(tmp_path, "a", good + "".join(bad) + "<object><name>x</name></object>")
    write_xml(tmp_path, "no_image", good)
    write_xml(tmp_path, "other_size", good, size="<width>48</width><height>64</height>")
    write_xml(tmp_path, "torn", good)
    (tmp_path / "Annotations" / "broken.xml").write_text("<annotation><object>")
    for name in ("a", "gone", "broken", "other_size", "torn"):
        make_image(tmp_path / "JPEGImages" / f"{name}.jpg")
    torn = tmp_path / "JPEGImages" / "torn.jpg"
    torn.write_bytes(torn.read_bytes()[:-200])
    samples, skipped = read_all(Voc(root=str(tmp_path), split="train"))
    assert [sample.key for sample in samples] == ["a.jpg"]
    assert samples[0].instances is not None
    assert samples[0].instances.boxes_xyxy.tolist() == [[0, 0, 5, 5]]
    assert [(item.file, item.object) for item in skipped] == [
        ("ImageSets/Main/train.txt", "a"),
        *(("Annotations/a.xml", f"object {number} (x)") for number in (2, 3, 4, 6, 5)),
        ("Annotations/gone.xml", ""),
        ("Annotations/broken.xml", ""),
        ("Annotations/no_image.xml", ""),
        ("Annotations/other_size.xml", ""),
        ("JPEGImages/torn.jpg", ""),
    ]
    reasons = " | ".join(item.reason for item in skipped)
    for part in (
        "listed more than once",
        "no area",
        "numbers",
        "outside",
        "not there",
        "not XML",
        "without an image",
        "48 x 64",
        "cut short",
    ):
        assert part in reasons


def test_attributes_and_key_nodes(tmp_path: Path, make_image: MakeImage) -> None:
    nodes = (
        "<keynode><nose>(3, 4)</nose><lefteye> (5,6.5) </lefteye><righteye>(-1, "
        "-1)</righteye></keynode>"
    )
    evil = "<keynode><nose>__import__('os').abort()</nose></keynode>"
    write_list(tmp_path, "train", "a")
    write_xml(
        tmp_path,
        "a",
        an_object("man", 1, 1, 9, 9, more=f"<gender>female</gender><age>child</age>{nodes}")
        + an_object("man", 1, 1, 9, 9, more="<gender>male</gender>")
        + an_object("man", 1, 1, 9, 9)
        + an_object("man", 1, 1, 9, 9, more=evil),
    )
    make_image(tmp_path / "JPEGImages" / "a.jpg")
    config = Voc(root=str(tmp_path), split="train", style="mtl")
    (sample,), skipped = read_all(config)
    found = sample.instances
    assert found is not None
    assert found.keypoints is not None
    assert found.keypoints.shape == (3, 18, 3)
    assert found.keypoints[0, :4].tolist() == [[0, 0, 0], [3, 4, 2], [5, 6.5, 2], [0, 0, 0]]
    assert not found.keypoints[1:].any()
    assert {name: found.attributes[name].tolist() for name in ATTRIBUTES} == {
        "property": [1, 1, 0],
        "gender": [1, 0, -1],
        "age": [1, -1, -1],
    }
    assert [(item.object, item.reason[:22]) for item in skipped] == [
        ("object 4 (man)", "a key node is not a po")
    ]
    assert open_source(config).vocabulary.keypoints == NODES
    assert [NODES[other] for other in MIRROR[:4]] == ["headtop", "nose", "righteye", "lefteye"]
    assert [MIRROR[other] for other in MIRROR] == list(range(18))
    assert set(NODES[2::2]) == {node for node in NODES if node.startswith("left")}


def test_palette_maps_are_indices(tmp_path: Path, make_image: MakeImage) -> None:
    write_xml(tmp_path, "a", an_object("x", 1, 1, 5, 5))
    write_xml(tmp_path, "b", an_object("x", 1, 1, 5, 5))
    values = np.zeros((48, 64), np.uint8)
    values[:4], values[4:8], values[8:10] = 2, 255, 3
    image = Image.fromarray(values, "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[7] * 759])
    (tmp_path / "SegmentationClass").mkdir()
    image.save(tmp_path / "SegmentationClass" / "a.png")
    names = tmp_path / "names.txt"
    names.write_text("background\nx\ny\n")
    for name in "ab":
        make_image(tmp_path / "JPEGImages" / f"{name}.jpg")
    config = Voc(root=str(tmp_path), split="all", semantic_classes=str(names))
    (first, second), skipped = read_all(config)
    assert open_source(config).vocabulary.colours == {
        "semantic": ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    }
    assert first.semantic is not None
    (tmp_path / "map.png").write_bytes(first.semantic)
    read = np.asarray(Image.open(tmp_path / "map.png"))
    assert read.tolist() == np.where(values == 3, 255, values).tolist()
    assert second.semantic is None
    assert [(item.object, item.reason[-10:]) for item in skipped] == [("value 3", "128 pixels")]


def test_where_the_set_may_lie(tmp_path: Path, make_image: MakeImage) -> None:
    with pytest.raises(FileNotFoundError, match="no folder Annotations"):
        open_source(Voc(root=str(tmp_path), split="train"))
    for year in ("VOC2007", "VOC2012"):
        folder = tmp_path / "VOCdevkit" / year
        write_list(folder, "train", "a")
        write_xml(folder, "a", an_object("x", 1, 1, 5, 5))
        make_image(folder / "JPEGImages" / "a.jpg")
    assert [sample.key for sample in read_all(Voc(root=str(tmp_path), split="train"))[0]] == [
        "VOC2007/JPEGImages/a.jpg",
        "VOC2012/JPEGImages/a.jpg",
    ]
    assert len(open_source(Voc(root=str(tmp_path / "VOCdevkit" / "VOC2007"), split="train"))) == 1
    with pytest.raises(FileNotFoundError, match=r"no list test\.txt.*Main/train\.txt"):
        open_source(Voc(root=str(tmp_path / "VOCdevkit" / "VOC2007"), split="test"))


def test_several_sets_that_are_no_years(tmp_path: Path) -> None:
    for name in ("one", "VOC2012"):
        write_xml(tmp_path / name, "a", an_object("x", 1, 1, 5, 5))
    with pytest.raises(ValueError, match="several VOC datasets"):
        open_source(Voc(root=str(tmp_path), split="train"))


def test_years_together(tmp_path: Path, make_image: MakeImage) -> None:
    for year, objects in {"VOC2007": ("dog", "cat"), "VOC2012": ("bird",)}.items():
        write_list(tmp_path / year, "trainval", "000001")
        write_xml(
            tmp_path / year, "000001", "".join(an_object(name, 1, 1, 5, 5) for name in objects)
        )
        make_image(tmp_path / year / "JPEGImages" / "000001.jpg")
    write_list(tmp_path / "VOC2007", "test", "000001")
    both, skipped = read_all(Voc(root=str(tmp_path), split="trainval"))
    assert [
        sample.instances.classes.tolist() for sample in both if sample.instances is not None
    ] == [[2, 1], [0]]
    assert skipped == []
    one, none = read_all(Voc(root=str(tmp_path), split="trainval", years=("2012",)))
    assert ([sample.key for sample in one], none) == (["000001.jpg"], [])
    tested, skipped = read_all(Voc(root=str(tmp_path), split="test"))
    assert [sample.key for sample in tested] == ["VOC2007/JPEGImages/000001.jpg"]
    assert [(item.file, item.reason.partition(":")[0]) for item in skipped] == [
        ("VOC2012", "has no list test.txt")
    ]
    with pytest.raises(FileNotFoundError, match="no folder 2008"):
        open_source(Voc(root=str(tmp_path), split="test", years=("2008",)))
    with pytest.raises(FileNotFoundError, match=r"no list val\.txt"):
        open_source(Voc(root=str(tmp_path), split="val"))


def test_boxes_to_compare_with_older_numbers(tmp_path: Path, make_image: MakeImage) -> None:
    write_xml(tmp_path, "a", an_object("dog", 1, 2, 10, 20))
    make_image(tmp_path / "JPEGImages" / "a.jpg")
    (sample,), _ = read_all(Voc(root=str(tmp_path), split="all", compat=True))
    assert sample.instances is not None
    assert sample.instances.boxes_xyxy.tolist() == [[0, 1, 9, 19]]
    assert sample.instances.areas.tolist() == [9 * 18]


def test_classes_from_a_file(tmp_path: Path, make_image: MakeImage) -> None:
    write_xml(tmp_path, "a", an_object("x", 1, 1, 5, 5) + an_object("y", 1, 1, 5, 5))
    make_image(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "classes.txt").write_text("z\ny\n")
    (sample,), skipped = read_all(Voc(root=str(tmp_path), split="all"))
    assert sample.instances is not None
    assert sample.instances.classes.tolist() == [1]
    assert skipped[0].reason == "unknown class: x"
    (tmp_path / "classes.txt").write_text("z\nz\n")
    with pytest.raises(ValueError, match="'z' is repeated"):
        open_source(Voc(root=str(tmp_path), split="all"))


def test_the_folders_of_objectivemtl(tmp_path: Path, make_image: MakeImage) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "train.txt").write_text("a\n")
    write_xml(tmp_path, "a", an_object("x", 1, 1, 5, 5))
    (tmp_path / "Annotations").rename(tmp_path / "annotations")
    make_image(tmp_path / "images" / "a.jpg")
    samples, skipped = read_all(Voc(root=str(tmp_path), split="train"))
    assert ([sample.key for sample in samples], skipped) == (["a.jpg"], [])
    with pytest.raises(FileNotFoundError, match=r"no list val\.txt.*meta/train\.txt"):
        open_source(Voc(root=str(tmp_path), split="val"))
