"""Anchors among the boxes that they were fitted to, as a picture."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from mtl_ray.geometry.figures import colours_of, plain_log, png
from mtl_ray.tasks.detection.levels import stride_of
from mtl_ray.tuning.anchor_search import Found

_STYLE = {"axes.grid": True, "axes.axisbelow": True, "grid.color": "#cccccc", "axes.edgecolor": "#cccccc"}
"""That of the other figures, without seaborn, whose import takes longer than the search."""


def draw(found: Found) -> bytes:
    """A PNG: how many boxes have which width and height, with the anchors upon it; how well the boxes are overlapped."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(12, 5.2), layout="constrained")
        shapes, overlap = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _shapes(figure, shapes, found)
    _overlap(overlap, found)
    figure.suptitle(f"{len(found.anchors)} anchors for {len(found.shapes):,} boxes")
    return png(figure)


def _shapes(figure: Figure, axes: Axes, found: Found) -> None:
    both = np.concatenate([found.shapes, found.anchors[found.anchors.all(axis=1)]])
    low, high = both.min(axis=0) / 1.15, both.max(axis=0) * 1.15
    cells = int(np.clip(2 * len(found.shapes) ** 0.4, 20, 80))
    edges = [np.geomspace(low[side], high[side], cells + 1) for side in (0, 1)]
    counts, _, _ = np.histogram2d(found.shapes[:, 0], found.shapes[:, 1], bins=edges)
    norm = LogNorm(0.5, max(counts.max(), 5))
    mesh = axes.pcolormesh(*edges, np.ma.masked_equal(counts.T, 0), cmap="Greys", norm=norm, rasterized=True)
    bar = figure.colorbar(mesh, ax=axes, label="boxes", shrink=0.8)
    bar.ax.set_ylim(1, norm.vmax)
    plain_log(bar.ax.yaxis)
    colours = np.array(colours_of(7), np.float64)[[5, 4, 2, 0, 6, 1, 3]] / 255  # the darkest first, for three levels are most usual
    for place, level in enumerate(sorted(found.of_level, key=stride_of)):
        of_level = np.array([anchor for anchor in found.of_level[level] if all(anchor)]).reshape(-1, 2)
        axes.plot(*of_level.T, "oDs^vPX"[place % 7], markersize=9, markeredgecolor="white", color=colours[place % 7], label=level)
    axes.set(xscale="log", yscale="log", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set(xlabel="width (pixels of the canvas)", ylabel="height (pixels of the canvas)", title="shapes of boxes and anchors")
    for axis in (axes.xaxis, axes.yaxis):
        plain_log(axis)
    axes.legend(title="anchors of level", frameon=True, loc="lower right")


def _overlap(axes: Axes, found: Found) -> None:
    axes.hist(found.overlap, bins=50, range=(0, 1), weights=np.full(len(found.overlap), 100 / len(found.overlap)), color="#0072b2")
    axes.axvline(found.fit.average_iou, color="#d55e00", linewidth=2, label=f"average {found.fit.average_iou:.4f}")
    axes.set(xlim=(0, 1), xlabel="IoU with the nearest anchor", ylabel="boxes (%)")
    axes.set_title(f"best possible recall {found.fit.best_possible_recall:.4f}")
    axes.legend(loc="upper left", frameon=True)
