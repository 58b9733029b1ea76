"""Speed measurements side by side as a figure: the phases of a step, its percentiles, and the
throughput.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtl_ray.analysis.speed_report import PHASES, SpeedReport, shortened
from mtl_ray.geometry.figures import CURVE_COLOURS

_COLOURS = dict(zip(PHASES, (*CURVE_COLOURS[:3], CURVE_COLOURS[6]), strict=True))
_MARKS = {"p50": "o", "p90": "D", "p99": "s"}
_ROW, _ROOM = 0.42, 1.9
"""Inches of a row, and of all that is not a row."""


def draw_speed(reports: Sequence[SpeedReport]) -> Figure:
    """The figure, a row for each measurement, in their order from top to bottom."""
    figure = Figure(figsize=(11, _ROOM + _ROW * len(reports)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    _draw_latency(left, reports)
    _draw_throughput(right, reports)
    left.set_yticks(range(len(reports)), [_plain(report) for report in reports])
    left.set_ylim(len(reports) - 0.4, -0.6)
    first = reports[0]
    figure.suptitle(
        f"batch {first.per_step}, {first.concurrency} at once, {first.whole.count} steps each",
        fontsize=10,
    )
    return figure


def _plain(report: SpeedReport) -> str:
    """The name of a row: the target, and below it its engine."""
    name = shortened(report.target).replace("$", r"\$")
    return name if report.engine is None else f"{name}\n{report.engine}"


def _draw_latency(axes: Axes, reports: Sequence[SpeedReport]) -> None:
    """The means of the phases one after the other, and percentiles of the whole as marks."""
    for name in PHASES:
        found = [report.phase(name) for report in reports]
        if not any(found):
            continue
        starts = [
            sum(
                each.mean_ms
                for other in PHASES[: PHASES.index(name)]
                if (each := report.phase(other)) is not None
            )
            for report in reports
        ]
        widths = [0.0 if each is None else each.mean_ms for each in found]
        axes.barh(
            range(len(reports)), widths, 0.6, starts, color=_COLOURS[name], label=f"{name}, mean"
        )
    for name, mark in _MARKS.items():
        axes.plot(
            [getattr(report.whole, f"{name}_ms") for report in reports],
            range(len(reports)),
            mark,
            color="black",
            markerfacecolor="white",
            markersize=5,
            label=f"end to end, {name}",
        )
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds a step")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8,
    )


def _draw_throughput(axes: Axes, reports: Sequence[SpeedReport]) -> None:
    rates = [report.fps_mean for report in reports]
    bars = axes.barh(range(len(reports)), rates, 0.6, color=CURVE_COLOURS[4])
    axes.bar_label(bars, fmt="{:,.1f}", padding=3, fontsize=8)
    axes.set_xlim(0, max(rates) * 1.18)
    axes.set_xlabel(f"{reports[0].noun}s a second")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
