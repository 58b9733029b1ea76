"""Parses one line of a training log: a record of training or of evaluation, or neither.

This module imports no torch. The formats differ: mmcv 1.x (``*.log.json``) writes ``mode``, counts
iterations within the epoch and begins with a line about the environment; mmengine
(``scalars.json``) writes neither and prefixes its metrics; this project's ``scalars.jsonl`` writes
``mode`` and ``step``.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

LineKind = Literal["train", "eval"]

PLACES = frozenset({"mode", "epoch", "iter", "step"})
"""Keys of the position of a line; they are not values."""
_TIMES = frozenset({"time", "data_time"})
_OF_TRAINING = frozenset({"memory", "grad_norm", "iter", "images_per_s"})
_OF_EVALUATION = ("val/", "val_", "test/", "test_")
"""Prefixes of mmengine's evaluation losses; ``loss`` identifies a line of training without a
learning rate."""
_HEADER = frozenset(
    {
        "env_info",
        "config",
        "hook_msgs",
        "mmcv_version",
        "mmdet_version",
        "mmseg_version",
        "exp_name",
        "seed",
        "CLASSES",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line with values.

    Attributes:
        kind: training or evaluation.
        epoch, iter, step: as written; None if missing.
        values: finite numbers by key.
        labelled: whether the line contains ``mode``.
    """

    kind: LineKind
    epoch: int | None
    iter: int | None
    step: int | None
    values: Mapping[str, float]
    labelled: bool


def parse_line(text: str) -> Line | None:
    """The record in a line; None for a line about the environment, or one without values.

    Raises:
        ValueError: if the line is not a JSON object, for example because its end is missing.
    """
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    if "mode" not in found and not _HEADER.isdisjoint(found):
        return None
    values = {
        key: float(value) for key, value in found.items() if key not in PLACES and _is_number(value)
    }
    if not values:
        return None
    return Line(
        kind=_kind(found, values),
        epoch=_whole(found.get("epoch")),
        iter=_whole(found.get("iter")),
        step=_whole(found.get("step")),
        values=values,
        labelled="mode" in found,
    )


def is_loss(key: str) -> bool:
    """Whether a key names a loss: ``loss``, ``loss_cls``, ``s0.loss_bbox``, ``decode.loss_ce``,
    ``boxes/loss_box``, ``rpn_loss``.
    """
    last = key.rpartition("/")[2].rpartition(".")[2]
    return last.startswith("loss") or last.endswith("loss")


def last_part(key: str) -> str:
    """The part of a key after its last "/", with brackets and blanks (``coco/AP (L)``)."""
    return key.rpartition("/")[2]


def _kind(found: Mapping[str, Any], values: Mapping[str, float]) -> LineKind:
    mode = found.get("mode")
    told = [key for key in values if key not in _TIMES and not _is_rate(key)]
    if mode is not None:
        # Some runners by iteration label their evaluations "train" (mmcv 1248): those have neither
        # a loss nor a time.
        mistaken = (
            mode == "train"
            and bool(told)
            and "time" not in values
            and not any(map(is_loss, values))
        )
        return "train" if mode == "train" and not mistaken else "eval"
    if any(_is_rate(key) for key in values) or not _OF_TRAINING.isdisjoint(found):
        return "train"
    if any(key.startswith(_OF_EVALUATION) for key in values):
        return "eval"
    return "train" if all(map(is_loss, told)) or "loss" in map(last_part, told) else "eval"


def _is_rate(key: str) -> bool:
    """``lr``, ``base_lr``, ``backbone.lr``, ``train/lr``."""
    return key == "lr" or key.endswith(("_lr", "/lr", ".lr"))


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number.

    Python's JSON reader accepts ``NaN``, which some metrics contain.
    """
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e300
        and math.isfinite(value)
    )


def _whole(value: Any) -> int | None:
    return int(value) if _is_number(value) else None
