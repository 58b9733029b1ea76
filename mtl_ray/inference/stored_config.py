"""The files that describe a checkpoint or bundle: its network (``model.yaml``), its vocabulary and
its config; without torch.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.artifact import Artifact
from mtl_ray.config.document import parse_bytes
from mtl_ray.config.extend import extended, named_plugins, used_plugins
from mtl_ray.config.load import override_tree
from mtl_ray.config.strict import STRICT
from mtl_ray.config.tree import Node, find, merge, node_of
from mtl_ray.config.validate import read_record, readable, to_yaml, validate
from mtl_ray.experiment import ExperimentConfig, ModelConfig, experiment_type, read_experiment
from mtl_ray.inference.config import SlideConfig, TtaConfig
from mtl_ray.inputs.config import CanvasConfig
from mtl_ray.samples import Vocabulary
from mtl_ray.vocabulary import vocabulary_from_json

MODEL_FILE = "model.yaml"
CONFIG_FILE = "config.yaml"
VOCABULARY_FILE = "vocabulary.json"
OF_TRAINING = ("method", "schedule", "runtime")
"""Sections of a config that a trained network does not need."""
_log = logging.getLogger(__name__)
Section = TypeVar("Section")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InputConfig:
    """The input of a network."""

    canvas: CanvasConfig
    """How data is placed on the canvas."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NetworkConfig:
    """The content of ``model.yaml``: all that is needed to predict with a checkpoint's weights."""

    plugins: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    """Modules of its parts."""
    model: ModelConfig
    input: InputConfig
    vocabulary: str = VOCABULARY_FILE
    """The file of the checkpoint with the classes."""


def network_yaml(config: ExperimentConfig) -> str:
    """The ``model.yaml`` of a config."""
    parts = (config.model, config.data.canvas)
    kind, input_kind = (
        extended(NetworkConfig, config.plugins),
        extended(InputConfig, config.plugins),
    )
    plugins = used_plugins(parts, config.plugins)
    return to_yaml(
        kind(plugins=plugins, model=config.model, input=input_kind(canvas=config.data.canvas))
    )


def read_network(checkpoint: Artifact) -> NetworkConfig:
    """The network of a checkpoint: ``model.yaml``, or of an older checkpoint the same part of its
    ``config.yaml``.

    Raises:
        ValueError: naming file and line, if this version cannot read it, or the missing plugin.
    """
    if MODEL_FILE in checkpoint.names:
        tree = _tree(checkpoint, MODEL_FILE)
    else:
        whole = _tree(checkpoint, CONFIG_FILE)
        network = (
            _entry(whole, "plugins")
            | _entry(whole, "model")
            | {"input": Node(_entry(whole, "data", "canvas"), whole.origin)}
        )
        tree = Node(network, whole.origin)
    return validate(tree, extended(NetworkConfig, named_plugins(tree)), written=True)


def _entry(tree: Node, *path: str) -> dict[str, Node]:
    """The entry at a path under its last name; empty if there is none, which ``validate``
    reports.
    """
    node, there = find(tree, path)
    return {path[-1]: node} if there else {}


def _tree(checkpoint: Artifact, name: str) -> Node:
    return parse_bytes(checkpoint.read(name), storage.join(checkpoint.uri, name))


def prediction_batch(checkpoint: Artifact) -> int:
    """``evaluate.batch`` of its config, which costs memory but changes no result; 16 if it cannot
    be read.
    """
    default = 16
    if CONFIG_FILE not in checkpoint.names:
        return default
    node, there = find(_tree(checkpoint, CONFIG_FILE), ("evaluate", "batch"))
    return node.value if there and isinstance(node.value, int) and node.value > 0 else default


def stored_tta(checkpoint: Artifact) -> TtaConfig | None:
    """``evaluate.tta`` of the config of a checkpoint or bundle, if there is one.

    Raises:
        ValueError: naming file and line, if this version cannot read it.
    """
    return _stored(checkpoint, "tta", TtaConfig)


def stored_slide(checkpoint: Artifact) -> SlideConfig | None:
    """``evaluate.slide`` of the config of a checkpoint, if there is one.

    Raises:
        ValueError: naming file and line, if this version cannot read it.
    """
    return _stored(checkpoint, "slide", SlideConfig)


def _stored(checkpoint: Artifact, name: str, kind: type[Section]) -> Section | None:
    """A part of the section ``evaluate``."""
    if CONFIG_FILE not in checkpoint.names:
        return None
    node, there = find(_tree(checkpoint, CONFIG_FILE), ("evaluate", name))
    return validate(node, kind, written=True) if there and node.value is not None else None


class StoredConfig(NamedTuple):
    """The config of a checkpoint, and the values in its sections ``OF_TRAINING`` that this version
    cannot read, by path.
    """

    config: ExperimentConfig
    left_out: dict[str, Any]


def read_stored_config(checkpoint: Artifact, overrides: Sequence[str] = ()) -> StoredConfig:
    """The resolved config of a checkpoint or bundle, as far as this version can read it.

    Args:
        checkpoint: a checkpoint or a bundle.
        overrides: changes of the form ``section.key=value``, which must be valid.

    Raises:
        ValueError: naming file and line, if a section other than ``OF_TRAINING`` cannot be read, or
            the missing plugin.
    """
    whole, changes = _tree(checkpoint, CONFIG_FILE), override_tree(overrides)
    tree, left_out = readable(whole, experiment_type(merge(whole, changes)), OF_TRAINING)
    unnamed = node_of({"schedule": {}, "runtime": {"name": "unnamed"}}, tree.origin)
    tree = merge(merge(unnamed, tree), changes)
    return StoredConfig(read_experiment(tree, written=True), left_out)


def read_config(checkpoint: Artifact, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """``read_stored_config``; values that cannot be read are only logged."""
    config, left_out = read_stored_config(checkpoint, overrides)
    for path, value in left_out.items():
        _log.warning(
            "%s: this version does not know %s (%s); it is left out",
            storage.join(checkpoint.uri, CONFIG_FILE),
            path,
            value,
        )
    return config


def read_vocabulary(checkpoint: Artifact, name: str = VOCABULARY_FILE) -> Vocabulary:
    """The classes of a checkpoint, from its file ``name``.

    Raises:
        ValueError: if it is damaged.
    """
    uri = storage.join(checkpoint.uri, name)
    content = read_record(checkpoint.read(name), dict[str, Any], uri)
    try:
        return vocabulary_from_json(content)
    except ValueError as error:
        raise ValueError(f"{uri} is damaged: {error}") from error
