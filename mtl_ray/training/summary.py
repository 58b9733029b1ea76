"""What is said of a run in the end."""

import json
from collections.abc import Mapping
from typing import Any

from mtl_ray import storage
from mtl_ray.training.checkpoint import State

Summary = dict[str, Any]
"""``run`` (its URI), ``step``, ``finished``, ``metrics`` of the last evaluation, ``best`` (best.json, None if nothing was measured)."""


def summary_of(run_uri: str, state: State) -> Summary:
    """The summary of a run that ended at a state."""
    best = storage.join(run_uri, "best.json")
    return {
        "run": run_uri,
        "step": state.step,
        "finished": state.finished,
        "metrics": state.metrics,
        "best": json.loads(storage.read(best)) if storage.exists(best) else None,
    }


def text_of(summary: Summary) -> str:
    """The summary as lines to read."""
    done = "finished" if summary["finished"] else "stopped"
    lines = [f"{summary['run']}: {done} after {summary['step']} steps"]
    lines += _metrics("last", summary["metrics"])
    best = summary["best"]
    if best is not None:
        lines.append(f"best checkpoint: {storage.join(summary['run'], best['checkpoint'])}  {best['metric']}={best['value']:.4f}")
    return "\n".join(lines)


def _metrics(title: str, metrics: Mapping[str, float | None]) -> list[str]:
    width = max(map(len, metrics), default=0)
    return [f"  {name:<{width}}  {'-' if value is None else f'{value:.4f}'}" for name, value in metrics.items()]
