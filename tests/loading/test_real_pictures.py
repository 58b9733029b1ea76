"""Real pictures of several data sets come out as Pillow shows them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mtl_ray.inputs.decode import decode_image, decode_semantic

PLACES = (
    "coco_mini",
    "coco128_yolo/images",
    "det_bccd_voc/BCCD/JPEGImages",
    "seg_camvid/val",
    "cls_cifar10/val",
    "inst_balloon_via/val",
)


@pytest.mark.parametrize("place", PLACES)
def test_pictures_are_what_pillow_shows(shared_data: Path, place: str) -> None:
    files = sorted(
        path
        for path in (shared_data / place).rglob("*")
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    assert files
    for path in files[:: max(1, len(files) // 25)]:
        data = path.read_bytes()
        shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        assert (decode_image(data) == shown).all(), path


def test_class_maps_keep_their_indices(shared_data: Path) -> None:
    for path in sorted((shared_data / "seg_camvid" / "valannot").glob("*.png"))[:8]:
        classes = decode_semantic(path.read_bytes())
        assert (classes == np.asarray(Image.open(path))).all()
        assert set(np.unique(classes)) <= {*range(12), 255}
