"""Values of training logs as curves over steps, epochs or time, and as CSV.

This module imports no torch.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.log_lines import LineKind, last_part
from mtl_ray.analysis.logs import Log, LogRecord
from mtl_ray.analysis.short_names import short_names

CurveAxis = Literal["step", "epoch", "time"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """A value over a training, N points.

    Attributes:
        label: for the legend.
        log, key: the log, and the key as the log writes it.
        kind: of the lines with the key.
        steps: float64 (N,), optimiser steps, increasing.
        epochs: float64 (N,), NaN if the log has no epochs; fractional for training lines.
        seconds: float64 (N,), time spent in training steps; NaN if the log does not contain it.
        values: float64 (N,).
        smoothed: float64 (N,), equal to ``values`` without smoothing.
    """

    label: str
    log: str
    key: str
    kind: LineKind
    steps: NDArray[np.float64]
    epochs: NDArray[np.float64]
    seconds: NDArray[np.float64]
    values: NDArray[np.float64]
    smoothed: NDArray[np.float64]

    def at(self, axis: CurveAxis) -> NDArray[np.float64]:
        """The positions of the points on an axis."""
        return {"step": self.steps, "epoch": self.epochs, "time": self.seconds}[axis]


def curves_of(
    logs: Sequence[Log],
    keys: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    kind: LineKind | None = None,
    interval: int | None = None,
    smooth: float = 0.0,
) -> list[Curve]:
    """A curve for each log and key, all keys of the first log first.

    Args:
        logs: as ``Log.joined`` gives them.
        keys: as the log writes them; a prefix up to the last "/" may be missing, or may be given
            where the log has none.
        labels: one for each curve, in the same order; by default the parts that distinguish the
            curves.
        kind: only lines of training or of evaluation; by default the lines with the key, of
            training if both have it.
        interval: epochs between two evaluations, for logs whose evaluations have neither epoch nor
            step.
        smooth: weight of the past in an exponential mean, from 0 to below 1.

    Raises:
        ValueError: if a log lacks a key (the message names its keys), or the number of labels is
            wrong.
    """
    if labels is not None and len(labels) != len(logs) * len(keys):
        raise ValueError(
            f"--legend has {len(labels)} names for {len(logs)} logs x {len(keys)} keys = "
            f"{len(logs) * len(keys)} curves"
        )
    if not 0 <= smooth < 1:
        raise ValueError(f"--smooth is {smooth:g}; it must be from 0 to below 1")
    names = labels or _labels([log.uri for log in logs], keys)
    pairs = [(log, key) for log in logs for key in keys]
    return [
        _curve(log, key, kind, name, interval, smooth)
        for (log, key), name in zip(pairs, names, strict=True)
    ]


def axis_of(curves: Sequence[Curve]) -> CurveAxis:
    """Epochs if all curves are evaluations of different epochs, else steps."""
    whole = all(
        curve.kind == "eval" and np.array_equal(curve.epochs, np.unique(curve.epochs.round()))
        for curve in curves
    )
    return "epoch" if whole else "step"


def to_csv(curves: Sequence[Curve]) -> str:
    """The points of all curves; unknown values are empty fields."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["curve", "log", "key", "mode", "step", "epoch", "seconds", "value", "smoothed"])
    for curve in curves:
        for step, epoch, seconds, *values in zip(
            curve.steps, curve.epochs, curve.seconds, curve.values, curve.smoothed, strict=True
        ):
            places = [
                "" if np.isnan(place) else f"{place:.10g}" for place in (step, epoch, seconds)
            ]
            table.writerow(
                [
                    curve.label,
                    curve.log,
                    curve.key,
                    curve.kind,
                    *places,
                    *(repr(float(value)) for value in values),
                ]
            )
    return text.getvalue()


def smoothed(values: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """The exponential moving average with bias correction (Kingma and Ba 2015, section 3)."""
    found = np.empty_like(values)
    mean = 0.0
    for index, value in enumerate(values):
        mean = weight * mean + (1 - weight) * value
        found[index] = mean / (1 - weight ** (index + 1))
    return found


def _curve(
    log: Log, key: str, kind: LineKind | None, label: str, interval: int | None, smooth: float
) -> Curve:
    name, found = _resolve(log, key, kind)
    per_epoch, seconds = _steps_per_epoch(log.records), _seconds(log.records)
    points: dict[tuple[int, int | None], tuple[float, float, float]] = {}
    for record, elapsed in zip(log.records, seconds, strict=True):
        if record.kind == found and name in record.values:
            epoch = record.step / per_epoch if found == "train" and per_epoch else record.epoch
            points[record.step, record.epoch] = (
                np.nan if epoch is None else float(epoch),
                elapsed,
                record.values[name],
            )
    steps = np.array([step for step, _ in points], np.float64)
    epochs, elapsed_s, values = np.array(list(points.values()), np.float64).T
    if found == "eval" and per_epoch and len(np.unique(epochs)) < len(epochs):
        epochs = steps / per_epoch  # evaluated several times in an epoch
    if interval is not None and np.isnan(epochs).all():
        epochs = interval * np.arange(1.0, len(epochs) + 1)
    return Curve(
        label=label,
        log=log.uri,
        key=name,
        kind=found,
        steps=steps,
        epochs=epochs,
        seconds=elapsed_s,
        values=values,
        smoothed=smoothed(values, smooth) if smooth else values,
    )


def _resolve(log: Log, key: str, kind: LineKind | None) -> tuple[str, LineKind]:
    """The name of a key in a log, and the kind of its lines."""
    kinds: tuple[LineKind, ...] = ("train", "eval") if kind is None else (kind,)
    for same in (
        lambda name: name == key,
        lambda name: last_part(name) == last_part(key),
        lambda name: _dated(name) == _dated(key),
    ):
        found = [(name, each) for each in kinds for name in log.keys(each) if same(name)]
        names = list(dict.fromkeys(name for name, _ in found))
        if len(names) > 1:
            raise ValueError(f"{log.uri} has several keys {key!r}: {', '.join(names)}; say which")
        if found:
            return found[0]
    listed = "; ".join(f"{each}: {', '.join(log.keys(each)) or 'nothing'}" for each in kinds)
    raise ValueError(
        f"{log.uri} has no key {key!r} with a finite number. It has in its lines of {listed}"
    )


def _dated(key: str) -> str:
    """The older name of a KITTI metric, from when only the precision at 11 recalls existed."""
    return re.sub(r"_(3D|BEV|2D)_AP11_", r"_\1_", last_part(key))


def _labels(uris: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Labels that distinguish the curves: the key, the end of the path of the log, or both."""
    ends = short_names(uris)
    if len(uris) == 1:
        return list(keys)
    return ends if len(keys) == 1 else [f"{end} {key}" for end in ends for key in keys]


def _steps_per_epoch(records: Sequence[LogRecord]) -> float:
    """Steps per epoch; 0 if the log has no epochs.

    Only the last logged step of an epoch is known, so this is the maximum over epochs.
    """
    return max(
        (
            record.step / record.epoch
            for record in records
            if record.kind == "train" and record.epoch
        ),
        default=0.0,
    )


def _seconds(records: Sequence[LogRecord]) -> list[float]:
    """Time spent in training steps up to each record: time per step times the steps since the
    last record; NaN if unknown.
    """
    elapsed, before, known = 0.0, 0, False
    found = []
    for record in records:
        if record.kind == "train" and "time" in record.values:
            elapsed += record.values["time"] * (record.step - before)
            before, known = record.step, True
        found.append(elapsed if known else np.nan)
    return found
