"""Cityscapes: what is an object, what is a group, train ids, and polygons drawn as the authors
draw them.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.geometry import masks
from mtl_ray.samples import Sample
from mtl_ray.sources.image_reading import ABSENT, ImageRule, open_source
from mtl_ray.sources.object_configs import Cityscapes
from mtl_ray.sources.source import SkippedItem
from tests.sources.conftest import MakeImage
from tests.sources.test_cases_files import counts_of, read_all, said

NAME = "aachen_000000_000019"


@pytest.fixture
def city(tmp_path: Path, make_image: MakeImage) -> Path:
    """An image of 64 x 48 in val/aachen, without annotation."""
    make_image(tmp_path / "leftImg8bit" / "val" / "aachen" / f"{NAME}_leftImg8bit.png")
    (tmp_path / "gtFine" / "val" / "aachen").mkdir(parents=True)
    return tmp_path


def annotation(root: Path, end: str) -> Path:
    return root / "gtFine" / "val" / "aachen" / f"{NAME}_gtFine_{end}"


def read(root: Path, **options: object) -> tuple[Sample, list[SkippedItem]]:
    """The only sample of val."""
    source = open_source(Cityscapes(root=str(root), split="val", **options))  # type: ignore[arg-type]
    (sample, skipped) = source.read(0)
    assert (len(source), sample is not None) == (1, True)
    assert sample is not None
    return sample, skipped


def objects(sample: Sample) -> Instances:
    assert sample.instances is not None
    return sample.instances


def semantic(sample: Sample, folder: Path) -> np.ndarray:
    """The map of a sample."""
    assert sample.semantic is not None
    (folder / "map.png").write_bytes(sample.semantic)
    return np.asarray(Image.open(folder / "map.png"))


def test_instance_ids(city: Path) -> None:
    values = np.zeros((48, 64), np.uint16)
    values[:10], values[10:20, :8], values[10:20, 8:16], values[30:, 60:] = 7, 26000, 26001, 33007
    values[20:24, 4:8], values[20:24, 10:20], values[24:26, :2], values[40:, :5] = (
        26,
        29002,
        24003,
        23,
    )
    Image.fromarray(values).save(annotation(city, "instanceIds.png"))
    sample, skipped = read(city)
    found = objects(sample)
    assert sample.key == f"aachen/{NAME}_leftImg8bit.png"
    assert skipped == []
    vocabulary = open_source(Cityscapes(root=str(city), split="val")).vocabulary
    ids = [vocabulary.category_ids["instances"][index] for index in found.classes]
    assert list(zip(ids, found.crowd.tolist(), found.areas.tolist(), strict=True)) == [
        (26, True, 16),
        (24, False, 4),
        (26, False, 80),
        (26, False, 80),
        (33, False, 72),
    ]
    assert found.boxes_xyxy[3].tolist() == [8, 10, 16, 20]
    assert found.masks is not None
    assert np.array_equal(masks.decode_rle(found.masks[4], 48, 64), values == 33007)
    expected = np.full((48, 64), 255, np.uint8)
    for value, train in (
        (7, 0),
        (26000, 13),
        (26001, 13),
        (26, 13),
        (33007, 18),
        (24003, 11),
        (23, 10),
    ):
        expected[values == value] = train
    assert np.array_equal(semantic(sample, city), expected)
    assert vocabulary.classes["semantic"][13] == "car"


def test_polygons_are_drawn_over_one_another(city: Path) -> None:
    shapes = [
        ("road", [[0, 20], [63, 20], [63, 47], [0, 47]], 7),
        ("car", [[5, 10], [30, 10], [30, 40], [5, 40]], 26000),
        ("license plate", [[6, 30], [10, 30], [10, 34]], None),
        ("persongroup", [[20, 20], [40, 20], [40, 30]], 24),
        ("car", [[25, 12], [50, 15], [45, 45]], 26001),
    ]
    content = {
        "imgHeight": 48,
        "imgWidth": 64,
        "objects": [{"label": label, "polygon": polygon} for label, polygon, _ in shapes],
    }
    content["objects"] += [
        {"label": "car", "polygon": [[0, 0], [9, 0], [9, 9]], "deleted": 1},
        {"label": "dragon", "polygon": [[0, 0]]},
    ]
    annotation(city, "polygons.json").write_text(json.dumps(content))
    canvas = Image.new("I", (64, 48), 0)
    for _, polygon, value in shapes:
        if value is not None:
            ImageDraw.Draw(canvas).polygon([(x, y) for x, y in polygon], fill=value)
    expected = np.array(canvas)
    sample, skipped = read(city)
    found = objects(sample)
    assert found.crowd.tolist() == [True, False, False]
    assert found.areas.tolist() == [(expected == value).sum() for value in (24, 26000, 26001)]
    assert [(item.object, item.reason) for item in skipped] == [
        ("object 7", "cannot be drawn: 'dragon' is not a label of Cityscapes")
    ]
    Image.fromarray(expected.astype(np.uint16)).save(annotation(city, "instanceIds.png"))
    same, none = read(city)
    assert none == []
    assert same.semantic == sample.semantic
    assert objects(same).masks == found.masks
    assert objects(read(city, annotations="polygons")[0]).masks == found.masks


def test_label_ids_alone_and_nothing(city: Path, make_image: MakeImage) -> None:
    sample, _ = read(city)
    assert (sample.instances, sample.semantic) == (None, None)
    Image.fromarray(np.full((48, 64), 26, np.uint8)).save(annotation(city, "labelIds.png"))
    sample, _ = read(city)
    assert sample.instances is None
    assert set(semantic(sample, city).ravel().tolist()) == {13}
    make_image(city / "leftImg8bit" / "val" / "aachen" / "something.png")
    make_image(city / "leftImg8bit" / "val" / "aachen" / f"._{NAME}_leftImg8bit.png")
    source = open_source(Cityscapes(root=str(city), split="val"))
    assert (len(source), [item.file for item in source.skipped]) == (1, ["aachen/something.png"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "no list of objects"),
        (
            '{"imgHeight": 48, "imgWidth": 63, "objects": []}',
            "annotated as an image of another size: 63 x 48",
        ),
    ],
)
def test_damaged_polygons(city: Path, content: str, reason: str) -> None:
    annotation(city, "polygons.json").write_text(content)
    sample, (item,) = open_source(Cityscapes(root=str(city), split="val")).read(0)
    assert sample is None
    assert reason in item.reason


def test_a_map_of_another_size(city: Path) -> None:
    Image.fromarray(np.zeros((48, 60), np.uint16)).save(annotation(city, "instanceIds.png"))
    sample, (item,) = open_source(Cityscapes(root=str(city), split="val")).read(0)
    assert sample is None
    assert "its image is 64 x 48" in item.reason


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no images"):
        open_source(Cityscapes(root=str(tmp_path), split="val"))


def test_real_frame(shared_data: Path) -> None:
    root = shared_data / "fmt_openmmlab" / "mmseg" / "pseudo_cityscapes_dataset"
    sample, skipped = read(root)
    found = objects(sample)
    values = np.asarray(
        Image.open(root / "gtFine" / "frankfurt_000000_000294_gtFine_instanceIds.png")
    )
    assert skipped == []
    assert found.areas.tolist() == [
        (values == value).sum() for value in (24000, 24001, 24002, 24003, 26000, 26001, 26002)
    ]


def test_what_is_said_of_a_folder(city: Path, make_image: MakeImage) -> None:
    folder = city / "leftImg8bit" / "val" / "aachen"
    make_image(folder / "other.png")
    (folder / "raw.heic").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    (city / "gtFine" / "val" / "aachen" / "gone_gtFine_polygons.json").write_text("{}")
    source = open_source(Cityscapes(root=str(city), split="val"))
    assert said(list(source.skipped)) == {
        "image without an annotation file, used without annotations": [
            f"aachen/{NAME}_leftImg8bit.png"
        ],
        "annotation file without an image": ["gtFine/val/aachen/gone_gtFine_*"],
        "file passed over for its suffix": ["aachen/raw.heic"],
        "its name does not end with _leftImg8bit": ["aachen/other.png"],
    }


def test_annotations_alone(tmp_path: Path) -> None:
    folder = tmp_path / "gtFine" / "val" / "aachen"
    folder.mkdir(parents=True)
    Image.fromarray(np.full((48, 64), 26001, np.uint16)).save(folder / "a_gtFine_instanceIds.png")
    square = {"label": "car", "polygon": [[0, "0"], [9, 0], [9.0, 9], [0, 9]], "deleted": "0"}
    (folder / "b_gtFine_polygons.json").write_text(
        json.dumps({"imgHeight": "48", "imgWidth": 64.0, "objects": [square]})
    )
    (folder / "c_gtFine_polygons.json").write_text(
        json.dumps({"imgHeight": 10**9, "imgWidth": 10**9, "objects": [square]})
    )
    samples, skipped, _ = read_all(
        Cityscapes(root=str(tmp_path), split="val"), ImageRule(needed=False)
    )
    assert counts_of(samples) == {f"aachen/{name}_leftImg8bit.png": 1 for name in "ab"}
    assert said([item for item in skipped if item.note]) == {
        ABSENT.partition(": ")[0]: sorted(samples)
    }
    assert [item.file for item in skipped if not item.note] == ["aachen/c_leftImg8bit.png"]
    with pytest.raises(FileNotFoundError, match="no images"):
        open_source(Cityscapes(root=str(tmp_path), split="val"))


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (7, "it has no label"),
        ({"polygon": []}, "it has no label"),
        ({"label": ["car"]}, "it has no label"),
        ({"label": "car"}, "its polygon is not a list of pairs"),
        ({"label": "car", "polygon": []}, "too few points: a polygon of 0"),
        ({"label": "car", "polygon": [[1, 2]]}, "too few points: a polygon of 1"),
        ({"label": "car", "polygon": [[1, 2, 3]]}, "its polygon is not a list of pairs"),
        ({"label": "car", "polygon": [[1, None], [2, 3]]}, "a point without finite numbers"),
        (
            {"label": "car", "polygon": [[1, 1e300], [2, 3]]},
            "larger than any image: a point beyond 1e+06 pixels",
        ),
    ],
)
def test_objects_that_cannot_be_drawn(city: Path, item: object, reason: str) -> None:
    annotation(city, "polygons.json").write_text(
        json.dumps({"imgHeight": 48, "imgWidth": 64, "objects": [item]})
    )
    _, (item,) = read(city)
    assert item.reason == f"cannot be drawn: {reason}"


def test_max_pixels(city: Path) -> None:
    annotation(city, "polygons.json").write_text(
        json.dumps({"imgHeight": 48, "imgWidth": 64, "objects": []})
    )
    assert (
        open_source(Cityscapes(root=str(city), split="val"), ImageRule(max_pixels=100)).read(0)[0]
        is None
    )
