"""Real datasets by root and split alone: the numbers that their own notes state."""

from pathlib import Path

import numpy as np
import pytest

from mtl_ray.samples import Sample
from mtl_ray.sources.config import Idx, ImageFolder, RawConfig, SemanticPng
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Coco, Voc, Yolo
from mtl_ray.sources.source import SkippedItem


def read_all(config: RawConfig) -> tuple[dict[str, Sample], list[SkippedItem]]:
    """All samples by key, and all skipped items and notes of a split."""
    source = open_source(config)
    readings = [source.read(index) for index in range(len(source))]
    samples = {sample.key: sample for sample, _ in readings if sample is not None}
    return samples, [*source.skipped, *(item for _, found in readings for item in found)]


def class_counts(samples: dict[str, Sample], num_classes: int) -> list[int]:
    """Objects of each class."""
    classes = [
        sample.instances.classes for sample in samples.values() if sample.instances is not None
    ]
    return [int(count) for count in np.bincount(np.concatenate(classes), minlength=num_classes)]


@pytest.mark.parametrize(
    ("split", "images", "counts", "rejected"),
    [
        ("train", 205, [209, 2382, 214], ["Annotations/BloodImage_00343.xml"]),
        ("val", 87, [83, 968, 87], ["Annotations/BloodImage_00338.xml"]),
        ("test", 72, [69, 805, 71], []),
    ],
)
def test_bccd(
    shared_data: Path, split: str, images: int, counts: list[int], rejected: list[str]
) -> None:
    root = str(shared_data / "det_bccd_voc")
    samples, skipped = read_all(Voc(root=root, split=split))
    assert open_source(Voc(root=root, split=split)).vocabulary.classes == {
        "instances": ("Platelets", "RBC", "WBC")
    }
    assert (len(samples), class_counts(samples, 3)) == (images, counts)
    assert [item.file for item in skipped] == rejected
    other, _ = read_all(Coco(root=root, split=split))
    for key, sample in samples.items():
        assert sample.instances is not None
        assert other[key].instances is not None
        boxes = sample.instances.boxes_xyxy
        # its makers left objects of a single pixel out of the COCO file
        larger = boxes[(boxes[:, 2:] - boxes[:, :2]).max(axis=1) > 1]
        assert np.array_equal(
            np.sort(larger, axis=0), np.sort(other[key].instances.boxes_xyxy, axis=0)
        )  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("split", "images", "objects", "crowds"), [("train", 36, 421, 7), ("val", 23, 215, 2)]
)
def test_coco_mini(shared_data: Path, split: str, images: int, objects: int, crowds: int) -> None:
    config = Coco(root=str(shared_data / "coco_mini"), split=split)
    samples, skipped = read_all(config)
    found = [sample.instances for sample in samples.values() if sample.instances is not None]
    vocabulary = open_source(config).vocabulary
    assert (len(found), sum(map(len, found)), sum(int(part.crowd.sum()) for part in found)) == (
        images,
        objects,
        crowds,
    )
    assert skipped == []
    assert (len(vocabulary.classes["instances"]), vocabulary.category_ids["instances"][-1]) == (
        80,
        90,
    )
    assert all(part.masks is not None and all(part.masks) for part in found)


@pytest.mark.parametrize(("split", "people", "posed"), [("train", 158, 86), ("val", 61, 45)])
def test_coco_keypoints(shared_data: Path, split: str, people: int, posed: int) -> None:
    config = Coco(root=str(shared_data / "coco_mini"), split=split, keypoints=True)
    samples, _ = read_all(config)
    points = np.concatenate(
        [sample.instances.keypoints for sample in samples.values() if sample.instances is not None]
    )
    assert points.shape == (people, 17, 3)
    assert (points[..., 2].any(axis=1)).sum() == posed
    vocabulary = open_source(config).vocabulary
    assert (
        vocabulary.keypoints[vocabulary.mirror[vocabulary.keypoints.index("left_hip")]]
        == "right_hip"
    )
    assert (
        vocabulary.keypoints[vocabulary.skeleton[0][0]],
        vocabulary.keypoints[vocabulary.skeleton[0][1]],
    ) == ("left_ankle", "left_knee")


@pytest.mark.parametrize("split", ["train", "val"])
def test_yolo_and_coco_say_the_same(shared_data: Path, split: str) -> None:
    root = str(shared_data / "coco128_yolo")
    yolo, skipped = read_all(Yolo(root=root, split=split))
    coco, _ = read_all(Coco(root=root, split=split))
    assert all(item.note for item in skipped)
    assert yolo.keys() == coco.keys()
    names = [
        open_source(kind(root=root, split=split)).vocabulary.classes["instances"]
        for kind in (Yolo, Coco)
    ]
    assert names[0] == names[1]
    for key in yolo:
        one, other = yolo[key].instances, coco[key].instances
        assert one is not None
        assert other is not None
        first = np.column_stack([one.classes, one.boxes_xyxy])
        second = np.column_stack([other.classes, other.boxes_xyxy])[~other.crowd]
        assert first.shape == second.shape
        assert (
            np.abs(first[np.lexsort(first.round(1).T)] - second[np.lexsort(second.round(1).T)]).max(
                initial=0
            )
            < 1e-3
        )


def test_yolo_polygons(shared_data: Path) -> None:
    samples, skipped = read_all(
        Yolo(root=str(shared_data / "coco128_yolo"), split="train", labels="labels_seg")
    )
    found = [sample.instances for sample in samples.values() if sample.instances is not None]
    assert all(part.masks is not None and all(part.masks) for part in found)
    assert all(item.note or item.reason.startswith("unknown class") for item in skipped)


@pytest.mark.parametrize(("split", "images", "objects"), [("train", 61, 255), ("val", 13, 50)])
def test_balloons(shared_data: Path, split: str, images: int, objects: int) -> None:
    samples, skipped = read_all(Coco(root=str(shared_data / "inst_balloon_via"), split=split))
    assert (len(samples), class_counts(samples, 1), skipped) == (images, [objects], [])


@pytest.mark.parametrize(("split", "images"), [("train", 84), ("val", 24), ("test", 24)])
def test_camvid(shared_data: Path, tmp_path: Path, split: str, images: int) -> None:
    root = str(shared_data / "seg_camvid")
    samples, skipped = read_all(SemanticPng(root=root, split=split, ignore=(11,)))
    assert (len(samples), skipped) == (images, [])
    assert open_source(SemanticPng(root=root, split=split)).vocabulary.classes == {
        "semantic": tuple(map(str, range(12)))
    }
    (tmp_path / "names.txt").write_text("\n".join(f"c{number}" for number in range(11)))
    same, told = read_all(SemanticPng(root=root, split=split, classes=str(tmp_path / "names.txt")))
    assert [sample.semantic for sample in same.values()] == [
        sample.semantic for sample in samples.values()
    ]
    assert {item.object for item in told} == {"value 11"}


def test_cifar_and_fashion(shared_data: Path) -> None:
    folder = open_source(ImageFolder(root=str(shared_data / "cls_cifar10"), split="val"))
    fashion = open_source(Idx(root=str(shared_data / "cls_fashion_idx"), split="val"))
    assert (len(folder), folder.vocabulary.classes["labels"][0], folder.skipped) == (
        1000,
        "airplane",
        (),
    )
    assert (len(fashion), fashion.vocabulary.classes["labels"][-1]) == (1500, "Ankle boot")
    sample, _ = fashion.read(0)
    assert sample is not None
    assert (sample.height, sample.width) == (28, 28)


def test_voc_palette(shared_data: Path) -> None:
    root = shared_data / "fmt_voc_labelme"
    config = Voc(
        root=str(root / "VOC"), split="all", semantic_classes=str(root / "class_names.txt")
    )
    samples, skipped = read_all(config)
    assert (len(samples), class_counts(samples, 3), skipped) == (3, [2, 1, 6], [])
    assert all(sample.semantic for sample in samples.values())
    assert open_source(config).vocabulary.colours["semantic"][:3] == (
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
    )


def test_ids_from_zero(shared_data: Path) -> None:
    samples, skipped = read_all(
        Coco(root=str(shared_data / "fmt_voc_labelme" / "coco"), split="all", images="../VOC")
    )
    assert (len(samples), skipped) == (3, [])
    assert sorted(number for sample in samples.values() for number in sample.instances.ids) == list(
        range(12)
    )  # type: ignore[union-attr]
