"""Figures of the errors of a detector: curves of a class by area, and bars with the shares of
all classes.
"""

import re
from collections.abc import Sequence

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl_ray.analysis.errors import AREAS, KINDS, Errors
from mtl_ray.geometry.figures import png
from mtl_ray.tasks.charts import RECALLS

COLOURS = ("#003f5c", "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#dddddd")
"""Of C75, C50, Loc, Sim, Oth, BG, FN: dark to light, after Okabe and Ito, so people with colour
blindness can distinguish neighbours."""
MEANING = (
    "found at IoU 0.75",
    "at IoU 0.5",
    "place",
    "similar class",
    "other class",
    "background",
    "missed",
)
MOST_CLASSES = 40
"""Most bars in one figure; if there are more classes, those with the lowest C50 are shown."""


def error_curves_figure(title: str, precision: NDArray[np.float64]) -> bytes:
    """The seven curves of one class in a panel for each area, as a PNG.

    Args:
        title: of the figure.
        precision: float64 (7, 101, 4).
    """
    with matplotlib.rc_context(sns.axes_style("white")):
        # a fixed layout: computing it for each class takes as long as drawing
        figure = Figure(figsize=(11, 7.6))
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        figure.subplots_adjust(
            left=0.06, right=0.86, bottom=0.07, top=0.91, wspace=0.38, hspace=0.14
        )
    for place, (axes, area) in enumerate(zip(panels.flat, AREAS, strict=True)):
        curves = precision[:, :, place]
        below = np.zeros(len(RECALLS))
        for kind, colour, curve in zip(KINDS, COLOURS, curves, strict=True):
            axes.fill_between(
                RECALLS,
                below,
                np.maximum(curve, below),
                color=colour,
                linewidth=0,
                label=f"{curve.mean():.3f}  {kind}",
            )
            axes.plot(RECALLS, curve, color="#303030", linewidth=0.6)
            below = np.maximum(curve, below)
        axes.set(xlim=(0, 1), ylim=(0, 1), title="all areas" if area == "allarea" else area)
        axes.legend(
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            frameon=False,
            reverse=True,
            title="mean",
            alignment="left",
        )
    for axes in panels[-1]:
        axes.set_xlabel("recall")
    for axes in panels[:, 0]:
        axes.set_ylabel("precision")
    figure.suptitle(title.replace("$", r"\$"))
    return png(figure, dpi=100)


def shares_figure(title: str, errors: Errors) -> bytes:
    """A bar from 0 to 1 for each class as a PNG: its average precision, and the share of each
    kind of error, over all areas.
    """
    present = np.flatnonzero(errors.objects[:, 0])
    values = errors.precision[..., 0].mean(axis=1)
    shown = np.sort(present[np.argsort(values[1, present], kind="stable")][:MOST_CLASSES])
    left_out = len(present) - len(shown)
    rows = [(f"mean of {len(present)}", values[:, present].mean(axis=1))] if len(present) else []
    rows += [(errors.names[c], values[:, c]) for c in shown]
    with matplotlib.rc_context(sns.axes_style("white")):
        figure = Figure(figsize=(9, 1.8 + 0.26 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
    _bars(axes, [row for _, row in rows])
    axes.set_yticks(range(len(rows)), [_short(name) for name, _ in rows])
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6), xlabel="average precision")
    suffix = f", the {len(shown)} lowest of {len(present)} classes" if left_out else ""
    axes.set_title(title + suffix)
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title="adds", alignment="left"
    )
    return png(figure, dpi=100)


def areas_figure(title: str, errors: Errors) -> bytes:
    """The same for all classes together, with a bar for each area.

    Each area counts only classes with objects there.
    """
    means = errors.of_present()
    rows = [np.nan_to_num(np.array([means[area][kind] for kind in KINDS])) for area in AREAS]
    with matplotlib.rc_context(sns.axes_style("white")):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        axes = figure.add_subplot()
    _bars(axes, rows)
    counts = errors.objects.sum(axis=0)
    axes.set_yticks(
        range(len(AREAS)),
        [
            f"{'all' if area == 'allarea' else area} ({count:,})"
            for area, count in zip(AREAS, counts, strict=True)
        ],
    )
    axes.set(
        xlim=(0, 1),
        ylim=(len(AREAS) - 0.4, -0.6),
        xlabel="average precision, mean over classes",
        ylabel="area (objects)",
        title=title,
    )
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title="adds", alignment="left"
    )
    return png(figure, dpi=100)


def _bars(axes: matplotlib.axes.Axes, rows: Sequence[NDArray[np.float64]]) -> None:
    """What each kind adds to those before it.

    Areas can make a later curve a little lower; that adds nothing.
    """
    ends = np.maximum.accumulate(np.array(rows).reshape(len(rows), len(KINDS)), axis=1)
    starts = np.concatenate([np.zeros((len(rows), 1)), ends[:, :-1]], axis=1)
    for place, (kind, colour, meaning) in enumerate(zip(KINDS, COLOURS, MEANING, strict=True)):
        axes.barh(
            range(len(rows)),
            ends[:, place] - starts[:, place],
            left=starts[:, place],
            color=colour,
            label=f"{kind}: {meaning}",
        )


def file_stem(name: str) -> str:
    """A class name as part of a file name, without path separators and other special characters."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "class"


def _short(name: str) -> str:
    return (name if len(name) <= 28 else name[:25] + "...").replace("$", r"\$")
