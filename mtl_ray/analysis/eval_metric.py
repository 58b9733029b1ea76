"""Metrics of stored predictions, with the evaluation settings of a config, for several datasets."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_ray import storage
from mtl_ray.analysis.paired import Pairs, open_pairs
from mtl_ray.evaluation.config import EvaluateConfig
from mtl_ray.evaluation.metrics import head_metrics
from mtl_ray.evaluation.report import Report, report
from mtl_ray.tasks.task import Metric

TOGETHER = "together"


@dataclass(frozen=True, kw_only=True)
class MetricReports:
    """Reports by dataset.

    Attributes:
        reports: by dataset, and ``together`` for all images of several sets that share their
            classes.
        notes: remarks for the reader of the metrics, by dataset.
    """

    reports: Mapping[str, Report]
    notes: Mapping[str, Sequence[str]]

    def to_json(self) -> bytes:
        """The content of ``report.json`` of ``jobs.evaluate`` for each dataset."""
        return (
            json.dumps(
                {name: json.loads(each.to_json()) for name, each in self.reports.items()}, indent=1
            )
            + "\n"
        ).encode()

    def to_text(self) -> str:
        """A line for each metric, a column for each dataset."""
        names = list(self.reports)
        metrics = list(
            dict.fromkeys(metric for each in self.reports.values() for metric in each.figures)
        )
        width = max(map(len, metrics), default=6)
        rows = [" " * width + "".join(f"  {f'[{place}]':>9}" for place in range(1, len(names) + 1))]
        for metric in metrics:
            values = (each.figures.get(metric, math.nan) for each in self.reports.values())
            rows.append(
                f"{metric:{width}}"
                + "".join(
                    "          -" if math.isnan(value) else f"  {value:9.4f}" for value in values
                )
            )
        return "\n".join([*(f"[{place}] {name}" for place, name in enumerate(names, 1)), "", *rows])


def eval_metric(
    predictions: Sequence[str],
    data: Sequence[str],
    config: EvaluateConfig,
    classes: Sequence[str] | None = None,
) -> MetricReports:
    """Evaluates each predictions file on its dataset.

    Args:
        predictions: URIs of predictions.arrow, COCO results or result pickles: one for each
            dataset.
        data: URIs of splits or COCO annotation files.
        config: what to measure besides the metrics of each head.
        classes: see ``paired.open_pairs``.

    Raises:
        ValueError, FileNotFoundError: if a file cannot be read, there are not as many of the one as
            of the other, or none of the heads can be measured on the data.
    """
    if len(predictions) != len(data):
        raise ValueError(
            f"there are {len(predictions)} files of predictions and {len(data)} datasets; give "
            "one for each, in one order"
        )
    reports: dict[str, Report] = {}
    notes: dict[str, Sequence[str]] = {}
    measured: list[tuple[Pairs, dict[str, Metric[Any]], int]] = []
    for place, (stored, uri) in enumerate(zip(predictions, data, strict=True), 1):
        name = uri if uri not in reports else f"{uri} ({place})"
        started = time.monotonic()
        pairs = open_pairs(stored, uri, classes=classes)
        metrics, samples, missing = _measure(stored, pairs, config)
        measured.append((pairs, metrics, samples))
        notes[name] = (
            *pairs.notes,
            *([f"{missing} images have no predictions and were left out"] if missing else []),
        )
        reports[name] = report(
            metrics, _facts(stored, uri, samples, notes[name], time.monotonic() - started)
        )
    if len(measured) > 1 and all(_alike(measured[0], each) for each in measured[1:]):
        started = time.monotonic()
        first = measured[0][1]
        for _, others, _ in measured[1:]:
            for head, metric in first.items():
                metric.merge(others[head])
        total = sum(samples for _, _, samples in measured)
        facts = _facts(
            ", ".join(predictions), ", ".join(data), total, (), time.monotonic() - started
        )
        reports[TOGETHER] = report(first, facts)
    return MetricReports(reports=reports, notes=notes)


def _measure(
    uri: str, pairs: Pairs, config: EvaluateConfig
) -> tuple[dict[str, Metric[Any]], int, int]:
    """The metrics by head, the number of evaluated images, and the number of images without
    predictions.
    """
    heads = {
        name: head
        for name, head in pairs.stored.heads.items()
        if head.annotation in pairs.data.vocabulary.classes
    }
    if not heads:
        raise ValueError(
            f"nothing of {uri} can be measured: the data has "
            f"{', '.join(pairs.data.vocabulary.classes) or 'no classes'}"
        )
    metrics = head_metrics(heads, pairs.stored.vocabulary, config)
    samples = missing = 0
    for sample, found in pairs:
        if found is None:
            missing += 1
            continue
        samples += 1
        for name, metric in metrics.items():
            metric.update(sample, found[name])
    return metrics, samples, missing


def _alike(
    one: tuple[Pairs, dict[str, Metric[Any]], int], other: tuple[Pairs, dict[str, Metric[Any]], int]
) -> bool:
    """Whether the metrics count the same classes by the same numbers."""
    names = [
        {name: head.classes for name, head in pairs.stored.heads.items()}
        for pairs, _, _ in (one, other)
    ]
    same = (
        one[0].stored.vocabulary.classes == other[0].stored.vocabulary.classes
        and names[0] == names[1]
    )
    return same and one[1].keys() == other[1].keys()


def _facts(
    target: str, data: str, samples: int, notes: Sequence[str], seconds: float
) -> dict[str, object]:
    return {
        "target": target,
        "data": data,
        "samples": samples,
        "notes": list(notes),
        "seconds": round(seconds, 3),
    }


def write_reports(uri: str, measured: MetricReports) -> None:
    """Writes the JSON."""
    storage.write(uri, measured.to_json())
