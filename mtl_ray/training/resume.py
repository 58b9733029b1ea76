"""Where a run resumes (the same command finds the newest whole checkpoint by itself), and the
summary at its end.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.inference.run_folder import best_checkpoint
from mtl_ray.inference.stored_config import read_stored_config
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.optional import brief
from mtl_ray.training import checkpoint
from mtl_ray.training.checkpoint import TrainState, claim
from mtl_ray.training.identity import config_hash, differences, unknown_differences


def run_uri(config: ExperimentConfig) -> str:
    """The folder of a run: ``runtime.storage``/name, absolute."""
    return storage.join(storage.absolute(config.runtime.storage), config.runtime.name)


class ResumePoint(NamedTuple):
    """The state that a run resumes from, and the checkpoint that holds it (None at the very
    start).
    """

    state: TrainState
    checkpoint: str | None


def find_resume_point(config: ExperimentConfig) -> ResumePoint:
    """The newest whole checkpoint of a run, or the very start.

    Raises:
        ValueError: if the run was started with another config, or none of its checkpoints is whole.
    """
    uri = run_uri(config)
    config_id = config_hash(config)
    found = checkpoint.newest(uri)
    if found is None:
        return ResumePoint(_fresh(config_id), None)
    state = checkpoint.read_state(found)
    if changed := _changed(config, found, same_hash=state.config_hash == config_id):
        raise ValueError(
            f"the run {uri} was started with another config: {', '.join(changed)}. Fix: another "
            "runtime.name, or remove that folder"
        )
    return ResumePoint(state, found)


def _changed(config: ExperimentConfig, found: str, *, same_hash: bool) -> list[str]:
    """Where the configs differ in what changes the weights: key, new value, old value of the
    checkpoint.

    The hash alone does not decide: it also differs where a version hashes in another way, and it is
    equal where the default of an option has changed. Entries that this version does not know count
    only if the hash differs; else they were defaults or without effect.
    """
    stored = read_stored_config(open_artifact(found, kind=checkpoint.KIND))
    return differences(config, stored.config) + (
        [] if same_hash else unknown_differences(stored.left_out)
    )


def _fresh(config_id: str) -> TrainState:
    return TrainState(
        step=0,
        cursor=0,
        attempt=0,
        run_id=uuid.uuid4().hex[:8],
        config_hash=config_id,
        pins={},
        finished=False,
        metrics={},
        meter={},
    )


def resume_run(config: ExperimentConfig, world_size: int) -> ResumePoint:
    """``find_resume_point``, and claims the next attempt, unless the run is finished.

    Raises:
        ValueError: as ``find_resume_point``.
    """
    uri = run_uri(config)
    found = find_resume_point(config)
    if found.state.finished:
        return found
    name = None if found.checkpoint is None else found.checkpoint.rpartition("/")[2]
    attempt = claim(
        uri,
        from_step=found.state.step,
        from_checkpoint=name,
        world_size=world_size,
        run_id=found.state.run_id,
    )
    return ResumePoint(
        replace(found.state, attempt=attempt.attempt, run_id=attempt.run_id), found.checkpoint
    )


def check_pins(state: TrainState, pins: Mapping[str, Any]) -> None:
    """Compares the pins of the loader with those of the checkpoint.

    Raises:
        ValueError: if the cursor of the checkpoint would mean other samples.
    """
    now = json.loads(json.dumps(pins))
    if state.step and now != state.pins:
        changed = ", ".join(name for name in now if now[name] != state.pins.get(name))
        raise ValueError(
            f"the run was started with other data ({changed} changed since). Fix: another "
            "runtime.name"
        )


def check_splits(config: ExperimentConfig) -> None:
    """Checks that the splits are there, before anything slow is started.

    Raises:
        FileNotFoundError, ValueError: if one is not.
    """
    for split in (config.data.train, config.data.val):
        for uri in (split.uri,) if isinstance(split.uri, str) else split.uri:
            open_split(uri)


Summary = dict[str, Any]
"""``run`` (its URI), ``step``, ``finished``, ``metrics`` of the last evaluation, ``best``
(best.json, None if nothing was measured)."""


def summary_of(run_uri: str, state: TrainState) -> Summary:
    """The summary of a run that ended with a state."""
    best = best_checkpoint(run_uri)
    return {
        "run": run_uri,
        "step": state.step,
        "finished": state.finished,
        "metrics": state.metrics,
        "best": None if best is None else asdict(best),
    }


def summary_text(summary: Summary, config: ExperimentConfig) -> str:
    """The summary as lines to read."""
    done = "finished" if summary["finished"] else "stopped"
    lines = [f"{summary['run']}: {done} after {summary['step']} steps"]
    tasks = {name: head.task for name, head in config.model.heads.items()}
    names = brief(tasks, summary["metrics"])
    lines += _metrics({name: summary["metrics"][name] for name in names})
    if hidden := len(summary["metrics"]) - len(names):
        lines.append(f"  {hidden} more figures are in scalars.jsonl")
    best = summary["best"]
    if best is not None:
        lines.append(
            f"best checkpoint: {storage.join(summary['run'], best['checkpoint'])}  "
            f"{best['metric']}={_number(best['value'])}"
        )
    return "\n".join(lines)


def _metrics(metrics: Mapping[str, float | None]) -> list[str]:
    width = max(map(len, metrics), default=0)
    return [
        f"  {name:<{width}}  {'-' if value is None else _number(value)}"
        for name, value in metrics.items()
    ]


def _number(value: float) -> str:
    """Four decimals, or four digits where these would hide a small value or lengthen a large
    one.
    """
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"
