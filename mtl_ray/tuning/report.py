"""The report of a search: a table of its trials, the best of them as a config file, figures."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from mtl_ray import storage
from mtl_ray.tuning.figures import search_figures
from mtl_ray.tuning.record import trial_name
from mtl_ray.tuning.search import Search
from mtl_ray.tuning.space import trial_overlay


def write_search_report(found: Search) -> list[str]:
    """Writes trials.csv and trials.json, best.yaml (with several objectives also best-NNNN.yaml of
    each best trial) and the figures.

    Returns:
        The URIs of the files.
    """
    rows = trials_table(found)
    files: dict[str, bytes] = {
        "trials.csv": _csv(rows).encode(),
        "trials.json": (json.dumps(rows, indent=1) + "\n").encode(),
    }
    best = found.best()
    if best:
        files["best.yaml"] = best_yaml(found, best[0]).encode()
    if len(found.tune.goals) > 1:
        files |= {
            f"best-{trial_name(number)}.yaml": best_yaml(found, number).encode() for number in best
        }
    files |= search_figures(found)
    for name, content in files.items():
        storage.write(storage.join(found.uri, name), content)
    return [storage.join(found.uri, name) for name in files]


def trials_table(found: Search) -> list[dict[str, Any]]:
    """A row for each trial that has ended: number, state, objectives, parameters by path,
    seconds, reason.
    """
    rows = []
    for number, result in sorted(found.results.items()):
        values = result.values if result.values is not None else [None] * len(found.tune.goals)
        row: dict[str, Any] = {"trial": number, "state": result.state}
        row |= {goal.metric: value for goal, value in zip(found.tune.goals, values, strict=True)}
        if result.state == "stopped" and result.reports:
            row["last"] = result.reports[-1].value
        row |= {path: found.trials[number].parameters.get(path) for path in found.tune.space}
        rows.append(row | {"seconds": result.seconds, "reason": result.reason})
    return rows


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def best_yaml(found: Search, number: int) -> str:
    """The overrides of a trial as a config file, to name in ``_base_`` after the config of the
    search.
    """
    values = found.results[number].values or []
    objectives = ", ".join(
        f"{goal.metric} {value:.6g}" for goal, value in zip(found.tune.goals, values, strict=True)
    )
    lines = [
        f"# trial {number} of {len(found.results)} of the search {found.uri}: {objectives}",
        "# to use it: _base_: [the config of the search, this file]",
    ]
    return "\n".join(lines) + "\n" + trial_overlay(found.trials[number].overrides)


def trials_text(found: Search, most: int = 30) -> str:
    """The trials as a text table: the best first, then those that were stopped, then those that
    failed.
    """
    rows = sorted(trials_table(found), key=lambda row: _rank(found, row))
    first = ["trial", "state", *(goal.metric for goal in found.tune.goals)]
    last = ["last"] if any("last" in row for row in rows) else []
    names = [*first, *last, *found.tune.space, "seconds"]
    cells = [
        [_heading(name) for name in names],
        *([_cell(row.get(name)) for name in names] for row in rows[:most]),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    ]
    if len(rows) > most:
        lines.append(f"({len(rows) - most} more in trials.csv)")
    return "\n".join(lines)


def _rank(found: Search, row: dict[str, Any]) -> tuple[Any, ...]:
    goal = found.tune.goals[0]
    sign = -1 if goal.mode == "max" else 1
    value = row[goal.metric] if row[goal.metric] is not None else row.get("last")
    return (
        ("complete", "stopped", "failed").index(row["state"]),
        0 if value is None else sign * value,
        row["trial"],
    )


def _heading(name: str) -> str:
    """The last word of a path."""
    return name.split(".")[-1]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else text[:23] + "~"
