"""labelme and VIA: shapes, groups, what is no object, and where files and images may lie."""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.geometry import masks
from mtl_ray.samples import Sample
from mtl_ray.sources.config import RawConfig
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Labelme, Via
from mtl_ray.sources.source import SkippedItem
from tests.sources.conftest import MakeImage

TRIANGLE = [[2, 2], [20, 2], [2, 20]]


def read_all(config: RawConfig) -> tuple[dict[str, Sample], list[SkippedItem]]:
    """All samples by key, and all skipped items of a split."""
    source = open_source(config)
    readings = [source.read(index) for index in range(len(source))]
    samples = {sample.key: sample for sample, _ in readings if sample is not None}
    return samples, [*source.skipped, *(item for _, found in readings for item in found)]


def objects(sample: Sample) -> Instances:
    assert sample.instances is not None
    return sample.instances


def write_labelme(path: Path, shapes: list[dict[str, Any]], image: str, **more: Any) -> None:
    """A file of labelme."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {"version": "5.0.1", "shapes": shapes, "imagePath": image, "imageData": None, **more}
        )
    )


def shape(
    label: str, points: Any, kind: str = "polygon", group: int | None = None, **more: Any
) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": group, **more}


def test_shapes_of_labelme(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "a.jpg")
    pixels = np.zeros((5, 6), np.uint8)
    pixels[1:4, 2:6] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        shape("cat", TRIANGLE),
        shape("dog", [[40, 30], [30, 10]], "rectangle"),
        shape("dog", [[30, 24], [30, 14]], "circle"),
        shape("cat", [[7, 8], [12, 12]], "mask", mask=mask),
        shape("cat", TRIANGLE, group=4),
        shape("cat", [[50, 40], [60, 40], [60, 46], [50, 46]], group=4),
        shape("__ignore__", TRIANGLE),
        shape("cat", [[1, 1], [5, 5]], "line"),
        shape("cat", [[1, 1], [5, 5]]),
        shape("cat", [[1, float("nan")], [5, 5], [9, 9]]),
        shape("cat", [[60, 44], [63, 47]], "mask", mask=mask),
    ]
    write_labelme(tmp_path / "a.json", shapes, "a.jpg", imageHeight=48, imageWidth=64)
    samples, skipped = read_all(Labelme(root=str(tmp_path), split="all"))
    found = objects(samples["a.jpg"])
    assert open_source(Labelme(root=str(tmp_path), split="all")).vocabulary.classes == {
        "instances": ("cat", "dog")
    }
    assert found.classes.tolist() == [0, 1, 1, 0, 0]
    assert found.boxes_xyxy[0].tolist() == [2, 2, 20, 20]
    assert found.boxes_xyxy[1].tolist() == [30, 10, 40, 30]
    assert found.boxes_xyxy[4].tolist() == [2, 2, 60, 46]
    assert found.areas[1] == 200
    assert math.isclose(found.areas[2], math.pi * 100, rel_tol=0.05)
    assert found.areas[3] == 12
    assert found.areas[4] == found.areas[0] + 60
    assert found.masks is not None
    assert masks.decode_rle(found.masks[3], 48, 64)[9:12, 9:13].all()
    assert {item.object: item.reason[:24] for item in skipped} == {
        "shape 7 (__ignore__)": "labelled as no object: _",
        "shape 8 (cat)": "a shape without area: li",
        "shape 9 (cat)": "too few points: a polygo",
        "shape 10 (cat)": "a point without finite n",
        "shape 11 (cat)": "its mask does not fit in",
    }


def test_shapes_that_do_not_say_their_kind(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "a.jpg")
    shapes = [
        {"label": "cat", "points": points}
        for points in ([[9, 8], [3, 2]], [[1, 1], [9, 1], [9, 9]], [[1, 1]])
    ]
    write_labelme(tmp_path / "a.json", shapes, "a.jpg")
    samples, skipped = read_all(Labelme(root=str(tmp_path), split="all"))
    assert objects(samples["a.jpg"]).boxes_xyxy.tolist() == [[3, 2, 9, 8], [1, 1, 9, 9]]
    assert [item.reason for item in skipped] == ["too few points: a polygon of 1"]


def test_where_labelme_images_lie(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "a.jpg")
    make_image(tmp_path / "labels" / "b.png")
    data = base64.b64encode(make_image(tmp_path / "elsewhere.png").read_bytes()).decode()
    (tmp_path / "elsewhere.png").unlink()
    write_labelme(tmp_path / "labels" / "a.json", [shape("x", TRIANGLE)], "..\\images\\a.jpg")
    write_labelme(tmp_path / "labels" / "b.json", [], "C:\\Users\\me\\..\\b.png")
    write_labelme(tmp_path / "labels" / "b2.json", [], "b.png")
    write_labelme(tmp_path / "labels" / "c.json", [], "../../../c.png", imageData=data)
    write_labelme(tmp_path / "labels" / "d.json", [], "d.png", imageData="no image")
    write_labelme(tmp_path / "labels" / "e.json", [], "e.png")
    (tmp_path / "labels" / "f.json").write_text("[1]")
    samples, skipped = read_all(Labelme(root=str(tmp_path), split="labels"))
    assert samples.keys() == {"images/a.jpg", "labels/b.png", "labels/c.png"}
    assert {item.file: item.reason[:20] for item in skipped} == {
        "labels/b.json": "the path leaves the ",
        "labels/d.json": "its imageData is not",
        "labels/e.json": "annotation file with",
        "labels/f.json": "a JSON file that is ",
    }


def test_labelme_lists_and_other_sizes(tmp_path: Path, make_image: MakeImage) -> None:
    for name in "abc":
        make_image(tmp_path / f"{name}.jpg")
        write_labelme(
            tmp_path / f"{name}.json",
            [shape(name, TRIANGLE)],
            f"{name}.jpg",
            imageHeight=48,
            imageWidth=64 if name < "c" else 9,
        )
    (tmp_path / "train.txt").write_text("b.jpg\nc\nd\n")
    samples, skipped = read_all(Labelme(root=str(tmp_path), split="train"))
    assert samples.keys() == {"b.jpg"}
    assert objects(samples["b.jpg"]).classes.tolist() == [1]
    assert [(item.file, item.reason[:12]) for item in skipped] == [
        ("d", "is listed, b"),
        ("c.json", "annotated as"),
    ]
    with pytest.raises(FileNotFoundError, match=r"no list val\.txt"):
        open_source(Labelme(root=str(tmp_path), split="val"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no JSON files of labelme"):
        open_source(Labelme(root=str(tmp_path / "empty"), split="all"))


def region(kind: str, attributes: dict[str, Any] | None = None, **numbers: Any) -> dict[str, Any]:
    """A region of VIA."""
    return {"shape_attributes": {"name": kind, **numbers}, "region_attributes": attributes or {}}


def write_via(path: Path, **regions: Any) -> None:
    """A file of VIA; the images are called by the names of the arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {
                f"{name}.jpg123": {"filename": f"{name}.jpg", "size": 123, "regions": each}
                for name, each in regions.items()
            }
        )
    )


def test_shapes_of_via(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "train" / "a.jpg")
    make_image(tmp_path / "train" / "b.jpg")
    cat = {"type": "cat", "pose": "left"}
    regions = [
        region("polygon", cat, all_points_x=[2, 20, 2], all_points_y=[2, 2, 20]),
        region("rect", {"type": {"dog": True, "cat": False}}, x=30, y=10, width=10, height=20),
        region("circle", cat, cx=30, cy=24, r=10),
        region("ellipse", cat, cx=30, cy=24, rx=20, ry=10, theta=math.pi / 2),
        region("point", cat, cx=3, cy=3),
        region("rect", {"type": ""}, x=1, y=1, width=2, height=2),
        region("rect", cat, x=1, y="1", width=2),
        region("polygon", cat, all_points_x=[2, 20], all_points_y=[2, 2, 20]),
    ]
    write_via(tmp_path / "train" / "via_region_data.json", a=regions, b={})
    (tmp_path / "train" / "other.json").write_text("[]")
    samples, skipped = read_all(Via(root=str(tmp_path), split="train"))
    found = objects(samples["a.jpg"])
    assert open_source(Via(root=str(tmp_path), split="train")).vocabulary.classes == {
        "instances": ("cat", "dog")
    }
    assert found.classes.tolist() == [0, 1, 0, 0]
    assert found.boxes_xyxy[:3].round(3).tolist() == [
        [2, 2, 20, 20],
        [30, 10, 40, 30],
        [20, 14, 40, 34],
    ]
    assert np.allclose(found.boxes_xyxy[3], [20, 4, 40, 44], atol=0.5)
    assert math.isclose(found.areas[3], math.pi * 200, rel_tol=0.05)
    assert len(objects(samples["b.jpg"])) == 0
    assert [item.object for item in skipped] == [
        f"a.jpg, region {number}" for number in (5, 6, 7, 8)
    ]
    assert skipped[2].reason == "a rect without 'height'"


def test_which_via_file(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "a.jpg")
    rect = region("rect", x=1, y=1, width=9, height=9)
    write_via(tmp_path / "via_train.json", a={"0": rect})
    write_via(tmp_path / "via_val.json", a=[rect, rect])
    samples, skipped = read_all(Via(root=str(tmp_path), split="val"))
    assert (len(objects(samples["a.jpg"])), skipped) == (2, [])
    assert open_source(Via(root=str(tmp_path), split="val")).vocabulary.classes == {
        "instances": ("object",)
    }
    with pytest.raises(ValueError, match="name one with --annotations"):
        open_source(Via(root=str(tmp_path), split="test"))
    assert (
        len(open_source(Via(root=str(tmp_path), split="test", annotations="via_train.json"))) == 1
    )
    (tmp_path / "project.json").write_text(
        json.dumps({"_via_img_metadata": json.loads((tmp_path / "via_val.json").read_text())})
    )
    assert (
        len(
            open_source(
                Via(root=str(tmp_path), split="test", annotations="project.json", images="images")
            )
        )
        == 1
    )
    with pytest.raises(FileNotFoundError, match="no JSON file of VIA"):
        open_source(Via(root=str(tmp_path / "images"), split="test"))
    write_via(
        tmp_path / "two.json",
        a=[region("rect", {"one": "a", "two": "b"}, x=1, y=1, width=9, height=9)],
    )
    with pytest.raises(ValueError, match="--attribute"):
        open_source(Via(root=str(tmp_path), split="x", annotations="two.json"))
    assert open_source(
        Via(root=str(tmp_path), split="x", annotations="two.json", attribute="two")
    ).vocabulary.classes["instances"] == ("b",)


@pytest.mark.parametrize(("split", "images", "count"), [("train", 61, 255), ("val", 13, 50)])
def test_balloons_are_those_of_the_coco_file(
    shared_data: Path, split: str, images: int, count: int
) -> None:
    root = shared_data / "inst_balloon_via"
    samples, skipped = read_all(Via(root=str(root), split=split))
    content = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    keys = {image["id"]: image["file_name"] for image in content["images"]}
    expected = sorted(
        (keys[each["image_id"]], each["area"], [round(value, 3) for value in each["bbox"]])
        for each in content["annotations"]
    )
    found = sorted(
        (key, float(area), [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)])
        for key, sample in samples.items()
        for area, (x1, y1, x2, y2) in zip(
            objects(sample).areas,
            objects(sample).boxes_xyxy.astype(np.float64).tolist(),
            strict=True,
        )
    )
    assert (len(samples), len(found), skipped) == (images, count, [])
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    assert (
        np.abs(np.array([entry[2] for entry in found]) - [entry[2] for entry in expected]).max()
        < 2e-3
    )


def test_labelme_pack(shared_data: Path) -> None:
    root = shared_data / "fmt_voc_labelme"
    samples, skipped = read_all(Labelme(root=str(root / "labelme"), split="all"))
    content = json.loads((root / "coco" / "annotations.json").read_text())
    assert (len(samples), sum(len(objects(sample)) for sample in samples.values())) == (
        3,
        len(content["annotations"]),
    )
    assert {item.reason for item in skipped} == {"labelled as no object: __ignore__"}
