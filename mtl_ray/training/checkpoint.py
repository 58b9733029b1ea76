"""Checkpoints of a run: what is in them, which is the newest whole one, which may go.

Torch is imported where tensors are: the driver of a run on Ray only looks for checkpoints.
"""

import io
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from mtl_ray import artifact, storage
from mtl_ray.config.strict import STRICT
from mtl_ray.inference.run_folder import Place, checkpoint_folder, line, places
from mtl_ray.training.attempts import Claim

if TYPE_CHECKING:
    from torch import Tensor

KIND = "checkpoint"
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
    """Which start of the run made it, from 1."""
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
    trained_s: float = 0.0
    """Seconds of training so far, where schedule.seconds bounds them."""


def pack(
    model: "Mapping[str, Tensor]", average: "Mapping[str, Tensor] | None", training: Any, state: State, texts: Mapping[str, str]
) -> dict[str, bytes]:
    """The files of a checkpoint but for its manifest.

    Args:
        model: state dict of the weights.
        average: state dict of their moving average, if there is one.
        training: what ``torch.save`` takes and ``weights_only=True`` reads back: the optimiser's and the scaler's state.
        state: see there.
        texts: further files, such as config.yaml.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(training, buffer)
    files = {"model.safetensors": _tensors(model), "training.pt": buffer.getvalue()}
    if average is not None:
        files["ema.safetensors"] = _tensors(average)
    files["state.json"] = json.dumps(TypeAdapter(State).dump_python(state), allow_nan=False, indent=1).encode()
    return files | {name: text.encode() for name, text in texts.items()}


def _tensors(tensors: "Mapping[str, Tensor]") -> bytes:
    import safetensors.torch

    return bytes(safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def publish(run_uri: str, state: State, files: Mapping[str, bytes]) -> str:
    """Makes a checkpoint discoverable. Returns its URI, where all its files were then seen with their sizes.

    Raises:
        OSError: if they were not, or could not be written; nothing can then be found.
    """
    uri = checkpoint_folder(run_uri, state.step, state.attempt)
    artifact.publish(uri, files, kind=KIND)
    try:
        artifact.open_artifact(uri, kind=KIND)
    except ValueError as error:
        discard(uri)
        raise OSError(f"the storage does not hold what was written: {error}") from error
    return uri


def read_state(uri: str) -> State:
    """The state of a checkpoint.

    Raises:
        ValueError: if it is not whole, or of a newer version.
    """
    return TypeAdapter(State).validate_json(artifact.open_artifact(uri, kind=KIND).read("state.json"))


def read_tensors(uri: str, name: str) -> "dict[str, Tensor]":
    """One of the weight files of a checkpoint: model.safetensors or ema.safetensors."""
    import safetensors.torch

    return dict(safetensors.torch.load(artifact.open_artifact(uri, kind=KIND).read(name)))


def read_training(uri: str) -> Any:
    """``training.pt`` of a checkpoint, on the CPU."""
    import torch

    return torch.load(io.BytesIO(artifact.open_artifact(uri, kind=KIND).read("training.pt")), map_location="cpu", weights_only=True)


def steps(run_uri: str) -> list[int]:
    """Steps of the whole checkpoints that count, ascending."""
    return [place.step for place in line(run_uri)]


def newest(run_uri: str) -> str | None:
    """The newest whole checkpoint that counts: every byte of it is checked. None if there is none at all.

    Raises:
        ValueError: if there are checkpoints, but none is whole.
    """
    fault = ""
    for place in reversed(line(run_uri)):
        try:
            opened = artifact.open_artifact(place.uri, kind=KIND)
            for name in opened.names:
                opened.read(name)
        except ValueError as error:
            fault = str(error)
            _log.warning("checkpoint %s is passed over: %s", place.uri, fault)
        else:
            return place.uri
    if fault:
        raise ValueError(
            f"none of the checkpoints in {run_uri} is whole ({fault}); remove the folder to begin anew, or give the run another name"
        )
    return None


def settle(run_uri: str, keep: int, metric: str, claim: Claim, *, lower_is_better: bool = False) -> None:
    """Writes best.json and removes all checkpoints but the newest ``keep`` and the best.

    Everything is found by listing, so it does not matter where an earlier attempt was killed. While a run goes on two stay at
    least: an attempt that begins at this moment may have found the one before.

    Args:
        run_uri: the run.
        keep: how many of the newest stay.
        metric: HEAD/METRIC by which checkpoints are compared; of equal ones the earliest is the best.
        claim: of this process.
        lower_is_better: whether less of it is better.

    Raises:
        StaleAttemptError: if a newer attempt owns the run.
    """
    states = _states(run_uri)
    sign = -1 if lower_is_better else 1
    scored = [(sign * value, -place.step, place) for place, state in states.items() if (value := state.metrics.get(metric)) is not None]
    top = max(scored)[2] if scored else None
    claim.check()
    if top is not None:
        content = {
            "checkpoint": f"checkpoints/{top.uri.rpartition('/')[2]}",
            "step": top.step,
            "metric": metric,
            "value": states[top].metrics[metric],
            "metrics": states[top].metrics,
        }
        storage.write(storage.join(run_uri, "best.json"), (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    last = max(states)
    kept = {*sorted(states)[-(keep if states[last].finished else max(2, keep)) :], top}
    for place in places(run_uri):
        if place not in kept and place < last:
            discard(place.uri)


def _states(run_uri: str) -> dict[Place, State]:
    """Of the checkpoints that count and can be read."""
    states = {}
    for place in line(run_uri):
        try:
            states[place] = read_state(place.uri)
        except ValueError as error:
            _log.warning("checkpoint %s is passed over: %s", place.uri, error)
    return states


def discard(uri: str) -> None:
    """Removes a checkpoint, its manifest first: a removal that is cut off leaves nothing that looks whole."""
    storage.remove(storage.join(uri, "MANIFEST.json"))
    storage.remove(uri)
