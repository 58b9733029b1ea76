"""Checkpoints of a run: what is in them, which is the newest whole one, which may go."""

import io
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor

from mtl_ray import artifact, storage
from mtl_ray.config.strict import STRICT

KIND = "checkpoint"
_FOLDER = re.compile(r"step-(\d{8,})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class State:
    """The content of ``state.json``."""

    version: int = Field(default=1, ge=1, le=1)
    step: int
    """Optimiser steps done."""
    cursor: int
    """Samples consumed, over all ranks."""
    attempt: int
    """Which start of the run made it, from 1; a start that was cut off before its first checkpoint is not counted."""
    run_id: str
    """Of the trackers; a resumed run keeps it."""
    config_hash: str
    pins: dict[str, Any]
    """What the cursor means, as the loader says it: with other pins it would mean other samples."""
    finished: bool
    """True for the last checkpoint of the run."""
    metrics: dict[str, float | None]
    """HEAD/METRIC, measured on these weights; empty if nothing was measured at this step, null for what has no value."""
    meter: dict[str, float]
    """Sums since the last logged step, so that a resumed run logs the same curve."""


def folder(run_uri: str, step: int) -> str:
    """Where the checkpoint after ``step`` steps lies."""
    return storage.join(run_uri, "checkpoints", f"step-{step:08d}")


def pack(
    model: Mapping[str, Tensor], average: Mapping[str, Tensor] | None, training: Any, state: State, texts: Mapping[str, str]
) -> dict[str, bytes]:
    """The files of a checkpoint but for its manifest.

    Args:
        model: state dict of the weights.
        average: state dict of their moving average, if there is one.
        training: what ``torch.save`` takes and ``weights_only=True`` reads back: the optimiser's and the scaler's state.
        state: see there.
        texts: further files, such as config.yaml.
    """
    buffer = io.BytesIO()
    torch.save(training, buffer)
    files = {"model.safetensors": _tensors(model), "training.pt": buffer.getvalue()}
    if average is not None:
        files["ema.safetensors"] = _tensors(average)
    files["state.json"] = json.dumps(TypeAdapter(State).dump_python(state), allow_nan=False, indent=1).encode()
    return files | {name: text.encode() for name, text in texts.items()}


def _tensors(tensors: Mapping[str, Tensor]) -> bytes:
    return bytes(safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def publish(run_uri: str, step: int, files: Mapping[str, bytes]) -> str:
    """Makes a checkpoint discoverable; what a killed attempt left in its place is removed first. Returns its URI."""
    uri = folder(run_uri, step)
    if not storage.exists(storage.join(uri, "MANIFEST.json")):
        storage.remove(uri)
        artifact.publish(uri, files, kind=KIND)
    return uri


def read_state(uri: str) -> State:
    """The state of a checkpoint.

    Raises:
        ValueError: if it is not whole, or of a newer version.
    """
    return TypeAdapter(State).validate_json(artifact.open_artifact(uri, kind=KIND).read("state.json"))


def read_tensors(uri: str, name: str) -> dict[str, Tensor]:
    """One of the weight files of a checkpoint: model.safetensors or ema.safetensors."""
    return dict(safetensors.torch.load(artifact.open_artifact(uri, kind=KIND).read(name)))


def read_training(uri: str) -> Any:
    """``training.pt`` of a checkpoint, on the CPU."""
    return torch.load(io.BytesIO(artifact.open_artifact(uri, kind=KIND).read("training.pt")), map_location="cpu", weights_only=True)


def steps(run_uri: str) -> list[int]:
    """Steps of all checkpoints that have a manifest, ascending."""
    base = storage.join(run_uri, "checkpoints")
    found = [int(match[1]) for name in storage.names(base) if (match := _FOLDER.fullmatch(name))]
    return sorted(step for step in found if storage.exists(storage.join(folder(run_uri, step), "MANIFEST.json")))


def newest(run_uri: str) -> str | None:
    """The newest whole checkpoint of a run: every byte of it is checked. None if there is none at all.

    Raises:
        ValueError: if there are checkpoints, but none is whole.
    """
    fault = ""
    for step in reversed(steps(run_uri)):
        uri = folder(run_uri, step)
        try:
            opened = artifact.open_artifact(uri, kind=KIND)
            for name in opened.names:
                opened.read(name)
        except ValueError as error:
            fault = str(error)
            _log.warning("checkpoint %s is passed over: %s", uri, fault)
        else:
            return uri
    if fault:
        raise ValueError(
            f"none of the checkpoints in {run_uri} is whole ({fault}); remove the folder to begin anew, or give the run another name"
        )
    return None


def settle(run_uri: str, keep: int, metric: str) -> None:
    """Writes best.json and removes all checkpoints but the newest ``keep`` and the best.

    Everything is found by listing, so it does not matter where an earlier attempt was killed.
    """
    states = {step: read_state(folder(run_uri, step)) for step in steps(run_uri)}
    scored = [(value, -step) for step, state in states.items() if (value := state.metrics.get(metric)) is not None]
    top = -max(scored)[1] if scored else None
    if top is not None:
        content = {
            "checkpoint": f"checkpoints/step-{top:08d}",
            "step": top,
            "metric": metric,
            "value": states[top].metrics[metric],
            "metrics": states[top].metrics,
        }
        storage.write(storage.join(run_uri, "best.json"), (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    for step in sorted(states)[:-keep]:
        if step != top:
            discard(folder(run_uri, step))


def discard(uri: str) -> None:
    """Removes a checkpoint, its manifest first: a removal that is cut off leaves nothing that looks whole."""
    storage.remove(storage.join(uri, "MANIFEST.json"))
    storage.remove(uri)
