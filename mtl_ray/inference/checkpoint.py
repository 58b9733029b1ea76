"""A checkpoint of a run as a predictor."""

from typing import Literal

import torch

from mtl_ray import storage
from mtl_ray.artifact import Artifact, open_artifact
from mtl_ray.experiment import build_model, predicting_heads
from mtl_ray.inference.config import SlideConfig
from mtl_ray.inference.run_folder import best_checkpoint, current_checkpoints
from mtl_ray.inference.stored_config import (
    NetworkConfig,
    prediction_batch,
    read_network,
    read_vocabulary,
    stored_slide,
)
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.models.imports import read_safetensors
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary


def open_checkpoint(
    uri: str,
    device: str = "cpu",
    batch: int | None = None,
    slide: SlideConfig | Literal["stored"] | None = "stored",
) -> TorchPredictor:
    """The network of a checkpoint as a predictor.

    Args:
        uri: of the checkpoint.
        device: of torch.
        batch: most samples of one call of the network; by default ``evaluate.batch`` of its config.
        slide: by default ``evaluate.slide`` of its config.

    Raises:
        ValueError: if there is no complete checkpoint at the URI, or its weights do not fit its
            config.
    """
    checkpoint = open_artifact(uri, kind="checkpoint")
    network = read_network(checkpoint)
    if not predicting_heads(network.model.heads):
        raise ValueError(
            f"the checkpoint {uri} has no head that predicts: it was trained by a method that "
            "learns without heads. Fix: train heads "
            f"on it with runtime.load_from={uri}"
        )
    vocabulary = read_vocabulary(checkpoint, network.vocabulary)
    model = load_model(checkpoint, network, vocabulary)
    batch = batch or prediction_batch(checkpoint)
    heads, canvas = network.model.heads, network.input.canvas
    return TorchPredictor(
        model,
        heads,
        vocabulary,
        canvas,
        device=device,
        batch=batch,
        plugins=network.plugins,
        slide=stored_slide(checkpoint) if slide == "stored" else slide,
    )


def load_model(checkpoint: Artifact, config: NetworkConfig, vocabulary: Vocabulary) -> Model:
    """The network with its averaged weights if there are some, else the plain ones; in evaluation
    mode, on the CPU.

    Raises:
        ValueError: if the weights are damaged or do not fit the network.
    """
    model = build_model(config.model.without_pretrained(), vocabulary, config.input.canvas)
    name = "ema.safetensors" if "ema.safetensors" in checkpoint.names else "model.safetensors"
    if name not in checkpoint.names:
        raise ValueError(
            f"the checkpoint {checkpoint.uri} has no {name}: the method that trained it exports no "
            "model"
        )
    weights = read_safetensors(checkpoint.read(name), storage.join(checkpoint.uri, name))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {checkpoint.uri} do not fit the network of its config: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error
    return model.eval()


def find_checkpoint(run_uri: str, which: Literal["best", "last"] = "best") -> str:
    """The URI of a checkpoint of a run: the best by the run's own metric (the last if nothing was
    measured), or the last.

    Only complete checkpoints that lead to the newest attempt are considered (see ``run_folder``).

    Raises:
        ValueError: if the run has no such checkpoint, or ``best.json`` is damaged.
    """
    uris = [folder.uri for folder in current_checkpoints(run_uri)]
    if not uris:
        raise ValueError(f"there is no whole checkpoint in {run_uri}")
    if which == "best":
        best = best_checkpoint(run_uri)
        if best is not None and (uri := storage.join(run_uri, best.checkpoint)) in uris:
            return uri
    return uris[-1]


def default_device() -> str:
    """A GPU if there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(name: str | None) -> str:
    """A device of torch by its name; None for the default.

    Raises:
        ValueError: if there is no such device here.
    """
    if name is None:
        return default_device()
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the second without CUDA in torch
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(f"torch cannot use the device {name!r} here: {reason}") from error
    return name
