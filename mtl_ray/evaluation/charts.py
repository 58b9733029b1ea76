"""Confusion matrices and precision-recall curves as images."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from mtl_ray.geometry.figures import curve_style, png
from mtl_ray.tasks.charts import RECALLS, Charts, Confusion, PrecisionRecall, charted_classes

MOST_CLASSES = 40
"""Most rows of a confusion matrix; the classes with the fewest errors share one row."""
MOST_NUMBERED = 20
"""Most rows of a matrix whose cells show the counts."""
MOST_CURVES = 12
LONGEST_NAME = 28
_DARK = 0.55


def draw_charts(charts: Mapping[str, Charts]) -> dict[str, bytes]:
    """PNG files by HEAD/CHART: ``boxes/confusion`` and ``boxes/pr_curves``, for the heads that have
    such a chart with data.

    Args:
        charts: by head.
    """
    pages: dict[str, Figure] = {}
    for head, chart in charts.items():
        if chart.confusion is not None and chart.confusion.counts.any():
            pages[f"{head}/confusion"] = confusion_figure(head, chart.confusion)
        if chart.precision_recall is not None and charted_classes(chart.precision_recall, 1):
            pages[f"{head}/pr_curves"] = curves_figure(head, chart.precision_recall)
    return {name: png(figure) for name, figure in pages.items()}


def confusion_figure(head: str, whole: Confusion) -> Figure:
    """Rows are annotated classes, columns predicted ones. Colours are shares of each row, numbers
    are counts.
    """
    chart = whole.condensed(MOST_CLASSES)
    total = chart.counts.sum(axis=1, keepdims=True)
    shares = chart.counts / np.maximum(total, 1)
    size = float(np.clip(2.2 + 0.5 * len(chart.names), 4.5, 14.0))
    figure = Figure(figsize=(size + 1.2, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(chart.names))
    names = [_word(name) for name in chart.names]
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names)
    axes.set(xlabel="predicted", ylabel="annotated")
    # over the whole figure: the panel of one class is narrow
    figure.suptitle(_title(f"{head}: {chart.unit} by class", chart.note))
    if len(chart.names) <= MOST_NUMBERED:
        for row, column in zip(*np.nonzero(chart.counts), strict=True):
            ink = "white" if shares[row, column] > _DARK else "#202020"
            axes.text(
                column,
                row,
                _short(int(chart.counts[row, column])),
                ha="center",
                va="center",
                color=ink,
                fontsize=8,
            )
    figure.colorbar(image, ax=axes, label="share of the annotated", shrink=0.8)
    return figure


def curves_figure(head: str, chart: PrecisionRecall) -> Figure:
    """A curve for each class, and their mean. If there are many classes, those with the lowest
    average precision are drawn.
    """
    drawn = charted_classes(chart, MOST_CURVES)
    all_classes = charted_classes(chart, len(chart.names))
    with matplotlib.rc_context(sns.axes_style("whitegrid")):
        figure = Figure(figsize=(8, 4.8), layout="constrained")
        axes = figure.add_subplot()
    for place, index in enumerate(drawn):
        label = f"{_word(chart.names[index])}  {chart.average[index]:.3f}"
        axes.plot(RECALLS, chart.precision[index], label=label, **curve_style(place, len(RECALLS)))  # type: ignore[arg-type]
    if len(all_classes) > 1:
        mean = chart.precision[all_classes].mean(axis=0)
        axes.plot(
            RECALLS,
            mean,
            color="#202020",
            linewidth=2.5,
            label=f"mean of {len(all_classes)}  {mean.mean():.3f}",
        )
    hidden = len(all_classes) - len(drawn)
    title = f"{head}: precision and recall" + (
        f", the {len(drawn)} worst of {len(all_classes)} classes" if hidden else ""
    )
    axes.set(
        xlabel="recall",
        ylabel="precision",
        xlim=(-0.01, 1.01),
        ylim=(-0.02, 1.03),
        title=_title(title, chart.note),
    )
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        title="average precision",
        alignment="left",
    )
    return figure


def _word(name: str) -> str:
    """A class name, shortened; dollar signs are escaped for matplotlib."""
    return (name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "...").replace(
        "$", r"\$"
    )


def _title(title: str, note: str) -> str:
    return f"{title}\n({note})" if note else title


def _short(count: int) -> str:
    """At most five characters."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if count >= size:
            value = count / (1000 if letter == "k" else size)
            return f"{value:.0f}{letter}" if value >= 10 else f"{value:.1f}{letter}"
    return str(count)
