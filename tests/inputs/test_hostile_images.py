"""Damaged, lying and hostile image files: an array of the right shape or a ValueError, after
little work and in little memory.
"""

import io
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from mtl_ray.inputs.decode import decode_image, decode_semantic
from mtl_ray.inputs.image_file import open_image, shown_size
from mtl_ray.inputs.image_header import TooManyPixelsError
from mtl_ray.loading.loader import Loader
from tests.inputs.image_files import (
    HEIGHT,
    LYING_SIDE,
    WIDTH,
    chunk,
    damaged,
    encoded,
    interlaced_png,
    several,
    turned,
    whole_files,
)
from tests.loading.splits import data_config, sample, write_split

MEGABYTES = 20
BODY = MEGABYTES * 1_000_000


@pytest.mark.parametrize("name", whole_files())
def test_whole_files_are_read_in_their_shown_size(name: str) -> None:
    data = whole_files()[name]
    expected = (
        (WIDTH, HEIGHT)
        if name.endswith("turned 6") or name == "JPEG CMYK turned"
        else (HEIGHT, WIDTH)
    )
    assert shown_size(data) == expected
    assert decode_image(data).shape == (*expected, 3)


def test_of_several_images_the_first_is_shown() -> None:
    for kind in ("GIF", "WEBP", "TIFF", "MPO", "PNG", "AVIF"):
        assert abs(int(decode_image(several(kind)).mean()) - 10) <= 2, kind


@pytest.mark.parametrize("way", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_turned_by_exif(kind: str, way: int) -> None:
    flat, shown = (
        decode_image(encoded(kind)).astype(int),
        decode_image(turned(kind, way)).astype(int),
    )
    turns: dict[int, Callable[[Any], Any]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    assert np.abs(shown - turns[way](flat)).mean() < 3
    assert shown_size(turned(kind, way)) == shown.shape[:2]


@pytest.mark.parametrize("name", whole_files())
def test_damage_is_a_value_error_or_an_array(name: str) -> None:
    for seed in range(30):
        data = damaged(whole_files()[name], random.Random(f"{name} {seed}"))
        try:
            size = shown_size(data, max_pixels=1_000_000)
        except ValueError:
            size = None
        for decode, dimensions in ((decode_image, 3), (decode_semantic, 2)):
            try:
                array = decode(data, max_pixels=1_000_000)
            except ValueError as error:
                told = str(error)
                assert "\n" not in told
            else:
                assert array.dtype == np.uint8
                assert array.ndim == dimensions
                assert dimensions == 2 or array.shape == (*(size or ()), 3)


def test_damaged_exif_is_no_orientation_and_no_error() -> None:
    whole = turned("WEBP", 6)
    at = whole.index(b"II*\0") if b"II*\0" in whole else whole.index(b"MM\0*")
    for damage in (b"XXXX", b"II*\0\xff\xff\xff\xff"):
        data = whole[:at] + damage + whole[at + len(damage) :]
        assert decode_image(data).shape == (HEIGHT, WIDTH, 3)
        assert shown_size(data) == (HEIGHT, WIDTH)


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind", ["EPS", "ICO", "PDF", "PCX", "SGI", "TGA", "IM", "DDS", "ICNS", "QOI"]
)
def test_other_formats_that_pillow_knows_are_not_opened(kind: str) -> None:
    for read in (decode_image, decode_semantic, shown_size, open_image):
        with pytest.raises(ValueError, match="in no known format"):
            read(saved(kind))


def test_formats_named_by_the_suffixes_are_there() -> None:
    assert features.check("avif")
    assert features.check("jpg_2000")
    assert features.check("webp")


def gif_with_a_large_frame() -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, LYING_SIDE, LYING_SIDE, 0)
        + b"\x02\0;"
    )


def lying(kind: str) -> bytes:
    """A file whose header says 40000 x 40000."""
    data = encoded(kind)
    for order, width in (("<", "H"), (">", "H"), ("<", "I"), (">", "I")):
        for first, second in ((WIDTH, HEIGHT), (HEIGHT, WIDTH), (WIDTH - 1, HEIGHT - 1)):
            data = data.replace(
                struct.pack(f"{order}2{width}", first, second),
                struct.pack(f"{order}2{width}", LYING_SIDE, LYING_SIDE),
            )
    return data


def lying_tiff() -> bytes:
    data = encoded("TIFF")
    for tag, value in ((256, WIDTH), (257, HEIGHT)):
        for kind, form in ((3, "<HHIHxx"), (4, "<HHII")):
            data = data.replace(
                struct.pack(form, tag, kind, 1, value), struct.pack("<HHII", tag, 4, 1, LYING_SIDE)
            )
    return data


def tiff_with_a_large_tile() -> bytes:
    tags = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, LYING_SIDE),
        (323, LYING_SIDE),
        (324, 150),
        (325, 100),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 1000


def tiff_whose_tags_share_their_values() -> bytes:
    tags = b"".join(struct.pack("<HHII", tag, 1, 15_000_000, 0) for tag in range(300))
    return b"II*\0" + struct.pack("<IH", 8, 300) + tags + b"\0" * 15_000_000


def webp_canvas() -> bytes:
    body = (
        b"VP8X"
        + struct.pack("<II", 10, 0x02)
        + (16_000).to_bytes(3, "little") * 2
        + encoded("WEBP")[12:]
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def jp2_header_that_is_larger() -> bytes:
    data = encoded("JPEG2000")
    at = data.index(b"ihdr") + 4
    return data[:at] + struct.pack(">II", LYING_SIDE, LYING_SIDE) + data[at + 8 :]


def jp2_codestream_that_is_larger() -> bytes:
    data = encoded("JPEG2000")
    at = data.index(b"\xff\x4f\xff\x51") + 8
    return data[:at] + struct.pack(">II", LYING_SIDE, LYING_SIDE) + data[at + 8 :]


def png_chunk_that_claims() -> bytes:
    at = (data := encoded("PNG")).index(b"IDAT") - 4
    return data[:at] + b"\x7f\xff\xff\xf0" + data[at + 4 :]


def png_with_two_headers() -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    return interlaced_png()[:33] + head + interlaced_png()[33:]


def apng_with_a_large_frame() -> bytes:
    data = several("PNG")
    at = data.index(b"fcTL")
    return data[: at + 8] + struct.pack(">II", 20_000, 20_000) + data[at + 16 :]


def avif_with_a_large_size() -> bytes:
    data = encoded("AVIF")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", LYING_SIDE, LYING_SIDE) + data[at + 8 :]


def avif_whose_coded_image_is_larger(side: int = 7500) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "AVIF", speed=10)
    data = buffer.getvalue()
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", 64, 64) + data[at + 8 :]


def ico_of_a_large_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (7000, 7000)).save(buffer, "PNG")
    png = buffer.getvalue()
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


BOMBS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: lying("JPEG"),
    "PNG": lambda: lying("PNG"),
    "BMP": lambda: lying("BMP"),
    "DIB": lambda: lying("DIB"),
    "PPM": lambda: encoded("PPM").replace(b"52 37", b"40000 40000"),
    "JPEG2000": jp2_header_that_is_larger,
    "WEBP": webp_canvas,
    "AVIF": avif_with_a_large_size,
    "AVIF coded": avif_whose_coded_image_is_larger,
    "GIF": lambda: lying("GIF"),
    "GIF frame": gif_with_a_large_frame,
    "TIFF": lying_tiff,
    "TIFF tile": tiff_with_a_large_tile,
    "TIFF tags": tiff_whose_tags_share_their_values,
    "JPEG2000 codestream": jp2_codestream_that_is_larger,
    "PNG chunk": png_chunk_that_claims,
    "PNG headers": png_with_two_headers,
    "APNG frame": apng_with_a_large_frame,
    "ICO": ico_of_a_large_png,
}
MEASURE = """
import re, sys
from pathlib import Path
from mtl_ray.inputs.image_file import shown_size
from mtl_ray.inputs.decode import decode_image, decode_semantic
def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
decode_image(open(sys.argv[1], "rb").read())
whole = most()
for path in sys.argv[2:]:
    data = open(path, "rb").read()
    for read in (decode_image, decode_semantic, shown_size):
        try:
            read(data)
        except ValueError:
            continue
        print(path, read.__name__, "is read")
    grown = most() - whole
    if grown > 40_000:
        print(path, "took", grown, "kB")
    whole += max(0, grown)
"""


def test_bombs_are_refused_before_memory_is_taken(tmp_path: Any) -> None:
    (tmp_path / "whole").write_bytes(encoded("PNG"))
    for name, make in BOMBS.items():
        (tmp_path / name.replace(" ", "_")).write_bytes(make())
    paths = [str(tmp_path / "whole"), *(str(tmp_path / name.replace(" ", "_")) for name in BOMBS)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "name", ["JPEG", "PNG", "BMP", "PPM", "JPEG2000", "WEBP", "AVIF", "GIF", "GIF frame", "TIFF"]
)
def test_too_many_pixels_are_named_as_such(name: str) -> None:
    for read in (decode_image, shown_size):
        with pytest.raises(TooManyPixelsError, match="more than the 50,000,000 allowed"):
            read(BOMBS[name]())


def avif_of_endless_items() -> bytes:
    """Each of 65,535 items is the whole file, which is full of empty pieces of AV1."""
    entries = b"".join(
        struct.pack(">HHHIQ", item, 0, 1, 400, 1 << 31)[:-4] for item in range(65_535)
    )
    iloc = struct.pack(">BBBBBBH", 0, 0, 0, 0, 0x44, 0, 65_535) + entries
    meta = (
        struct.pack(">I4sI", len(iloc) + 20, b"meta", 0)
        + struct.pack(">I4s", len(iloc) + 8, b"iloc")
        + iloc
    )
    return b"\0\0\0\x10ftypavif\0\0\0\0" + meta + b"\x12\0" * (BODY // 2)


def test_the_coded_size_of_an_avif_counts_too() -> None:
    data = avif_whose_coded_image_is_larger(side=300)
    assert decode_image(data, max_pixels=90_000).size
    for read in (decode_image, shown_size):
        with pytest.raises(TooManyPixelsError, match="300 x 300"):
            read(data, max_pixels=89_999)


ENDLESS: dict[str, bytes] = {
    "stuffed zeros": b"\xff\xd8" + b"\xff\0" * (BODY // 2),
    "fill bytes": b"\xff\xd8" + b"\xff" * BODY,
    "nothing": b"\xff\xd8\xff" + b"\0" * BODY,
    "empty segments": b"\xff\xd8" + b"\xff\xfe\0\x02" * (BODY // 4),
    "restarts": b"\xff\xd8" + b"\xff\xd0" * (BODY // 2),
    "PNG chunks": interlaced_png()[:33] + chunk(b"aaAa", b"") * (BODY // 12),
    "GIF blocks": b"GIF89a" + bytes(7) + b"!\xfe" + (b"\xff" + b"a" * 255) * (BODY // 256),
    "GIF extensions": b"GIF89a" + bytes(7) + b"!\xfe\0" * (BODY // 3),
    "GIF zeros": b"GIF89a" + bytes(BODY),
    "PPM comment": b"P6\n#" + b"a" * BODY,
    "PPM comments": b"P6\n" + b"#\n" * (BODY // 2),
    "PPM blanks": b"P6" + b" " * BODY,
    "JPEG2000 boxes": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * (BODY // 8),
    "AVIF boxes": b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\x08free" * (BODY // 8),
    "AVIF boxes in boxes": b"\0\0\0\x10ftypavif\0\0\0\0"
    + struct.pack(">I4s", BODY, b"iprp") * (BODY // 8),
    "AVIF items": avif_of_endless_items(),
    "TIFF tags": b"II*\0"
    + struct.pack("<IH", 8, 65_535)
    + struct.pack("<HHII", 1, 1, 1, 1) * 65_535
    + bytes(BODY),
    "BMP": b"BM" + bytes(BODY),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_header_without_an_end_costs_a_bounded_number_of_steps(name: str) -> None:
    """Every line of Python that runs is counted, Pillow's too: a walk over the whole body takes
    millions.
    """
    steps = 0

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += 1
        return count

    for read in (decode_image, decode_semantic, shown_size):
        before = sys.gettrace()
        sys.settrace(count)
        try:
            with pytest.raises(ValueError, match="image"):
                read(ENDLESS[name])
        finally:
            sys.settrace(before)
    assert steps < 1_000_000


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = encoded("JPEG", progressive=True)
    end = data.rindex(b"\xff\xd9")
    scan = data[data.rindex(b"\xff\xda") : end]
    assert decode_image(data[:end] + data[end:]).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ValueError, match="scans"):
        decode_image(data[:end] + scan * 1000 + data[end:])


def test_damaged_images_of_any_format_are_bad_samples_of_the_loader(tmp_path: Any) -> None:
    """In each the pixels are damaged, so that only the decoder can tell."""
    samples = [sample(index) for index in range(12)]
    kinds = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "JPEG2000", "BMP")
    for index, kind in enumerate(kinds):
        samples[index] = samples[index].with_image(data=_undecodable(kind))
    samples[8] = samples[8].with_image(data=lying("BMP"))
    loader = Loader(
        data_config(write_split(tmp_path, samples), lambda data: replace(data, max_bad=9))
    )
    list(islice(iter(loader), 4))
    assert set(loader.bad) == {samples[index].key for index in range(9)}
    assert "data.max_pixels allows more" in loader.bad[samples[8].key]


def _undecodable(kind: str) -> bytes:
    for seed in range(1000):
        data = damaged(encoded(kind), random.Random(f"{kind} {seed}"))
        try:
            shown_size(data)
        except ValueError:
            continue
        try:
            decode_image(data)
        except ValueError:
            return data
    raise AssertionError(f"no damage to {kind} is noticed")
