"""VIA files with numbers as texts, odd regions and odd paths, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from mtl_ray.sources.image_reading import ABSENT, ImageRule, open_source
from mtl_ray.sources.object_configs import Via
from tests.sources.conftest import MakeImage
from tests.sources.test_cases_files import classes_of, counts_of, read_all, said

RECT = {"name": "rect", "x": "1", "y": 2.0, "width": 9, "height": "8"}


def region(shape: Any, label: Any = "cat") -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": {"class": label}}


def write(path: Path, entries: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries))


def entry(name: Any, *regions: Any, **more: Any) -> dict[str, Any]:
    return {"filename": name, "size": 1, "regions": list(regions), "file_attributes": {}, **more}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (region(RECT, None), "a region without a class"),
        (region(RECT, {"cat": True, "dog": True}), "a region without a class"),
        (region(None), "a region without a shape"),
        ("cat", "a region without a class"),
        (region({"name": "point", "cx": 1, "cy": 1}), "a shape without area: point"),
        (
            region({"name": "polyline", "all_points_x": [1, 2, 3], "all_points_y": [1, 2, 1]}),
            "a shape without area: polyline",
        ),
        (region({"name": "star"}), "an unknown kind of shape: 'star'"),
        (region({"all_points_x": [1]}), "an unknown kind of shape: None"),
        (region({"name": "polygon"}), "its points are not lists of numbers"),
        (
            region({"name": "polygon", "all_points_x": "123", "all_points_y": "123"}),
            "its points are not lists of numbers",
        ),
        (
            region({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1]}),
            "different numbers of x and y: 2 x and 1 y",
        ),
        (
            region({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}),
            "too few points: a polygon of 2",
        ),
        (
            region({"name": "circle", "cx": 5, "cy": 5, "r": 1e30}),
            "larger than any image: a radius of 1e+30 pixels",
        ),
        (
            region({"name": "circle", "cx": 5, "cy": 5, "r": [3]}),
            "a circle with something else than numbers: r [3]",
        ),
        (region({"name": "rect", "x": 1, "y": 1, "width": 1}), "a rect without 'height'"),
        (
            region({"name": "rect", "x": 70, "y": 1, "width": 4, "height": 4}),
            "its box lies outside the 64 x 48 image: x 70 to 74, y 1 to 5",
        ),
    ],
)
def test_regions_that_are_no_objects(
    tmp_path: Path, make_image: MakeImage, item: Any, reason: str
) -> None:
    make_image(tmp_path / "a.jpg")
    write(tmp_path / "via.json", {"a": entry("a.jpg", region(RECT), item)})
    samples, skipped, source = read_all(Via(root=str(tmp_path), split="train"))
    assert (counts_of(samples), classes_of(source)) == ({"a.jpg": 1}, ("cat",))
    assert [(item.object, item.reason, item.note) for item in skipped] == [
        ("a.jpg, region 2", reason, False)
    ]


def test_paths_as_written(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("a.jpg", "sub/b.jpg", "Caf\u00e9 c.JPG"):
        make_image(tmp_path / "images" / name)
    names = (
        "./a.jpg",
        "C:\\set\\images\\sub\\b.jpg",
        "https://example.org/images/Cafe\u0301%20c.jpg",
    )
    write(tmp_path / "via.json", {name: entry(name, region(RECT)) for name in names})
    samples, skipped, _ = read_all(Via(root=str(tmp_path), split="train"))
    assert (counts_of(samples), skipped) == ({"a.jpg": 1, "sub/b.jpg": 1, "Caf\u00e9 c.JPG": 1}, [])


def test_nothing_outside_the_root_is_opened(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "private" / "x.png")
    make_image(tmp_path / "set" / "a.jpg")
    names = (
        "a.jpg",
        "../private/x.png",
        str(tmp_path / "private" / "x.png"),
        "..\\private\\x.png",
        "D:\\x.png",
        "a\0.png",
    )
    write(tmp_path / "set" / "via.json", {name: entry(name, region(RECT)) for name in names})
    samples, skipped, _ = read_all(Via(root=str(tmp_path / "set"), split="train"))
    assert samples.keys() == {"a.jpg"}
    # two of them are the same path
    assert len(said(skipped)["the path leaves the image root"]) == 5 - 1
    assert said(skipped)["an image that is already listed"] == ["via.json"]


def test_what_is_said_of_a_folder(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("a.jpg", "free.jpg"):
        make_image(tmp_path / "train" / name)
    (tmp_path / "train" / "raw.heic").write_bytes(b"x")
    (tmp_path / "train" / "._via.json").write_bytes(b"\0\5\x16\7")
    entries = {
        "1": entry("a.jpg", region(RECT)),
        "2": entry("a.jpg", region(RECT)),
        "3": entry("gone.jpg"),
        "4": entry("null.jpg") | {"regions": None},
        "5": {"filename": 7, "regions": []},
    }
    write(tmp_path / "train" / "via.JSON", entries)
    samples, skipped, _ = read_all(Via(root=str(tmp_path), split="train"))
    assert counts_of(samples) == {"a.jpg": 1}
    assert said(skipped) == {
        "an entry without a filename and regions": ["train/via.JSON"],
        "its regions are not a list": ["train/via.JSON"],
        "an image that is already listed": ["train/via.JSON"],
        "image without an annotation file, not used": ["train/free.jpg"],
        "file passed over for its suffix": ["train/raw.heic"],
        "listed but not there": ["gone.jpg"],
    }


def test_annotations_alone(tmp_path: Path) -> None:
    sized = {"file_attributes": {"width": "64", "height": "48"}}
    write(
        tmp_path / "via.json",
        {"1": entry("a.jpg", region(RECT)), "2": entry("b.jpg", region(RECT), **sized)},
    )
    samples, skipped, _ = read_all(Via(root=str(tmp_path), split="train"), ImageRule(needed=False))
    assert counts_of(samples) == {"b.jpg": 1}
    assert {item.file: item.reason for item in skipped} == {
        "a.jpg": "image file not there, and VIA states no size",
        "b.jpg": ABSENT,
    }
    with pytest.raises(FileNotFoundError, match="name it with --images"):
        open_source(Via(root=str(tmp_path), split="train"))


def test_a_list_of_classes_without_an_attribute(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "a.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    write(
        tmp_path / "via.json",
        {"1": entry("a.jpg", {"shape_attributes": RECT, "region_attributes": {}})},
    )
    _, (item,), _ = read_all(Via(root=str(tmp_path), split="train"))
    assert item.reason == "a region without a class"


def test_max_pixels(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "a.jpg")
    write(tmp_path / "via.json", {"1": entry("a.jpg", region(RECT))})
    assert (
        open_source(Via(root=str(tmp_path), split="train"), ImageRule(max_pixels=100)).read(0)[0]
        is None
    )
