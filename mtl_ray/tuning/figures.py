"""Figures of a search: its history, the importance of the parameters, the Pareto front of the
objectives.
"""

import warnings

import matplotlib
import numpy as np
import optuna
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mtl_ray.geometry.figures import png
from mtl_ray.tuning.search import Search

COLOURS = {"complete": "#0072b2", "stopped": "#999999", "failed": "#d55e00", "best": "#009e73"}
"""By Okabe and Ito: people with colour blindness can distinguish them."""
FEWEST = 4
"""Fewest complete trials from which importances are estimated."""


def search_figures(found: Search) -> dict[str, bytes]:
    """PNG by file name: ``history``, ``importance`` if there are enough trials, ``pareto`` for
    several objectives.
    """
    drawn = {"history.png": _history(found)} if found.results else {}
    importance = importances(found)
    if importance:
        drawn["importance.png"] = _importance(found, importance)
    if len(found.tune.goals) > 1 and found.best():
        drawn["pareto.png"] = _pareto(found)
    return drawn


def importances(found: Search) -> dict[str, dict[str, float]]:
    """By objective, the share of each parameter in the variance of the values (fANOVA.

    Hutter et al. 2014). Only parameters that all complete trials have. Empty if there are too few
    trials, or all have the same value.
    """
    trials = [
        trial
        for trial in found.study.optuna.get_trials(deepcopy=False)
        if trial.state == optuna.trial.TrialState.COMPLETE
    ]
    shares = {}
    for place, goal in enumerate(found.tune.goals):
        values = {trial.values[place] for trial in trials}
        if len(trials) < FEWEST or len(values) < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares[goal.metric] = optuna.importance.get_param_importances(
                found.study.optuna,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
                target=lambda trial, place=place: trial.values[place],  # type: ignore[misc]
            )
    return {metric: found for metric, found in shares.items() if found}


def _axes(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    with matplotlib.rc_context(sns.axes_style("whitegrid")):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def _history(found: Search) -> bytes:
    goals = found.tune.goals
    figure, panels = _axes(8 if len(goals) == 1 else 5.5 * len(goals), 4.5, len(goals))
    for place, axes in enumerate(panels):
        _panel(axes, found, place)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.suptitle(f"Trials of {found.config.runtime.name}")
    return png(figure)


def _panel(axes: Axes, found: Search, place: int) -> None:
    goal = found.tune.goals[place]
    complete = [
        (number, result.values[place])
        for number, result in sorted(found.results.items())
        if result.values is not None
    ]
    stopped = [
        (n, r.reports[-1].value)
        for n, r in sorted(found.results.items())
        if r.state == "stopped" and r.reports
    ]
    failed = [number for number, result in found.results.items() if result.state == "failed"]
    if complete:
        numbers, values = np.array(complete).T
        best = (
            np.maximum.accumulate(values) if goal.mode == "max" else np.minimum.accumulate(values)
        )
        axes.step(numbers, best, where="post", color=COLOURS["best"], label="best so far")
        axes.scatter(numbers, values, color=COLOURS["complete"], zorder=3, label="complete")
    if stopped:
        axes.scatter(
            *np.array(stopped).T,
            color=COLOURS["stopped"],
            marker="v",
            zorder=3,
            label="stopped early",
        )
    if failed:
        across = axes.get_xaxis_transform()
        axes.scatter(
            failed,
            [0.02] * len(failed),
            color=COLOURS["failed"],
            marker="x",
            transform=across,
            zorder=3,
            label="failed",
        )
    axes.set(xlabel="trial", ylabel=goal.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _importance(found: Search, shares: dict[str, dict[str, float]]) -> bytes:
    paths = list(dict.fromkeys(path for by_path in shares.values() for path in by_path))
    figure, (axes,) = _axes(8, 1.6 + 0.4 * len(paths) * max(1, len(shares) / 2))
    rows = [
        (path, metric, by_path.get(path, 0.0))
        for metric, by_path in shares.items()
        for path in paths
    ]
    table = {
        name: [row[column] for row in rows]
        for column, name in enumerate(("parameter", "objective", "share"))
    }
    several = len(shares) > 1
    colour = None if several else COLOURS["complete"]
    sns.barplot(
        table,
        y="parameter",
        x="share",
        hue="objective" if several else None,
        palette="colorblind" if several else None,
        color=colour,
        ax=axes,
    )
    axes.set(
        xlim=(0, 1.05),
        ylabel="",
        xlabel="share in the variation of "
        f"{next(iter(shares)) if not several else 'each objective'}",
    )
    axes.set_title(f"Importance of the parameters of {found.config.runtime.name}")
    for bars in axes.containers:
        if isinstance(bars, BarContainer):
            axes.bar_label(bars, fmt="%.2f", padding=3)
    if several:
        sns.move_legend(axes, "center left", bbox_to_anchor=(1.01, 0.5), title=None, frameon=False)
    return png(figure)


def _pareto(found: Search) -> bytes:
    """Plots each further objective against the first one."""
    first, *others = found.tune.goals
    figure, panels = _axes(6.5 * len(others), 4.8, len(others))
    values = {
        number: result.values
        for number, result in found.results.items()
        if result.values is not None
    }
    best = set(found.best())
    for place, (goal, axes) in enumerate(zip(others, panels, strict=True), 1):
        rest = [(v[place], v[0]) for number, v in values.items() if number not in best]
        if rest:
            axes.scatter(*np.array(rest).T, color=COLOURS["stopped"], label="beaten by another")
        front = sorted((values[number][place], values[number][0], number) for number in best)
        axes.plot(
            [x for x, _, _ in front],
            [y for _, y, _ in front],
            "o-" if len(others) == 1 else "o",
            color=COLOURS["best"],
            label="best",
        )
        for x, y, number in front:
            axes.annotate(
                str(number), (x, y), textcoords="offset points", xytext=(5, -11), fontsize=8
            )
        axes.set(xlabel=f"{goal.metric} ({goal.mode})", ylabel=f"{first.metric} ({first.mode})")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.suptitle(f"Trials of {found.config.runtime.name} that no other beats in all objectives")
    return png(figure)
