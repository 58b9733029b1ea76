"""Letters for pictures and figures: DejaVu Sans, which matplotlib brings, and a font of this machine for what it lacks."""

import os
import re
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

_EAST_ASIAN = re.compile("[\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U0001b000-\U0001b16f\U00020000-\U0003ffff]")
_FILES = (
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf", "SourceHanSansSC-Regular.otf"),
    *("SourceHanSans-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf"),
)
"""Fonts with Chinese, Japanese and Korean letters, as Linux distributions call them; the first that is there is taken."""
_FOLDERS = ("~/.local/share/fonts", "~/.fonts", "/usr/local/share/fonts", "/usr/share/fonts")


def is_east_asian(text: str) -> bool:
    """Whether a text has Chinese, Japanese or Korean letters, which DejaVu Sans lacks."""
    return _EAST_ASIAN.search(text) is not None


@cache
def east_asian() -> Path | None:
    """The file of a font with those letters; None if no known one is installed."""
    found = {}
    for folder in map(os.path.expanduser, _FOLDERS):
        for parent, _, names in os.walk(folder):
            found.update({name: Path(parent, name) for name in names if name in _FILES})
    return next((found[name] for name in _FILES if name in found), None)


def font(text: str, height_px: int) -> ImageFont.FreeTypeFont:
    """One that has the letters of a text, if there is one."""
    return _open((east_asian() if is_east_asian(text) else None) or _dejavu(), height_px)


@cache
def _dejavu() -> Path:
    found = find_spec("matplotlib")  # it is not imported for this
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"


@lru_cache(64)
def _open(path: Path, height_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, height_px)
