"""The report of a robustness benchmark: P, mPC and rPC, as JSON, CSV, text and a figure."""

import csv
import io
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtl_ray import storage
from mtl_ray.analysis.corruptions import ALL, BENCHMARK, GROUPS, SEVERITIES
from mtl_ray.analysis.robustness import CLEAN, Cell, CellResult
from mtl_ray.geometry.figures import png

Aggregate = Literal["benchmark", "all"]


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """The robustness of one metric: clean performance, mean performance under corruption, and their
    ratio.

    Attributes:
        clean: P.
        corrupted: mPC, the mean over the cells that were measured; NaN if there is none.
        relative: rPC, corrupted / clean; NaN if clean is 0.
    """

    clean: float
    corrupted: float
    relative: float


@dataclass(frozen=True, kw_only=True)
class RobustnessSummary:
    """A robustness benchmark.

    Attributes:
        main: the main metric, as HEAD/METRIC.
        values: of every metric.
        cells: the measured cells.
        counted: the cells of which mPC is the mean.
        missing: cells of the same corruptions that were not measured.
        aggregate: the corruptions of mPC.
        about: model, data and seed.
    """

    main: str
    values: Mapping[str, Robustness]
    cells: Mapping[Cell, CellResult]
    counted: tuple[Cell, ...]
    missing: tuple[Cell, ...]
    aggregate: tuple[str, ...]
    about: Mapping[str, Any]


def summarise(
    cells: Mapping[Cell, CellResult], about: Mapping[str, Any], aggregate: Aggregate = "benchmark"
) -> RobustnessSummary:
    """The means over cells.

    Args:
        cells: by cell, ``CLEAN`` among them.
        about: model, data and seed.
        aggregate: ``benchmark``: mPC is about the 15 corruptions of the published figures,
            whichever of them were measured, or about those measured if none of the 15 is among
            them; ``all``: about all 19.
    """
    measured = {cell.corruption for cell in cells} - {CLEAN.corruption}
    wanted: Sequence[str] = BENCHMARK if aggregate == "benchmark" else ALL
    if measured and not measured & set(wanted):
        wanted = [name for name in ALL if name in measured]
    grid = [Cell(name, severity) for name in wanted for severity in SEVERITIES]
    counted = tuple(cell for cell in grid if cell in cells)
    clean = cells[CLEAN]
    return RobustnessSummary(
        main=clean.main,
        values={
            name: _robustness(value, [cells[cell].figures[name] for cell in counted])
            for name, value in clean.figures.items()
        },
        cells=cells,
        counted=counted,
        missing=tuple(cell for cell in grid if cell not in cells),
        aggregate=tuple(wanted),
        about=about,
    )


def _robustness(clean: float, corrupted: Sequence[float]) -> Robustness:
    mean = fmean(corrupted) if corrupted else math.nan
    return Robustness(clean=clean, corrupted=mean, relative=mean / clean if clean else math.nan)


def write_robustness(summary: RobustnessSummary, out: str) -> list[str]:
    """Writes robustness.json, robustness.csv and robustness.png; returns their URIs."""
    files = {
        "robustness.json": (
            json.dumps(robustness_json(summary), indent=1, allow_nan=False) + "\n"
        ).encode(),
        "robustness.csv": _csv(summary).encode(),
        "robustness.png": robustness_figure(summary.cells, summary.main, summary.about["target"]),
    }
    for name, data in files.items():
        storage.write(storage.join(out, name), data)
    return [storage.join(out, name) for name in files]


def robustness_json(summary: RobustnessSummary) -> dict[str, Any]:
    """The content of robustness.json: P, mPC and rPC (a ratio, not percent) of the main metric
    and of all; null if unknown.
    """
    results: dict[str, dict[str, Any]] = {}
    for cell, outcome in summary.cells.items():
        results.setdefault(cell.corruption, {})[str(cell.severity)] = {
            name: _known(value) for name, value in outcome.figures.items()
        }
    clean = summary.cells[CLEAN]
    return {
        "metric": summary.main,
        **_letters(summary.values[summary.main]),
        "figures": {name: _letters(value) for name, value in summary.values.items()},
        "aggregate": list(summary.aggregate),
        "cells": len(summary.counted),
        "missing": [cell.name for cell in summary.missing],
        "results": results,
        "facts": {
            "version": 1,
            **summary.about,
            "samples": clean.samples,
            "bad_samples": len(clean.bad),
        },
    }


def _letters(value: Robustness) -> dict[str, float | None]:
    return {"P": _known(value.clean), "mPC": _known(value.corrupted), "rPC": _known(value.relative)}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _csv(summary: RobustnessSummary) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(summary.values)
    writer.writerow(["corruption", "severity", *names])
    for cell, outcome in summary.cells.items():
        known = [_known(outcome.figures[name]) for name in names]
        writer.writerow(
            [
                cell.corruption,
                cell.severity,
                *("" if value is None else f"{value:.6f}" for value in known),
            ]
        )
    return text.getvalue()


def robustness_text(summary: RobustnessSummary) -> str:
    """Tables for a terminal: the main metric by corruption and severity, then P, mPC and rPC of
    all metrics.
    """
    names = list(dict.fromkeys(cell.corruption for cell in summary.cells if cell != CLEAN))
    lines = [*_grid(summary, names), ""] if names else []
    width = max(map(len, summary.values))
    lines.append(f"{'':{width}}       P     mPC    rPC")
    for name, value in summary.values.items():
        if math.isfinite(value.clean):
            share = f"{100 * value.relative:5.1f}%" if math.isfinite(value.relative) else "     -"
            lines.append(f"{name:{width}}  {value.clean:.4f}  {_shown(value.corrupted)} {share}")
    if summary.missing:
        total = len(summary.counted) + len(summary.missing)
        said = (
            f"mPC is the mean of {len(summary.counted)} of {total} cells; not measured: "
            f"{_named(summary.missing)}"
        )
        lines += ["", *textwrap.wrap(said, 120, subsequent_indent="  ", break_on_hyphens=False)]
    return "\n".join(lines)


def _grid(summary: RobustnessSummary, names: Sequence[str]) -> Iterator[str]:
    width = max(map(len, [*names, summary.main]))
    yield f"{summary.main:{width}}  {'  '.join(f'{severity:>6}' for severity in (0, *SEVERITIES))}"
    clean = summary.cells[CLEAN].figures[summary.main]
    for name in names:
        found = [summary.cells.get(Cell(name, severity)) for severity in SEVERITIES]
        values = [
            clean,
            *(outcome.figures[summary.main] if outcome else math.nan for outcome in found),
        ]
        yield f"{name:{width}}  {'  '.join(_shown(value) for value in values)}"


def _shown(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "     -"


def _named(cells: Sequence[Cell]) -> str:
    """Cells by corruption: ``snow 1 2, fog 1-5``."""
    by_name: dict[str, list[int]] = {}
    for cell in cells:
        by_name.setdefault(cell.corruption, []).append(cell.severity)
    return ", ".join(
        f"{name} {'1-5' if tuple(found) == SEVERITIES else ' '.join(map(str, found))}"
        for name, found in by_name.items()
    )


_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_MARKERS = "osD^"
"""Colours by Okabe and Ito, with markers for prints in grey."""


def robustness_figure(cells: Mapping[Cell, CellResult], metric: str, target: str) -> bytes:
    """A PNG with a panel for each measured group of corruptions, all on one scale.

    A dashed line shows the clean value.

    Args:
        cells: the results, including ``CLEAN``.
        metric: HEAD/METRIC.
        target: the model; the title shows the end of it.
    """
    groups = {
        name: [word for word in words if any(cell.corruption == word for cell in cells)]
        for name, words in GROUPS.items()
    }
    groups = {name: words for name, words in groups.items() if words} or {"clean": []}
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    with matplotlib.rc_context(sns.axes_style("whitegrid")):
        figure = Figure(figsize=(1.2 + 4.2 * columns, 0.8 + 3.4 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for place, (axes, (name, words)) in enumerate(zip(panels, groups.items(), strict=False)):
        _panel(axes, cells, metric, words)
        axes.set_title(name)
        axes.set_xlabel("severity" if place + columns >= len(groups) else "")
        axes.set_ylabel(metric if place % columns == 0 else "")
        axes.xaxis.set_tick_params(labelbottom=place + columns >= len(groups))
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    figure.suptitle(f"{metric} under corruption\n{_end(target, 45 * columns)}", fontsize=11)
    return png(figure)


def _panel(axes: Axes, cells: Mapping[Cell, CellResult], metric: str, words: list[str]) -> None:
    clean = cells[CLEAN].figures[metric]
    axes.axhline(clean, color="#555555", linestyle="--", linewidth=1.2, label=f"clean {clean:.3f}")
    for word, colour, marker in zip(words, _COLOURS, _MARKERS, strict=False):
        known = [
            (severity, cells[Cell(word, severity)].figures[metric])
            for severity in SEVERITIES
            if Cell(word, severity) in cells
        ]
        severities, values = np.array([(0, clean), *known], np.float64).T
        axes.plot(
            severities,
            values,
            color=colour,
            marker=marker,
            markersize=5,
            label=word.replace("_", " "),
        )
    top = max(outcome.figures[metric] for outcome in cells.values())
    axes.set(xlim=(-0.15, 5.15), ylim=(0, top * 1.08 if top > 0 else 1), xticks=(0, *SEVERITIES))
    axes.legend(fontsize=8, loc="best", frameon=True, framealpha=0.85)


def _end(target: str, longest: int) -> str:
    return target if len(target) <= longest else "..." + target[-longest + 3 :]
