"""Figures of matplotlib as files; curves that can be told apart, and the numbers of a logarithmic axis."""

import io
import math

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mtl_ray.geometry.fonts import east_asian, is_east_asian

CURVE_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#5a5a5a")
"""Those of Okabe and Ito that are seen on white; when they are used up, dashes and marks tell the curves apart."""
_DASHES = ("-", "--", ":", "-.")
_MARKS = "os^Dv"
FEW_POINTS = 60
"""Up to so many points are marked."""
_MANY_DECADES, _SOME_DECADES, _FEW_DECADES = 4.0, 0.9, 0.5


def curve_style(index: int, points: int) -> dict[str, str | None]:
    """Colour, dash and mark of the curve number ``index``: the first 28 differ in colour or dash.

    Args:
        index: of the curve in its figure.
        points: of the curve; many are not marked.
    """
    turn = index // len(CURVE_COLOURS)
    marker = _MARKS[turn % len(_MARKS)] if points <= FEW_POINTS else None
    return {"color": CURVE_COLOURS[index % len(CURVE_COLOURS)], "linestyle": _DASHES[turn % len(_DASHES)], "marker": marker}


def plain_log(axis: Axis) -> None:
    """Ticks of a logarithmic axis as ordinary numbers, so many that they do not overlap; its limits must be final."""
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low)
    if decades < _FEW_DECADES:
        axis.set_major_locator(MaxNLocator(6))
    else:
        each = (1,) if decades > _MANY_DECADES else (1, 2, 5) if decades > _SOME_DECADES else (1, 2, 3, 4, 5, 7)
        axis.set_major_locator(LogLocator(subs=each))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e6 else f"{value:g}"))


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
