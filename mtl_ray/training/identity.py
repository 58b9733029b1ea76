"""Whether two starts are the same run: a hash over those config values that change the weights,
defaults left out.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mtl_ray import storage
from mtl_ray.config.validate import values_of
from mtl_ray.experiment import ExperimentConfig

SECTIONS = ("model", "method", "schedule", "data", "runtime")
"""The sections that the weights depend on."""
WITHOUT_EFFECT = {
    "data": ("val", "threads", "cache_mb", "max_bad"),
    # the loader's pins say whether the samples are the same, wherever they lie
    "data.train": ("uri",),
    "runtime": (
        *(
            "name",
            "storage",
            "workers",
            "grow_every_s",
            "device",
            "cpus_per_worker",
            "gpus_per_worker",
            "compile",
            "max_failures",
        ),
        *(
            "checkpoint_every_steps",
            "checkpoint_every_s",
            "keep",
            "save_patience_s",
            "log_every_steps",
            "ledger",
        ),
        *("wandb", "wandb_project", "wandb_group", "tensorboard"),
    ),
}
"""Keys of these sections that do not change the weights; a new key does, unless it is listed
here."""


def config_hash(config: ExperimentConfig) -> str:
    """16 hexadecimal digits: equal for configs that train to the same weights on the same data.

    Defaults do not enter it, so a new option with a default leaves the hashes of all older configs
    as they are.
    """
    return hashlib.sha256(
        json.dumps(_chosen(without_defaults(config), _uris(config)), sort_keys=True).encode()
    ).hexdigest()[:16]


def without_defaults(config: Any) -> Any:
    """A config as ``values_of`` gives it, without the entries that are defaults.

    A ``type`` stays: the others depend on it.
    """
    values = values_of(config)
    return _pruned(config, values)


def _pruned(config: Any, values: Any) -> Any:
    if isinstance(config, Mapping):
        return {str(key): _pruned(value, values[str(key)]) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [_pruned(*pair) for pair in zip(config, values, strict=True)]
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return values
    kept = [
        field.name
        for field in dataclasses.fields(config)
        if field.name == "type" or not _is_default(config, field.name)
    ]
    return {name: _pruned(getattr(config, name), values[name]) for name in kept if name in values}


def _is_default(config: Any, name: str) -> bool:
    field = type(config).__pydantic_fields__[name]
    return not field.is_required() and bool(
        getattr(config, name) == field.get_default(call_default_factory=True)
    )


def _uris(config: ExperimentConfig) -> frozenset[str]:
    """The keys that name files, which are compared as absolute paths."""
    return frozenset(
        {"runtime.load_from", *(f"model.backbone.{name}" for name in config.model.backbone.paths())}
    )


def _chosen(values: Mapping[str, Any], uris: frozenset[str]) -> dict[str, Any]:
    """What the weights depend on, of the values of a config or of a part of them."""
    return {
        section: _changing(values[section], section, uris)
        for section in SECTIONS
        if section in values
    }


def _changing(value: Any, path: str, uris: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        left_out = WITHOUT_EFFECT.get(path, ())
        return {
            key: _changing(entry, f"{path}.{key}", uris)
            for key, entry in value.items()
            if key not in left_out
        }
    return storage.absolute(value) if path in uris and value is not None else value


def differences(config: ExperimentConfig, other: ExperimentConfig) -> list[str]:
    """The values that change the weights and differ between two configs: ``section.key (this, was
    that)``.
    """
    return list(
        _differing(
            _chosen(values_of(config), _uris(config)), _chosen(values_of(other), _uris(other)), ""
        )
    )


def unknown_differences(left_out: Mapping[str, Any]) -> list[str]:
    """The same for entries of an older config that this version does not know, by path."""
    return [
        f"{path} (not known to this version, was {value})"
        for path, value in left_out.items()
        if _has_effect(path)
    ]


def _has_effect(path: str) -> bool:
    section, _, key = path.rpartition(".")
    return key not in WITHOUT_EFFECT.get(section, ())


def _differing(mine: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in {**mine, **theirs}:
            yield from _differing(mine.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    elif mine != theirs:
        yield f"{path} ({mine}, was {theirs})"
