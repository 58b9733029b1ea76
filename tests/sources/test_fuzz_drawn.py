"""Damaged files of labelme, VIA, nuImages and Cityscapes: samples, skipped items, or one
sentence, whatever stands in them.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtl_ray.geometry import masks
from mtl_ray.sources.config import RawConfig
from mtl_ray.sources.image_reading import ImageRule, open_source
from mtl_ray.sources.object_configs import Cityscapes, Labelme, Nuimages, Via
from tests.sources.test_fuzz_files import HEIGHT, JPEG, WIDTH, is_told

Step = str | int
SQUARE = [[2, 2], [9, 2], [9, 9], [2, 9]]


def png(values: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(values)).save(buffer, "PNG")
    return buffer.getvalue()


BUTTON = base64.b64encode(png(np.ones((3, 4), np.uint8))).decode()
PICTURE = base64.b64encode(JPEG).decode()
MASK = base64.b64encode(masks.encode_rle(np.eye(HEIGHT, WIDTH, dtype=np.uint8))).decode()


def labelme(image: Any, data: str | None = None) -> dict[str, Any]:
    shapes = [
        {"label": "cat", "points": SQUARE, "shape_type": "polygon", "group_id": 1, "flags": {}},
        {
            "label": "cat",
            "points": [[9, 9], [12, 11]],
            "shape_type": "rectangle",
            "group_id": 1,
            "flags": {},
        },
        {
            "label": "dog",
            "points": [[8, 6], [8, 9]],
            "shape_type": "circle",
            "group_id": None,
            "flags": None,
        },
        {
            "label": "dog",
            "points": SQUARE,
            "shape_type": "rotation",
            "group_id": "a",
            "direction": 0.1,
        },
        {"label": "dog", "points": [[1, 1], [4, 3]], "shape_type": "mask", "mask": BUTTON},
        {"label": "dog", "points": [[1, 1], [4, 3]]},
    ]
    return {
        "version": "5",
        "shapes": shapes,
        "imagePath": image,
        "imageData": data,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }


def region(shape: Mapping[str, Any], label: Any) -> dict[str, Any]:
    return {"shape_attributes": dict(shape), "region_attributes": {"class": label}}


def via() -> dict[str, Any]:
    regions = [
        region({"name": "polygon", "all_points_x": [2, 9, 2], "all_points_y": [2, 2, 9]}, "cat"),
        region(
            {"name": "rect", "x": 1, "y": 1, "width": 5, "height": 4}, {"cat": True, "dog": False}
        ),
        region({"name": "circle", "cx": 5, "cy": 5, "r": 3}, "dog"),
        region({"name": "ellipse", "cx": 5, "cy": 5, "rx": 3, "ry": 2, "theta": 0.3}, "dog"),
    ]
    sized = {"width": WIDTH, "height": HEIGHT}
    files = {"a": {"filename": "a.jpg", "size": 3, "regions": regions, "file_attributes": sized}}
    return files | {
        "b": {"filename": "b.jpg", "size": 3, "regions": {"0": regions[0]}, "file_attributes": {}}
    }


def annotation(token: str, category: str) -> dict[str, Any]:
    mask = {"size": [HEIGHT, WIDTH], "counts": MASK}
    return {
        "token": token,
        "sample_data_token": "f1",
        "category_token": category,
        "mask": mask,
        "bbox": [0, 0, 9, 9],
    }


POLYGONS = {
    "imgHeight": HEIGHT,
    "imgWidth": WIDTH,
    "objects": [
        {"label": label, "polygon": SQUARE, "deleted": 0}
        for label in ("road", "car", "cargroup", "license plate")
    ],
}
FRAME = {
    "token": "f1",
    "filename": "samples/a.jpg",
    "is_key_frame": True,
    "height": HEIGHT,
    "width": WIDTH,
}
SETS: dict[str, tuple[Mapping[str, Any], Callable[[str], RawConfig]]] = {
    "labelme": (
        {
            "a.jpg": JPEG,
            "a.json": labelme("a.jpg"),
            "sub/b.json": labelme("..\\b.jpg", PICTURE),
            "b.jpg": JPEG,
            "all.txt": b"a\nsub/b.json\n",
        },
        lambda root: Labelme(root=root, split="all"),
    ),
    "via": (
        {"train/a.jpg": JPEG, "train/b.jpg": JPEG, "train/via.json": via()},
        lambda root: Via(root=root, split="train"),
    ),
    "via project": (
        {"a.jpg": JPEG, "b.jpg": JPEG, "p.json": {"_via_img_metadata": via()}},
        lambda root: Via(root=root, split="train", annotations="p.json"),
    ),
    "nuimages": (
        {
            "samples/a.jpg": JPEG,
            "v1.0-mini/category.json": [
                {"token": "c1", "name": "vehicle.car"},
                {"token": "c2", "name": "flat.driveable_surface"},
            ],
            "v1.0-mini/sample_data.json": [
                FRAME,
                FRAME | {"token": "f2", "is_key_frame": False, "filename": "sweeps/b.jpg"},
            ],
            "v1.0-mini/object_ann.json": [annotation("1", "c1"), annotation("2", "c1")],
            "v1.0-mini/surface_ann.json": [annotation("3", "c2")],
        },
        lambda root: Nuimages(root=root, split="mini"),
    ),
    "cityscapes": (
        {
            "leftImg8bit/val/x/a_leftImg8bit.png": png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
            "leftImg8bit/val/x/b_leftImg8bit.png": png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
            "gtFine/val/x/a_gtFine_polygons.json": POLYGONS,
            "gtFine/val/x/b_gtFine_instanceIds.png": png(
                np.full((HEIGHT, WIDTH), 26001, np.uint16)
            ),
        },
        lambda root: Cityscapes(root=root, split="val"),
    ),
}
NESTED: Any = "x"
for _ in range(200):
    NESTED = [NESTED, {"y": NESTED}] if _ < 5 else [NESTED]
JUNK = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        3,
        1.5,
        1e30,
        1e300,
        float("nan"),
        float("inf"),
        -float("inf"),
        10**30,
        10**400,
        2**31,
        2**63,
    ),
    *(
        "",
        " ",
        "12",
        "1e3",
        "nan",
        "1_0",
        "cat",
        "\0",
        "\ud800",
        "日本",
        "../../x.jpg",
        "/etc/passwd",
        "..\\..\\x",
        "C:\\x\\y.jpg",
        "%41",
    ),
    *(
        [],
        {},
        [None],
        [[]],
        [[1]],
        [1, 2, 3],
        [[1, 2, 3]],
        {"a": {}},
        {"0": None},
        [1e300, "x"],
        SQUARE,
        NESTED,
        PICTURE,
        BUTTON,
        MASK,
    ),
    *(
        "mask",
        "circle",
        "rotation",
        "point",
        "ellipse",
        "rect",
        [[0, 0], [1e9, 1e9], [1e9, 0]],
        "vehicle.ego",
        "cargroup",
    ),
)
"""What stands where something else should."""


def places(content: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The way to every value in a document."""
    steps = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for step, inner in steps:
        yield (*path, step)
        yield from places(inner, (*path, step))


def changed(draw: st.DrawFn, content: Any) -> Any:
    """A copy of a document in which one value is gone, another one, there twice, cut short, or
    written as a text.
    """
    copy = json.loads(json.dumps(content))
    known = list(places(copy))
    if not known or draw(st.integers(0, 30)) == 0:
        return draw(st.sampled_from(JUNK))
    *above, last = draw(st.sampled_from(known))
    inner = copy
    for step in above:
        inner = inner[step]
    value = inner[last]
    match draw(
        st.sampled_from(("drop", "retype", "retype", "retype", "cut", "again", "text", "number"))
    ):
        case "drop":
            del inner[last]
        case "cut" if isinstance(value, list | str):
            inner[last] = value[: draw(st.integers(0, len(value)))]
        case "again" if isinstance(inner, list):
            inner.insert(0, value)
        case "text":
            inner[last] = str(value)
        case "number":
            inner[last] = draw(st.floats() | st.integers())
        case _:
            inner[last] = draw(st.sampled_from(JUNK))
    return copy


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes of a file, damaged as such."""
    match draw(
        st.sampled_from(("cut", "flip", "bom", "utf-16", "latin-1", "junk", "deep", "empty"))
    ):
        case "cut":
            return data[: draw(st.integers(0, len(data)))]
        case "flip" if data:
            at = draw(st.integers(0, len(data) - 1))
            return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        case "bom":
            return b"\xef\xbb\xbf" + data
        case "utf-16":
            return data.decode("latin-1").encode("utf-16")
        case "latin-1":
            return data.replace(b"a", b"\xe9")
        case "junk":
            at = draw(st.integers(0, len(data)))
            return (
                data[:at]
                + draw(
                    st.sampled_from(
                        (b"\0", b"[", b"}", b"NaN", b"Infinity", b"1" * 5000, b"\xff\xfe")
                    )
                )
                + data[at:]
            )
        case "deep":
            return b'{"shapes":[1,' * 5000 + b"1" + b"]}" * 5000
    return b""


@st.composite
def broken(draw: st.DrawFn, files: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a dataset with one to three of them damaged, or gone."""
    found = dict(files)
    names = [name for name in sorted(found) if not isinstance(found[name], bytes)]
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(names if draw(st.integers(0, 5)) else sorted(found)))
        if name in found and not isinstance(found[name], bytes):
            found[name] = changed(draw, found[name])
    written = {
        name: content if isinstance(content, bytes) else json.dumps(content).encode()
        for name, content in found.items()
    }
    if not draw(st.integers(0, 2)):
        name = draw(st.sampled_from(sorted(written)))
        written[name] = damaged(draw, written[name])
    if not draw(st.integers(0, 4)) and len(written) > 1:
        del written[draw(st.sampled_from(sorted(written)))]
    return written


@pytest.mark.parametrize("kind", SETS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    files, config = SETS[kind]
    root = tmp_path_factory.mktemp("damaged")
    for name, content in data.draw(broken(files)).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    is_told(config(str(root)), ImageRule(needed=data.draw(st.booleans())))


@pytest.mark.parametrize("kind", SETS)
def test_whole_files(tmp_path: Path, kind: str) -> None:
    files, config = SETS[kind]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(
            content if isinstance(content, bytes) else json.dumps(content).encode()
        )
    source = open_source(config(str(tmp_path)))
    readings = [source.read(index) for index in range(len(source))]
    assert next(len(sample.instances or ()) if sample else None for sample, _ in readings)
    assert [item for _, found in readings for item in found if not item.note] == []
