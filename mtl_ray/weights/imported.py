"""What an import writes: a checkpoint of this project or a file of weights, and a report."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mtl_ray import artifact, storage
from mtl_ray.artifact import Artifact
from mtl_ray.config.validate import read_record, to_yaml
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.inference.stored_config import CONFIG_FILE, MODEL_FILE, VOCABULARY_FILE, network_yaml
from mtl_ray.training import checkpoint
from mtl_ray.training.checkpoint import Content, TrainState
from mtl_ray.training.identity import config_hash
from mtl_ray.vocabulary import vocabulary_to_json
from mtl_ray.weights.network import ImportedNetwork
from mtl_ray.weights.write import own_memory

SOURCES_FILE = "sources.json"
"""Of a checkpoint: by tensor the names of the other program's file that it was made of."""


def write_checkpoint(uri: str, network: ImportedNetwork) -> None:
    """Writes a network as a checkpoint of no training, which evaluation, export and serving open.

    Raises:
        ValueError: if there is one already.
    """
    state = TrainState(
        step=0,
        cursor=0,
        attempt=1,
        run_id="imported",
        config_hash=config_hash(network.config),
        pins={},
        finished=True,
        metrics={},
        meter={},
    )
    texts = {
        CONFIG_FILE: to_yaml(network.config),
        MODEL_FILE: network_yaml(network.config),
        VOCABULARY_FILE: json.dumps(vocabulary_to_json(network.vocabulary), indent=1),
        SOURCES_FILE: json.dumps(network.sources, indent=1),
    }
    tensors = {name: own_memory(value) for name, value in network.tensors.items()}
    content = Content(tensors={checkpoint.MODEL_FILE: tensors}, training={})
    files = checkpoint.pack(content, state, texts)
    if not artifact.publish(uri, files, kind=checkpoint.KIND):
        raise ValueError(f"there is a checkpoint at {uri} already. Fix: another OUT, or remove it")


def read_sources(opened: Artifact) -> Mapping[str, tuple[str, ...]]:
    """By tensor of an imported checkpoint the names in the file; nothing of other checkpoints."""
    if SOURCES_FILE not in opened.names:
        return {}
    uri = storage.join(opened.uri, SOURCES_FILE)
    return read_record(opened.read(SOURCES_FILE), dict[str, tuple[str, ...]], uri)


def check_alone(network: ImportedNetwork, config: ExperimentConfig) -> None:
    """Checks that the weights of a network are right without its config.

    Raises:
        ValueError: if they need another backbone than that of ``config``.
    """
    needed, own = asdict(network.config.model.backbone), asdict(config.model.backbone)
    differing = ", ".join(
        f"model.backbone.{name}={str(value).lower()}"
        for name, value in needed.items()
        if value != own[name]
    )
    if differing:
        raise ValueError(
            f"these weights need {differing}, which a file of weights does not say. Fix: set it in "
            "the config, or an OUT without an ending, which is a checkpoint"
        )


def import_report(network: ImportedNetwork) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "program": network.program,
        "tensors": len(network.tensors),
        "unused": list(network.unused),
        "random_classes": {name: list(names) for name, names in network.random.items()},
        "classes": {kind: list(names) for kind, names in network.vocabulary.classes.items()},
        "mean": list(network.config.model.mean),
        "std": list(network.config.model.std),
        "notes": list(network.notes),
    }


def write_import_report(uri: str, network: ImportedNetwork) -> None:
    """Writes ``import_report``."""
    storage.write(uri, (json.dumps(import_report(network), indent=1) + "\n").encode())


def to_text(network: ImportedNetwork, most: int = 12) -> str:
    """The report in words, with at most ``most`` names in each list."""
    lines = [
        f"a file of {network.program}: the network is filled, {len(network.tensors)} tensors",
        f"{len(network.unused)} without a place in the network" + (":" if network.unused else ""),
        *(f"  {name}" for name in network.unused[:most]),
    ]
    if len(network.unused) > most:
        lines.append(f"  ... and {len(network.unused) - most} more")
    for head, names in network.random.items():
        shown = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
        lines.append(f"{len(names)} classes of {head} are not in the file and random: {shown}")
    return "\n".join([*lines, *(f"note: {note}" for note in network.notes)])
