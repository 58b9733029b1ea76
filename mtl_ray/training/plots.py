"""The curves of a run as pictures, drawn from its scalars."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.figure import Figure

from mtl_ray import storage
from mtl_ray.geometry.figures import png

Rows = Sequence[Mapping[str, Any]]
OTHER = {"mode", "epoch", "iter", "step", "time", "data_time", "memory", "images_per_s", "lr", "grad_norm"}
"""Columns of scalars.jsonl that are neither losses nor metrics."""
MOST_CURVES = 12


def draw(rows: Rows, uri: str) -> None:
    """Writes ``loss.png``, ``lr.png``, ``speed.png`` and, once something was measured, ``metrics-HEAD.png`` into a folder.

    Args:
        rows: of scalars.jsonl.
        uri: the folder.
    """
    train = [row for row in rows if row["mode"] == "train"]
    val = [row for row in rows if row["mode"] == "val"]
    pages: dict[str, Figure] = {}
    if train:
        losses = ["loss", *(key for key in train[-1] if key not in OTHER | {"loss"})]
        pages["loss"] = _curves(train, losses, "Loss", "loss", log=True)
        pages["lr"] = _curves(train, ["lr"], "Learning rate", "learning rate")
        pages["speed"] = _curves(train, ["images_per_s"], "Speed", "images per second")
    heads = dict.fromkeys(key.split("/")[0] for row in val for key in row if key not in OTHER)
    for head in heads:
        names = dict.fromkeys(key for row in val for key in row if key.startswith(f"{head}/"))
        pages[f"metrics-{head}"] = _curves(val, list(names)[:MOST_CURVES], f"Validation: {head}", "metric", marker="o")
    for name, figure in pages.items():
        storage.write(storage.join(uri, f"{name}.png"), png(figure))


def _curves(rows: Rows, names: Sequence[str], title: str, label: str, *, log: bool = False, marker: str | None = None) -> Figure:
    """One line for each name over the steps; steps without a value are left out."""
    points = [(row["step"], name, row[name]) for row in rows for name in names if row.get(name) is not None]
    table = {column: [point[i] for point in points] for i, column in enumerate(("step", "curve", label))}
    with matplotlib.rc_context(sns.axes_style("whitegrid")):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
    sns.lineplot(table, x="step", y=label, hue="curve" if len(names) > 1 else None, marker=marker, errorbar=None, ax=axes)
    if log and len(points) and min(value for *_, value in points) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    if label == "metric":
        axes.set_ylim(-0.02, 1.02)
    axes.set_title(title)
    if axes.get_legend() is not None:
        sns.move_legend(axes, "center left", bbox_to_anchor=(1.01, 0.5), title=None, frameon=False)
    return figure
