"""Curves of a figure over the severity of corruptions."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtl_ray.analysis.corruptions import GROUPS, SEVERITIES
from mtl_ray.analysis.robustness import CLEAN, Cell, Outcome
from mtl_ray.geometry.figures import png

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_MARKERS = "osD^"
"""Of Okabe and Ito, with markers for those who print in grey."""


def draw(cells: Mapping[Cell, Outcome], metric: str, target: str) -> bytes:
    """A PNG with a panel for each group of corruptions that was measured, upon one scale; the clean figure is a dashed line.

    Args:
        cells: what was measured, ``CLEAN`` among them.
        metric: HEAD/METRIC.
        target: of whom; the title shows its end.
    """
    groups = {name: [word for word in words if any(cell.corruption == word for cell in cells)] for name, words in GROUPS.items()}
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


def _panel(axes: Axes, cells: Mapping[Cell, Outcome], metric: str, words: list[str]) -> None:
    clean = cells[CLEAN].figures[metric]
    axes.axhline(clean, color="#555555", linestyle="--", linewidth=1.2, label=f"clean {clean:.3f}")
    for word, colour, marker in zip(words, _COLOURS, _MARKERS, strict=False):
        known = [(severity, cells[Cell(word, severity)].figures[metric]) for severity in SEVERITIES if Cell(word, severity) in cells]
        severities, values = np.array([(0, clean), *known], np.float64).T
        axes.plot(severities, values, color=colour, marker=marker, markersize=5, label=word.replace("_", " "))
    top = max(outcome.figures[metric] for outcome in cells.values())
    axes.set(xlim=(-0.15, 5.15), ylim=(0, top * 1.08 if top > 0 else 1), xticks=(0, *SEVERITIES))
    axes.legend(fontsize=8, loc="best", frameon=True, framealpha=0.85)


def _end(target: str, longest: int) -> str:
    return target if len(target) <= longest else "..." + target[-longest + 3 :]
