"""One trial of a search: an ordinary training in a process that Ray Tune starts somewhere on the
cluster.

A trial reports its evaluations to the trial scheduler, an actor that decides which trials stop
early.
"""

import contextlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import ray
from pydantic import TypeAdapter
from ray import tune

from mtl_ray import storage
from mtl_ray.experiment import ExperimentConfig, parse_experiment
from mtl_ray.tuning.config import COSTS, Objective
from mtl_ray.tuning.record import Records, TrialResult

if TYPE_CHECKING:  # torch and Ray Train take seconds to import: whoever trains does that
    from mtl_ray.distributed.train import OnMetrics
    from mtl_ray.training.resume import Summary

RESULT = "result"
"""The key under which a trial reports its ``TrialResult`` to Ray Tune, as JSON."""


class Train(Protocol):
    """The signature of ``distributed.train.train``."""

    def __call__(self, config: ExperimentConfig, *, on_metrics: "OnMetrics") -> "Summary":
        """Trains."""
        ...


def run_trial(
    given: Mapping[str, Any], scheduler: Any, goals: Sequence[Objective], folder: str, train: Train
) -> None:
    """Trains, and reports the result to Ray Tune once.

    Args:
        given: the ``number`` of the trial and its ``config`` as YAML; or a ``problem`` in place of
            the config.
        scheduler: handle of the actor ``TrialScheduler``.
        goals: the objectives.
        folder: of the search.
        train: trains one trial.
    """
    started, log = time.monotonic(), io.StringIO()
    records = Records(folder)
    with contextlib.redirect_stderr(log):
        result = _train(given, scheduler, goals, records, train)
    if log.getvalue():
        storage.write(
            storage.join(records.trial_uri(given["number"]), "log.txt"),
            log.getvalue().replace("\r", "\n").encode(),
        )
    kept = {
        "reports": ray.get(scheduler.curve.remote(given["number"])),
        "seconds": round(time.monotonic() - started, 1),
    }
    tune.report(
        {
            RESULT: TypeAdapter(TrialResult)
            .dump_json(TypeAdapter(TrialResult).validate_python({**result, **kept}))
            .decode()
        }
    )


def _train(
    given: Mapping[str, Any],
    scheduler: Any,
    goals: Sequence[Objective],
    records: Records,
    train: Train,
) -> dict[str, Any]:
    """State, values, reason and metrics. An error fails this trial and does not end the search."""
    if "problem" in given:
        return {"state": "failed", "values": None, "reason": given["problem"]}
    number = given["number"]
    stopped: list[str] = []

    def on_metrics(step: int, epoch: float, metrics: Mapping[str, float]) -> bool:
        if len(goals) > 1:
            return False
        curve, stops = ray.get(
            scheduler.report.remote(number, epoch, _value(goals[0].metric, metrics))
        )
        records.keep_curve(number, curve)
        if stops:
            stopped.append(f"after {epoch:.3g} epochs")
        return bool(stops)

    try:
        summary = train(parse_experiment(given["config"], f"trial {number}"), on_metrics=on_metrics)
        metrics = {name: value for name, value in summary["metrics"].items() if value is not None}
        if not summary["finished"]:
            return {
                "state": "stopped",
                "values": None,
                "reason": (stopped or ["by hand"])[-1],
                "metrics": metrics,
            }
        values = _values(goals, metrics, summary["run"])
    except Exception as error:
        return {"state": "failed", "values": None, "reason": _reason(error)}
    return {"state": "complete", "values": values, "metrics": metrics}


def _values(goals: Sequence[Objective], metrics: Mapping[str, float], run_uri: str) -> list[float]:
    known = dict(metrics)
    if any(goal.metric in COSTS for goal in goals):
        from mtl_ray.inference.checkpoint import find_checkpoint

        # not in the trial's placement group, which has no CPU
        task = ray.remote(num_cpus=1, scheduling_strategy="DEFAULT")(_cost)
        known |= ray.get(task.remote(find_checkpoint(run_uri, "last")))
    return [_value(goal.metric, known) for goal in goals]


def _cost(checkpoint_uri: str) -> dict[str, float]:
    from mtl_ray.tuning.cost import inference_cost

    return inference_cost(checkpoint_uri)


def _value(metric: str, metrics: Mapping[str, float]) -> float:
    if metric not in metrics:
        raise ValueError(
            f"the evaluation has no value of {metric}; it has {', '.join(metrics) or 'none'}"
        )
    return metrics[metric]


def _reason(error: Exception) -> str:
    """The last line, which is the message.

    The lines above it are stack frames of other processes.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    name = type(error).__name__
    return text if isinstance(error, ValueError | FileNotFoundError) and text else f"{name}: {text}"


def parse_result(text: str) -> TrialResult:
    """The ``TrialResult`` that a trial reported as JSON."""
    return TypeAdapter(TrialResult).validate_python(json.loads(text))
