"""Whole image files of every format and mode that is read, and ways to damage them."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 37, 52
MODES = {
    "JPEG": "L RGB CMYK",
    "PNG": "L RGB RGBA P 1 I;16 LA",
    "BMP": "L RGB P 1",
    "DIB": "RGB",
    "WEBP": "RGB RGBA",
    "TIFF": "L RGB RGBA CMYK 1 P I;16 LAB YCbCr",
    "GIF": "L P 1",
    "PPM": "L RGB 1 I;16",
    "JPEG2000": "L RGB RGBA",
    "AVIF": "L RGB RGBA",
}
TIFF_COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
LYING_SIDE = 40_000


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """A file of noise that is the same each time."""
    random_ = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(random_.integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16))
    else:
        coarse = random_.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((WIDTH, HEIGHT)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(kind: str, way: int) -> bytes:
    return encoded(kind, exif=orientation(way))


def orientation(way: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = way
    return exif.tobytes()


def several(kind: str) -> bytes:
    """A file of three images."""
    first, *rest = (
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)) for value in (10, 100, 200)
    )
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=rest)
    return buffer.getvalue()


@cache
def whole_files() -> dict[str, bytes]:
    """By a name for each: every format in every mode, and their other varieties."""
    files = {
        f"{kind} {mode}": encoded(kind, mode)
        for kind, modes in MODES.items()
        for mode in modes.split()
    }
    files |= {
        f"{kind} turned {way}": turned(kind, way)
        for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
        for way in (3, 6)
    }
    files |= {f"TIFF {name}": encoded("TIFF", compression=name) for name in TIFF_COMPRESSIONS}
    files |= {
        f"TIFF {name}": encoded("TIFF", "1", compression=name) for name in ("group3", "group4")
    }
    files |= {
        f"{kind} of three": several(kind) for kind in ("GIF", "WEBP", "TIFF", "MPO", "PNG", "AVIF")
    }
    files["JPEG progressive"] = encoded("JPEG", progressive=True)
    files["JPEG CMYK turned"] = encoded("JPEG", "CMYK", exif=orientation(6))
    files["WEBP lossless"] = encoded("WEBP", lossless=True)
    files["TIFF big"] = encoded("TIFF", big_tiff=True)
    files["TIFF big-endian"] = _big_endian_tiff()
    files["JPEG2000 bare"] = encoded("JPEG2000", no_jp2=True)
    files["JPEG2000 tiles"] = encoded("JPEG2000", tile_size=(16, 16))
    files["PPM text"] = b"P3\n# a comment\n52 37\n255\n" + b"1 2 3 " * (HEIGHT * WIDTH)
    files["PNG interlaced"] = interlaced_png()
    return files


def _big_endian_tiff() -> bytes:
    """2 x 37 x 52 grey pixels in one strip, as Photoshop on old Macs wrote them."""
    tags = [
        (256, 3, WIDTH << 16),
        (257, 3, HEIGHT << 16),
        (258, 3, 8 << 16),
        (259, 3, 1 << 16),
        (262, 3, 1 << 16),
        (273, 4, 122),
    ]
    tags += [(277, 3, 1 << 16), (278, 3, HEIGHT << 16), (279, 4, HEIGHT * WIDTH)]
    entries = b"".join(struct.pack(">HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + b"\0" * 4 + bytes(range(250)) * 8


def interlaced_png() -> bytes:
    """All seven passes of Adam7, each of zeros."""
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    rows = b"".join(
        (b"\0" + b"\x40" * len(range(left, WIDTH, right))) * len(range(top, HEIGHT, down))
        for left, top, right, down in passes
    )
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 2, 5, 30))):
        data[dice.randrange(len(data))] = dice.choice((0, 255, 0x7F, 0x80, dice.randrange(256)))


def flip_header(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 3))):
        data[dice.randrange(min(len(data), 128))] = dice.choice((0, 255, dice.randrange(256)))


def lie(data: bytearray, dice: random.Random) -> None:
    """A number of the header becomes a large one, none, or one that is nearly right."""
    number = dice.choice((LYING_SIDE, 0, 0xFFFFFFFF, 0x7FFFFFFF, 65_535, dice.randrange(300)))
    packed = (
        struct.pack(dice.choice(("<I", ">I")), number)
        if dice.random() < 0.5
        else struct.pack(dice.choice("<>") + "H", number & 0xFFFF)
    )
    at = dice.randrange(min(len(data), 300))
    data[at : at + len(packed)] = packed


def shuffle(data: bytearray, dice: random.Random) -> None:
    start, stop = sorted((dice.randrange(len(data)), dice.randrange(len(data))))
    piece = data[start:stop]
    del data[start:stop]
    at = dice.randrange(len(data) + 1)
    data[at:at] = piece


def repeat(data: bytearray, dice: random.Random) -> None:
    start, stop = sorted((dice.randrange(len(data)), dice.randrange(len(data))))
    data[start:start] = data[start:stop]


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    cut,
    flip,
    flip,
    flip_header,
    lie,
    lie,
    shuffle,
    repeat,
)


def damaged(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    dice.choice(DAMAGES)(changed, dice)
    return bytes(changed)
