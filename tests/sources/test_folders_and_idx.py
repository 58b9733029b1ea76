"""Image folders and IDX files."""

import gzip
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtl_ray.sources.config import Idx, ImageFolder, UnannotatedImages
from mtl_ray.sources.image_reading import open_source
from tests.sources.conftest import MakeImage


def test_image_folder(tmp_path: Path, make_image: MakeImage) -> None:
    for name in (
        "train/cat/1.jpg",
        "train/cat/deep/2.PNG",
        "train/ant/1.jpg",
        "val/bee/1.jpg",
        "train/stray.jpg",
    ):
        make_image(tmp_path / name)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "cat" / ".hidden.jpg").write_bytes(b"")
    (tmp_path / "train" / "cat" / "torn.jpg").write_bytes(
        (tmp_path / "train/cat/1.jpg").read_bytes()[:300]
    )
    source = open_source(ImageFolder(root=str(tmp_path), split="train"))
    readings = [source.read(index) for index in range(len(source))]
    labels = {
        sample.key: sample.labels.tolist()
        for sample, _ in readings
        if sample is not None and sample.labels is not None
    }
    assert source.vocabulary.classes == {"labels": ("ant", "bee", "cat")}
    assert source.vocabulary.exclusive_labels
    assert labels == {"ant/1.jpg": [0], "cat/1.jpg": [2], "cat/deep/2.PNG": [2]}
    assert sorted(item.file for item in source.skipped) == ["cat/notes.txt", "stray.jpg"]
    assert [found[0].file for sample, found in readings if sample is None] == ["cat/torn.jpg"]
    assert open_source(ImageFolder(root=str(tmp_path), split="val")).vocabulary == source.vocabulary
    with pytest.raises(FileNotFoundError, match="no folder 'test'; it has train, val"):
        open_source(ImageFolder(root=str(tmp_path), split="test"))


def test_image_folder_with_a_list_of_classes(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "train" / "cat" / "1.jpg")
    make_image(tmp_path / "train" / "ant" / "1.jpg")
    names = tmp_path / "names.txt"
    names.write_text("dog\ncat\n")
    source = open_source(ImageFolder(root=str(tmp_path), split="train", classes=str(names)))
    sample, _ = source.read(0)
    assert sample is not None
    assert sample.labels is not None
    assert sample.labels.tolist() == [1]
    assert [item.reason for item in source.skipped] == ["unknown class: ant"]
    with pytest.raises(FileNotFoundError, match="no file of class names"):
        open_source(
            ImageFolder(root=str(tmp_path), split="train", classes=str(tmp_path / "other.txt"))
        )


def test_images_without_annotations(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("test/a b.JPG", "test/deep/c.png", "other/d.jpg"):
        make_image(tmp_path / name)
    (tmp_path / "test" / "torn.jpg").write_bytes(b"torn")
    (tmp_path / "test" / "notes.txt").write_text("no image")
    (names := tmp_path / "names.txt").write_text("cat\ndog\n")
    for root, split in ((tmp_path, "test"), (tmp_path / "test", "anything")):
        source = open_source(UnannotatedImages(root=str(root), split=split, classes=str(names)))
        assert source.vocabulary.classes == {"instances": ("cat", "dog")}
        readings = [source.read(index) for index in range(len(source))]
        assert [sample.key for sample, _ in readings if sample is not None] == [
            "a b.JPG",
            "deep/c.png",
        ]
        assert all(sample is None or sample.instances is None for sample, _ in readings)
        assert [item.file for _, found in readings for item in found] == ["torn.jpg"]
    with pytest.raises(
        FileNotFoundError, match=r"no images in .*/tset; folders in .*: other, test"
    ):
        open_source(UnannotatedImages(root=str(tmp_path), split="tset", classes=str(names)))


def write_idx(path: Path, values: np.ndarray) -> None:
    """An IDX file of unsigned bytes, compressed if its name says so."""
    data = (
        bytes([0, 0, 8, values.ndim])
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.astype(np.uint8).tobytes()
    )
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize(
    ("start", "split", "end"),
    [("train", "train", ""), ("t10k", "val", ".gz"), ("t10k", "test", "")],
)
def test_idx(tmp_path: Path, start: str, split: str, end: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 7, 5), dtype=np.uint8)
    write_idx(tmp_path / f"{start}-images-idx3-ubyte{end}", pixels)
    write_idx(tmp_path / f"{start}-labels-idx1-ubyte{end}", np.array([2, 0, 4]))
    source = open_source(Idx(root=str(tmp_path), split=split))
    samples = [source.read(index)[0] for index in range(3)]
    assert source.vocabulary.classes == {"labels": ("0", "1", "2", "3", "4")}
    assert [
        sample.labels.tolist()
        for sample in samples
        if sample is not None and sample.labels is not None
    ] == [[2], [0], [4]]
    for sample, expected in zip(samples, pixels, strict=True):
        assert sample is not None
        assert (sample.height, sample.width) == (7, 5)
        decoded = cv2.imdecode(np.frombuffer(sample.image, np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded is not None
        assert np.array_equal(decoded, expected)


def test_damaged_idx(tmp_path: Path) -> None:
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    with pytest.raises(FileNotFoundError, match="train-images"):
        open_source(Idx(root=str(tmp_path), split="train"))
    write_idx(images, np.zeros((3, 4, 4)))
    write_idx(labels, np.zeros(2))
    with pytest.raises(ValueError, match="3 images but 2 labels"):
        open_source(Idx(root=str(tmp_path), split="train"))
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut short"):
        open_source(Idx(root=str(tmp_path), split="train"))
    images.write_bytes(labels.read_bytes())
    with pytest.raises(ValueError, match="not an IDX file"):
        open_source(Idx(root=str(tmp_path), split="train"))
    (tmp_path / "classes.txt").write_text("only\n")
    write_idx(images, np.zeros((2, 4, 4)))
    write_idx(labels, np.array([0, 1]))
    source = open_source(Idx(root=str(tmp_path), split="train"))
    assert (len(source), [item.object for item in source.skipped]) == (1, ["1"])
