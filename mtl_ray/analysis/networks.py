"""A network to be looked at, by its address: a config, whatever was made from one, or a function
that builds one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.experiment import ExperimentConfig, build_model, load_experiment, predicting_heads
from mtl_ray.inference.checkpoint import find_checkpoint
from mtl_ray.inference.predictor import artifact_kind
from mtl_ray.inference.signature import read_signature
from mtl_ray.inference.stored_config import read_config, read_vocabulary
from mtl_ray.inputs.input import AnyCanvas, empty_batch
from mtl_ray.loading.join import join_vocabularies
from mtl_ray.models.head import Head, unsuppressed
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.head_classes import numbered_vocabulary


@dataclass(frozen=True, kw_only=True)
class Network:
    """Something that can be counted.

    Attributes:
        model: with random weights, in evaluation mode, on the CPU.
        run: takes a model and a batch of inputs and carries out all but the suppression of boxes,
            which depends on their values.
        shape: of one input, where the target has one of its own.
        images: whether it takes images of bytes; else floats of any shape.
        canvas: of the target, where it has one.
    """

    model: nn.Module
    run: Callable[[nn.Module, Tensor], object]
    shape: tuple[int, ...] | None
    images: bool
    canvas: AnyCanvas | None = None


def open_network(target: str, *, classes: int | None = None, auxiliary: bool = False) -> Network:
    """The network at an address.

    Args:
        target: a config (.yaml), a run folder, a checkpoint, a bundle, or ``MODULE:FUNCTION`` of
            what returns a torch module.
        classes: how many there are, for a config whose split is not at hand.
        auxiliary: with the heads that are there for training alone.

    Raises:
        ValueError, FileNotFoundError: if there is nothing of the kind.
    """
    module, colon, function = target.partition(":")
    if colon and function.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return Network(
            model=_imported(module, function).eval(),
            run=lambda model, batch: model(batch),
            shape=None,
            images=False,
        )
    config, vocabulary = open_config(target, classes)
    model = build_model(config.model.without_pretrained(), vocabulary, config.data.canvas).eval()
    if not auxiliary:
        kept = predicting_heads(config.model.heads)
        model.heads = nn.ModuleDict(
            {name: head for name, head in model.heads.items() if name in kept}
        )
    canvas: AnyCanvas = config.data.canvas
    spec = canvas.input.arrays(canvas)[model.trunk.input]
    return Network(
        model=model,
        run=partial(_run, canvas),
        shape=spec.shape,
        images=spec.dtype == np.uint8,
        canvas=canvas,
    )


def open_config(target: str, classes: int | None = None) -> tuple[ExperimentConfig, Vocabulary]:
    """The config at an address and what its heads learn; arguments as for ``open_network``."""
    config, vocabulary = _stored(target)
    if vocabulary is None:
        vocabulary = (
            _vocabulary(config)
            if classes is None
            else numbered_vocabulary(config.model.heads.values(), classes)
        )
    return config, vocabulary


def config_at(target: str) -> ExperimentConfig:
    """The config at an address: a .yaml file, or what lies in a run folder, a checkpoint or a
    bundle.
    """
    return _stored(target)[0]


def _stored(target: str) -> tuple[ExperimentConfig, Vocabulary | None]:
    if target.endswith((".yaml", ".yml")):
        return load_experiment(target), None
    kind = artifact_kind(target)
    if kind == "bundle":
        bundle = open_artifact(target, kind="bundle")
        return read_config(bundle), read_signature(bundle.read("signature.json")).vocabulary
    if kind is None and not storage.exists(target):
        raise FileNotFoundError(f"there is nothing at {target}")
    checkpoint = open_artifact(target if kind else find_checkpoint(target), kind="checkpoint")
    return read_config(checkpoint), read_vocabulary(checkpoint)


def _imported(module: str, function: str) -> nn.Module:
    try:
        made = getattr(import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{module}:{function} cannot be imported: {error}") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"{module}:{function} gives a {type(made).__name__}, not a torch module")
    return made


def _vocabulary(config: ExperimentConfig) -> Vocabulary:
    uris = (
        (config.data.train.uri,)
        if isinstance(config.data.train.uri, str)
        else config.data.train.uri
    )
    try:
        return join_vocabularies([open_split(each).vocabulary for each in uris], uris)[0]
    except ValueError as error:
        raise ValueError(
            "the classes are known from the split, or say how many there are with --classes: "
            f"{error}"
        ) from error


def _run(canvas: AnyCanvas, model: nn.Module, batch: Tensor) -> object:
    """``batch`` is what the trunk reads; the other arrays of the input are those of empty
    samples.
    """
    assert isinstance(model, Model)
    arrays = empty_batch(canvas, len(batch))
    inputs = {name: torch.from_numpy(values).to(batch.device) for name, values in arrays.items()}
    return run_arrays(model, inputs | {model.trunk.input: batch})


def run_arrays(model: nn.Module, inputs: Mapping[str, Tensor]) -> object:
    """Carries out all but the suppression of boxes on the arrays of an input."""
    assert isinstance(model, Model)
    features, context = model.prepare(inputs)
    return [unsuppressed(cast(Head, head), features, context) for head in model.heads.values()]
