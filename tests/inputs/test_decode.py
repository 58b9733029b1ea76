"""Every kind of image comes out as Pillow shows it, and what is not whole or too large is
refused in a sentence.
"""

import io
import struct
import tracemalloc

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mtl_ray.inputs.decode import decode_image, decode_semantic

HEIGHT, WIDTH = 37, 52


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """A smooth image with four different quarters."""
    coarse = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def shown(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def farthest(data: bytes) -> int:
    """Largest difference to what Pillow shows."""
    decoded = decode_image(data)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert decoded.shape == shown(data).shape
    return int(np.abs(decoded.astype(int) - shown(data).astype(int)).max())


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1"])
def test_png_of_every_mode(image: Image.Image, mode: str) -> None:
    assert farthest(encoded(image.convert(mode), "PNG")) == 0


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_other_formats(image: Image.Image, kind: str) -> None:
    assert farthest(encoded(image, kind)) == 0


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_every_mode(image: Image.Image, mode: str, progressive: bool) -> None:
    assert farthest(encoded(image.convert(mode), "JPEG", quality=92, progressive=progressive)) == 0


def test_inverted_cmyk_comes_out_right_with_and_without_adobe_marker(image: Image.Image) -> None:
    """Ink is stored inverted; a decoder that takes it as it is gives the negative."""
    with_marker = encoded(image.convert("CMYK"), "JPEG", quality=95)
    at = with_marker.index(b"\xff\xee")
    length = struct.unpack_from(">H", with_marker, at + 2)[0]
    for data in (with_marker, with_marker[:at] + with_marker[at + 2 + length :]):
        assert farthest(data) == 0
        error = np.abs(decode_image(data).astype(int) - np.asarray(image).astype(int)).mean()
        negative = np.abs(
            255 - decode_image(data).astype(int) - np.asarray(image).astype(int)
        ).mean()
        assert error < 12 < 40 < negative


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(image: Image.Image, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(
        image, kind, exif=exif.tobytes(), **({"lossless": True} if kind == "WEBP" else {})
    )
    assert farthest(data) == 0
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    changed = decode_image(data).shape != stored.shape or bool((decode_image(data) != stored).any())
    assert changed == (orientation != 1), "a decoder that forgets the orientation would pass"


@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_exif_of_both_byte_orders(image: Image.Image, order: bytes) -> None:
    sign = "<" if order == b"II" else ">"
    entry = struct.pack(sign + "HHIHH", 0x0112, 3, 1, 6, 0)
    tiff = order + struct.pack(sign + "HIH", 42, 8, 1) + entry + struct.pack(sign + "I", 0)
    data = encoded(image, "JPEG", exif=b"Exif\0\0" + tiff)
    assert decode_image(data).shape == (WIDTH, HEIGHT, 3)
    assert farthest(data) == 0


def test_sixteen_bits_keep_the_upper_eight() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
    data = encoded(Image.fromarray(deep), "PNG")
    decoded = decode_image(data)
    assert (decoded == (deep >> 8)[..., None]).all()
    assert (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) != decoded).any(), (
        "Pillow's own conversion clips"
    )
    assert (decode_image(encoded(Image.fromarray(deep), "TIFF")) == (deep >> 8)[..., None]).all()


def test_sixteen_bit_colour() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    data = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    assert (decode_image(data) == deep >> 8).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.95])
def test_a_file_cut_short_is_refused(image: Image.Image, kind: str, share: float) -> None:
    data = encoded(image, kind)
    with pytest.raises(ValueError, match="image"):
        decode_image(data[: int(len(data) * share)])


def test_damaged_png_is_refused(image: Image.Image) -> None:
    data = bytearray(encoded(image, "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ValueError, match="damaged"):
        decode_image(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"not a image at all",
        b"\xff\xd8\xff\xe1\x00\x00" * 9,
    ],
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="image"):
        decode_image(data)


def forged_jpeg(image: Image.Image, side: int) -> bytes:
    data = bytearray(encoded(image, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def forged_png(image: Image.Image, side: int) -> bytes:
    data = bytearray(encoded(image, "PNG"))
    data[16:24] = struct.pack(">II", side, side)
    return bytes(data)


def forged_bmp(image: Image.Image, side: int) -> bytes:
    data = bytearray(encoded(image, "BMP"))
    data[18:26] = struct.pack("<ii", side, side)
    return bytes(data)


@pytest.mark.parametrize("forge", [forged_jpeg, forged_png, forged_bmp])
def test_a_forged_header_is_refused_before_memory_is_taken(
    image: Image.Image, forge: object
) -> None:
    data = forge(image, 40_000)  # type: ignore[operator]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"40000 x 40000|exceeds limit"):
            decode_image(data)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_the_limit_of_pixels_is_the_callers(image: Image.Image) -> None:
    data = encoded(image, "JPEG")
    assert decode_image(data, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ValueError, match="52 x 37 pixels, more than the 1,923 allowed"):
        decode_image(data, max_pixels=HEIGHT * WIDTH - 1)


def test_harmless_oddities_of_a_jpeg_are_read_as_pillow_does(image: Image.Image) -> None:
    """Bytes before a marker: libjpeg warns and goes on."""
    data = encoded(image, "JPEG")
    at = data.index(b"\xff\xc4")
    assert farthest(data[:at] + b"\0\0" + data[at:]) == 0
    assert farthest(data + b"trailing bytes") == 0


def test_semantic_palette_gives_indices() -> None:
    indices = np.random.default_rng(1).integers(0, 12, (HEIGHT, WIDTH), dtype=np.uint8)
    plain = Image.fromarray(indices)
    coloured = plain.copy()
    coloured.putpalette(bytes(range(255, -1, -1)) * 3)
    assert coloured.mode == "P"
    for image in (plain, coloured):
        assert (decode_semantic(encoded(image, "PNG")) == indices).all()
    assert (
        decode_semantic(encoded(Image.fromarray(indices.astype(np.uint16)), "PNG")) == indices
    ).all()
    two = Image.fromarray((indices > 5).astype(np.uint8) * 255).convert("1")
    assert set(np.unique(decode_semantic(encoded(two, "PNG")))) == {0, 1}
    assert (decode_image(encoded(coloured, "PNG"))[..., 0] != indices).any()


def test_semantic_refuses_colours_and_large_indices(image: Image.Image) -> None:
    with pytest.raises(ValueError, match="one channel"):
        decode_semantic(encoded(image, "PNG"))
    with pytest.raises(ValueError, match="up to 255"):
        decode_semantic(encoded(Image.fromarray(np.full((4, 4), 300, np.uint16)), "PNG"))
