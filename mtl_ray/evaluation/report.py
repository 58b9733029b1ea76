"""The report of an evaluation: metrics as HEAD/METRIC, the same by class, and facts about the
run.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mtl_ray.tasks.optional import NotingMetric, brief
from mtl_ray.tasks.task import Metric

SOFTWARE = ("mtl_ray", "torch", "onnxruntime", "hotcoco", "numpy")


@dataclass(frozen=True, kw_only=True)
class Report:
    """The metrics of one evaluation.

    Attributes:
        figures: by HEAD/METRIC, such as ``boxes/mAP50``; NaN if nothing was annotated.
        per_class: by head, class and metric.
        facts: target, data, number of samples, invalid samples, seconds, software versions.
        shown: the figures that ``to_text`` has; None for all.
    """

    figures: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, Mapping[str, float]]]
    facts: Mapping[str, Any]
    shown: Sequence[str] | None = None

    def to_json(self) -> bytes:
        """The content of ``report.json``: the metrics, then ``per_class`` and ``facts``; NaN is
        null.
        """
        content = {
            **self.figures,
            "per_class": self.per_class,
            "facts": {"version": 1, **self.facts},
        }
        return (json.dumps(without_nan(content), indent=1, allow_nan=False) + "\n").encode()

    def to_text(self) -> str:
        """Tables for a terminal; classes without a metric are left out."""
        lines = [
            f"{self.facts['target']} on {self.facts['data']}: {self.facts['samples']} samples in "
            f"{self.facts['seconds']:.1f} s",
            "",
        ]
        names = self.figures if self.shown is None else self.shown
        lines += _table(["", "value"], [[name, _shown(self.figures[name])] for name in names])
        if hidden := len(self.figures) - len(names):
            lines.append(f"{hidden} more figures are in report.json")
        for head, classes in self.per_class.items():
            columns = list(next(iter(classes.values()), {}))
            rows = [
                [name, *(_shown(values[column]) for column in columns)]
                for name, values in classes.items()
                if _known(values)
            ]
            lines += ["", *_table([head, *columns], rows)]
        return "\n".join([*lines, "", *self.facts["notes"]]).rstrip()


def report(metrics: Mapping[str, Metric[Any]], facts: Mapping[str, Any]) -> Report:
    """The report of the metrics of each head; what the metrics note follows the notes of the
    facts.
    """
    noted = [
        note for each in metrics.values() if isinstance(each, NotingMetric) for note in each.notes()
    ]
    found = figures(metrics)
    return Report(
        figures=found,
        shown=brief(metrics, found),
        per_class={name: metric.per_class() for name, metric in metrics.items()},
        facts={
            **facts,
            "notes": [*facts.get("notes", ()), *noted],
            "software": {name: number for name in SOFTWARE if (number := _version(name))},
        },
    )


def figures(metrics: Mapping[str, Metric[Any]]) -> dict[str, float]:
    """All results as HEAD/METRIC."""
    return {
        f"{name}/{key}": float(value)
        for name, metric in metrics.items()
        for key, value in metric.result().items()
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None


def without_nan(value: Any) -> Any:
    """A value of JSON with None in place of the numbers that JSON does not hold."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _known(values: Mapping[str, float]) -> bool:
    return any(math.isfinite(value) for value in values.values() if isinstance(value, float))


def _shown(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.4f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their longest entry; names are left-aligned, numbers right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for number, row in enumerate([header, *rows]):
        yield "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)
