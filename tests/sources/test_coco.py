"""COCO: every shape of annotation that real files have, and every defect, by hand-checked
values.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as reference
import pytest

from mtl_ray.samples import Sample
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Coco
from mtl_ray.sources.source import SkippedItem, Source
from tests.sources.conftest import MakeImage

SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]


def write_set(
    root: Path, content: dict[str, Any], make_image: MakeImage, split: str = "train"
) -> None:
    """A COCO set: its file, and a 64 x 48 image for each that it lists."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    for image in content["images"]:
        make_image(root / "images" / image["file_name"], 64, 48)


def one_image(*annotations: dict[str, Any], categories: tuple[int, ...] = (7,)) -> dict[str, Any]:
    """A file with one image, id 0."""
    return {
        "images": [{"id": 0, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [
            {"image_id": 0, "category_id": categories[0], "id": number, **found}
            for number, found in enumerate(annotations)
        ],
        "categories": [{"id": key, "name": f"kind {key}"} for key in categories],
    }


def read_only(source: Source) -> tuple[Sample, list[SkippedItem]]:
    """The one sample of a source."""
    assert len(source) == 1
    sample, skipped = source.read(0)
    assert sample is not None
    return sample, [*source.skipped, *skipped]


def test_values_by_hand(tmp_path: Path, make_image: MakeImage) -> None:
    crowd = {"size": [48, 64], "counts": [48, 2, 48 * 64 - 50]}
    content = one_image(
        {"bbox": [10, 10, 20, 10], "area": 199.5, "iscrowd": 0, "segmentation": [SQUARE]},
        {"bbox": [1, 0, 1, 2], "iscrowd": 1, "segmentation": crowd, "category_id": 2},
        {"bbox": [60, 40, 20, 20], "segmentation": []},
        categories=(7, 2, 90),
    )
    write_set(tmp_path, content, make_image)
    source = open_source(Coco(root=str(tmp_path), split="train"))
    sample, skipped = read_only(source)
    found = sample.instances
    assert found is not None
    assert source.vocabulary.classes == {"instances": ("kind 2", "kind 7", "kind 90")}
    assert source.vocabulary.category_ids == {"instances": (2, 7, 90)}
    assert (sample.key, sample.height, sample.width, skipped) == ("a.jpg", 48, 64, [])
    assert found.boxes_xyxy.tolist() == [[10, 10, 30, 20], [1, 0, 2, 2], [60, 40, 64, 48]]
    assert found.boxes_xyxy.dtype == np.float32
    assert found.classes.tolist() == [1, 0, 1]
    assert found.ids.tolist() == [0, 1, 2]
    assert found.areas.tolist() == [199.5, 2, 32]
    assert found.crowd.tolist() == [False, True, False]
    assert found.masks is not None
    assert found.masks[0] == reference.merge(reference.frPyObjects([SQUARE], 48, 64))["counts"]
    assert np.argwhere(reference.decode({"size": [48, 64], "counts": found.masks[1]})).tolist() == [
        [0, 1],
        [1, 1],
    ]
    assert found.masks[2] == b""
    assert found.keypoints is None


@pytest.mark.parametrize(
    "empty", [[], {}, None, {"size": [48, 64], "counts": ""}, {"size": [48, 64], "counts": []}]
)
def test_an_empty_segmentation_is_no_defect(
    tmp_path: Path, make_image: MakeImage, empty: Any
) -> None:
    box = {"bbox": [10, 10, 20, 10]}
    write_set(
        tmp_path,
        one_image({**box, "segmentation": [SQUARE]}, {**box, "segmentation": empty}),
        make_image,
    )
    sample, skipped = read_only(open_source(Coco(root=str(tmp_path), split="train")))
    assert skipped == []
    assert sample.instances is not None
    assert sample.instances.masks is not None
    assert [bool(mask) for mask in sample.instances.masks] == [True, False]
    assert sample.instances.areas.tolist()[1] == 200


def test_compressed_run_lengths(tmp_path: Path, make_image: MakeImage) -> None:
    counts = reference.merge(reference.frPyObjects([SQUARE], 48, 64))["counts"]
    good = {"size": [48, 64], "counts": counts.decode()}
    content = one_image(
        {"bbox": [10, 10, 20, 10], "iscrowd": 1, "segmentation": good},
        {"bbox": [10, 10, 20, 10], "segmentation": good | {"counts": counts.decode()[:-2]}},
        {"bbox": [10, 10, 20, 10], "segmentation": good | {"size": [64, 48]}},
        {"bbox": [10, 10, 20, 10], "segmentation": [[1, 2, 3, 4]]},
        {"bbox": [10, 10, 20, 10], "segmentation": [[1, 2, 3, 4, float("nan"), 6]]},
    )
    write_set(tmp_path, content, make_image)
    sample, skipped = read_only(open_source(Coco(root=str(tmp_path), split="train")))
    assert sample.instances is not None
    assert sample.instances.masks == (counts, b"", b"", b"", b"")
    assert [item.object for item in skipped] == [f"annotation {number}" for number in (1, 2, 3, 4)]
    assert all("mask is left out" in item.reason for item in skipped)


def test_keypoints(tmp_path: Path, make_image: MakeImage) -> None:
    content = one_image(
        {"bbox": [1, 1, 9, 9], "keypoints": [5, 6, 2, 7, 8, 1, 9, 9, 0], "num_keypoints": 2},
        {"bbox": [1, 1, 9, 9]},
        {"bbox": [1, 1, 9, 9], "keypoints": [1, 2, 2]},
    )
    content["categories"][0] |= {
        "keypoints": ["nose", "left_eye", "right_eye"],
        "skeleton": [[1, 2], [1, 3]],
    }
    write_set(tmp_path, content, make_image)
    source = open_source(Coco(root=str(tmp_path), split="train"))
    sample, skipped = read_only(source)
    assert source.vocabulary.keypoints == ("nose", "left_eye", "right_eye")
    assert source.vocabulary.skeleton == ((0, 1), (0, 2))
    assert source.vocabulary.mirror == (0, 2, 1)
    assert sample.instances is not None
    assert sample.instances.keypoints is not None
    assert sample.instances.keypoints.tolist() == [
        [[5, 6, 2], [7, 8, 1], [0, 0, 0]],
        [[0, 0, 0]] * 3,
    ]
    assert [item.object for item in skipped] == ["annotation 2"]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"bbox": [5, 5, 0, 4]}, "no area"),
        ({"bbox": [5, 5, -3, 4]}, "no area"),
        ({"bbox": [64, 5, 3, 4]}, "outside"),
        ({"bbox": [5, float("nan"), 3, 4]}, "finite"),
        ({"bbox": [5, 5, float("inf"), 4]}, "finite"),
        ({"bbox": [5, 5, 4]}, "four numbers"),
        ({}, "four numbers"),
        ({"bbox": [5, 5, 3, 4], "category_id": 99}, "category 99"),
    ],
)
def test_one_bad_object_is_left_out(
    tmp_path: Path, make_image: MakeImage, annotation: dict[str, Any], reason: str
) -> None:
    write_set(tmp_path, one_image({"bbox": [1, 1, 2, 2]}, annotation), make_image)
    sample, skipped = read_only(open_source(Coco(root=str(tmp_path), split="train")))
    assert sample.instances is not None
    assert sample.instances.ids.tolist() == [0]
    assert [item.object for item in skipped] == ["annotation 1"]
    assert reason in skipped[0].reason


def test_a_box_may_come_from_the_mask(tmp_path: Path, make_image: MakeImage) -> None:
    write_set(tmp_path, one_image({"segmentation": [SQUARE]}), make_image)
    sample, skipped = read_only(open_source(Coco(root=str(tmp_path), split="train")))
    assert sample.instances is not None
    assert sample.instances.boxes_xyxy.tolist() == [[10, 10, 30, 20]]
    assert sample.instances.areas.tolist() == [200]
    assert skipped == []


def test_faults_of_the_listing(tmp_path: Path, make_image: MakeImage) -> None:
    content = one_image(
        {"bbox": [1, 1, 2, 2]},
        {"bbox": [1, 1, 2, 2], "image_id": 5},
        {"bbox": [3, 3, 2, 2], "id": 0},
    )
    content["images"] += [
        {"id": 0, "file_name": "b.jpg"},
        {"id": 1, "file_name": "a.jpg"},
        {"id": 2, "file_name": "empty.jpg"},
        {"id": 3, "file_name": "gone.jpg"},
        {"id": 4, "file_name": "small.jpg", "width": 640, "height": 480},
    ]
    write_set(tmp_path, content, make_image)
    (tmp_path / "images" / "gone.jpg").unlink()
    source = open_source(Coco(root=str(tmp_path), split="train"))
    assert sorted(item.object for item in source.skipped) == [
        "annotation 1",
        "image 0 b.jpg",
        "image 1 a.jpg",
    ]
    readings = [source.read(index) for index in range(len(source))]
    samples = {sample.key: sample for sample, _ in readings if sample is not None}
    assert samples.keys() == {"a.jpg", "empty.jpg"}
    empty = samples["empty.jpg"].instances
    assert empty is not None
    assert (len(empty), empty.boxes_xyxy.shape) == (0, (0, 4))
    assert {item.file: item.reason for _, found in readings for item in found} == {
        "gone.jpg": "listed but not there",
        "small.jpg": "annotated as an image of another size: 640 x 480 pixels, the file is 64 x 48",
    }


def test_splits_agree_on_classes(tmp_path: Path, make_image: MakeImage) -> None:
    write_set(tmp_path, one_image({"bbox": [1, 1, 2, 2]}, categories=(3, 1)), make_image, "train")
    write_set(tmp_path, one_image({"bbox": [1, 1, 2, 2]}, categories=(8,)), make_image, "val")
    splits = [open_source(Coco(root=str(tmp_path), split=split)) for split in ("train", "val")]
    assert splits[0].vocabulary == splits[1].vocabulary
    assert splits[0].vocabulary.category_ids["instances"] == (1, 3, 8)


def test_splits_in_folders_agree_too(tmp_path: Path, make_image: MakeImage) -> None:
    for split, categories in (("train", (3, 1)), ("valid", (8,))):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_annotations.coco.json").write_text(
            json.dumps(one_image({"bbox": [1, 1, 2, 2]}, categories=categories))
        )
        make_image(tmp_path / split / "a.jpg", 64, 48)
    assert open_source(Coco(root=str(tmp_path), split="train")).vocabulary.category_ids[
        "instances"
    ] == (1, 3, 8)
    (tmp_path / "valid" / "_annotations.coco.json").write_text(
        json.dumps(one_image(categories=(3,))).replace("kind 3", "other")
    )
    with pytest.raises(
        ValueError, match="category 3 is 'kind 3' in one split and 'other' in another"
    ):
        open_source(Coco(root=str(tmp_path), split="train"))


def test_classes_from_a_file(tmp_path: Path, make_image: MakeImage) -> None:
    write_set(
        tmp_path,
        one_image(
            {"bbox": [1, 1, 2, 2]}, {"bbox": [3, 3, 2, 2], "category_id": 1}, categories=(7, 1, 2)
        ),
        make_image,
    )
    names = tmp_path / "names.txt"
    names.write_text("kind 2\nkind 1\n")
    source = open_source(Coco(root=str(tmp_path), split="train", classes=str(names)))
    sample, skipped = read_only(source)
    assert source.vocabulary.category_ids["instances"] == (2, 1)
    assert sample.instances is not None
    assert sample.instances.classes.tolist() == [1]
    assert [(item.object, item.reason) for item in skipped] == [
        ("annotation 0", "class not chosen: kind 7")
    ]
    assert skipped[0].note
    names.write_text("kind 5\n")
    with pytest.raises(ValueError, match="no category 'kind 5'"):
        open_source(Coco(root=str(tmp_path), split="train", classes=str(names)))


def test_missing_split_says_what_is_there(tmp_path: Path, make_image: MakeImage) -> None:
    write_set(tmp_path, one_image({"bbox": [1, 1, 2, 2]}), make_image)
    with pytest.raises(FileNotFoundError, match=r"split 'test'.*instances_train\.json"):
        open_source(Coco(root=str(tmp_path), split="test"))
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="--images"):
        open_source(Coco(root=str(tmp_path), split="train"))


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"images": []}', '{"images": [], "annotations": {}, "categories": []}']
)
def test_not_a_coco_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "instances_train.json").write_text(text)
    with pytest.raises(ValueError, match=r"not JSON|not a COCO annotation file"):
        open_source(Coco(root=str(tmp_path), split="train"))


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("annotations/instances_train2017.json", "train2017/a.jpg"),
        ("annotations/train.json", "images/train/a.jpg"),
        ("train/_annotations.coco.json", "train/a.jpg"),
        ("annotations.json", "a.jpg"),
        ("coco/instances_train.json", "deep/JPEGImages/a.jpg"),
    ],
)
def test_usual_layouts(tmp_path: Path, make_image: MakeImage, file: str, image: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(json.dumps(one_image({"bbox": [1, 1, 2, 2]})))
    make_image(tmp_path / image, 64, 48)
    sample, skipped = read_only(open_source(Coco(root=str(tmp_path), split="train")))
    assert (sample.height, sample.width, skipped) == (48, 64, [])


def test_lvis_has_addresses_for_names(tmp_path: Path, make_image: MakeImage) -> None:
    content = one_image({"bbox": [1, 1, 5, 5]})
    content["images"][0] = {
        "id": 0,
        "coco_url": "http://images.cocodataset.org/train2017/a.jpg",
        "height": 48,
        "width": 64,
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "lvis_v1_val.json").write_text(json.dumps(content))
    make_image(tmp_path / "train2017" / "a.jpg", 64, 48)
    sample, skipped = read_only(open_source(Coco(root=str(tmp_path), split="val")))
    assert (sample.key, skipped) == ("train2017/a.jpg", [])


def test_difficult_objects_that_are_called_crowds(tmp_path: Path, make_image: MakeImage) -> None:
    write_set(
        tmp_path,
        one_image({"bbox": [1, 1, 5, 5], "iscrowd": 1, "difficult": 1, "truncated": 1}),
        make_image,
    )
    sample, _ = read_only(open_source(Coco(root=str(tmp_path), split="train")))
    assert sample.instances is not None
    assert [
        sample.instances.crowd[0],
        sample.instances.difficult[0],
        sample.instances.truncated[0],
    ] == [False, True, True]
