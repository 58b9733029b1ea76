"""Matplotlib figures: curve styles, logarithmic axes, PNG files."""

import io
import math

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mtl_ray.geometry.appearance import east_asian, is_east_asian

CURVE_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#5a5a5a")
"""Colours of Okabe and Ito that are visible on white; further curves differ by dashes and
markers.
"""
_DASHES = ("-", "--", ":", "-.")
_MARKS = "os^Dv"
FEW_POINTS = 60
"""Curves with at most this many points have markers."""
_MANY_DECADES, _SOME_DECADES, _FEW_DECADES = 4.0, 0.9, 0.5


def curve_style(index: int, points: int) -> dict[str, str | None]:
    """Colour, dash and marker of a curve; the first 28 differ in colour or dash.

    Args:
        index: number of the curve in its figure.
        points: number of points of the curve.
    """
    turn = index // len(CURVE_COLOURS)
    marker = _MARKS[turn % len(_MARKS)] if points <= FEW_POINTS else None
    return {
        "color": CURVE_COLOURS[index % len(CURVE_COLOURS)],
        "linestyle": _DASHES[turn % len(_DASHES)],
        "marker": marker,
    }


def plain_log(axis: Axis) -> None:
    """Sets ticks of a logarithmic axis as plain numbers without overlap; the limits must be
    final.
    """
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low)
    if decades < _FEW_DECADES:
        axis.set_major_locator(MaxNLocator(6))
    else:
        each = (
            (1,)
            if decades > _MANY_DECADES
            else (1, 2, 5)
            if decades > _SOME_DECADES
            else (1, 2, 3, 4, 5, 7)
        )
        axis.set_major_locator(LogLocator(subs=each))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e6 else f"{value:g}")
    )


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The PNG file of a figure."""
    buffer = io.BytesIO()
    set_fonts(figure)
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def set_fonts(figure: Figure) -> None:
    """Sets a font for Chinese, Japanese and Korean text in a figure, if one is installed."""
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
