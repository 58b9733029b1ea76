"""``runtime.load_from``: weights to start from, of whatever fits."""

import logging
from collections.abc import Mapping

import safetensors.torch
from torch import Tensor, nn

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.inference.checkpoint import find_checkpoint
from mtl_ray.models.backbone import read_state

_log = logging.getLogger(__name__)


def load_from(model: nn.Module, uri: str) -> None:
    """Fills a model from a checkpoint, a run (its best checkpoint) or a weight file; what does not fit is said in the log.

    Raises:
        ValueError: if nothing fits, or there is no whole checkpoint.
        FileNotFoundError: if there is nothing at the URI.
    """
    found, own = _weights(uri), model.state_dict()
    fitting = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise ValueError(
            f"runtime.load_from={uri}: none of its {len(found)} entries fits this model (an entry: {next(iter(found), 'none')})"
        )
    model.load_state_dict(fitting, strict=False)
    for name in own.keys() - fitting.keys():
        shape = f"is {tuple(found[name].shape)} there and {tuple(own[name].shape)} here" if name in found else "is not there"
        _log.warning("load_from: %s %s; it starts from random weights", name, shape)
    if left := [name for name in found if name not in own]:
        _log.warning("load_from: %d entries are not used: %s", len(left), ", ".join(left[:5]) + (", ..." if len(left) > 5 else ""))


def _weights(uri: str) -> Mapping[str, Tensor]:
    """The weights at a URI; where a checkpoint has averaged ones, those."""
    if uri.endswith((".safetensors", ".pt", ".pth")):
        return read_state(uri)
    if not storage.exists(uri):
        raise FileNotFoundError(f"runtime.load_from={uri}: there is nothing there")
    if storage.exists(storage.join(uri, "checkpoints")):
        uri = find_checkpoint(uri)
    opened = open_artifact(uri, kind="checkpoint")
    averaged = "ema.safetensors" in opened.names
    return dict(safetensors.torch.load(opened.read("ema.safetensors" if averaged else "model.safetensors")))
