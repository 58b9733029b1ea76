"""The figure of a check of clouds: points in each box, distances, headings, and anchors."""

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl_ray.analysis.health_cloud_report import POINTS_IN_BOX, points_histogram
from mtl_ray.analysis.health_clouds import CloudHealth
from mtl_ray.annotations.boxes_3d import BOXES_3D
from mtl_ray.samples import Vocabulary

MOST_CLASSES = 6
"""Classes with a line of their own, those with the most objects."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
STEP_M = 5
"""Width of a bin of distances."""


def clouds_figure(name: str, found: CloudHealth, vocabulary: Vocabulary) -> Figure:
    """Panels of the objects of one dataset, a line for each class; with anchors a panel for each
    head.
    """
    names = vocabulary.classes.get(BOXES_3D.name, ())
    order = np.argsort(-found.counts(len(names)), kind="stable")[:MOST_CLASSES].tolist()
    shown = [label for label in order if (found.objects[:, 0] == label).any()]
    heads = list(found.overlaps)
    with matplotlib.rc_context(sns.axes_style("whitegrid")):
        figure = Figure(figsize=(12, 3.8 * (2 + (len(heads) + 1) // 2)), layout="constrained")
        panels = list(figure.subplots(2 + (len(heads) + 1) // 2, 2, squeeze=False).ravel())
    for place, label in enumerate(shown):
        colour, of_class = COLOURS[place], found.objects[found.objects[:, 0] == label]
        _points(panels[0], of_class[:, 1], colour, names[label])
        _distances(panels[1], of_class[:, 2], colour)
        _median_points(panels[2], of_class, colour)
        _headings(panels[3], of_class[:, 3], colour)
        for panel, head in zip(panels[4:], heads, strict=False):
            _overlaps(panel, found.overlaps[head][found.objects[:, 0] == label], colour)
    _label(panels, heads)
    for unused in panels[4 + len(heads) :]:
        unused.set_visible(False)
    figure.suptitle(name)
    if shown:
        figure.legend(loc="outside lower center", frameon=False, ncols=MOST_CLASSES)
    return figure


def _points(axes: Axes, points: NDArray[np.float64], colour: str, name: str) -> None:
    counts = np.array(points_histogram(points)) / len(points)
    axes.plot(range(len(counts)), counts, "o-", color=colour, label=name)


def _distances(axes: Axes, metres: NDArray[np.float64], colour: str) -> None:
    edges = np.arange(0, STEP_M * (int(metres.max() / STEP_M) + 2), STEP_M)
    axes.stairs(np.histogram(metres, edges)[0], edges, color=colour, linewidth=1.8)


def _median_points(axes: Axes, objects: NDArray[np.float64], colour: str) -> None:
    bins = (objects[:, 2] / STEP_M).astype(np.int64)
    present = np.unique(bins)
    medians = [max(0.5, float(np.median(objects[bins == each, 1]))) for each in present]
    axes.plot((present + 0.5) * STEP_M, medians, "o-", color=colour)


def _headings(axes: Axes, yaw: NDArray[np.float64], colour: str) -> None:
    edges = np.linspace(-180, 180, 37)
    counts = np.histogram(np.degrees(yaw), edges)[0]
    axes.stairs(counts / len(yaw), edges, color=colour, linewidth=1.8)


def _overlaps(axes: Axes, best: NDArray[np.float64], colour: str) -> None:
    if len(known := best[~np.isnan(best)]):
        edges = np.linspace(0, 1, 21)
        counts = np.histogram(known, edges)[0]
        axes.stairs(counts / len(known), edges, color=colour, linewidth=1.8)


def _label(panels: list[Axes], heads: list[str]) -> None:
    panels[0].set_xticks(range(len(POINTS_IN_BOX)), [f"{each}" for each in POINTS_IN_BOX])
    panels[0].set(
        xlabel="points in a box, from", ylabel="share of the objects", title="Points in a box"
    )
    panels[1].set(xlabel="metres from the sensor", ylabel="objects", title="Distances")
    panels[2].set_yscale("log")
    panels[2].set(
        xlabel="metres from the sensor", ylabel="median points in a box", title="Points by distance"
    )
    panels[3].set_xticks(range(-180, 181, 90))
    panels[3].set(
        xlabel="yaw (degrees, counter-clockwise from the front)",
        ylabel="share of the objects",
        title="Headings",
    )
    for panel, head in zip(panels[4:], heads, strict=False):
        panel.set(
            xlabel="best IoU of an anchor in the centre of an object",
            ylabel="share of the objects",
            title=f"Anchors of {head}",
            xlim=(0, 1),
        )
