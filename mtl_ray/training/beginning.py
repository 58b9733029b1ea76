"""Where a start of a run goes on: the same command again finds the newest whole checkpoint by itself."""

import uuid
from dataclasses import replace

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.inference.checkpoint import read_config
from mtl_ray.training import checkpoint
from mtl_ray.training.checkpoint import State
from mtl_ray.training.identity import config_hash, data_hash, differences


def run_uri(config: ExperimentConfig) -> str:
    """The folder of a run: ``runtime.storage``/name, absolute."""
    return storage.join(storage.absolute(config.runtime.storage), config.runtime.name)


def begin(config: ExperimentConfig) -> State:
    """The state to start from: that of the newest whole checkpoint, or a fresh one.

    Raises:
        ValueError: if the run was begun with another config or other data, or none of its checkpoints is whole.
        FileNotFoundError: if a split is not there.
    """
    uri = run_uri(config)
    config_id, data_id = config_hash(config), data_hash(config)
    found = checkpoint.newest(uri)
    if found is None:
        return State(
            step=0,
            cursor=0,
            attempt=1,
            run_id=uuid.uuid4().hex[:8],
            config_hash=config_id,
            data_hash=data_id,
            finished=False,
            metrics={},
            meter={},
        )
    state = checkpoint.read_state(found)
    if state.config_hash != config_id:
        changed = ", ".join(differences(config, read_config(open_artifact(found, kind=checkpoint.KIND))))
        raise ValueError(
            f"the run {uri} was begun with another config: {changed}. Give this one another runtime.name, or remove that folder"
        )
    if state.data_hash != data_id:
        raise ValueError(
            f"the run {uri} was begun with other data: a split has changed; give this one another runtime.name, or remove that folder"
        )
    return replace(state, attempt=state.attempt + 1)
