"""Datasets of text, XML, PNG and folders as other programs write them: what must come out of
each.
"""

import codecs
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtl_ray.samples import Sample
from mtl_ray.sources.config import ImageFolder, List, RawConfig, SemanticPng, UnannotatedImages
from mtl_ray.sources.folders import NEGATIVE, ORPHAN, PASSED_OVER
from mtl_ray.sources.image_reading import ABSENT, ImageRule, open_source
from mtl_ray.sources.object_configs import Text, Voc, Yolo
from mtl_ray.sources.source import SkippedItem, Source
from mtl_ray.sources.writers.open import FileFormat, open_writer
from mtl_ray.sources.writers.writer import Target
from tests.sources.conftest import MakeImage

LABELS_ONLY = ImageRule(needed=False)
BOX = "<object><name>{}</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>"  # noqa: E501
XML = "<annotation><filename>{}</filename><size><width>64</width><height>48</height></size>{}</annotation>"  # noqa: E501


def write(path: Path, text: str | bytes) -> None:
    """A file in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def an_annotation(name: str, label: str = "cat") -> str:
    """The XML of an image with one object."""
    return XML.format(name, BOX.format(label))


def read_all(
    config: RawConfig, rule: ImageRule | None = None
) -> tuple[dict[str, Sample], list[SkippedItem], Source]:
    """All samples by key, everything that was said, and the source."""
    source = open_source(config, rule or ImageRule())
    readings = [source.read(index) for index in range(len(source))]
    samples = {sample.key: sample for sample, _ in readings if sample is not None}
    return samples, [*source.skipped, *(item for _, found in readings for item in found)], source


def counts_of(samples: dict[str, Sample]) -> dict[str, int]:
    """How many objects each image has."""
    return {
        key: len(sample.instances)
        for key, sample in samples.items()
        if sample.instances is not None
    }


def classes_of(source: Source) -> tuple[str, ...]:
    (names,) = source.vocabulary.classes.values()
    return names


def said(items: list[SkippedItem]) -> dict[str, list[str]]:
    """The files of everything that was said, by the general part of the reason."""
    found: dict[str, list[str]] = {}
    for item in items:
        found.setdefault(item.reason.partition(": ")[0], []).append(item.file)
    return found


# YOLO


@pytest.mark.parametrize(
    ("description", "names"),
    [
        (
            'names:\n  "10": k\n  "0": a\n' + "".join(f'  "{n}": n{n}\n' for n in range(1, 10)),
            ("a", *(f"n{n}" for n in range(1, 10)), "k"),
        ),
        (
            "names: {0: no, 1: 1.10, 2: on, 3: null, 4: 2024-01-01, 5: 0x1F, 6: 1_000, 7: ~}",
            ("no", "1.10", "on", "null", "2024-01-01", "0x1F", "1_000", "~"),
        ),
        ("names: [yes, 12, 1e3, .5]", ("yes", "12", "1e3", ".5")),
        ("names: {cat: 0, dog: 1}", ("cat", "dog")),
        ("names: {0: cat, 2: dog}", ("cat", "1", "dog")),
        ("names: meta/obj.names", ("car", "big bus")),
        ("names: C:\\sets\\mine\\meta\\obj.names", ("car", "big bus")),
        ("\ufeffnames:\r\n- cat\r\n- dog\r\n", ("cat", "dog")),
        ("nc: 2", ("0", "1")),
        ("names: null", ("0", "1")),
    ],
)
def test_class_names_of_yolo(
    tmp_path: Path, make_image: MakeImage, description: str, names: tuple[str, ...]
) -> None:
    make_image(tmp_path / "images" / "train" / "a.jpg")
    write(tmp_path / "labels" / "train" / "a.txt", "0 .5 .5 .5 .5\n1 .5 .5 .5 .5\n")
    write(tmp_path / "meta" / "obj.names", "car\nbig bus\n")
    write(
        tmp_path / "data.yaml",
        "train: images/train\n" + description
        if not description.startswith("\ufeff")
        else description,
    )
    samples, items, source = read_all(Yolo(root=str(tmp_path), split="train"))
    assert (classes_of(source), counts_of(samples), items) == (names, {"a.jpg": 2}, [])


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ("names: [cat, [dog]]", "names must be texts"),
        ("names: {a: b}", "names must be a list, or a mapping"),
        ("names: {0: a, 00: b}", "names must be a list, or a mapping"),
        ("names: {999999999: a}", "names must be a list, or a mapping"),
        ("names: gone.names", "nor a file in"),
        ("names: [cat", "is not YAML"),
        ("names: " + "[" * 5000, "is not YAML"),
        ("names: !!python/object/apply:os.abort []", "not YAML|must be|two|no label"),
    ],
)
def test_descriptions_that_make_no_sense(
    tmp_path: Path, make_image: MakeImage, description: str, sentence: str
) -> None:
    make_image(tmp_path / "images" / "train" / "a.jpg")
    write(tmp_path / "data.yaml", description)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        open_source(Yolo(root=str(tmp_path), split="train"))


def test_same_names_of_yolo_are_merged(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "train" / "a.jpg")
    write(tmp_path / "labels" / "train" / "a.txt", "0 .5 .5 .5 .5\n1 .5 .5 .5 .5\n2 .5 .5 .5 .5\n")
    write(tmp_path / "data.yaml", "names: [cat, dog, cat]")
    samples, items, source = read_all(Yolo(root=str(tmp_path), split="train"))
    assert samples["a.jpg"].instances is not None
    assert (classes_of(source), samples["a.jpg"].instances.classes.tolist()) == (
        ("cat", "dog"),
        [0, 1, 0],
    )
    assert [(item.object, item.note) for item in items] == [("class 2", True)]


@pytest.mark.parametrize(
    "description",
    [
        "path: /home/me/set\ntrain: images/train",
        "path: C:\\sets\\mine\ntrain: images\\train",
        'path: "C:\\Users\\new"\ntrain: "images\\train"',
        "train: /home/me/set/images/train",
        "train: ../images/train",
        "train: ./images/train/",
        "path: ../datasets/set\ntrain: [images/train]",
        "train: lists/train.txt",
        "train: /elsewhere/set/lists/train.txt",
    ],
)
def test_places_of_other_machines(tmp_path: Path, make_image: MakeImage, description: str) -> None:
    make_image(tmp_path / "images" / "train" / "a [1] #2 100% é.jpg")
    write(tmp_path / "labels" / "train" / "a [1] #2 100% é.txt", "0 .5 .5 .5 .5\n")
    write(tmp_path / "lists" / "train.txt", "D:\\old\\images\\train\\a [1] #2 100% é.jpg\r\n")
    write(tmp_path / "data.yaml", f"{description}\nnames: [cat]\n")
    samples, items, _ = read_all(Yolo(root=str(tmp_path), split="train"))
    assert (list(counts_of(samples).values()), items) == ([1], [])


def test_another_split_is_not_taken_for_the_missing_one(
    tmp_path: Path, make_image: MakeImage
) -> None:
    make_image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", "0 .5 .5 .5 .5\n")
    write(tmp_path / "data.yaml", "train: images\nval: ../valid/images\nnames: [cat]\n")
    assert len(open_source(Yolo(root=str(tmp_path), split="train"))) == 1
    with pytest.raises(FileNotFoundError, match="no folder images/val, val/images, val"):
        open_source(Yolo(root=str(tmp_path), split="val"))


@pytest.mark.parametrize("prefix", ["data/", ""])
def test_yolo_of_cvat(tmp_path: Path, make_image: MakeImage, prefix: str) -> None:
    for name in ("one", "two"):
        make_image(tmp_path / "obj_train_data" / f"{name}.PNG")
        write(
            tmp_path / "obj_train_data" / f"{name}.txt",
            "0 0.5 0.5 0.25 0.25\n1 0.25 0.25 0.1 0.1\n",
        )
    write(tmp_path / "obj.names", "car\nbus\n")
    write(
        tmp_path / "obj.data",
        "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
    )
    write(
        tmp_path / "train.txt",
        "".join(f"{prefix}obj_train_data/{name}.PNG\n" for name in ("one", "two")),
    )
    samples, items, source = read_all(Yolo(root=str(tmp_path), split="train"))
    assert (classes_of(source), list(counts_of(samples).values()), items) == (
        ("car", "bus"),
        [2, 2],
        [],
    )


@pytest.mark.parametrize(("lines", "objects", "noted"), [
    (["0 .5 .5 .2 .2 .9", "1 .5 .5 .2 .2 1", "1 .5 .5 .2 .2 0.0"], 3, True),
    (["0 .5 .5 .2 .2 .9", "1 .5 .5 .2 .2 1.5"], 0, False),
    (["0 .5 .5 .2 .2 .9", "1 .5 .5 .2 .2 -1"], 0, False),
    (["0 .5 .5 .2 .2 nan", "1 .5 .5 .2 .2 .5"], 0, False),
    (["0 .5 .5 .2 .2 .9", "1 .5 .5 .2 .2"], 1, False),
])  # fmt: skip
def test_a_sixth_column(
    tmp_path: Path, make_image: MakeImage, lines: list[str], objects: int, noted: bool
) -> None:
    make_image(tmp_path / "images" / "train" / "a.jpg")
    write(tmp_path / "labels" / "train" / "a.txt", "\n".join(lines))
    samples, items, _ = read_all(Yolo(root=str(tmp_path), split="train"))
    assert counts_of(samples) == {"a.jpg": objects}
    assert sum(not item.note for item in items) == len(lines) - objects
    assert any(item.note and "confidence" in item.reason for item in items) == noted


def test_decimals_as_classes(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "train" / "a.jpg")
    write(
        tmp_path / "labels" / "train" / "a.txt",
        "0.000000e+00 .5 .5 .2 .2\n12.0 .5 .5 .2 .2\n1e18 .5 .5 .2 .2\n",
    )
    samples, items, source = read_all(Yolo(root=str(tmp_path), split="train"))
    assert (counts_of(samples), len(classes_of(source))) == ({"a.jpg": 2}, 13)
    assert [item.reason for item in items] == ["unknown class: 1e18"]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/déc.jpg", "labels/d%C3%A9c.txt"),
        ("images/déc.jpg", "labels/déc.TXT"),
        ("Images/a.jpg", "Labels/a.txt"),
        ("images/déc.jpg", "labels/" + unicodedata.normalize("NFD", "déc.txt")),
        ("train/a.jpg", "train/a.txt"),
        ("images/a.jpg", "images/a.txt"),
    ],
)
def test_label_files_of_other_spelling(
    tmp_path: Path, make_image: MakeImage, image: str, label: str
) -> None:
    make_image(tmp_path / unicodedata.normalize("NFC", image))
    write(tmp_path / label, "1 .5 .5 .2 .2")
    write(tmp_path / "classes.txt", "cat\ndog\n")
    split = "train" if image.startswith("train") else image.partition("/")[0]
    samples, items, _ = read_all(Yolo(root=str(tmp_path), split=split))
    assert (list(counts_of(samples).values()), items) == ([1], [])


def test_yolo_without_labels(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "train" / "a.jpg")
    write(tmp_path / "label" / "train" / "a.txt", "0 .5 .5 .2 .2")
    write(tmp_path / "data.yaml", "train: images/train\nnames: [cat]\n")
    with pytest.raises(
        FileNotFoundError, match=r"looked for labels/train/a\.txt, .*Fix: --labels label"
    ):
        open_source(Yolo(root=str(tmp_path), split="train"))
    samples, items, _ = read_all(Yolo(root=str(tmp_path), split="train", labels="label"))
    assert (counts_of(samples), items) == ({"a.jpg": 1}, [])


def test_what_yolo_passes_over(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("a.jpg", "b.jpg"):
        make_image(tmp_path / "images" / "train" / name)
    for name in ("c.heic", "a.jpg.txt", "Thumbs.db", ".DS_Store", "._a.jpg", "desktop.ini"):
        write(tmp_path / "images" / "train" / name, b"x")
    write(tmp_path / "labels" / "train" / "a.txt", "0 .5 .5 .2 .2")
    write(tmp_path / "labels" / "train" / "gone.txt", "0 .5 .5 .2 .2")
    write(tmp_path / "labels" / "train" / "._a.txt", b"\0\x05\x16\x07")
    samples, items, _ = read_all(Yolo(root=str(tmp_path), split="train"))
    assert counts_of(samples) == {"a.jpg": 1, "b.jpg": 0}
    assert all(item.note for item in items)
    assert said(items) == {
        NEGATIVE: ["images/train/b.jpg"],
        ORPHAN: ["labels/train/gone.txt"],
        PASSED_OVER: ["images/train/a.jpg.txt", "images/train/c.heic"],
    }


# Pascal VOC


@pytest.mark.parametrize("split", ["train", "val", "anything"])
def test_xml_beside_images(tmp_path: Path, make_image: MakeImage, split: str) -> None:
    folder = {"train": tmp_path / "train", "val": tmp_path / "valid"}.get(split, tmp_path)
    for name in ("p1", "p2"):
        make_image(folder / f"{name}.jpg")
        write(folder / f"{name}.xml", an_annotation(f"{name}.jpg"))
    write(folder / "._p1.xml", b"\0\x05\x16\x07")
    samples, items, source = read_all(Voc(root=str(tmp_path), split=split))
    assert (classes_of(source), counts_of(samples), items) == (
        ("cat",),
        {"p1.jpg": 1, "p2.jpg": 1},
        [],
    )


def test_images_without_xml_and_xml_without_images(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("p1", "p2", "p3"):
        make_image(tmp_path / "JPEGImages" / f"{name}.jpg")
    write(tmp_path / "JPEGImages" / "p4.heic", b"x")
    for name in ("p1", "gone"):
        write(tmp_path / "Annotations" / f"{name}.xml", an_annotation(f"{name}.jpg"))
    samples, items, _ = read_all(Voc(root=str(tmp_path), split="all"))
    assert counts_of(samples) == {"p1.jpg": 1, "p2.jpg": 0, "p3.jpg": 0}
    assert said(items) == {
        NEGATIVE: ["JPEGImages/p2.jpg", "JPEGImages/p3.jpg"],
        PASSED_OVER: ["JPEGImages/p4.heic"],
        ORPHAN: ["Annotations/gone.xml"],
    }
    assert [item.file for item in items if not item.note] == ["Annotations/gone.xml"]


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        ("gb2312", "汽车".encode("gb2312")),
        ("GBK", "汽车".encode("gbk")),
        ("utf-8", "汽车".encode()),
        ("", "汽车".encode()),
        ("utf-16", "汽车".encode("utf-16-le")),
        ("big5", "汽車".encode("big5")),
        ("shift_jis", "自動車".encode("shift_jis")),
        ("iso-8859-1", "Käfer".encode("latin-1")),
        ("windows-1251", "машина".encode("cp1251")),
        ("no-such-encoding", "汽车".encode()),
        ("utf-16", "汽车".encode()),
    ],
)
def test_encodings_of_xml(
    tmp_path: Path, make_image: MakeImage, declared: str, data: bytes
) -> None:
    make_image(tmp_path / "JPEGImages" / "a.jpg")
    wide = declared == "utf-16" and data != "汽车".encode()
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    before, after = (
        part.encode("utf-16-le" if wide else "ascii")
        for part in (head + an_annotation("a.jpg", "|")).split("|")
    )
    write(
        tmp_path / "Annotations" / "a.xml",
        (codecs.BOM_UTF16_LE if wide else b"") + before + data + after,
    )
    codec = (
        "utf-16-le"
        if wide
        else "utf-8"
        if declared in ("", "utf-16", "no-such-encoding")
        else declared
    )
    samples, items, source = read_all(Voc(root=str(tmp_path), split="all"))
    assert (classes_of(source), counts_of(samples), items) == (
        (data.decode(codec),),
        {"a.jpg": 1},
        [],
    )


def test_a_wrong_encoding_costs_the_object_and_not_the_file(
    tmp_path: Path, make_image: MakeImage
) -> None:
    make_image(tmp_path / "JPEGImages" / "a.jpg")
    text = XML.format("a.jpg", BOX.format("汽车") + BOX.format("cat")).encode("gbk")
    write(tmp_path / "Annotations" / "a.xml", b'<?xml version="1.0" encoding="utf-8"?>' + text)
    samples, items, source = read_all(Voc(root=str(tmp_path), split="all"))
    assert (classes_of(source), counts_of(samples)) == (("cat",), {"a.jpg": 1})
    assert [item.reason for item in items] == ["its class is not text in the encoding of the file"]


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB + an_annotation("a.jpg", "&i;"), "entities"),
        (
            '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
            + an_annotation("a.jpg", "&e;"),
            "entities",
        ),
        (
            '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]>'
            + an_annotation("a.jpg"),
            "entities",
        ),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd">' + an_annotation("a.jpg", "&e;"), "not XML"),
        ("<html><body/></html>", "not an annotation"),
        ("<annotation>" + "<a>" * 200_000, "not XML"),
        ("", "not XML"),
        ("\0\0\0", "not XML"),
        (an_annotation("a.jpg")[:90], "not XML"),
    ],
)
def test_xml_that_is_refused(tmp_path: Path, make_image: MakeImage, text: str, reason: str) -> None:
    make_image(tmp_path / "JPEGImages" / "a.jpg")
    write(tmp_path / "Annotations" / "a.xml", text)
    samples, items, _ = read_all(Voc(root=str(tmp_path), split="all"))
    assert samples == {}
    assert len(items) == 1
    assert reason in items[0].reason


def test_xml_with_what_programs_put_around_it(tmp_path: Path, make_image: MakeImage) -> None:
    head = (
        '\ufeff\r\n <?xml version="1.0" encoding="UTF-8"?>\r\n<!DOCTYPE annotation SYSTEM '
        '"voc.dtd">\r\n'
    )
    for name in ("a", "b"):
        make_image(tmp_path / "JPEGImages" / f"{name}.jpg")
    write(tmp_path / "Annotations" / "a.xml", head + an_annotation("a.jpg").replace("><", ">\r\n<"))
    write(
        tmp_path / "Annotations" / "b.XML",
        an_annotation("b.jpg").replace("64", "64.0").replace("11", "1.1e1").encode() + b"\0" * 50,
    )
    samples, items, _ = read_all(Voc(root=str(tmp_path), split="all"))
    assert (counts_of(samples), items) == ({"a.jpg": 1, "b.jpg": 1}, [])


@pytest.mark.parametrize(
    "listed",
    [
        "cam1/f1\ncam2/f1\n",
        "cam1\\f1\r\n./cam2/f1.jpg\r\n",
        "JPEGImages/cam1/f1.jpg 1\n/data/set/cam2/f1.xml\n",
        None,
    ],
)
def test_subfolders_of_voc(tmp_path: Path, make_image: MakeImage, listed: str | None) -> None:
    for folder in ("cam1", "cam2"):
        make_image(tmp_path / "JPEGImages" / folder / "f1.jpg")
        write(tmp_path / "Annotations" / folder / "f1.xml", an_annotation("f1.jpg"))
    if listed:
        write(tmp_path / "ImageSets" / "Main" / "default.txt", listed)
    samples, items, _ = read_all(Voc(root=str(tmp_path), split="default"))
    assert (counts_of(samples), items) == ({"cam1/f1.jpg": 1, "cam2/f1.jpg": 1}, [])


def test_splits_as_folders_of_voc(tmp_path: Path, make_image: MakeImage) -> None:
    for split in ("train", "val"):
        make_image(tmp_path / "inner" / "images" / split / f"{split}.jpg")
        write(
            tmp_path / "inner" / "annotations" / split / f"{split}.xml",
            an_annotation(f"{split}.jpg"),
        )
        make_image(tmp_path / "outer" / split / "images" / f"{split}.jpg")
        write(
            tmp_path / "outer" / split / "annotations" / f"{split}.xml",
            an_annotation(f"{split}.jpg"),
        )
    assert counts_of(read_all(Voc(root=str(tmp_path / "inner"), split="val"))[0]) == {
        "val/val.jpg": 1
    }
    assert counts_of(read_all(Voc(root=str(tmp_path / "outer"), split="train"))[0]) == {
        "train.jpg": 1
    }


def test_the_image_that_the_xml_names(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "IMG_1.jpg")
    make_image(tmp_path / "images" / "2.jpg", 30, 20)
    make_image(tmp_path / "images" / "2.png")
    write(tmp_path / "annotations" / "0.xml", an_annotation("2.png"))
    write(tmp_path / "annotations" / "xmls" / "first.xml", an_annotation("D:\\photos\\IMG_1.JPG"))
    write(tmp_path / "annotations" / "2.xml", an_annotation("2.png"))
    samples, items, _ = read_all(Voc(root=str(tmp_path), split="all"))
    assert counts_of(samples) == {"IMG_1.jpg": 1, "2.png": 1}
    assert said(items) == {ORPHAN: ["annotations/0.xml"]}


# Paths that lead out of the folder


@pytest.fixture
def secret(tmp_path: Path, make_image: MakeImage) -> Path:
    """An image beside the dataset, with everything that a reader would want of it."""
    make_image(tmp_path / "secret.jpg")
    for name in ("secret.txt", "private/labels/secret.txt"):
        write(tmp_path / name, "0 .5 .5 .5 .5")
    write(tmp_path / "secret.xml", an_annotation("secret.jpg"))
    return tmp_path / "secret"


@pytest.mark.parametrize(
    "form",
    [
        "{up}secret",
        "{here}/secret",
        "x/../{up}secret",
        "..\\..\\secret",
        "{up}secret.jpg",
        "{here}/secret.jpg",
    ],
)
@pytest.mark.parametrize("kind", ["voc", "yolo", "text", "list", "semantic_png", "filename"])
def test_paths_that_lead_elsewhere(
    tmp_path: Path, make_image: MakeImage, secret: Path, form: str, kind: str
) -> None:
    root, entry = tmp_path / "set", form.format(up="../../", here=tmp_path)
    make_image(root / "images" / "in" / "a.jpg")
    write(root / "labels" / "in" / "a.txt", "0 .5 .5 .5 .5" if kind == "yolo" else "0 1 1 9 9")
    write(root / "classes.txt", "cat\n")
    config: RawConfig
    match kind:
        case "voc":
            write(root / "annotations" / "in" / "a.xml", an_annotation("a.jpg"))
            write(root / "meta" / "all.txt", f"in/a\n{entry}\n")
            config = Voc(root=str(root), split="all")
        case "filename":
            write(root / "annotations" / "in" / "a.xml", an_annotation("a.jpg"))
            write(root / "annotations" / "b.xml", an_annotation(entry))
            config = Voc(root=str(root), split="all")
        case "yolo":
            write(root / "all.txt", f"images/in/a.jpg\n{entry}\n")
            config = Yolo(root=str(root), split="all")
        case "text":
            write(root / "all.txt", f"in/a\n{entry}\n")
            config = Text(root=str(root), split="all")
        case "list":
            write(root / "all.txt", f"in/a cat\n{entry} cat\n")
            config = List(root=str(root), split="all")
        case _:
            write(
                root / "maps" / "a.png",
                cv2.imencode(".png", np.zeros((48, 64), np.uint8))[1].tobytes(),
            )
            write(
                root / "all.txt",
                f"images/in/a.jpg maps/a.png\n{entry.removesuffix('.jpg')}.jpg maps/a.png\n",
            )
            config = SemanticPng(root=str(root), split="all")
    for rule in (ImageRule(), LABELS_ONLY):
        samples, items, _ = read_all(config, rule)
        assert [key for key, sample in samples.items() if sample.image] == [
            min(samples, key=lambda key: "a.jpg" not in key)
        ]
        assert rule is LABELS_ONLY or len([item for item in items if not item.note]) == 1
        assert all(not sample.image or "a.jpg" in key for key, sample in samples.items())


# Maps, folders, lists


def a_map(path: Path, values: np.ndarray) -> None:
    write(path, cv2.imencode(".png", values.astype(np.uint8))[1].tobytes())


def test_brackets_in_paths(tmp_path: Path, make_image: MakeImage) -> None:
    values = np.arange(48 * 64).reshape(48, 64) % 3
    found = []
    for name in ("road", "road [v2]", "50% #1 *x? {a}"):
        for split in ("train", "val"):
            make_image(tmp_path / name / "images" / split / "p [1].png")
            a_map(tmp_path / name / "annotations" / split / "p [1].png", values)
        samples, items, source = read_all(SemanticPng(root=str(tmp_path / name), split="train"))
        assert items == []
        found.append((classes_of(source), [sample.semantic for sample in samples.values()]))
    assert found[0] == found[1] == found[2]
    assert found[0][0] == ("0", "1", "2")


@pytest.mark.parametrize("names", [None, "ground\nroad\n"])
def test_masks_of_0_and_255(tmp_path: Path, make_image: MakeImage, names: str | None) -> None:
    values = np.where(np.arange(48 * 64).reshape(48, 64) % 5, 0, 255)
    for split in ("train", "val"):
        make_image(tmp_path / "images" / split / "a.jpg")
        a_map(
            tmp_path / "masks" / split / "a.png",
            values if split == "train" else np.zeros_like(values),
        )
    if names:
        write(tmp_path / "classes.txt", names)
    for split in ("train", "val"):
        samples, items, source = read_all(SemanticPng(root=str(tmp_path), split=split))
        assert classes_of(source) == (("ground", "road") if names else ("background", "foreground"))
        assert all(item.note for item in items)
        semantic = cv2.imdecode(
            np.frombuffer(samples["a.jpg"].semantic or b"", np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert np.array_equal(
            semantic, values // 255 if split == "train" else np.zeros_like(values)
        )


@pytest.mark.parametrize(("values", "names", "options"), [
    ([0, 255], "only\n", {}), ([0, 255], "x\ny\nz\n", {}), ([255], None, {}), ([7, 9], "x\ny\n", {}), ([0, 3], None, {"ignore": (0, 3)}),  # noqa: E501
    ([0, 255], None, {"reduce_zero_label": True}), ([0, 255], None, {"ignore": (0, 255)}),
])  # fmt: skip
def test_maps_without_any_class(
    tmp_path: Path,
    make_image: MakeImage,
    values: list[int],
    names: str | None,
    options: dict[str, bool],
) -> None:
    make_image(tmp_path / "images" / "train" / "a.jpg")
    a_map(
        tmp_path / "masks" / "train" / "a.png",
        np.array(values)[np.arange(48 * 64).reshape(48, 64) % len(values)],
    )
    if names:
        write(tmp_path / "classes.txt", names)
    with pytest.raises(ValueError, match=f"{values[0]}.*--values"):
        open_source(SemanticPng(root=str(tmp_path), split="train", **options))  # type: ignore[arg-type]


def test_maps_of_voc_without_any_class(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "JPEGImages" / "a.jpg")
    write(tmp_path / "Annotations" / "a.xml", an_annotation("a.jpg"))
    a_map(tmp_path / "SegmentationClass" / "a.png", np.arange(48 * 64).reshape(48, 64) % 2 * 255)
    write(tmp_path / "names.txt", "background\ncat\n")
    with pytest.raises(ValueError, match=r"0, 255.*--values"):
        open_source(
            Voc(root=str(tmp_path), split="all", semantic_classes=str(tmp_path / "names.txt"))
        )


def test_maps_stored_as_jpeg_are_refused(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "train" / "a.jpg")
    make_image(tmp_path / "masks" / "train" / "a.jpg")
    samples, items, _ = read_all(SemanticPng(root=str(tmp_path), split="train"))
    assert samples == {}
    assert "store maps as PNG" in items[0].reason


def test_what_folders_pass_over(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "train" / "cafe\u0301" / "a.jpg")
    write(tmp_path / "train" / "cafe\u0301" / "b.heic", b"x")
    write(tmp_path / "train" / "cafe\u0301" / "Thumbs.db", b"x")
    write(tmp_path / "__MACOSX" / "train" / "._cafe\u0301", b"x")
    write(tmp_path / "names.txt", "caf\u00e9\n")
    samples, items, _ = read_all(
        ImageFolder(root=str(tmp_path), split="train", classes=str(tmp_path / "names.txt"))
    )
    assert len(samples) == 1
    assert said(items) == {PASSED_OVER: ["cafe\u0301/b.heic"]}
    assert classes_of(open_source(ImageFolder(root=str(tmp_path), split="train"))) == ("caf\u00e9",)
    _, items, _ = read_all(
        UnannotatedImages(root=str(tmp_path), split="train", classes=str(tmp_path / "names.txt"))
    )
    assert said(items) == {PASSED_OVER: ["cafe\u0301/b.heic"]}


def test_numbers_as_decimals_in_lists(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", "1.0 1 1 9 9\n0.000e+00 1 1 9 9\n")
    write(tmp_path / "train.txt", "a 2.0 48 64\n")
    samples, items, source = read_all(Text(root=str(tmp_path), split="train"))
    assert samples["a.jpg"].instances is not None
    assert (classes_of(source), samples["a.jpg"].instances.classes.tolist(), items) == (
        ("0", "1"),
        [1, 0],
        [],
    )
    samples, items, source = read_all(List(root=str(tmp_path), split="train"))
    assert samples["a.jpg"].labels is not None
    assert (classes_of(source), samples["a.jpg"].labels.tolist(), items) == (
        ("0", "1", "2"),
        [2],
        [],
    )


# Images that are too large, or not there


@pytest.mark.parametrize("config", [Voc, Yolo, Text, List, SemanticPng, ImageFolder])
def test_images_above_the_limit(
    tmp_path: Path, make_image: MakeImage, config: type[RawConfig]
) -> None:
    make_image(tmp_path / ("train/cat" if config is ImageFolder else "images") / "a.jpg")
    write(tmp_path / "labels" / "a.txt", "0 1 1 1 1")
    a_map(tmp_path / "masks" / "a.png", np.zeros((48, 64)))
    write(tmp_path / "annotations" / "a.xml", an_annotation("a.jpg"))
    if config is not ImageFolder:
        write(tmp_path / "meta" / "train.txt", "a 0")
    more = {"labels": "masks"} if config is SemanticPng else {}
    whole = config(root=str(tmp_path), split="train", **more)
    assert len(read_all(whole)[0]) == 1
    samples, items, _ = read_all(whole, ImageRule(max_pixels=3000))
    assert samples == {}
    assert "pixels" in items[-1].reason


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_labels_without_images(tmp_path: Path, form: FileFormat) -> None:
    for name in ("p1", "sub/p2"):
        write(
            tmp_path / "Annotations" / f"{name}.xml",
            an_annotation(f"{name.rpartition('/')[2]}.png"),
        )
    config = Voc(root=str(tmp_path), split="train")
    samples, items, source = read_all(config, LABELS_ONLY)
    assert counts_of(samples) == {"p1.png": 1, "sub/p2.png": 1}
    assert [(item.reason, item.note) for item in items] == [(ABSENT, True)] * 2
    writer = open_writer(
        form,
        Target(
            uri=str(tmp_path / "out"), split="train", vocabulary=source.vocabulary, images=False
        ),
    )
    records = [writer.write(sample)[0] for sample in samples.values()]
    assert writer.finish(records)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".png", ".jpg")]
    samples, items, _ = read_all(config)
    assert samples == {}
    assert said(items) == {ORPHAN: ["Annotations/p1.xml", "Annotations/sub/p2.xml"]}


def test_labels_without_images_of_other_sources(tmp_path: Path) -> None:
    a_map(tmp_path / "annotations" / "train" / "a.png", np.arange(48 * 64).reshape(48, 64) % 2)
    samples, items, source = read_all(SemanticPng(root=str(tmp_path), split="train"), LABELS_ONLY)
    assert [(sample.height, sample.width, sample.image) for sample in samples.values()] == [
        (48, 64, b"")
    ]
    assert said(items) == {ABSENT.partition(": ")[0]: ["a.png"]}
    writer = open_writer(
        "semantic_png",
        Target(
            uri=str(tmp_path / "out"), split="train", vocabulary=source.vocabulary, images=False
        ),
    )
    assert writer.finish([writer.write(sample)[0] for sample in samples.values()])
    write(tmp_path / "list" / "train.txt", "a cat 48 64\nb cat\n")
    samples, items, _ = read_all(List(root=str(tmp_path / "list"), split="train"), LABELS_ONLY)
    assert [(key, sample.height, sample.width) for key, sample in samples.items()] == [
        ("a.jpg", 48, 64)
    ]
    assert [item.file for item in items if not item.note] == ["b.jpg"]
    write(tmp_path / "yolo" / "labels" / "train" / "a.txt", "0 .5 .5 .5 .5")
    with pytest.raises(FileNotFoundError, match="YOLO labels state no image sizes"):
        open_source(Yolo(root=str(tmp_path / "yolo"), split="train"), LABELS_ONLY)


# The shared cases


@pytest.mark.parametrize(
    ("kind", "folder", "split", "names", "objects"),
    [
        (Yolo, "03_yolo_names_dict/quoted", "train", 12, [12]),
        (Yolo, "04_cvat_yolo11/a", "train", ("car", "bus"), [2, 2]),
        (Yolo, "04_cvat_yolo11/b", "train", ("car", "bus"), [2, 2]),
        (Voc, "05_voc_flat/a", "train", ("cat",), [1, 1]),
        (Voc, "05_voc_flat/a", "valid", ("cat",), [1, 1]),
        (Voc, "05_voc_flat/neg", "train", ("cat",), [0, 0, 1]),
        (Voc, "06_voc_gbk/a", "train", ("汽车",), [1, 1]),
        (Yolo, "14_yolo_lines/savetxt", "train", ("0", "1"), [2]),
        (Yolo, "17_tiff_orientation/yolo", "train", ("red",), [1, 1]),
        (Yolo, "18_suffixes/yolo", "train", ("cat",), [1] * 7),
        (Yolo, "20_nfd_names/ls_yolo", "train", ("cat", "dog"), [1, 1]),
        (Voc, "33_voc_subfolders/a", "default", ("car",), [1, 1]),
    ],
)
def test_shared_cases(
    shared_data: Path,
    kind: type[RawConfig],
    folder: str,
    split: str,
    names: int | tuple[str, ...],
    objects: list[int],
) -> None:
    root = shared_data / "cases" / folder
    if not root.is_dir():
        pytest.skip(f"needs {root}")
    samples, items, source = read_all(kind(root=str(root), split=split))
    assert names in (classes_of(source), len(classes_of(source)))
    assert sorted(counts_of(samples).values()) == objects
    assert [item for item in items if not item.note] == []


def test_shared_cases_of_maps_and_refusals(shared_data: Path) -> None:
    cases = shared_data / "cases"
    if not cases.is_dir():
        pytest.skip(f"needs {cases}")
    for split in ("train", "val"):
        samples, items, source = read_all(
            SemanticPng(root=str(cases / "07_brackets" / "road [v2]"), split=split)
        )
        assert (len(samples), items, classes_of(source)) == (2, [], ("0", "1", "2"))
    samples, items, source = read_all(
        SemanticPng(root=str(cases / "08_mask_255" / "grey"), split="train")
    )
    assert (len(samples), [item.note for item in items], classes_of(source)) == (
        2,
        [True],
        ("background", "foreground"),
    )
    with pytest.raises(FileNotFoundError, match="no label file was found"):
        open_source(Yolo(root=str(cases / "36_no_labels_found" / "a"), split="train"))
    folder = open_source(ImageFolder(root=str(cases / "18_suffixes" / "folder"), split="train"))
    assert (len(folder), folder.skipped) == (3, ())
