"""nuImages: ten classes, areas of boxes, and what lies over what in the semantic map."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_ray.geometry import masks
from mtl_ray.sources.image_reading import ImageRule, open_source
from mtl_ray.sources.nuimages import CLASSES, semantic_numbers
from mtl_ray.sources.object_configs import Nuimages
from tests.sources.conftest import MakeImage
from tests.sources.test_cases_files import counts_of, read_all, said

HEIGHT, WIDTH = 48, 64
NAMES = (
    *("animal", "flat.driveable_surface", "human.pedestrian.adult", "human.pedestrian.child"),
    *(
        "human.pedestrian.construction_worker",
        "human.pedestrian.personal_mobility",
        "human.pedestrian.police_officer",
    ),
    *(
        "human.pedestrian.stroller",
        "human.pedestrian.wheelchair",
        "movable_object.barrier",
        "movable_object.debris",
    ),
    *(
        "movable_object.pushable_pullable",
        "movable_object.trafficcone",
        "static_object.bicycle_rack",
        "vehicle.bicycle",
    ),
    *(
        "vehicle.bus.bendy",
        "vehicle.bus.rigid",
        "vehicle.car",
        "vehicle.construction",
        "vehicle.ego",
    ),
    *(
        "vehicle.emergency.ambulance",
        "vehicle.emergency.police",
        "vehicle.motorcycle",
        "vehicle.trailer",
        "vehicle.truck",
    ),
)
"""The 25 categories of nuImages."""


def pixels(*box: int) -> np.ndarray:
    x1, y1, x2, y2 = box
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def row(
    token: str, category: str, mask: np.ndarray | None, frame: str = "f1", **more: Any
) -> dict[str, Any]:
    """An annotation as nuImages has them."""
    encoded = (
        None
        if mask is None
        else {"size": [HEIGHT, WIDTH], "counts": base64.b64encode(masks.encode_rle(mask)).decode()}
    )
    return {
        "token": token,
        "sample_data_token": frame,
        "category_token": f"c-{category}",
        "mask": encoded,
        **more,
    }


def write(root: Path, objects: list[dict[str, Any]], surfaces: list[dict[str, Any]]) -> None:
    """The tables of a version with two key frames and one other."""
    tables = {
        "category": [{"token": f"c-{name}", "name": name} for name in reversed(NAMES)],
        "sample_data": [
            {"token": "f2", "filename": "samples/CAM_BACK/b.jpg", "is_key_frame": True},
            {"token": "f1", "filename": "samples/CAM_BACK/a.jpg", "is_key_frame": True},
            {"token": "f3", "filename": "sweeps/CAM_BACK/c.jpg", "is_key_frame": False},
        ],
        "object_ann": objects,
        "surface_ann": surfaces,
    }
    (root / "v1.0-mini").mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        (root / "v1.0-mini" / f"{name}.json").write_text(json.dumps(rows))


def test_numbers_of_the_map() -> None:
    numbers = semantic_numbers(NAMES)
    assert (
        numbers["animal"],
        numbers["human.pedestrian.adult"],
        numbers["vehicle.car"],
        numbers["vehicle.truck"],
    ) == (1, 2, 17, 23)
    assert (numbers["flat.driveable_surface"], numbers["vehicle.ego"]) == (24, 31)
    with pytest.raises(ValueError, match="at most 23"):
        semantic_numbers([*NAMES, "something.new"])


def test_objects_and_map(tmp_path: Path, make_image: MakeImage) -> None:
    for name in "ab":
        make_image(tmp_path / "samples" / "CAM_BACK" / f"{name}.jpg", WIDTH, HEIGHT)
    objects = [
        row("3", "animal", pixels(12, 12, 20, 20), bbox=[12, 12, 20, 20]),
        row("1", "vehicle.bus.bendy", pixels(10, 10, 30, 20), bbox=[10, 10, 30, 20]),
        row("2", "human.pedestrian.police_officer", pixels(0, 0, 4, 9), bbox=[0, 0, 5, 10]),
        row("4", "vehicle.car", None, bbox=[0, 0, 5, 10]),
        row("5", "vehicle.car", pixels(1, 1, 2, 2), bbox=[1, 1, 2, 2], frame="f3"),
    ]
    surfaces = [
        row("9", "vehicle.ego", pixels(0, 40, 64, 48)),
        row("8", "flat.driveable_surface", pixels(0, 15, 64, 48)),
        row("7", "vehicle.ego", None),
    ]
    write(tmp_path, objects, surfaces)
    source = open_source(Nuimages(root=str(tmp_path), split="mini"))
    sample, skipped = source.read(0)
    assert sample is not None
    assert sample.instances is not None
    assert (len(source), sample.key) == (2, "samples/CAM_BACK/a.jpg")
    assert [CLASSES[index] for index in sample.instances.classes] == ["bus", "pedestrian"]
    assert sample.instances.areas.tolist() == [200, 50]
    assert sample.instances.masks is not None
    assert np.array_equal(
        masks.decode_rle(sample.instances.masks[1], HEIGHT, WIDTH), pixels(0, 0, 4, 9)
    )
    assert [(item.object, item.reason) for item in skipped] == [("annotation 4", "it has no mask")]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for box, name in (
        ((0, 15, 64, 48), 24),
        ((0, 40, 64, 48), 31),
        ((10, 10, 30, 20), 15),
        ((0, 0, 4, 9), 6),
        ((12, 12, 20, 20), 1),
    ):
        expected[pixels(*box) == 1] = name
    assert sample.semantic is not None
    (tmp_path / "map.png").write_bytes(sample.semantic)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "map.png")), expected)
    assert source.vocabulary.classes["semantic"][15] == "vehicle.bus.bendy"
    assert len(source.vocabulary.classes["semantic"]) == 32
    second, _ = source.read(1)
    assert second is not None
    assert second.instances is not None
    assert len(second.instances) == 0


def test_masks_that_are_none(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "samples" / "CAM_BACK" / "a.jpg", WIDTH, HEIGHT)
    bad = row("1", "vehicle.car", pixels(0, 0, 2, 2), bbox=[0, 0, 2, 2])
    bad["mask"]["size"] = [900, 1600]
    cut = row("2", "vehicle.car", pixels(0, 0, 2, 2), bbox=[0, 0, 2, 2])
    cut["mask"]["counts"] = "%%%"
    unknown = row("3", "vehicle.tank", pixels(0, 0, 2, 2), bbox=[0, 0, 2, 2])
    write(tmp_path, [bad, cut, unknown], [])
    sample, skipped = open_source(Nuimages(root=str(tmp_path), split="v1.0-mini")).read(0)
    assert sample is not None
    assert [item.object for item in skipped] == ["annotation 1", "annotation 2", "annotation 3"]


def test_no_version(tmp_path: Path) -> None:
    write(tmp_path, [], [])
    with pytest.raises(FileNotFoundError, match=r"no versions 'train'; it has v1\.0-mini"):
        open_source(Nuimages(root=str(tmp_path), split="train"))
    (tmp_path / "v1.0-mini" / "category.json").write_text("{}")
    with pytest.raises(ValueError, match="not a table of nuImages"):
        open_source(Nuimages(root=str(tmp_path), split="mini"))


def change(root: Path, table: str, place: int, **fields: Any) -> None:
    """Other values in a row of a table; None takes a field away."""
    path = root / "v1.0-mini" / f"{table}.json"
    rows = json.loads(path.read_text())
    rows[place] = {
        name: value for name, value in (rows[place] | fields).items() if value is not None
    }
    path.write_text(json.dumps(rows))


def test_rows_that_belong_to_nothing(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "private" / "x.jpg")
    make_image(tmp_path / "set" / "samples" / "CAM_BACK" / "a.jpg", WIDTH, HEIGHT)
    mask = pixels(0, 0, 2, 2)
    rows = [row(str(number), "vehicle.car", mask, bbox=["0", 0.0, 2, "2"]) for number in range(5)]
    write(tmp_path / "set", rows, [])
    root = tmp_path / "set"
    change(root, "sample_data", 0, filename="../private/x.jpg")
    change(
        root,
        "sample_data",
        1,
        filename="samples\\CAM_BACK\\a.jpg",
        height=str(HEIGHT),
        width=float(WIDTH),
    )
    change(root, "object_ann", 1, token=None)
    change(root, "object_ann", 2, sample_data_token="nowhere")
    change(root, "object_ann", 3, bbox=[0, 0, 2])
    change(root, "object_ann", 4, mask={"size": "48 x 64", "counts": None})
    samples, skipped, _ = read_all(Nuimages(root=str(root), split="mini"))
    assert counts_of(samples) == {"samples/CAM_BACK/a.jpg": 1}
    assert said(skipped) == {
        "the path leaves the image root": ["v1.0-mini/sample_data.json"],
        "a row without a token or a frame": ["v1.0-mini/object_ann.json"],
        "its frame is not listed": ["v1.0-mini/object_ann.json"],
        "its box is not four numbers": ["samples/CAM_BACK/a.jpg"],
        "its mask has no size or no run lengths": ["samples/CAM_BACK/a.jpg"],
    }


def test_annotations_alone(tmp_path: Path) -> None:
    write(tmp_path, [row("1", "vehicle.car", pixels(0, 0, 2, 2), bbox=[0, 0, 2, 2])], [])
    change(tmp_path, "sample_data", 1, height=HEIGHT, width=WIDTH)
    samples, skipped, _ = read_all(
        Nuimages(root=str(tmp_path), split="mini"), ImageRule(needed=False)
    )
    assert counts_of(samples) == {"samples/CAM_BACK/a.jpg": 1}
    assert {item.file: item.note for item in skipped} == {
        "samples/CAM_BACK/a.jpg": True,
        "samples/CAM_BACK/b.jpg": False,
    }
    assert read_all(Nuimages(root=str(tmp_path), split="mini"))[0] == {}


def test_a_frame_of_another_size(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "samples" / "CAM_BACK" / "a.jpg", WIDTH, HEIGHT)
    write(tmp_path, [], [])
    change(tmp_path, "sample_data", 1, height=900, width=1600)
    _, skipped, _ = read_all(Nuimages(root=str(tmp_path), split="mini"))
    assert said(skipped)["annotated as an image of another size"] == ["samples/CAM_BACK/a.jpg"]
