"""Figures of matplotlib as files."""

import io

from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from mtl_ray.geometry.fonts import east_asian, is_east_asian


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The file of a figure."""
    buffer = io.BytesIO()
    spell(figure)
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def spell(figure: Figure) -> None:
    """Gives Chinese, Japanese and Korean words in a figure a font that has their letters, if one is installed."""
    words = [text for text in figure.findobj(Text) if is_east_asian(text.get_text())]
    file = east_asian() if words else None
    if file is None:
        return
    known = {entry.fname: entry.name for entry in fontManager.ttflist}
    if str(file) not in known:
        fontManager.addfont(file)
        known = {entry.fname: entry.name for entry in fontManager.ttflist}
    for text in words:
        text.set_fontfamily(["DejaVu Sans", known[str(file)]])
