"""Anchors and parts of a COCO annotation file without its images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import anchors, split
from mtl_ray.inputs.image import Canvas
from mtl_ray.tuning.anchor_boxes import boxes_of, documented_shapes, shapes_of


def write(path: Path, *, as_text: bool = False, **more: Any) -> str:
    """A file with forty images, each with two boxes.

    Ids and sizes as strings or floats on request.
    """
    images = [{"id": n, "file_name": f"gone/{n}.jpg", "width": 64, "height": 48} for n in range(40)]
    boxes = [[n % 7, 2, 4 + n % 13, 3 + n % 11] for n in range(80)]
    annotations = [
        {
            "id": n,
            "image_id": n // 2,
            "category_id": n % 2,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        | more
        for n, box in enumerate(boxes)
    ]
    if as_text:
        images = [
            image | {"id": str(image["id"]), "width": "64", "height": 48.0} for image in images
        ]
        annotations = [
            each
            | {
                "image_id": float(each["image_id"]),
                "bbox": list(map(str, each["bbox"])),
                "iscrowd": "0",
            }
            for each in annotations
        ]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    path.write_text(json.dumps(content))
    return str(path)


def test_anchors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = write(tmp_path / "a.json")
    assert (
        anchors.main(
            ["--data", uri, "--num", "3", "--input", "64", "48", "--out", str(tmp_path / "out")]
        )
        == 0
    )
    assert (
        f"note: {uri}: the sizes in the file were used; they were not compared with images"
        in capsys.readouterr().out
    )
    assert (tmp_path / "out" / "anchors.json").exists()


def test_numbers_as_texts_are_those_numbers(tmp_path: Path) -> None:
    rule = Canvas(width=64, height=48)
    plain, texts = write(tmp_path / "a.json"), write(tmp_path / "b.json", as_text=True)
    assert np.array_equal(shapes_of([plain], rule), shapes_of([texts], rule))
    assert np.array_equal(documented_shapes([plain], 64, 48), documented_shapes([texts], 64, 48))


def test_an_area_that_is_not_known_is_none_that_is_zero(tmp_path: Path) -> None:
    (unknown,) = boxes_of(write(tmp_path / "a.json", area=None))
    (none,) = boxes_of(write(tmp_path / "b.json", area="0"))
    assert unknown.valid.all()
    assert not none.valid.any()


@pytest.mark.parametrize(
    "size", [{"width": None}, {"width": 0}, {"height": "many"}, {"height": -4}]
)
def test_an_image_without_a_size(tmp_path: Path, size: dict[str, Any]) -> None:
    uri = Path(write(tmp_path / "a.json"))
    content = json.loads(uri.read_text())
    content["images"][3] |= size
    uri.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no height or width"):
        list(boxes_of(str(uri)))


def test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = write(tmp_path / "instances_all.json")
    assert split.main([uri, "--to", str(tmp_path / "parts"), "--parts", "train=3", "val=1"]) == 0
    assert f"note: {uri}: only annotations were read" in capsys.readouterr().out
    parts = [
        json.loads((tmp_path / "parts" / f"instances_{name}.json").read_text())
        for name in ("train", "val")
    ]
    assert [(len(part["images"]), len(part["annotations"])) for part in parts] == [
        (30, 60),
        (10, 20),
    ]
