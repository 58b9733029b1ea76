"""Where a start of a run goes on: the same command again finds the newest whole checkpoint by itself."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.inference.stored_config import read_stored
from mtl_ray.shards.split import open_split
from mtl_ray.training import checkpoint
from mtl_ray.training.attempts import claim
from mtl_ray.training.checkpoint import State
from mtl_ray.training.identity import config_hash, differences, unknown_differences


def run_uri(config: ExperimentConfig) -> str:
    """The folder of a run: ``runtime.storage``/name, absolute."""
    return storage.join(storage.absolute(config.runtime.storage), config.runtime.name)


class Beginning(NamedTuple):
    """Where a run stands: the state to go on from, and the checkpoint that holds it (None at the very start)."""

    state: State
    checkpoint: str | None


def begin(config: ExperimentConfig) -> Beginning:
    """Looks where a run goes on: at its newest whole checkpoint, or at the very start.

    Raises:
        ValueError: if the run was begun with another config, or none of its checkpoints is whole.
    """
    uri = run_uri(config)
    config_id = config_hash(config)
    found = checkpoint.newest(uri)
    if found is None:
        return Beginning(_fresh(config_id), None)
    state = checkpoint.read_state(found)
    if changed := _changed(config, found, same_hash=state.config_hash == config_id):
        raise ValueError(
            f"the run {uri} was begun with another config: {', '.join(changed)}. Give this one another runtime.name, or remove that folder"
        )
    return Beginning(state, found)


def _changed(config: ExperimentConfig, found: str, *, same_hash: bool) -> list[str]:
    """What of a checkpoint's config differs from this one in what changes the weights: key, new value, old value.

    The hash alone does not decide. It differs where only the rule of the hash does, and it is equal where the default of an option has
    changed since. Entries that this version does not know count only if it differs: else they had no effect, or their defaults.
    """
    stored = read_stored(open_artifact(found, kind=checkpoint.KIND))
    return differences(config, stored.config) + ([] if same_hash else unknown_differences(stored.left_out))


def _fresh(config_id: str) -> State:
    return State(
        step=0, cursor=0, attempt=0, run_id=uuid.uuid4().hex[:8], config_hash=config_id, pins={}, finished=False, metrics={}, meter={}
    )


def take_over(config: ExperimentConfig, world_size: int) -> Beginning:
    """``begin``, and claims the next attempt, unless the run is finished.

    Raises:
        ValueError: as ``begin``.
    """
    uri = run_uri(config)
    found = begin(config)
    if found.state.finished:
        return found
    name = None if found.checkpoint is None else found.checkpoint.rpartition("/")[2]
    attempt = claim(uri, from_step=found.state.step, from_checkpoint=name, world_size=world_size, run_id=found.state.run_id)
    return Beginning(replace(found.state, attempt=attempt.attempt, run_id=attempt.run_id), found.checkpoint)


def check_pins(state: State, pins: Mapping[str, Any]) -> None:
    """Compares what the loader pins now with what the checkpoint pins.

    Raises:
        ValueError: if the cursor of the checkpoint would mean other samples.
    """
    now = json.loads(json.dumps(pins))
    if state.step and now != state.pins:
        changed = ", ".join(name for name in now if now[name] != state.pins.get(name))
        raise ValueError(f"the run was begun with other data ({changed} changed since): give this one another runtime.name")


def check_splits(config: ExperimentConfig) -> None:
    """Looks whether the splits are there, before anything is started that takes long.

    Raises:
        FileNotFoundError, ValueError: if one is not.
    """
    for split in (config.data.train, config.data.val):
        for uri in (split.uri,) if isinstance(split.uri, str) else split.uri:
            open_split(uri)
