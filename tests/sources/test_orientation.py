"""Images that EXIF turns, annotated with the size of their pixels as stored: their objects are
those of the image as shown, or rejected.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from mtl_ray.geometry import masks
from mtl_ray.samples import Sample
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Coco, Voc
from mtl_ray.sources.orientation import TURNED
from mtl_ray.sources.source import SkippedItem

WIDTH, HEIGHT = 64, 48  # as stored
PATCH = (40, 4, 60, 40)  # xyxy as stored
Reading = tuple[Sample | None, list[SkippedItem]]


def an_image(path: Path, orientation: int) -> np.ndarray:
    """An image with a red patch, and what it shows."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[PATCH[1] : PATCH[3], PATCH[0] : PATCH[2], 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, {".tif": "TIFF", ".png": "PNG", ".jpg": "JPEG"}[path.suffix], exif=exif
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))[:, :, 0] > 128


def red_box(shown: np.ndarray) -> list[float]:
    ys, xs = np.nonzero(shown)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def read_coco(
    root: Path, name: str, *annotations: dict[str, Any], size: tuple[int, int] = (WIDTH, HEIGHT)
) -> Reading:
    content = {
        "images": [{"id": 1, "file_name": name, "width": size[0], "height": size[1]}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, **each}
            for n, each in enumerate(annotations, start=1)
        ],
        "categories": [{"id": 1, "name": "red", "keypoints": ["a", "b"], "skeleton": [[1, 2]]}],
    }
    (root / "train.json").write_text(json.dumps(content))
    return open_source(Coco(root=str(root), split="train")).read(0)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_objects_of_the_stored_image_are_turned(
    tmp_path: Path, name: str, orientation: int
) -> None:
    shown = an_image(tmp_path / "images" / name, orientation)
    x1, y1, x2, y2 = PATCH
    stored = np.zeros((HEIGHT, WIDTH), bool)
    stored[y1:y2, x1:x2] = True
    counts = masks.encode_rle(stored).decode()
    box = [x1, y1, x2 - x1, y2 - y1]
    sample, items = read_coco(
        tmp_path,
        name,
        {
            "bbox": box,
            "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
            "keypoints": [x1, y1, 2, 0, 0, 0],
        },
        {"bbox": box, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}},
    )
    assert sample is not None
    assert sample.instances is not None
    assert sample.instances.masks is not None
    assert sample.instances.keypoints is not None
    assert (sample.height, sample.width) == (WIDTH, HEIGHT)
    assert [(item.file, item.note, item.reason.partition(":")[0]) for item in items] == [
        (name, True, TURNED)
    ]
    assert np.array_equal(sample.instances.boxes_xyxy, [red_box(shown)] * 2)
    found = masks.decode_rle(sample.instances.masks[1], WIDTH, HEIGHT).astype(bool)
    assert np.mean(found == shown) > (0.99 if name == "a.jpg" else 0.9999)
    assert sample.instances.masks[0] == sample.instances.masks[1]
    x, y = sample.instances.keypoints[0, 0, :2]
    assert x in sample.instances.boxes_xyxy[0, [0, 2]]
    assert y in sample.instances.boxes_xyxy[0, [1, 3]]
    assert sample.instances.keypoints[0, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_objects_of_the_shown_image_are_used(tmp_path: Path, orientation: int) -> None:
    shown = an_image(tmp_path / "images" / "a.jpg", orientation)
    x1, y1, x2, y2 = map(float, red_box(shown))
    sample, items = read_coco(
        tmp_path, "a.jpg", {"bbox": [x1, y1, x2 - x1, y2 - y1]}, {"bbox": [1, 50, 9, 14]}
    )
    assert sample is not None
    assert sample.instances is not None
    assert np.array_equal(sample.instances.boxes_xyxy, [[x1, y1, x2, y2], [1, 50, 10, 64]])
    assert [(item.file, item.note, item.reason.partition(":")[0]) for item in items] == [
        ("a.jpg", True, TURNED)
    ]


@pytest.mark.parametrize(
    ("orientation", "boxes", "reason"),
    [
        (
            6,
            [[1, 1, 9, 9]],
            "turned by EXIF: annotated as 64 x 48 pixels, the file is 48 x 64 as shown, and its "
            "objects fit both",
        ),
        (6, [[1, 50, 9, 9], [50, 1, 9, 9]], "fit neither"),
        (3, [[1, 1, 9, 9]], ""),
    ],
)
def test_what_cannot_be_told(
    tmp_path: Path, orientation: int, boxes: list[list[int]], reason: str
) -> None:
    an_image(tmp_path / "images" / "a.jpg", orientation)
    sample, items = read_coco(tmp_path, "a.jpg", *({"bbox": box} for box in boxes))
    assert (sample is None) == bool(reason)
    assert [reason in item.reason and not item.note for item in items] == [True] * bool(reason)


def test_an_image_without_objects_is_used(tmp_path: Path) -> None:
    an_image(tmp_path / "images" / "a.jpg", 6)
    sample, items = read_coco(tmp_path, "a.jpg")
    assert sample is not None
    assert [item.note for item in items] == [True]


def test_another_size_is_not_exif(tmp_path: Path) -> None:
    an_image(tmp_path / "images" / "a.jpg", 1)
    sample, items = read_coco(tmp_path, "a.jpg", {"bbox": [1, 50, 9, 9]}, size=(HEIGHT, WIDTH))
    assert sample is None
    assert [item.reason for item in items] == [
        "annotated as an image of another size: 48 x 64 pixels, the file is 64 x 48"
    ]


def test_pascal_voc(tmp_path: Path) -> None:
    shown = an_image(tmp_path / "train" / "a.jpg", 6)
    names = ("xmin", "ymin", "xmax", "ymax")
    x1, y1, x2, y2 = red_box(shown)
    for corners in ((x1 + 1, y1 + 1, x2, y2), (PATCH[0] + 1, PATCH[1] + 1, PATCH[2], PATCH[3])):
        box = "".join(
            f"<{name}>{value}</{name}>" for name, value in zip(names, corners, strict=True)
        )
        (tmp_path / "train" / "a.xml").write_text(
            f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
            f"<object><name>red</name><bndbox>{box}</bndbox></object></annotation>"
        )
        sample, items = open_source(Voc(root=str(tmp_path), split="train")).read(0)
        assert sample is not None
        assert sample.instances is not None
        assert np.array_equal(sample.instances.boxes_xyxy, [[x1, y1, x2, y2]])
        assert [(item.note, item.reason.partition(":")[0]) for item in items] == [(True, TURNED)]
