"""The curves of a run as images, drawn from its scalars."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mtl_ray import storage
from mtl_ray.geometry.figures import curve_style, plain_log, png
from mtl_ray.tasks.optional import brief

LoggedRows = Sequence[Mapping[str, Any]]
OTHER = {
    "mode",
    "epoch",
    "iter",
    "step",
    "time",
    "data_time",
    "memory",
    "images_per_s",
    "lr",
    "grad_norm",
}
"""Columns of scalars.jsonl that are neither losses nor metrics."""
MOST_CURVES = 7
"""In one figure of metrics, each in a colour of its own; what is more goes into further figures."""

MOST_LOSSES = 12
"""In the figure of losses, the largest; the others are one curve, their sum."""


def draw_training_curves(rows: LoggedRows, uri: str, tasks: Mapping[str, object]) -> None:
    """Writes ``loss.png``, ``lr.png``, ``speed.png`` and, once something was measured,
    ``metrics-HEAD.png`` into a folder.

    Of many metrics there are ``metrics-HEAD-2.png`` and so on, too; those of a group, such as
    HEAD/KITTI/NAME, have figures of their own.

    Args:
        rows: of scalars.jsonl.
        uri: the folder.
        tasks: of the heads; see ``brief``.
    """
    train = [row for row in rows if row["mode"] == "train"]
    val = [row for row in rows if row["mode"] == "val"]
    pages: dict[str, Figure] = {}
    if train:
        pages["loss"] = _losses(train)
        pages["lr"] = _curves(train, ["lr"], "Learning rate", "learning rate")
        pages["speed"] = _curves(train, ["images_per_s"], "Speed", "samples per second")
    known = dict.fromkeys(
        key for row in val for key in row if key not in OTHER and row[key] is not None
    )
    groups: dict[str, list[str]] = {}
    for key in brief(tasks, known):
        groups.setdefault(key.rpartition("/")[0], []).append(key)
    for group, names in groups.items():
        for number, part in enumerate(parts := _parts(names), 1):
            title = f"Validation: {group}" + (
                f" ({number} of {len(parts)})" if len(parts) > 1 else ""
            )
            page = f"metrics-{group.replace('/', '-')}"
            pages[page + (f"-{number}" if number > 1 else "")] = _curves(val, part, title, "metric")
    for name, figure in pages.items():
        storage.write(storage.join(uri, f"{name}.png"), png(figure))


def _losses(rows: LoggedRows) -> Figure:
    """The loss and its terms. Detectors with several decoder layers have dozens of them."""
    terms = [key for key in rows[-1] if key not in OTHER | {"loss"}]
    if len(terms) > MOST_LOSSES:
        total = {key: math.fsum(row.get(key) or 0 for row in rows) for key in terms}
        largest = sorted(terms, key=lambda key: -total[key])[: MOST_LOSSES - 1]
        smaller = [key for key in terms if key not in largest]
        together = f"sum of {len(smaller)} smaller"
        rows = [{**row, together: math.fsum(row.get(key) or 0 for key in smaller)} for row in rows]
        terms = [*largest, together]
    return _curves(rows, ["loss", *terms], "Loss", "loss", log=True)


def _parts(names: Sequence[str]) -> list[Sequence[str]]:
    """Names for one figure each, about as many in all."""
    count = math.ceil(len(names) / MOST_CURVES)
    ends = [round(len(names) * number / count) for number in range(count + 1)] if count else []
    return [names[start:stop] for start, stop in itertools.pairwise(ends)]


def _curves(
    rows: LoggedRows, names: Sequence[str], title: str, label: str, *, log: bool = False
) -> Figure:
    """One line for each name over the steps; steps without a value are left out."""
    with matplotlib.rc_context(sns.axes_style("whitegrid")):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
    values = []
    for index, name in enumerate(names):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        style = curve_style(index, len(points))
        if label != "metric" and len(points) > 1:
            style["marker"] = None
        axes.plot(
            [step for step, _ in points],
            [value for _, value in points],
            label=name,
            markersize=4,
            **style,  # type: ignore[arg-type]
        )
        values += [value for _, value in points]
    if log and values and min(values) > 0:
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    if label == "metric" and values and min(values) >= 0:
        # the top is the data's: a metric may be an error in metres, or a loss far below 1
        axes.set_ylim(0, max(values) * 1.05 or 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    alone = label == "metric" and len(names) == 1  # then there is no legend that names it
    axes.set(title=title, xlabel="step", ylabel=names[0].partition("/")[2] if alone else label)
    if len(names) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure
