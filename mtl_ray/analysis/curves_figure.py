"""Curves of training logs as a figure, in any format that matplotlib writes."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.registry import backend_registry
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mtl_ray.analysis.curves import Curve, CurveAxis
from mtl_ray.geometry.figures import curve_style, set_fonts

Style = Literal["darkgrid", "whitegrid", "dark", "white", "ticks"]
LONGEST = 96
"""Most characters of a name in the legend; of longer names the end is shown."""
WIDE_TITLE = 80
"""Characters in a line of the title."""
SHORT = 24
"""Most characters of names beside the panel; longer ones are placed below it."""
IN_A_COLUMN = 18
"""Most names in a column beside the panel."""
_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def draw_curves(
    curves: Sequence[Curve], axis: CurveAxis, *, title: str = "", style: Style = "whitegrid"
) -> Figure:
    """Draws all curves in one panel; smoothed curves have the raw values faintly behind them.

    Raises:
        ValueError: if a log does not contain the positions on the axis.
    """
    for curve in curves:
        if np.isnan(curve.at(axis)).any():
            raise ValueError(
                f"{curve.log} does not say the {axis} of {curve.key!r}; --x step always works"
            )
    with matplotlib.rc_context(sns.axes_style(style)):
        figure = Figure(figsize=_size_of(curves), layout="constrained")
        axes = figure.add_subplot()
    unit, word = _unit(curves) if axis == "time" else (1.0, axis)
    for index, curve in enumerate(curves):
        _draw(axes, curve, curve.at(axis) / unit, index)
    axes.set(
        xlabel=f"training time ({word})" if axis == "time" else word, ylabel=_value_name(curves)
    )
    axes.set_title(textwrap.fill(_dollars(title), WIDE_TITLE))
    if axis != "time":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    if len(curves) > 1 or curves[0].label != curves[0].key:
        _legend(axes, curves)
    return figure


def figure_bytes(figure: Figure, out: str, backend: str | None = None) -> bytes:
    """The file of a figure, in the format of its ending.

    Args:
        figure: to write.
        out: path or URI, such as ``curves.pdf``.
        backend: of matplotlib; for a back end with windows its variant without windows is used.

    Raises:
        ValueError: if there is no such format, or the back end does not write it.
    """
    kinds = figure.canvas.get_supported_filetypes()
    kind = PurePosixPath(out).suffix.removeprefix(".").lower()
    if kind not in kinds:
        raise ValueError(
            f"{out}: the ending of the name sets the format; use one of {', '.join(sorted(kinds))}"
        )
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42}):
        set_fonts(figure)
        figure.savefig(buffer, format=kind, dpi=120, backend=_windowless(backend))
    return buffer.getvalue()


def _windowless(backend: str | None) -> str | None:
    if backend is None:
        return None
    known = [name.lower() for name in backend_registry.list_all()]
    if backend.lower() not in known:
        raise ValueError(f"matplotlib has no back end {backend!r}; it has {', '.join(known)}")
    name = backend.lower()
    return next((plain for plain in ("agg", "cairo") if name.endswith(plain)), name)


def _draw(axes: Axes, curve: Curve, places: NDArray[np.float64], index: int) -> None:
    style = curve_style(index, len(places))
    if curve.smoothed is not curve.values:
        axes.plot(places, curve.values, color=style["color"], linewidth=1, alpha=0.25)
        style["marker"] = None
    axes.plot(
        places,
        curve.smoothed,
        markersize=4,
        linewidth=1.5,
        label=_plain(curve.label),
        **style,  # type: ignore[arg-type]
    )


def _unit(curves: Sequence[Curve]) -> tuple[float, str]:
    longest = max(float(curve.seconds.max()) for curve in curves)
    return next((unit for unit in _UNITS if longest >= 2 * unit[0]), _UNITS[-1])


def _value_name(curves: Sequence[Curve]) -> str:
    names = {curve.key for curve in curves}
    return _plain(names.pop()) if len(names) == 1 else "value"


def _below(curves: Sequence[Curve]) -> int:
    """Columns of names below the panel; 0 if the names are short and stand beside it."""
    longest = max(len(curve.label) for curve in curves)
    return 0 if longest <= SHORT else 1 if longest > 2 * SHORT else 2


def _size_of(curves: Sequence[Curve]) -> tuple[float, float]:
    """Size in inches; many names make the figure larger, not the panel smaller."""
    columns = _below(curves)
    if columns:
        return 8, 4.8 + 0.21 * max(0, math.ceil(len(curves) / columns) - 4)
    return 8 + 2.2 * (math.ceil(len(curves) / IN_A_COLUMN) - 1), 4.8


def _legend(axes: Axes, curves: Sequence[Curve]) -> None:
    columns = _below(curves)
    if not columns:
        axes.legend(
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            frameon=False,
            ncols=math.ceil(len(curves) / IN_A_COLUMN),
        )
    else:
        handles, labels = axes.get_legend_handles_labels()
        axes.figure.legend(
            handles, labels, loc="outside lower center", frameon=False, ncols=columns
        )


def _plain(text: str) -> str:
    """Shortens a text, and protects a leading underscore, which would hide it from the legend."""
    shown = text if len(text) <= LONGEST else "..." + text[3 - LONGEST :]
    return _dollars(" " + shown if shown.startswith("_") else shown)


def _dollars(text: str) -> str:
    """Escapes dollar signs, which would start a formula."""
    return text.replace("$", r"\$")
