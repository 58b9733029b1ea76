"""What is said of a model upon corrupted images: P, mPC and rPC, as JSON, CSV and text."""

import csv
import io
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from mtl_ray import storage
from mtl_ray.analysis.corruptions import ALL, BENCHMARK, SEVERITIES
from mtl_ray.analysis.robustness import CLEAN, Cell, Outcome
from mtl_ray.analysis.robustness_figure import draw

Aggregate = Literal["benchmark", "all"]


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Of one figure: clean performance, mean performance under corruption, and the share of the first that is the second.

    Attributes:
        clean: P.
        corrupted: mPC, the mean over the cells that were measured; NaN if there is none.
        relative: rPC, corrupted / clean; NaN where clean is 0.
    """

    clean: float
    corrupted: float
    relative: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A robustness benchmark.

    Attributes:
        main: the figure that counts first, as HEAD/METRIC.
        values: of every figure.
        cells: what was measured.
        counted: the cells that mPC is a mean of.
        missing: cells of the same corruptions that were not measured.
        aggregate: the corruptions that mPC is about.
        about: model, data and seed.
    """

    main: str
    values: Mapping[str, Robustness]
    cells: Mapping[Cell, Outcome]
    counted: tuple[Cell, ...]
    missing: tuple[Cell, ...]
    aggregate: tuple[str, ...]
    about: Mapping[str, Any]


def summarise(cells: Mapping[Cell, Outcome], about: Mapping[str, Any], aggregate: Aggregate = "benchmark") -> Summary:
    """The means over cells.

    Args:
        cells: by cell, ``CLEAN`` among them.
        about: model, data and seed.
        aggregate: ``benchmark``: mPC is about the 15 corruptions of the published figures, whichever of them were measured, or about
            those measured if none of the 15 is among them; ``all``: about all 19.
    """
    measured = {cell.corruption for cell in cells} - {CLEAN.corruption}
    wanted: Sequence[str] = BENCHMARK if aggregate == "benchmark" else ALL
    if measured and not measured & set(wanted):
        wanted = [name for name in ALL if name in measured]
    grid = [Cell(name, severity) for name in wanted for severity in SEVERITIES]
    counted = tuple(cell for cell in grid if cell in cells)
    clean = cells[CLEAN]
    return Summary(
        main=clean.main,
        values={name: _robustness(value, [cells[cell].figures[name] for cell in counted]) for name, value in clean.figures.items()},
        cells=cells,
        counted=counted,
        missing=tuple(cell for cell in grid if cell not in cells),
        aggregate=tuple(wanted),
        about=about,
    )


def _robustness(clean: float, corrupted: Sequence[float]) -> Robustness:
    mean = fmean(corrupted) if corrupted else math.nan
    return Robustness(clean=clean, corrupted=mean, relative=mean / clean if clean else math.nan)


def write(summary: Summary, out: str) -> list[str]:
    """Writes robustness.json, robustness.csv and robustness.png; gives their URIs."""
    files = {
        "robustness.json": (json.dumps(content(summary), indent=1, allow_nan=False) + "\n").encode(),
        "robustness.csv": _csv(summary).encode(),
        "robustness.png": draw(summary.cells, summary.main, summary.about["target"]),
    }
    for name, data in files.items():
        storage.write(storage.join(out, name), data)
    return [storage.join(out, name) for name in files]


def content(summary: Summary) -> dict[str, Any]:
    """What robustness.json says: P, mPC and rPC (a share, not percent) of the main figure, then of all; null for what is not known."""
    results: dict[str, dict[str, Any]] = {}
    for cell, outcome in summary.cells.items():
        results.setdefault(cell.corruption, {})[str(cell.severity)] = {name: _known(value) for name, value in outcome.figures.items()}
    clean = summary.cells[CLEAN]
    return {
        "metric": summary.main,
        **_letters(summary.values[summary.main]),
        "figures": {name: _letters(value) for name, value in summary.values.items()},
        "aggregate": list(summary.aggregate),
        "cells": len(summary.counted),
        "missing": [cell.name for cell in summary.missing],
        "results": results,
        "facts": {"version": 1, **summary.about, "samples": clean.samples, "bad_samples": len(clean.bad)},
    }


def _letters(value: Robustness) -> dict[str, float | None]:
    return {"P": _known(value.clean), "mPC": _known(value.corrupted), "rPC": _known(value.relative)}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _csv(summary: Summary) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(summary.values)
    writer.writerow(["corruption", "severity", *names])
    for cell, outcome in summary.cells.items():
        known = [_known(outcome.figures[name]) for name in names]
        writer.writerow([cell.corruption, cell.severity, *("" if value is None else f"{value:.6f}" for value in known)])
    return text.getvalue()


def to_text(summary: Summary) -> str:
    """Tables for a terminal: the main figure by corruption and severity, then P, mPC and rPC of all."""
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
        said = f"mPC is the mean of {len(summary.counted)} of {total} cells; not measured: {_named(summary.missing)}"
        lines += ["", *textwrap.wrap(said, 120, subsequent_indent="  ", break_on_hyphens=False)]
    return "\n".join(lines)


def _grid(summary: Summary, names: Sequence[str]) -> Iterator[str]:
    width = max(map(len, [*names, summary.main]))
    yield f"{summary.main:{width}}  {'  '.join(f'{severity:>6}' for severity in (0, *SEVERITIES))}"
    clean = summary.cells[CLEAN].figures[summary.main]
    for name in names:
        found = [summary.cells.get(Cell(name, severity)) for severity in SEVERITIES]
        values = [clean, *(outcome.figures[summary.main] if outcome else math.nan for outcome in found)]
        yield f"{name:{width}}  {'  '.join(_shown(value) for value in values)}"


def _shown(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "     -"


def _named(cells: Sequence[Cell]) -> str:
    """Cells by corruption: ``snow 1 2, fog 1-5``."""
    by_name: dict[str, list[int]] = {}
    for cell in cells:
        by_name.setdefault(cell.corruption, []).append(cell.severity)
    return ", ".join(f"{name} {'1-5' if tuple(found) == SEVERITIES else ' '.join(map(str, found))}" for name, found in by_name.items())
