"""labelme files as its newer releases and related programs write them, and what is said of a
folder of them.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_ray.sources.image_reading import ABSENT, ImageRule, open_source
from mtl_ray.sources.labelme_shapes import labelme_objects
from mtl_ray.sources.object_configs import Labelme
from tests.sources.conftest import MakeImage
from tests.sources.test_cases_files import counts_of, read_all, said

SQUARE = [[10, 10], [30, 12], [28, 30], [8, 28]]
LABELS_ONLY = ImageRule(needed=False)


def shape(kind: Any, points: Any, label: Any = "ship", **more: Any) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "shape_type": kind,
        "group_id": None,
        "flags": None,
        **more,
    }


def write(path: Path, image: Any, shapes: Any = None, **more: Any) -> None:
    """A file of labelme with one rectangle, or other shapes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = [shape("rectangle", [[5, 5], [25, 25]])] if shapes is None else shapes
    path.write_text(json.dumps({"imagePath": image, "imageData": None, "shapes": shapes, **more}))


def mask_of(pixels: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    "kind", ["rotation", "Rotation", "oriented_rectangle", "quadrilateral", "rotated_rectangle"]
)
def test_four_corners_are_a_polygon(kind: str) -> None:
    (found,), skipped = labelme_objects([shape(kind, SQUARE)], "a.json", {"ship": 0}, 48, 64)
    (polygon,), _ = labelme_objects([shape("polygon", SQUARE)], "a.json", {"ship": 0}, 48, 64)
    assert (found, skipped) == (polygon, [])


@pytest.mark.parametrize(
    "points",
    [
        [[5, 4], [20, 15]],
        [[20, 15], [5, 4]],
        [["5", "4"], [20.0, "1.5e1"]],
        [[5, 4], [20, 4], [20, 15], [5, 15]],
    ],
)
def test_rectangles(points: Any) -> None:
    (found,), _ = labelme_objects([shape("rectangle", points)], "a.json", {"ship": 0}, 48, 64)
    assert (found.box_xyxy, found.area) == ((5, 4, 20, 15), 165)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (shape("polygon", SQUARE, None), "a shape without a label: None"),
        (shape("polygon", SQUARE, ""), "a shape without a label: ''"),
        (shape("polygon", SQUARE, ["ship"]), "a shape without a label: ['ship']"),
        (shape("polygon", SQUARE, "tank"), "unknown class: tank"),
        (shape("polygon", SQUARE, "__ignore__"), "labelled as no object: __ignore__"),
        ("ship", "a shape that is not a JSON object"),
        (shape("line", SQUARE[:2]), "a shape without area: line"),
        (shape("linestrip", SQUARE), "a shape without area: linestrip"),
        (shape("point", SQUARE[:1]), "a shape without area: point"),
        (shape("points", SQUARE), "a shape without area: points"),
        (shape("cuboid", SQUARE * 2), "an unknown kind of shape: cuboid"),
        (shape(7, SQUARE), "an unknown kind of shape: 7"),
        (shape("rotation", SQUARE[:2]), "too few points: a rotation of 2"),
        (shape("polygon", SQUARE[:2]), "too few points: a polygon of 2"),
        (shape("circle", SQUARE[:3]), "too many points: a circle of 3"),
        (shape("rectangle", []), "too few points: a rectangle of 0"),
        (shape("polygon", None), "its points are not a list of pairs"),
        (shape("polygon", [[1, 2, 3]] * 4), "its points are not a list of pairs"),
        (shape("polygon", [[1, None]] * 4), "a point without finite numbers"),
        (shape("circle", [[5, 5], [1e30, 5]]), "larger than any image: a radius of 1e+30 pixels"),
        (
            shape("polygon", [[0, 0], [9e5, 1], [0, 2]] * 9),
            "larger than any image: an outline of 1.62e+07 pixels",
        ),
        (shape("mask", None, mask=mask_of([[1]])), "its points are not a list of pairs"),
        (
            shape("mask", [], mask=mask_of([[1]])),
            "a mask without the two corners of its box: 0 points",
        ),
        (shape("mask", [[1, 1], [2, 2]], mask=None), "a mask without its image"),
        (
            shape("mask", [[1, 1], [2, 2]], mask="%%%"),
            "its mask is not a valid image: Only base64 data is allowed",
        ),
        (
            shape("mask", [[1e300, 1], [2, 2]], mask=mask_of([[1]])),
            "its mask does not fit into the image: at 1e+300, 1 to 2, 2",
        ),
    ],
)
def test_shapes_that_are_no_objects(item: Any, reason: str) -> None:
    found, (left,) = labelme_objects([item], "a.json", {"ship": 0}, 48, 64)
    assert (found, left.reason, left.note) == ([], reason, False)


def test_groups_of_any_type() -> None:
    groups = [None, None, "", 3, 3.0, "3", "left", "left", [1], [1], {"a": 2}]
    shapes = [shape("polygon", SQUARE, group_id=group) for group in groups]
    found, skipped = labelme_objects(shapes, "a.json", {"ship": 0}, 48, 64)
    assert (len(found), skipped) == (7, [])


def test_a_part_of_a_group_that_is_none_is_named() -> None:
    shapes = [shape("polygon", SQUARE, group_id=1), shape("line", SQUARE[:2], group_id=1)]
    (found,), (left,) = labelme_objects(shapes, "a.json", {"ship": 0}, 48, 64)
    assert found.box_xyxy == (8, 10, 30, 30)
    assert left.reason == "a shape without area: line"


@pytest.mark.parametrize(
    "size",
    [{}, {"imageHeight": None, "imageWidth": None}, {"imageHeight": "48", "imageWidth": 64.0}],
)
def test_sizes_as_written(tmp_path: Path, make_image: MakeImage, size: dict[str, Any]) -> None:
    make_image(tmp_path / "p2.jpg")
    write(tmp_path / "p2.json", "..\\photos\\p2.jpg", flags=None, **size)
    samples, skipped, _ = read_all(Labelme(root=str(tmp_path), split="all"))
    assert (counts_of(samples), skipped) == ({"p2.jpg": 1}, [])


@pytest.mark.parametrize(
    "image",
    [
        "images/a.jpg",
        "./images//a.jpg",
        "images\\a.jpg",
        "C:\\me\\set\\images\\a.jpg",
        "/home/me/set/images/a.jpg",
        "../../images/a.jpg",
    ],
)
def test_where_images_lie(tmp_path: Path, make_image: MakeImage, image: str) -> None:
    make_image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "p.json", image)
    assert read_all(Labelme(root=str(tmp_path), split="all"))[0].keys() == {"images/a.jpg"}


def test_names_of_other_systems(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "Caf\u00e9 1.JPG")
    make_image(tmp_path / "renamed.png")
    write(tmp_path / "1.JSON", "Cafe\u0301%201.jpg")
    write(tmp_path / "renamed.json", None)
    (tmp_path / "2.json").write_bytes(
        (tmp_path / "renamed.json").read_text().replace("null", '"2.jpg"', 1).encode("utf-16")
    )
    make_image(tmp_path / "2.jpg")
    (tmp_path / "._2.json").write_bytes(b"\0\5\x16\7")
    samples, skipped, _ = read_all(Labelme(root=str(tmp_path), split="all"))
    assert (counts_of(samples), skipped) == (
        {"2.jpg": 1, "Caf\u00e9 1.JPG": 1, "renamed.png": 1},
        [],
    )


def test_nothing_outside_the_root_is_opened(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "private" / "x.png")
    make_image(tmp_path / "set" / "a.png")
    write(tmp_path / "set" / "a.json", "a.png")
    for number, name in enumerate(
        (
            "../private/x.png",
            str(tmp_path / "private" / "x.png"),
            "..\\private\\x.png",
            "D:\\x.png",
            "a\0.png",
        )
    ):
        write(tmp_path / "set" / f"bad{number}.json", name)
    samples, skipped, _ = read_all(Labelme(root=str(tmp_path / "set"), split="all"))
    assert samples.keys() == {"a.png"}
    assert sorted(said(skipped)["the path leaves the image root"]) == [
        f"bad{number}.json" for number in range(5)
    ]
    assert not any(item.note for item in skipped)


def test_no_image_is_given_to_another_file(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "b" / "1.jpg")
    make_image(tmp_path / "2.jpg")
    write(tmp_path / "a" / "1.json", "1.jpg")
    write(tmp_path / "a" / "2.json", "2.jpg")
    write(tmp_path / "b" / "1.json", "1.jpg")
    write(tmp_path / "z.json", "2.jpg")
    samples, skipped, _ = read_all(Labelme(root=str(tmp_path), split="all"))
    assert samples.keys() == {"b/1.jpg", "2.jpg"}
    assert said(skipped) == {"annotation file without an image": ["a/1.json", "a/2.json"]}


def test_what_is_said_of_a_folder(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("a.jpg", "free.jpg"):
        make_image(tmp_path / name)
    write(tmp_path / "a.json", "a.jpg")
    write(tmp_path / "orphan.json", "orphan.jpg")
    (tmp_path / "raw.heic").write_bytes(b"x")
    (tmp_path / "project.json").write_text('{"name": "boats"}')
    (tmp_path / "cut.json").write_text('{"shapes": [')
    (tmp_path / "none.json").write_text('{"shapes": null, "imagePath": "a.jpg"}')
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    _, skipped, _ = read_all(Labelme(root=str(tmp_path), split="all"))
    assert said(skipped) == {
        "image without an annotation file, not used": ["free.jpg"],
        "annotation file without an image": ["orphan.json"],
        "file passed over for its suffix": ["raw.heic"],
        "a JSON file that is not of labelme, passed over": ["project.json"],
        "not JSON": ["cut.json"],
        "not a JSON file of labelme": ["none.json"],
    }
    notes = {item.reason.partition(": ")[0] for item in skipped if item.note}
    assert len(notes) == 3


def test_annotations_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.json", "..\\photos\\a.jpg", imageHeight="48", imageWidth=64)
    write(tmp_path / "b.json", "b.jpg")
    write(tmp_path / "c.json", "c.jpg", imageHeight=10**9, imageWidth=10**9)
    samples, skipped, _ = read_all(Labelme(root=str(tmp_path), split="all"), LABELS_ONLY)
    assert counts_of(samples) == {"a.jpg": 1}
    assert (samples["a.jpg"].image, samples["a.jpg"].height, samples["a.jpg"].width) == (
        b"",
        48,
        64,
    )
    assert [(item.file, item.reason) for item in skipped if item.note] == [("a.jpg", ABSENT)]
    assert [item.file for item in skipped if not item.note] == ["b.jpg", "c.jpg"]
    assert read_all(Labelme(root=str(tmp_path), split="all"))[0] == {}


def test_a_image_that_exif_turns(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "a.jpg", 64, 48, orientation=6)
    write(
        tmp_path / "a.json",
        "a.jpg",
        [shape("rectangle", [[5, 50], [25, 60]])],
        imageHeight=48,
        imageWidth=64,
    )
    samples, (note,), _ = read_all(Labelme(root=str(tmp_path), split="all"))
    assert (samples["a.jpg"].height, samples["a.jpg"].width) == (64, 48)
    assert samples["a.jpg"].instances is not None
    assert samples["a.jpg"].instances.boxes_xyxy.tolist() == [[5, 50, 25, 60]]
    assert note.note
    assert note.reason.startswith("turned by EXIF: ")


def test_max_pixels(tmp_path: Path, make_image: MakeImage) -> None:
    data = base64.b64encode(make_image(tmp_path / "a.jpg").read_bytes()).decode()
    write(tmp_path / "a.json", "a.jpg")
    write(tmp_path / "b.json", "b.jpg", imageData=f"data:image/jpeg;base64,{data}")
    config = Labelme(root=str(tmp_path), split="all")
    assert counts_of(read_all(config)[0]) == {"a.jpg": 1, "b.jpg": 1}
    source = open_source(config, ImageRule(max_pixels=1000))
    assert [source.read(index)[0] for index in range(2)] == [None, None]
