"""Sizes of images as shown, told from their bytes without decoding, against Pillow; and what is
refused.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mtl_ray.sources.image_reading import ImageRule, checked_size, read_image
from mtl_ray.sources.source import UnreadableError
from tests.sources.conftest import MakeImage


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_orientation(tmp_path: Path, make_image: MakeImage, name: str, orientation: int) -> None:
    path = make_image(tmp_path / name, 40, 30, orientation=orientation)
    shown = ImageOps.exif_transpose(Image.open(path))
    assert checked_size(path.read_bytes()) == (shown.height, shown.width)


MODES = {
    "JPEG": "L RGB CMYK",
    "PNG": "L RGB RGBA P 1 I;16",
    "BMP": "L RGB P 1",
    "WEBP": "RGB RGBA",
    "TIFF": "L RGB CMYK I;16",
    "GIF": "L P 1",
}


@pytest.mark.parametrize(
    ("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes.split()]
)
def test_forms_and_modes(form: str, mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (31, 17)).save(buffer, form)
    assert checked_size(buffer.getvalue()) == (17, 31)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    """Numbers from 0 to 1 would become a black image."""
    Image.fromarray(np.full((17, 31), 0.7, np.float32)).save(tmp_path / "a", "TIFF")
    with pytest.raises(UnreadableError, match="floating-point numbers of unknown range"):
        read_image(str(tmp_path / "a"), "a")


def test_images_of_too_many_pixels_are_counted_together(tmp_path: Path) -> None:
    reasons = set()
    for side in (40, 50):
        Image.new("RGB", (side, side)).save(tmp_path / "a.png")
        for uri, stated in (("a.png", None), ("lacking.png", (side, side))):
            with pytest.raises(UnreadableError) as caught:
                read_image(str(tmp_path / uri), "a", ImageRule(1000, needed=False), stated)
            reasons.add(caught.value.item.reason.partition(": ")[0])
            assert f"{side} x {side}" in caught.value.item.reason
    assert reasons == {"too many pixels"}


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_every_cut_is_noticed(tmp_path: Path, make_image: MakeImage, name: str) -> None:
    whole = make_image(tmp_path / name, 40, 30).read_bytes()
    for length in [0, 1, 3, 10, *np.linspace(20, len(whole) - 8, 50).astype(int)]:
        with pytest.raises(ValueError, match=r"cut short|damaged|known format|empty"):
            checked_size(whole[:length])


def test_the_end_of_a_thumbnail_is_not_the_end(tmp_path: Path, make_image: MakeImage) -> None:
    thumbnail = make_image(tmp_path / "t.jpg", 8, 8).read_bytes()
    whole = make_image(tmp_path / "a.jpg", 40, 30).read_bytes()
    with_thumbnail = (
        whole[:2] + b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + whole[2:]
    )
    assert checked_size(with_thumbnail) == (30, 40)
    assert checked_size(with_thumbnail + b"\0" * 100) == (30, 40)
    with pytest.raises(ValueError, match="cut short"):
        checked_size(with_thumbnail[:-300])


def test_forged_header(tmp_path: Path, make_image: MakeImage) -> None:
    path = make_image(tmp_path / "a.png", 40, 30)
    data = path.read_bytes()
    path.write_bytes(data[:16] + (40000).to_bytes(4, "big") * 2 + data[24:])
    with pytest.raises(UnreadableError, match="40000 x 40000"):
        read_image(str(path), "a.png")


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    for name, reason in (
        ("gone.jpg", "not there"),
        ("folder.jpg", "directory"),
        ("empty.jpg", "empty"),
        ("text.jpg", "known format"),
    ):
        with pytest.raises(UnreadableError, match=reason) as caught:
            read_image(str(tmp_path / name), name)
        assert caught.value.item.file == name
