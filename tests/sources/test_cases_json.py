"""COCO datasets as other programs write them: what must come out of each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_ray.evaluation.coco_file import read_coco_file
from mtl_ray.geometry import masks
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.coco import OTHER_FILE
from mtl_ray.sources.coco_categories import MERGED, ROOT_DROPPED, SKELETON_DROPPED
from mtl_ray.sources.coco_masks import PART_DROPPED
from mtl_ray.sources.coco_objects import NOT_CHOSEN
from mtl_ray.sources.coco_records import REPEATED
from mtl_ray.sources.folders import LISTED_AGAIN
from mtl_ray.sources.image_reading import ABSENT, ImageRule, open_source
from mtl_ray.sources.object_configs import Coco
from mtl_ray.sources.paths import LEAVES
from mtl_ray.sources.split_coco import class_table, load_coco, write_parts
from mtl_ray.vocabulary import vocabulary_from_json, vocabulary_to_json
from tests.sources.conftest import MakeImage
from tests.sources.test_cases_files import classes_of, counts_of, read_all, said

BOX = {"bbox": [10, 10, 20, 20]}
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
LABELS_ONLY = ImageRule(needed=False)


def a_set(
    root: Path,
    names: list[str],
    *annotations: dict[str, Any],
    file: str = "train.json",
    **more: Any,
) -> Path:
    """A COCO file of images 1, 2, ... with a class cat of id 1."""
    content = {
        "images": [
            {"id": number, "file_name": name, "width": 64, "height": 48}
            for number, name in enumerate(names, start=1)
        ],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, **each}
            for number, each in enumerate(annotations, start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}],
        **more,
    }
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def the_sample(samples: dict[str, Sample]) -> Sample:
    (sample,) = samples.values()
    return sample


# Names of images


@pytest.mark.parametrize(
    ("written", "where", "key"),
    [
        ("images\\a.jpg", "images/a.jpg", "a.jpg"),
        ("..\\..\\label-studio\\media\\upload\\4\\a.jpg", "images/a.jpg", "a.jpg"),
        ("images\\1/a.jpg", "images/a.jpg", "a.jpg"),
        ("/home/me/upload/1/a.jpg", "images/a.jpg", "a.jpg"),
        ("C:\\data\\a.jpg", "images/a.jpg", "a.jpg"),
        ("./a.jpg", "images/a.jpg", "a.jpg"),
        ("x/../a.jpg", "images/a.jpg", "a.jpg"),
        ("b%20c/a%C3%A9.jpg", "images/b c/aé.jpg", "b c/aé.jpg"),
        ("e\u0301.jpg", "images/\u00e9.jpg", "\u00e9.jpg"),
        ("\u00e9.jpg", "images/e\u0301.jpg", "e\u0301.jpg"),
        ("A.JPG", "images/a.jpg", "a.jpg"),
        ("/data/local-files/?d=up/a.jpg", "images/a.jpg", "a.jpg"),
        ("http://host:8080/data/upload/1/a.jpg?x=1", "images/a.jpg", "a.jpg"),
        ("sub\\a [1].jpg", "one/two/three/sub/a [1].jpg", "a [1].jpg"),
        ("train/a.jpg", "train/a.jpg", "train/a.jpg"),
        ("train/a.jpg", "images/train/a.jpg", "train/a.jpg"),
    ],
)
def test_names_of_images(
    tmp_path: Path, make_image: MakeImage, written: str, where: str, key: str
) -> None:
    make_image(tmp_path / where)
    a_set(tmp_path, [written], BOX)
    samples, items, _ = read_all(Coco(root=str(tmp_path), split="train"))
    assert [name.endswith(key) for name in samples] == [True]
    assert (list(counts_of(samples).values()), items) == ([1], [])


@pytest.mark.parametrize(
    "written",
    [
        "../../private/x.jpg",
        "..\\..\\private\\x.jpg",
        "{}/private/x.jpg",
        "a/../../../private/x.jpg",
    ],
)
def test_nothing_outside_the_image_root_is_read(
    tmp_path: Path, make_image: MakeImage, written: str
) -> None:
    make_image(tmp_path / "private" / "x.jpg")
    root = tmp_path / "set"
    make_image(root / "images" / "a.jpg")
    a_set(root, ["a.jpg", written.format(tmp_path)], BOX, BOX | {"image_id": 2})
    for images in (None, "images"):
        samples, items, _ = read_all(Coco(root=str(root), split="train", images=images))
        assert samples.keys() == {"a.jpg"}
        assert said(items).keys() == {LEAVES}
        assert [(item.object, item.note) for item in items] == [("", False)]


def test_two_images_are_never_the_same_file(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "a.jpg")
    a_set(tmp_path, ["old/a.jpg", "a.jpg", "new\\a.jpg"], BOX | {"image_id": 2})
    samples, items, _ = read_all(Coco(root=str(tmp_path), split="train"))
    assert counts_of(samples) == {"a.jpg": 1}
    assert len(items) == 2
    assert not any(item.note for item in items)


@pytest.mark.parametrize(
    "written", ["a.jpg", "images\\a.jpg", "..\\..\\upload\\a.jpg", "/home/me/a.jpg"]
)
def test_labels_without_images(tmp_path: Path, written: str) -> None:
    a_set(tmp_path, [written], BOX)
    samples, items, _ = read_all(Coco(root=str(tmp_path), split="train"), LABELS_ONLY)
    sample = the_sample(samples)
    assert (sample.height, sample.width, sample.image, list(counts_of(samples).values())) == (
        48,
        64,
        b"",
        [1],
    )
    assert list(said(items)) == [ABSENT.partition(": ")[0]]
    assert ".." not in sample.key.split("/")
    assert not sample.key.startswith("/")
    with pytest.raises(FileNotFoundError, match="--images"):
        open_source(Coco(root=str(tmp_path), split="train"))


# Categories


def roboflow(*names: str) -> list[dict[str, Any]]:
    """Categories 0, 1, ... of which the first is the supercategory of the others."""
    return [
        {"id": number, "name": name, "supercategory": names[0] if number else "none"}
        for number, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("names", "used", "classes", "notes"),
    [
        (("hole", "hole"), (1,), ("hole",), [ROOT_DROPPED]),
        (("fish", "cod", "ray"), (1, 2), ("cod", "ray"), [ROOT_DROPPED]),
        (("fish", "fish", "trap"), (1, 2), ("fish", "trap"), [ROOT_DROPPED]),
        (("fish", "fish", "trap"), (0, 1, 2), ("fish", "trap"), [MERGED]),
        (("fish", "cod"), (0, 1), ("fish", "cod"), []),
        (("fish", "cod"), (), ("cod",), [ROOT_DROPPED]),
        (("fish",), (), ("fish",), []),
    ],
)
def test_roots(
    tmp_path: Path,
    make_image: MakeImage,
    names: tuple[str, ...],
    used: tuple[int, ...],
    classes: tuple[str, ...],
    notes: list[str],
) -> None:
    make_image(tmp_path / "train" / "a.jpg")
    found = [BOX | {"category_id": number} for number in used]
    a_set(
        tmp_path,
        ["a.jpg"],
        *found,
        file="train/_annotations.coco.json",
        categories=roboflow(*names),
    )
    samples, items, source = read_all(Coco(root=str(tmp_path), split="train"))
    sample = the_sample(samples)
    assert classes_of(source) == classes
    assert list(said(items)) == notes
    assert all(item.note for item in items)
    assert sample.instances is not None
    assert [classes[number] for number in sample.instances.classes] == [
        names[number] for number in used
    ]


def test_a_root_that_another_split_uses_or_the_user_names_stays(
    tmp_path: Path, make_image: MakeImage
) -> None:
    for split, used in (("train", 1), ("valid", 0)):
        make_image(tmp_path / split / "a.jpg")
        found = BOX | {"category_id": used}
        a_set(
            tmp_path,
            ["a.jpg"],
            found,
            file=f"{split}/_annotations.coco.json",
            categories=roboflow("fish", "cod"),
        )
    for split in ("train", "valid"):
        assert classes_of(open_source(Coco(root=str(tmp_path), split=split))) == ("fish", "cod")
    (tmp_path / "names.txt").write_text("fish\n")
    samples, items, source = read_all(
        Coco(root=str(tmp_path), split="train", classes=str(tmp_path / "names.txt"))
    )
    assert (classes_of(source), list(counts_of(samples).values())) == (("fish",), [0])
    assert [(item.note, item.reason) for item in items] == [(True, f"{NOT_CHOSEN}: cod")]


@pytest.mark.parametrize(
    "category",
    [
        {"id": 1},
        {"id": 1, "name": None},
        {"id": 1, "name": " "},
        {"id": 1, "name": ["x"]},
        {"name": "x"},
        7,
        None,
    ],
)
def test_a_category_without_name_or_id_is_one_sentence(
    tmp_path: Path, make_image: MakeImage, category: Any
) -> None:
    make_image(tmp_path / "a.jpg")
    a_set(tmp_path, ["a.jpg"], BOX, categories=[{"id": 0, "name": "dog"}, category])
    with pytest.raises(ValueError, match=r"train\.json: categories\[1\]"):
        open_source(Coco(root=str(tmp_path), split="train"))


# Ids, numbers, repeated entries


@pytest.mark.parametrize("listed", [1, 1.0, "1", " 1 "])
@pytest.mark.parametrize("named", [1, 1.0, "1"])
def test_ids_as_numbers_and_texts(
    tmp_path: Path, make_image: MakeImage, listed: Any, named: Any
) -> None:
    make_image(tmp_path / "a.jpg")
    image = {"id": listed, "file_name": "a.jpg", "width": "64", "height": 48.0}
    found = {
        "id": named,
        "image_id": named,
        "category_id": named,
        "bbox": ["10", 10.0, "20.0", 20],
        "area": None,
        "iscrowd": "0",
    }
    path = a_set(tmp_path, [], found, images=[image], categories=[{"id": listed, "name": "cat"}])
    samples, items, source = read_all(Coco(root=str(tmp_path), split="train"))
    first = the_sample(samples).instances
    second = read_coco_file(str(path)).samples[0].instances
    assert items == []
    assert source.vocabulary.category_ids == {"instances": (1,)}
    for instances in (first, second):
        assert instances is not None
        assert (
            instances.boxes_xyxy.tolist(),
            instances.areas.tolist(),
            instances.ids.tolist(),
        ) == ([[10, 10, 30, 30]], [400], [1])
        assert instances.crowd.tolist() == [False]
    content = load_coco(str(path))
    assert class_table(content)[1].tolist() == [[1]]
    write_parts(content, np.array([0]), [str(tmp_path / "part.json")])
    assert len(json.loads((tmp_path / "part.json").read_text())["annotations"]) == 1


def test_ids_that_are_no_numbers(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "a.jpg")
    image = {"id": "8f-a", "file_name": "a.jpg", "width": 64, "height": 48}
    found = BOX | {"id": "x", "image_id": "8f-a", "category_id": "c"}
    a_set(
        tmp_path,
        [],
        found,
        images=[image],
        categories=[{"id": "d", "name": "dog"}, {"id": "c", "name": "cat"}],
    )
    samples, items, source = read_all(Coco(root=str(tmp_path), split="train"))
    assert (classes_of(source), source.vocabulary.category_ids, counts_of(samples), items) == (
        ("cat", "dog"),
        {},
        {"a.jpg": 1},
        [],
    )


def test_repeated_ids(tmp_path: Path, make_image: MakeImage) -> None:
    for name in "ab":
        make_image(tmp_path / f"{name}.jpg")
    other = {"bbox": [1, 1, 9, 9]}
    found = [
        {**box, "id": 0, "image_id": image} for image in (1, 2) for box in (BOX, other, BOX, BOX)
    ]
    a_set(tmp_path, ["a.jpg", "b.jpg"], *found)
    samples, items, _ = read_all(Coco(root=str(tmp_path), split="train"))
    assert counts_of(samples) == {"a.jpg": 2, "b.jpg": 2}
    assert [(item.note, item.reason.partition(": ")[0]) for item in items] == [(True, REPEATED)] * 4


def test_repeated_images(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "a.jpg")
    image = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
    a_set(tmp_path, [], BOX, images=[image, image, image | {"file_name": "b.jpg"}])
    samples, items, _ = read_all(Coco(root=str(tmp_path), split="train"))
    assert counts_of(samples) == {"a.jpg": 1}
    assert [(item.note, item.reason) for item in items] == [
        (True, LISTED_AGAIN),
        (False, "its id or its file_name is listed twice"),
    ]


# Masks


@pytest.mark.parametrize(
    ("segmentation", "area", "fault"),
    [
        ([SQUARE, [32.0, 24.0]], 400, PART_DROPPED),
        ([[5, 5, 6, 6], SQUARE], 400, PART_DROPPED),
        ([SQUARE, SQUARE[:7]], 400, PART_DROPPED),
        ([SQUARE, []], 400, PART_DROPPED),
        ([SQUARE, None], 400, PART_DROPPED),
        ([SQUARE, [1, 1, 1e300, 1, 5, 5]], 400, PART_DROPPED),
        ([SQUARE, [1, 1, "x", 1, 5, 5]], 400, PART_DROPPED),
        (SQUARE, 400, ""),
        ([[str(value) for value in SQUARE]], 400, ""),
        ([[[10, 10], [30, 10], [30, 30], [10, 30]]], 400, ""),
        ([[10, 10], [30, 10], [30, 30], [10, 30]], 400, ""),
        ([SQUARE[:7]], 0, "its mask is left out"),
        ([[1, 1]], 0, "its mask is left out"),
        ([[10, 10, 30, 30]], 0, "its mask is left out"),
        ([], 0, ""),
    ],
)
def test_parts_of_masks(
    tmp_path: Path, make_image: MakeImage, segmentation: Any, area: int, fault: str
) -> None:
    make_image(tmp_path / "a.jpg")
    path = a_set(
        tmp_path, ["a.jpg"], BOX | {"segmentation": [SQUARE]}, BOX | {"segmentation": segmentation}
    )
    samples, items, _ = read_all(Coco(root=str(tmp_path), split="train"))
    for sample in (the_sample(samples), read_coco_file(str(path)).samples[0]):
        assert sample.instances is not None
        assert sample.instances.masks is not None
        assert [masks.area(mask, 48, 64) for mask in sample.instances.masks] == [400, area]
    assert list(said(items)) == [fault] * bool(fault)
    assert [item.note for item in items] == [fault == PART_DROPPED] * bool(fault)


# Other files


def test_other_files_beside_the_split(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "a.jpg")
    a_set(tmp_path, ["a.jpg"], BOX)
    a_set(tmp_path, ["b.jpg"], file="backup.json", categories=[{"id": 1, "name": "other"}])
    a_set(tmp_path, ["b.jpg"], file="val.json", categories=[{"id": 2, "name": "dog"}])
    (tmp_path / "results.json").write_text(
        '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]'
    )
    (tmp_path / "notes.json").write_text("{")
    (tmp_path / "test.json").write_text('{"version": "5.0"}')
    (tmp_path / "._train.json").write_bytes(b"\0\5\x16\7")
    samples, items, source = read_all(Coco(root=str(tmp_path), split="train"))
    assert (classes_of(source), counts_of(samples)) == (("cat", "dog"), {"a.jpg": 1})
    assert [(item.file, item.note, item.reason) for item in items] == [
        ("test.json", True, OTHER_FILE)
    ]


# Keypoints


@pytest.mark.parametrize(
    ("skeleton", "pairs", "notes"),
    [
        ([[1, 2], [2, 3]], ((0, 1), (1, 2)), []),
        ([[0, 1], [1, 2]], ((0, 1), (1, 2)), []),
        ([[0, 3]], (), [SKELETON_DROPPED]),
        ([[1, 9]], (), [SKELETON_DROPPED]),
        ([[-1, 1]], (), [SKELETON_DROPPED]),
        ([[1]], (), [SKELETON_DROPPED]),
        ([["a", "b"]], (), [SKELETON_DROPPED]),
        ([["9" * 5000, 1]], (), [SKELETON_DROPPED]),
        ("x", (), [SKELETON_DROPPED]),
        ([], (), []),
        (None, (), []),
    ],
)
def test_skeletons(
    tmp_path: Path,
    make_image: MakeImage,
    skeleton: Any,
    pairs: tuple[tuple[int, int], ...],
    notes: list[str],
) -> None:
    make_image(tmp_path / "a.jpg")
    category = {
        "id": 1,
        "name": "cat",
        "keypoints": ["nose", "left eye", "right eye"],
        "skeleton": skeleton,
    }
    path = a_set(tmp_path, ["a.jpg"], BOX | {"keypoints": [1, 1, 2] * 3}, categories=[category])
    samples, items, source = read_all(Coco(root=str(tmp_path), split="train"))
    assert counts_of(samples) == {"a.jpg": 1}
    assert list(said(items)) == notes
    assert source.vocabulary.skeleton == read_coco_file(str(path)).vocabulary.skeleton == pairs
    assert vocabulary_from_json(vocabulary_to_json(source.vocabulary)) == source.vocabulary


def test_a_manifest_with_a_skeleton_that_points_nowhere_is_read() -> None:
    written = vocabulary_to_json(
        Vocabulary(
            classes={"instances": ("cat",)},
            keypoints=("a", "b"),
            skeleton=((0, 1), (1, 2)),
            mirror=(0, 1),
        )
    )
    assert vocabulary_from_json(written).skeleton == ()
    assert vocabulary_from_json(written | {"skeleton": [[0, 1]]}).skeleton == ((0, 1),)


@pytest.mark.parametrize(
    ("points", "kept"),
    [(None, 1), ([], 1), (0, 1), (7, 0), ("x", 0), ([1, 2, 2], 0), ([1, None, 2] * 3, 0)],
)
def test_keypoints_of_an_object(
    tmp_path: Path, make_image: MakeImage, points: Any, kept: int
) -> None:
    make_image(tmp_path / "a.jpg")
    category = {"id": 1, "name": "cat", "keypoints": ["nose", "left eye", "right eye"]}
    a_set(tmp_path, ["a.jpg"], BOX | {"keypoints": points}, categories=[category])
    samples, items, source = read_all(Coco(root=str(tmp_path), split="train"))
    assert (counts_of(samples), len(items)) == ({"a.jpg": kept}, 1 - kept)
    assert source.vocabulary.mirror == (0, 2, 1)


# The shared cases


@pytest.mark.parametrize(
    ("folder", "names", "objects", "notes"),
    [
        ("01_labelstudio_backslash/a", ("cat", "dog"), [1, 1], []),
        ("01_labelstudio_backslash/b", ("cat", "dog"), [1, 1], []),
        ("01_labelstudio_backslash/d", ("cat",), [1], []),
        ("01_labelstudio_backslash/e", ("cat",), [1], []),
        ("02_roboflow_root_category/a", ("pothole",), [2], [ROOT_DROPPED]),
        ("02_roboflow_root_category/b", ("cod", "ray"), [2], [ROOT_DROPPED]),
        ("02_roboflow_root_category/c", ("fish", "lobster trap"), [2], [ROOT_DROPPED]),
        ("09_string_ids/a", ("cat", "dog"), [1, 1], []),
        ("09_string_ids/c", ("cat", "dog"), [1, 1], []),
        ("11_polygon_parts/a", ("cat",), [7], [PART_DROPPED, "its mask is left out"]),
        ("12_other_json/a", ("cat", "dog"), [1, 1], []),
        ("17_tiff_orientation/coco", ("red",), [1, 1], []),
        ("39_dup_ann_ids/a", ("cat",), [2, 2], []),
        ("39_dup_ann_ids/b", ("cat",), [2, 2], []),
    ],
)
def test_shared_cases(
    shared_data: Path, folder: str, names: tuple[str, ...], objects: list[int], notes: list[str]
) -> None:
    root = shared_data / "cases" / folder
    if not root.is_dir():
        pytest.skip(f"needs {root}")
    samples, items, source = read_all(Coco(root=str(root), split="train"))
    assert (classes_of(source), sorted(counts_of(samples).values()), list(said(items))) == (
        names,
        objects,
        notes,
    )


def test_the_shared_case_without_a_name(shared_data: Path) -> None:
    root = shared_data / "cases" / "09_string_ids" / "e"
    if not root.is_dir():
        pytest.skip(f"needs {root}")
    with pytest.raises(ValueError, match=r"train\.json: categories\[0\] \(id 1\) has no name"):
        open_source(Coco(root=str(root), split="train"))
