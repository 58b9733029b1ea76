"""Figures of a dataset check: class balance, boxes, image sizes, clouds, samples, and duplicate
samples.
"""

import json
from collections.abc import Sequence

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.analysis.health import SHAPE_OCTAVES, SIDE_OCTAVES, Counts, Health, bin_edges
from mtl_ray.analysis.health_cloud_figures import clouds_figure
from mtl_ray.analysis.health_data import HealthDataset
from mtl_ray.analysis.health_report import HealthReport, examples, tables
from mtl_ray.analysis.health_sheets import same_sheet, samples_sheet
from mtl_ray.analysis.short_names import short_names
from mtl_ray.annotations.boxes_3d import BOXES_3D
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.geometry.figures import png
from mtl_ray.samples import Annotation

MOST_CLASSES = 40
"""Most classes in a figure; of more classes the most and the least frequent are shown, half of
each."""
_LONGEST_NAME = 28
_LONGEST_SET = 60


def write_health(out: str, report: HealthReport, sets: Sequence[HealthDataset]) -> list[str]:
    """Writes ``dataset.json``, the tables and the figures to a folder; returns their names."""
    files = {
        "dataset.json": json.dumps(report.to_json(), indent=1).encode(),
        **tables(report),
        **draw_health(report, sets),
    }
    for name, data in files.items():
        storage.write(storage.join(out, name), data)
    return list(files)


def draw_health(report: HealthReport, sets: Sequence[HealthDataset]) -> dict[str, bytes]:
    """Figures by file name: ``classes-KIND.png``, ``boxes.png``, ``sizes.png``,
    ``clouds-N.png``, ``samples-N.jpg``, ``same.jpg``.
    """
    names = [set_name(name) for name in short_names(report.names)]
    kinds = list(
        dict.fromkeys(kind for health in report.sets for kind in health.vocabulary.classes)
    )
    drawn = {}
    for kind in kinds:
        having = [
            (name, health)
            for name, health in zip(names, report.sets, strict=True)
            if kind in health.images and len(health.images[kind])
        ]
        if not having:
            continue
        drawn[f"classes-{kind}.png"] = png(
            classes_figure([name for name, _ in having], [health for _, health in having], kind)
        )
    if any(health.sides.any() for health in report.sets):
        drawn["boxes.png"] = png(_boxes(names, report.sets))
    if any(health.sizes for health in report.sets):
        drawn["sizes.png"] = png(_sizes(names, report.sets))
    for number, (name, health) in enumerate(zip(names, report.sets, strict=True), 1):
        if len(health.clouds.objects):
            figure = clouds_figure(name, health.clouds, health.vocabulary)
            drawn[f"clouds-{number}.png"] = png(figure)
    for number, each in enumerate(sets, 1):
        if sheet := samples_sheet(each):
            drawn[f"samples-{number}.jpg"] = sheet
    if sheet := same_sheet(report, sets):
        drawn["same.jpg"] = sheet
    return drawn


def classes_figure(names: Sequence[str], sets: Sequence[Health], kind: Annotation) -> Figure:
    """The number of examples of each class, with a bar for each dataset."""
    counted = [_by_name(health, kind) for health in sets]
    total = {
        name: sum(counts.get(name, 0) for counts in counted)
        for counts in counted
        for name in counts
    }
    order = sorted(total, key=lambda name: -total[name])
    left_out = max(0, len(order) - MOST_CLASSES)
    shown = order if not left_out else order[: MOST_CLASSES // 2] + order[-MOST_CLASSES // 2 :]
    figure, (axes,) = _axes(8, 1.6 + 0.22 * len(shown) * max(1.0, 0.6 * len(sets)))
    height = 0.8 / len(sets)
    for place, (name, counts) in enumerate(zip(names, counted, strict=True)):
        at = np.arange(len(shown)) + (place - (len(sets) - 1) / 2) * height
        axes.barh(
            at, [counts.get(each, 0) for each in shown], height, color=_colour(place), label=name
        )
    axes.set_yticks(range(len(shown)), [_short(name, _LONGEST_NAME) for name in shown])
    axes.invert_yaxis()
    axes.set_ylim(len(shown) - 0.4, -0.6)
    most, least = (
        max(total.values(), default=0),
        min((count for count in total.values() if count), default=1),
    )
    if most > 50 * least:
        axes.set_xscale("symlog", linthresh=1)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0, right=None if most else 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    what = "objects" if kind in (INSTANCES.name, BOXES_3D.name) else "images"
    axes.set(
        xlabel=what,
        title=f"{kind}: {what} by class"
        + (f" ({left_out} classes in between left out)" if left_out else ""),
    )
    _legend(axes, names)
    return figure


def _by_name(health: Health, kind: Annotation) -> dict[str, int]:
    return dict(zip(health.vocabulary.classes[kind], examples(health)[kind].tolist(), strict=True))


def _boxes(names: Sequence[str], sets: Sequence[Health]) -> Figure:
    """Sizes, aspect ratios and numbers of boxes, as shares of each dataset."""
    figure, (side, shape, number) = _axes(13, 4.2, 3)
    for place, (name, health) in enumerate(zip(names, sets, strict=True)):
        _steps(side, health.sides, bin_edges(SIDE_OCTAVES), place, name)
        _steps(shape, health.shapes, bin_edges(SHAPE_OCTAVES), place, name)
        most = max(health.per_image, default=0)
        counts = np.array([health.per_image[count] for count in range(most + 1)], np.int64)
        number.step(
            np.arange(most + 1),
            counts / max(1, counts.sum()),
            where="mid",
            color=_colour(place),
            linewidth=1.8,
            label=name,
        )
    for edge in (32, 96):
        side.axvline(edge, color="#707070", linestyle=":", linewidth=1)
    for at, word, align in (
        (30, "small", "right"),
        (55, "medium", "center"),
        (102, "large", "left"),
    ):
        side.text(
            at,
            0.98,
            word,
            va="top",
            ha=align,
            fontsize=9,
            color="#505050",
            transform=side.get_xaxis_transform(),
        )
    side.margins(y=0.12)
    shape.axvline(1, color="#707070", linestyle=":", linewidth=1)
    side.set(
        xlabel="square root of the area (pixels)", ylabel="share of the boxes", title="Box sizes"
    )
    shape.set(xlabel="width / height", title="Box shapes")
    number.set(xlabel="objects in an image", ylabel="share of the images", title="Objects an image")
    _legend(number, names)
    return figure


def _steps(axes: Axes, counts: Counts, edges: NDArray[np.float64], place: int, name: str) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    used = np.flatnonzero(counts)
    if len(used):
        span = slice(used[0], used[-1] + 1)
        axes.stairs(
            counts[span] / counts.sum(),
            edges[used[0] : used[-1] + 2],
            color=_colour(place),
            linewidth=1.8,
            label=name,
        )


def _sizes(names: Sequence[str], sets: Sequence[Health]) -> Figure:
    """Widths and heights of the images; larger dots mean more images."""
    figure, (axes,) = _axes(7, 5)
    for place, (name, health) in enumerate(zip(names, sets, strict=True)):
        if health.sizes:
            widths, heights = np.array(list(health.sizes), np.float64).T
            counts = np.array(list(health.sizes.values()), np.float64)
            area = 20 + 400 * counts / counts.max()
            axes.scatter(
                widths,
                heights,
                area,
                color=_colour(place),
                alpha=0.45,
                edgecolor=_colour(place),
                label=name,
            )
    axes.margins(0.15)
    axes.set(xlabel="width (pixels)", ylabel="height (pixels)", title="Image sizes")
    _legend(axes, names)
    return figure


def _axes(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    with matplotlib.rc_context(sns.axes_style("whitegrid")):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _legend(axes: Axes, names: Sequence[str]) -> None:
    if len(names) > 1:
        handles, labels = axes.get_legend_handles_labels()
        columns = 1 if max(map(len, names)) > 24 else 2
        legend = axes.figure.legend(
            handles, labels, loc="outside lower center", frameon=False, ncols=columns
        )
        for dots in (
            handle for handle in legend.legend_handles if isinstance(handle, PathCollection)
        ):
            dots.set_sizes([60])


def _colour(place: int) -> str:
    return ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")[place % 6]


def set_name(name: str) -> str:
    """A shortened name of a dataset; both ends are kept, since either may distinguish it."""
    return (
        name
        if len(name) <= _LONGEST_SET
        else f"{name[: _LONGEST_SET // 2 - 3]}...{name[-_LONGEST_SET // 2 :]}"
    ).replace("$", r"\$")


def _short(text: str, most: int) -> str:
    return (text if len(text) <= most else text[: most - 3] + "...").replace("$", r"\$")
