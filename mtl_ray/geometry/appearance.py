"""How drawings look: colours of classes that colour-blind readers can distinguish, and fonts.

Nothing here imports matplotlib, which takes a second: every job and every worker imports this.
"""

import colorsys
import os
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

Rgb = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

_FIRST: tuple[Rgb, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Okabe and Ito, Color Universal Design, 2008, without black."""
_GOLDEN = 0.61803398875
_LIGHTNESS = (0.62, 0.42, 0.78)


def colours_of(count: int, own: Sequence[Rgb] = ()) -> tuple[Rgb, ...]:
    """``count`` colours: ``own`` if there are enough, else seven colour-blind safe ones, then
    evenly spread hues.
    """
    if len(own) >= count:
        return tuple(own[:count])
    return tuple(
        _FIRST[index] if index < len(_FIRST) else _generated(index - len(_FIRST))
        for index in range(count)
    )


def is_light(colour: Rgb) -> bool:
    """Whether black text has more contrast on a colour than white: contrast ratio of WCAG 2.1
    with gamma 2.2.
    """
    red, green, blue = ((value / 255) ** 2.2 for value in colour)
    return bool(0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18)


def _generated(index: int) -> Rgb:
    hue = (0.05 + index * _GOLDEN) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, _LIGHTNESS[index % 3], 0.65)
    return round(red * 255), round(green * 255), round(blue * 255)


_EAST_ASIAN = re.compile(
    "[\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
_FILES = (
    *(
        "NotoSansCJK-Regular.ttc",
        "NotoSansCJKsc-Regular.otf",
        "NotoSansSC-Regular.otf",
        "SourceHanSansSC-Regular.otf",
    ),
    *(
        "SourceHanSans-Regular.ttc",
        "wqy-microhei.ttc",
        "wqy-zenhei.ttc",
        "DroidSansFallbackFull.ttf",
        "DroidSansFallback.ttf",
    ),
)
"""File names of fonts with Chinese, Japanese and Korean letters; the first that is installed is
used.
"""
_FOLDERS = ("~/.local/share/fonts", "~/.fonts", "/usr/local/share/fonts", "/usr/share/fonts")


def is_east_asian(text: str) -> bool:
    """Whether a text has Chinese, Japanese or Korean letters; DejaVu Sans lacks them."""
    return _EAST_ASIAN.search(text) is not None


@cache
def east_asian() -> Path | None:
    """The file of a font with East Asian letters; None if none is installed."""
    found = {}
    for folder in map(os.path.expanduser, _FOLDERS):
        for parent, _, names in os.walk(folder):
            found.update({name: Path(parent, name) for name in names if name in _FILES})
    return next((found[name] for name in _FILES if name in found), None)


def font(text: str, height_px: int) -> ImageFont.FreeTypeFont:
    """A font with the letters of a text: DejaVu Sans of matplotlib, or an installed one for East
    Asian letters.
    """
    return _open((east_asian() if is_east_asian(text) else None) or _dejavu(), height_px)


@cache
def _dejavu() -> Path:
    found = find_spec("matplotlib")  # without importing it
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"


@lru_cache(64)
def _open(path: Path, height_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, height_px)
