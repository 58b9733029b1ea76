"""Reports about anchors: JSON, an overlay for a config, a table for the terminal, a figure."""

import json
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.geometry.appearance import colours_of
from mtl_ray.geometry.figures import plain_log, png
from mtl_ray.tasks.detection.options import FITTING_STRIDES, stride_of
from mtl_ray.tuning.anchor_search import MOST_ANSWERS, FittedAnchors
from mtl_ray.tuning.anchors import AnchorFit


def write_anchors(found: FittedAnchors, out: str) -> list[str]:
    """Writes anchors.json, anchors.yaml (unless an anchor has the size 0) and anchors.png.

    Returns their URIs.
    """
    files = {
        "anchors.json": (json.dumps(anchors_json(found), indent=1) + "\n").encode(),
        "anchors.png": anchors_figure(found),
    }
    if found.anchors.all():
        files["anchors.yaml"] = anchors_overlay(found).encode()
    else:
        storage.remove(storage.join(out, "anchors.yaml"))  # of an earlier search
    for name, data in files.items():
        storage.write(storage.join(out, name), data)
    return [storage.join(out, name) for name in sorted(files)]


def anchors_json(found: FittedAnchors) -> dict[str, Any]:
    """The content of anchors.json. Anchors by the documented rules are whole numbers."""
    request = found.request
    counts = np.bincount(found.index, minlength=len(found.anchors))
    sums = np.bincount(found.index, found.overlap, minlength=len(found.anchors))
    anchors = [
        [int(side) if request.compat else float(side) for side in anchor]
        for anchor in found.anchors
    ]
    each = [
        {
            "anchor": anchor,
            "level": found.level_name(i),
            "boxes": int(count),
            "average_iou": float(total / count) if count else None,
        }
        for i, (anchor, count, total) in enumerate(zip(anchors, counts, sums, strict=True))
    ]
    return {
        "anchors": anchors,
        "average_iou": found.fit.average_iou,
        "best_possible_recall": found.fit.best_possible_recall,
        "boxes": len(found.shapes),
        "per_anchor": each,
        "per_level": {
            name: _level([entry for entry in each if entry["level"] == name])
            for name in request.levels
        },
        "on_levels": _fit(found.after),
        "before": {"anchors": found.compared.name, **_fit(found.before)},
        "helps": found.helps,
        "answers_per_box": found.answers,
        "enough": found.enough,
        "method": request.method,
        "compat": request.compat,
        "seed": request.seed,
        "input": {
            "width": request.canvas.width,
            "height": request.canvas.height,
            "placement": request.canvas.kind,
        },
        "data": list(request.data),
        "version": 1,
    }


def _fit(fit: AnchorFit) -> dict[str, float]:
    return {"average_iou": fit.average_iou, "best_possible_recall": fit.best_possible_recall}


def _level(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "anchors": [entry["anchor"] for entry in entries],
        "boxes": sum(entry["boxes"] for entry in entries),
    }


def anchors_overlay(found: FittedAnchors) -> str:
    """A config file to name in ``_base_`` after one that has the head.

    It leaves levels without anchors out of the head.
    """
    request, canvas = found.request, found.request.canvas
    lines = [
        f"# {len(found.anchors)} anchors "
        f"({request.method}{', documented rules' if request.compat else ''}) for "
        f"{len(found.shapes)} boxes,"
        f" average IoU {found.fit.average_iou:.4f}, best possible recall "
        f"{found.fit.best_possible_recall:.4f}",
        f"# in pixels of a canvas of width {canvas.width} and height {canvas.height}"
        + ("" if request.compat else f" ({canvas.kind})")
        + "; to use it: _base_: [your config, this file]",
        *(f"# {line}" for line in verdict(found)),
        "model:",
        "  heads:",
        f"    {request.head}:",
        f"      levels: [{', '.join(found.of_level)}]",
        "      anchors:",
    ]
    return (
        "\n".join(
            [*lines, *(f"        - {json.dumps(level)}" for level in found.of_level.values())]
        )
        + "\n"
    )


def anchors_text(found: FittedAnchors) -> str:
    """The result for a terminal."""
    rows = anchors_json(found)["per_anchor"]
    table = [f"{'width':>9} {'height':>9}  {'level':5} {'boxes':>9}  {'IoU':>6}"]
    for row in rows:
        iou = "-" if row["average_iou"] is None else f"{row['average_iou']:.4f}"
        table.append(
            f"{row['anchor'][0]:9g} {row['anchor'][1]:9g}  {row['level']:5} {row['boxes']:9,}  "
            f"{iou:>6}"
        )
    fit = (
        f"average IoU {found.fit.average_iou:.4f}, best possible recall "
        f"{found.fit.best_possible_recall:.4f}"
    )
    table.append(f"{len(found.shapes):,} boxes: {fit}")
    table += notes(found) + verdict(found)
    if not found.anchors.all():
        table.append(
            "no anchors.yaml: by the documented rule an anchor without boxes has the size 0; try "
            "another --seed"
        )
    return "\n".join(table)


def verdict(found: FittedAnchors) -> list[str]:
    """Whether the anchors are likely to help, with the values that decide."""
    figures = [
        f"{fit.average_iou:.4f} and {fit.best_possible_recall:.4f}"
        for fit in (found.after, found.before)
    ]
    told = (
        f"on levels that fit them, average IoU and best possible recall are {figures[0]}; "
        f"{found.compared.name} have {figures[1]}"
    )
    if found.helps:
        return [told, "the overlay is likely to help: it reaches boxes that those do not"]
    return [told, "the overlay is not likely to help: keep the anchors that you have"]


def notes(found: FittedAnchors) -> list[str]:
    """Notes about unusual anchors: levels without any, repeated ones, sizes that fit no level."""
    lines = []
    if found.dropped:
        lines.append(
            f"no anchor has a size for {', '.join(found.dropped)}: the overlay leaves "
            f"{_it(found.dropped)} out of the head"
        )
    if found.distinct < len(found.anchors):
        lines.append(
            f"only {found.distinct} of the {len(found.anchors)} anchors differ: boxes have few "
            f"shapes, --num {found.distinct} is enough"
        )
    elif found.answers > MOST_ANSWERS:
        lines.append(
            f"{found.answers:.1f} anchors answer for one box, on average: --num {found.enough} is "
            "enough, and learns small objects sooner"
        )
    sizes, strides = np.sqrt(found.anchors.prod(axis=1)), found.strides
    small, large = (
        (found.anchors.all(axis=1) & (sizes < FITTING_STRIDES[0] * strides)),
        sizes > FITTING_STRIDES[1] * strides,
    )
    if small.any():
        finest = min(found.request.levels, key=stride_of)
        lines.append(
            f"{_many(small)} below {FITTING_STRIDES[0]:g} cells of {finest}, the finest level: "
            "take a larger canvas, or a finer level"
        )
    if large.any():
        lines.append(
            f"{_many(large)} above {FITTING_STRIDES[1]:g} cells of the coarsest level: take a "
            "smaller canvas, or a coarser level"
        )
    return lines


def _many(which: NDArray[np.bool_]) -> str:
    count = int(which.sum())
    return "1 anchor is" if count == 1 else f"{count} anchors are"


def _it(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"


_STYLE = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#cccccc",
    "axes.edgecolor": "#cccccc",
}
"""The style of the other figures. seaborn is not used: its import takes longer than the search."""


def anchors_figure(found: FittedAnchors) -> bytes:
    """A PNG with a histogram of widths and heights of the boxes, the anchors on it, and a
    histogram of the overlaps.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(12, 5.2), layout="constrained")
        shapes, overlap = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _shapes(figure, shapes, found)
    _overlap(overlap, found)
    figure.suptitle(f"{len(found.anchors)} anchors for {len(found.shapes):,} boxes")
    return png(figure)


def _shapes(figure: Figure, axes: Axes, found: FittedAnchors) -> None:
    both = np.concatenate([found.shapes, found.anchors[found.anchors.all(axis=1)]])
    low, high = both.min(axis=0) / 1.15, both.max(axis=0) * 1.15
    cells = int(np.clip(2 * len(found.shapes) ** 0.4, 20, 80))
    edges = [np.geomspace(low[side], high[side], cells + 1) for side in (0, 1)]
    counts, _, _ = np.histogram2d(found.shapes[:, 0], found.shapes[:, 1], bins=edges)
    norm = LogNorm(0.5, max(counts.max(), 5))
    mesh = axes.pcolormesh(
        *edges, np.ma.masked_equal(counts.T, 0), cmap="Greys", norm=norm, rasterized=True
    )
    bar = figure.colorbar(mesh, ax=axes, label="boxes", shrink=0.8)
    bar.ax.set_ylim(1, norm.vmax)
    plain_log(bar.ax.yaxis)
    # the darkest first: three levels are the most common
    colours = np.array(colours_of(7), np.float64)[[5, 4, 2, 0, 6, 1, 3]] / 255
    for place, level in enumerate(sorted(found.of_level, key=stride_of)):
        of_level = np.array([anchor for anchor in found.of_level[level] if all(anchor)]).reshape(
            -1, 2
        )
        axes.plot(
            *of_level.T,
            "oDs^vPX"[place % 7],
            markersize=9,
            markeredgecolor="white",
            color=colours[place % 7],
            label=level,
        )
    axes.set(xscale="log", yscale="log", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set(
        xlabel="width (pixels of the canvas)",
        ylabel="height (pixels of the canvas)",
        title="shapes of boxes and anchors",
    )
    for axis in (axes.xaxis, axes.yaxis):
        plain_log(axis)
    axes.legend(title="anchors of level", frameon=True, loc="lower right")


def _overlap(axes: Axes, found: FittedAnchors) -> None:
    axes.hist(
        found.overlap,
        bins=50,
        range=(0, 1),
        weights=np.full(len(found.overlap), 100 / len(found.overlap)),
        color="#0072b2",
    )
    axes.axvline(
        found.fit.average_iou,
        color="#d55e00",
        linewidth=2,
        label=f"average {found.fit.average_iou:.4f}",
    )
    axes.set(xlim=(0, 1), xlabel="IoU with the nearest anchor", ylabel="boxes (%)")
    axes.set_title(f"best possible recall {found.fit.best_possible_recall:.4f}")
    axes.legend(loc="upper left", frameon=True)
