"""The models to compare weights with: of a config, a checkpoint or timm."""

from collections.abc import Mapping

import timm
import torch
from torch import Tensor

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.experiment import ExperimentConfig, build_model, load_experiment
from mtl_ray.inference.checkpoint import find_checkpoint, load_model
from mtl_ray.inference.stored_config import read_network, read_vocabulary
from mtl_ray.loading.join import join_vocabularies
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.head_classes import numbered_vocabulary


def model_state(target: str, classes: int | None = None) -> Mapping[str, Tensor]:
    """The state dict of a model.

    Args:
        target: a config (.yaml), a run or checkpoint of this project, or the name of a model of
            timm (its backbone, as this project builds it).
        classes: number of classes of every head of a config; by default those of its data.

    Raises:
        ValueError: if it is none of these, or the model cannot be built.
    """
    if target.endswith((".yaml", ".yml")):
        return model_of(load_experiment(target), classes).state_dict()
    if storage.exists(storage.join(target, "checkpoints")):
        target = find_checkpoint(target)
    if storage.exists(storage.join(target, "MANIFEST.json")):
        opened = open_artifact(target, kind="checkpoint")
        return load_model(opened, read_network(opened), read_vocabulary(opened)).state_dict()
    if target in timm.list_models():
        return dict(features_of(target).state_dict())
    raise ValueError(
        f"{target} is neither a config (.yaml), a run or checkpoint of this project, nor a model "
        "of timm"
    )


def model_of(config: ExperimentConfig, classes: int | None = None) -> Model:
    """The network of a config with random weights.

    Raises:
        ValueError: if neither the data nor ``classes`` gives the number of classes.
    """
    model, own = config.model.without_pretrained(), config.model.heads.values()
    return build_model(
        model,
        numbered_vocabulary(own, classes) if classes is not None else _vocabulary(config),
        config.data.canvas,
    ).eval()


def features_of(name: str, options: Mapping[str, object] | None = None) -> torch.nn.Module:
    """The backbone that this project builds from a model of timm, on the device ``meta``.

    Raises:
        ValueError: if timm cannot build one.
    """
    try:
        with torch.device("meta"):
            net: torch.nn.Module = timm.create_model(name, features_only=True, **(options or {}))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"timm cannot build a backbone from {name!r}: {error}") from error
    return net


def data_vocabulary(config: ExperimentConfig) -> Vocabulary | None:
    """The classes of the data of a config; None if the data is not there."""
    uri = config.data.train.uri
    uris = [uri] if isinstance(uri, str) else list(uri)
    if not any(storage.exists(each) for each in uris):
        return None
    return join_vocabularies([open_split(each).vocabulary for each in uris], uris)[0]


def _vocabulary(config: ExperimentConfig) -> Vocabulary:
    uri = config.data.train.uri
    uris = [uri] if isinstance(uri, str) else list(uri)
    try:
        return join_vocabularies([open_split(each).vocabulary for each in uris], uris)[0]
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"the number of classes is unknown without the data of the config ({error}): give "
            "--classes N"
        ) from error
