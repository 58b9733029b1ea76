"""Damaged text, XML and PNG files: every source of them gives samples, skipped items, or one
sentence, whatever stands in the files.
"""

import gzip
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.samples import Sample
from mtl_ray.sources.config import Idx, ImageFolder, List, RawConfig, SemanticPng, UnannotatedImages
from mtl_ray.sources.image_reading import ImageRule, open_source
from mtl_ray.sources.object_configs import Text, Voc, Yolo
from mtl_ray.sources.source import SkippedItem, Source

WIDTH, HEIGHT = 16, 12
JPEG = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))[1].tobytes()
MAP = cv2.imencode(".png", np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 3)[
    1
].tobytes()
XML = b"""<?xml version="1.0" encoding="utf-8"?>
<annotation>
 <filename>a.jpg</filename>
 <size><width>16</width><height>12</height><depth>3</depth></size>
 <object><name>cat</name><truncated>0</truncated><difficult>1</difficult>
  <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
  <gender>male</gender><keynode><nose>(3, 4)</nose></keynode>
 </object>
</annotation>
"""
YAML = b"path: .\ntrain: images/train\nval: [images/val]\nnc: 2\nnames:\n  0: cat\n  1: 'no'\n"
Files = Mapping[str, bytes]


def idx(values: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, values.ndim])
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.astype(np.uint8).tobytes()
    )


SETS: dict[str, tuple[Files, Callable[[str], RawConfig]]] = {
    "voc": (
        {
            "Annotations/a.xml": XML,
            "Annotations/b.xml": XML,
            "ImageSets/Main/train.txt": b"a\nb  1\n",
            "JPEGImages/a.jpg": JPEG,
            "JPEGImages/b.jpg": JPEG,
            "SegmentationClass/a.png": MAP,
            "names.txt": b"x\ny\nz\n",
        },
        lambda root: Voc(
            root=root, split="train", style="mtl", semantic_classes=f"{root}/names.txt"
        ),
    ),
    "voc beside": (
        {"train/a.jpg": JPEG, "train/a.xml": XML, "train/b.jpg": JPEG},
        lambda root: Voc(root=root, split="train"),
    ),
    "yolo": (
        {
            "data.yaml": YAML,
            "images/train/a.jpg": JPEG,
            "images/train/b.jpg": JPEG,
            "labels/train/a.txt": b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.9 0.1 0.5 0.9\n",
            "labels/train/b.txt": b"1.000e+00 0.5 0.5 0.2 0.2\n",
        },
        lambda root: Yolo(root=root, split="train"),
    ),
    "darknet": (
        {
            "obj.data": b"classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n",
            "obj.names": b"car\nbus\n",
            "train.txt": b"data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n",
            "obj_train_data/a.jpg": JPEG,
            "obj_train_data/b.jpg": JPEG,
            "obj_train_data/a.txt": b"0 0.5 0.5 0.25 0.25 0.9\n",
        },
        lambda root: Yolo(root=root, split="train"),
    ),
    "text": (
        {
            "train.txt": b"a\nb\n",
            "labels/a.txt": b"cat 1 1 9 9\n0 2 2 8.5 8\n",
            "labels/b.txt": b"dog 1 1 5 5\n",
            "images/a.jpg": JPEG,
            "images/b.jpg": JPEG,
        },
        lambda root: Text(root=root, split="train"),
    ),
    "list": (
        {
            "train.txt": b"a cat 12 16\nb.jpg dog 12 16\n",
            "images/a.jpg": JPEG,
            "images/b.jpg": JPEG,
        },
        lambda root: List(root=root, split="train"),
    ),
    "image_folder": (
        {"train/cat/a.jpg": JPEG, "train/dog/b.jpg": JPEG, "classes.txt": b"cat\ndog\n"},
        lambda root: ImageFolder(root=root, split="train"),
    ),
    "pictures": (
        {"test/a.jpg": JPEG, "names.txt": b"cat\n"},
        lambda root: UnannotatedImages(root=root, split="test", classes=f"{root}/names.txt"),
    ),
    "idx": (
        {
            "train-images-idx3-ubyte": idx(np.zeros((2, 4, 4))),
            "train-labels-idx1-ubyte.gz": gzip.compress(idx(np.array([0, 1]))),
        },
        lambda root: Idx(root=root, split="train"),
    ),
    "semantic_png": (
        {
            "images/train/a.jpg": JPEG,
            "images/train/b.jpg": JPEG,
            "annotations/train/a.png": MAP,
            "annotations/train/b.png": MAP,
            "classes.txt": b"x\ny\nz\n",
        },
        lambda root: SemanticPng(root=root, split="train"),
    ),
    "semantic_png by a list": (
        {
            "train.txt": b"images/a.jpg labels/a.png\nimages/b.jpg labels/b.png\n",
            "images/a.jpg": JPEG,
            "images/b.jpg": JPEG,
            "labels/a.png": MAP,
            "labels/b.png": MAP,
            "values.txt": b"0 x\n1 y\n2 -\n",
        },
        lambda root: SemanticPng(root=root, split="train", values=f"{root}/values.txt"),
    ),
}
JUNK = (
    *(
        b"",
        b"nan",
        b"-1",
        b"1e400",
        b"1,5",
        b"1_0",
        b"99999999999999999999",
        b"0.000000e+00",
        b"12.0",
        b"null",
        b"~",
        b"[",
        b"{",
        b"- -",
    ),
    *(
        b"\0",
        b"\xff\xfe",
        b"\xc3",
        b"\xef\xbb\xbf",
        b"\r",
        b"\x85",
        "日本".encode(),
        b"../../x",
        b"/etc/passwd",
        b"..\\..\\x",
        b"C:\\x\\y",
    ),
    *(
        b"&amp;",
        b"&x;",
        b"<object>",
        b"</annotation>",
        b"<!--",
        b"<![CDATA[",
        b"*a",
        b"&a [*a]",
        b"!!python/object:os.system x",
        b"%41",
    ),
)
"""What stands where something else should."""


@st.composite
def damaged(draw: st.DrawFn, files: Files) -> dict[str, bytes]:
    """The files with a few of them damaged, or gone."""
    found = dict(files)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(found)))
        data = found[name]
        match draw(
            st.sampled_from(
                (
                    "gone",
                    "cut",
                    "line",
                    "again",
                    "word",
                    "bytes",
                    "utf-16",
                    "crlf",
                    "bom",
                    "empty",
                    "flip",
                )
            )
        ):
            case "gone":
                del found[name]
                if not found:
                    return dict(files)
                continue
            case "cut":
                data = data[: draw(st.integers(0, len(data)))]
            case "line" | "again" as how:
                lines = data.splitlines(keepends=True) or [b""]
                at = draw(st.integers(0, len(lines) - 1))
                lines[at : at + 1] = [] if how == "line" else [lines[at]] * 2
                data = b"".join(lines)
            case "word":
                words = (
                    data.replace(b">", b"> ").replace(b"<", b" <").split(b" ")
                    if name.endswith(".xml")
                    else data.split(b" ")
                )
                words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(JUNK))
                data = b" ".join(words)
            case "bytes":
                at = draw(st.integers(0, len(data)))
                data = (
                    data[:at] + draw(st.sampled_from(JUNK)) + data[at + draw(st.integers(0, 4)) :]
                )
            case "utf-16":
                data = data.decode("latin-1").encode("utf-16")
            case "crlf":
                data = data.replace(b"\n", b"\r\n")
            case "bom":
                data = b"\xef\xbb\xbf" + data
            case "empty":
                data = b""
            case "flip" if data:
                at = draw(st.integers(0, len(data) - 1))
                data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        found[name] = data
    return found


def is_told(config: RawConfig, rule: ImageRule) -> None:
    """Opens a split and reads it whole; only a ValueError or FileNotFoundError of one sentence
    may come out.
    """
    try:
        source = open_source(config, rule)
    except (ValueError, FileNotFoundError) as error:
        told = error
    else:
        read_whole(source)
        return
    assert type(told) in (ValueError, FileNotFoundError), repr(told)
    assert str(told)
    assert "\n" not in str(told)


def read_whole(source: Source) -> None:
    """Reads every record; each gives a sample, or a reason why not."""
    for index in range(len(source)):
        sample, skipped = source.read(index)
        assert sample is None or isinstance(sample, Sample)
        assert sample is not None or skipped
        assert all(isinstance(item, SkippedItem) and item.reason for item in skipped)


@pytest.mark.parametrize("kind", SETS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    files, config = SETS[kind]
    root = tmp_path_factory.mktemp("damaged")
    for name, content in data.draw(damaged(files)).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    is_told(config(str(root)), ImageRule(needed=data.draw(st.booleans())))


@pytest.mark.parametrize("kind", SETS)
def test_whole_files(tmp_path: Path, kind: str) -> None:
    files, config = SETS[kind]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    source = open_source(config(str(tmp_path)))
    readings = [source.read(index) for index in range(len(source))]
    assert readings
    assert all(sample is not None for sample, _ in readings)
    assert [item for _, found in readings for item in found if not item.note] == []
