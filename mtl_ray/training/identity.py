"""What makes two starts the same run: its config, but for what does not change the result."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from mtl_ray import storage
from mtl_ray.config.validate import values_of
from mtl_ray.experiment import ExperimentConfig

RESULT_KEYS = {
    "model": None,
    "schedule": None,
    "data": ("canvas", "augment", "batch", "lanes", "window", "max_pixels"),
    "runtime": ("seed", "deterministic", "precision", "sync_bn", "load_from", "best"),
}
"""The parts of a config that the weights depend on; None is all of a section."""
SPLIT_KEYS = ("repeat", "balanced", "weights")


def config_hash(config: ExperimentConfig) -> str:
    """16 hexadecimal digits: equal for configs that train to the same weights on the same data."""
    return hashlib.sha256(json.dumps(_chosen(config), sort_keys=True).encode()).hexdigest()[:16]


def _chosen(config: ExperimentConfig) -> dict[str, Any]:
    values = values_of(config)
    chosen: dict[str, Any] = {
        section: values[section] if keys is None else {key: values[section][key] for key in keys} for section, keys in RESULT_KEYS.items()
    }
    for part, key in ((chosen["model"]["backbone"], "weights"), (chosen["runtime"], "load_from")):
        part[key] = None if part[key] is None else storage.absolute(part[key])
    chosen["data"]["train"] = {key: values["data"]["train"][key] for key in SPLIT_KEYS}
    return chosen


def differences(config: ExperimentConfig, other: ExperimentConfig) -> list[str]:
    """What the results of two configs differ for: ``section.key (this, was that)``."""
    return list(_differing(_chosen(config), _chosen(other), ""))


def _differing(mine: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in {**mine, **theirs}:
            yield from _differing(mine.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    elif mine != theirs:
        yield f"{path} ({mine}, was {theirs})"
