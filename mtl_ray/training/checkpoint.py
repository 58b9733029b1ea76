"""Checkpoints of a run: their files, the newest whole one, pruning; and attempts: which process may
write them.

Torch is imported where tensors are: the driver of a run on Ray only looks for checkpoints.
"""

import dataclasses
import io
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from mtl_ray import artifact, storage
from mtl_ray.config.strict import STRICT
from mtl_ray.config.validate import read_record
from mtl_ray.inference.run_folder import (
    BEFORE_NUMBERS,
    Attempt,
    BestCheckpoint,
    CheckpointFolder,
    attempt_file,
    best_file,
    checkpoint_folder,
    checkpoint_folders,
    current_checkpoints,
    newest_attempt,
)

if TYPE_CHECKING:
    from torch import Tensor

KIND = "checkpoint"
MODEL_FILE, EMA_FILE = "model.safetensors", "ema.safetensors"
"""The weights of the method's model, if it has one, and their moving average, if there is one."""
METHOD_FILE = "method.safetensors"
"""All further weights of the method: projectors, momentum encoders, queues. Absent if there are
none."""
LOOK_EVERY_S = 5.0
"""Between two looks for a newer attempt."""
_log = logging.getLogger(__name__)


class StaleAttemptError(ValueError):
    """A newer attempt owns the run."""


def claim(
    run_uri: str, *, from_step: int, from_checkpoint: str | None, world_size: int, run_id: str
) -> Attempt:
    """Makes the next attempt, which then owns the run.

    Two claims at once get two numbers; ``run_id`` is that of the first.
    """
    while True:
        last = newest_attempt(run_uri)
        made = Attempt(
            attempt=1 if last is None else last.attempt + 1,
            from_step=from_step,
            from_checkpoint=from_checkpoint,
            world_size=world_size,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=time.time(),
            run_id=run_id if last is None else last.run_id,
            ends=_ends(last, from_step),
        )
        if storage.write_new(
            attempt_file(run_uri, made.attempt),
            json.dumps(dataclasses.asdict(made), indent=1).encode(),
        ):
            return made


def _ends(last: Attempt | None, from_step: int) -> dict[int, int]:
    """By earlier attempt the last step whose checkpoint counts: no attempt counts beyond the step
    where a later one started.
    """
    if last is None:
        return {BEFORE_NUMBERS: from_step}
    ends = {attempt: min(step, from_step) for attempt, step in last.ends.items()}
    return ends | {last.attempt: from_step} if from_step > last.from_step else ends


class Claim:
    """The right of a process to write into a run's folder, until there is a newer attempt."""

    def __init__(self, run_uri: str, attempt: int) -> None:
        self.attempt = attempt
        self._run_uri = run_uri
        self._looked_at = time.monotonic()

    def check(self) -> None:
        """Checks that this is still the newest attempt.

        Raises:
            StaleAttemptError: if it is not.
        """
        self._looked_at = time.monotonic()
        if storage.exists(attempt_file(self._run_uri, self.attempt + 1)):
            owner = newest_attempt(self._run_uri)
            who = (
                f"attempt {owner.attempt}, process {owner.pid} on {owner.host}"
                if owner
                else "another attempt"
            )
            raise StaleAttemptError(
                f"the run {self._run_uri} goes on elsewhere ({who}); attempt {self.attempt} ends "
                "here"
            )

    def check_sometimes(self) -> None:
        """``check`` at most every ``LOOK_EVERY_S``; if the storage cannot be reached, the next call
        tries again.

        Raises:
            StaleAttemptError: if this is not the newest attempt.
        """
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            try:
                self.check()
            except OSError:
                return


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainState:
    """The content of ``state.json``."""

    version: int = Field(default=1, ge=1, le=1)
    step: int
    """Optimizer steps done."""
    cursor: int
    """Samples consumed, over all ranks."""
    attempt: int
    """The number of the attempt that made it, from 1."""
    run_id: str
    """Of the trackers; a resumed run keeps it."""
    config_hash: str
    pins: dict[str, Any]
    """What the loader's order depends on: with other pins the cursor would mean other samples."""
    finished: bool
    """True for the last checkpoint of the run."""
    metrics: dict[str, float | None]
    """HEAD/METRIC, measured on these weights, and the training/NAME that the method watches; empty
    between evaluations, null for what has no value."""
    meter: dict[str, float]
    """Sums since the last logged step, so that a resumed run logs the same curve."""
    watched: dict[str, float] = Field(default_factory=dict)
    """Sums since the last evaluation, where the method watches a figure of training."""
    trained_s: float = 0.0
    """Seconds of training so far, where schedule.seconds bounds them."""
    closed_from: int | None = Field(default=None, exclude_if=lambda cursor: cursor is None)
    """The cursor of the first batch without mosaic, where the share of schedule.seconds ended it
    (data.close_mosaic)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """What a checkpoint holds besides ``state.json`` and texts.

    Attributes:
        tensors: by file (``MODEL_FILE``, ``EMA_FILE``, ``METHOD_FILE``) a state dict; files without
            weights are absent.
        training: what ``torch.save`` takes and ``weights_only=True`` reads back: ``optimizer``,
            ``scaler``, and ``method`` if the method has state besides its weights.
    """

    tensors: "Mapping[str, Mapping[str, Tensor]]"
    training: Mapping[str, Any]


def pack(content: Content, state: TrainState, texts: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a checkpoint but for its manifest; ``texts`` are further ones, such as
    config.yaml.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(content.training, buffer)
    files = {name: _tensors(tensors) for name, tensors in content.tensors.items()} | {
        "training.pt": buffer.getvalue()
    }
    files["state.json"] = json.dumps(
        TypeAdapter(TrainState).dump_python(state), allow_nan=False, indent=1
    ).encode()
    return files | {name: text.encode() for name, text in texts.items()}


def _tensors(tensors: "Mapping[str, Tensor]") -> bytes:
    import safetensors.torch

    return bytes(
        safetensors.torch.save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        )
    )


def publish_checkpoint(run_uri: str, state: TrainState, files: Mapping[str, bytes]) -> str:
    """Writes a checkpoint, checks that all its files are there with their sizes, and returns its
    URI.

    Raises:
        OSError: if not, or if they cannot be written; no part of it is then found as a checkpoint.
    """
    uri = checkpoint_folder(run_uri, state.step, state.attempt)
    artifact.publish(uri, files, kind=KIND)
    try:
        artifact.open_artifact(uri, kind=KIND)
    except ValueError as error:
        discard(uri)
        raise OSError(f"the storage does not hold what was written: {error}") from error
    return uri


def read_state(uri: str) -> TrainState:
    """The state of a checkpoint.

    Raises:
        ValueError: if the checkpoint is not whole, or of a newer version.
    """
    data = artifact.open_artifact(uri, kind=KIND).read("state.json")
    return read_record(data, TrainState, storage.join(uri, "state.json"))


def read_tensors(uri: str, name: str) -> "dict[str, Tensor]":
    """One of the weight files of a checkpoint.

    Raises:
        ValueError: if it is damaged.
    """
    from mtl_ray.models.imports import read_safetensors

    data = artifact.open_artifact(uri, kind=KIND).read(name)
    return read_safetensors(data, storage.join(uri, name))


def read_training(uri: str) -> Any:
    """``training.pt`` of a checkpoint, on the CPU.

    Raises:
        ValueError: if it is damaged.
    """
    import torch

    data = artifact.open_artifact(uri, kind=KIND).read("training.pt")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types on damaged data
        raise ValueError(f"{storage.join(uri, 'training.pt')} is damaged") from error


def steps(run_uri: str) -> list[int]:
    """Steps of the whole checkpoints that count, ascending."""
    return [place.step for place in current_checkpoints(run_uri)]


def newest(run_uri: str) -> str | None:
    """The newest whole checkpoint that counts: every byte of it is checked.

    None if there is none at all.

    Raises:
        ValueError: if there are checkpoints, but none is whole.
    """
    fault = ""
    for place in reversed(current_checkpoints(run_uri)):
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
            f"none of the checkpoints in {run_uri} is whole ({fault}); remove the folder to start "
            "over, or give the run another name"
        )
    return None


def prune(
    run_uri: str, keep: int, metric: str, claim: Claim, *, lower_is_better: bool = False
) -> None:
    """Writes best.json and removes all checkpoints but the newest ``keep`` and the best.

    Everything is found by listing, wherever an earlier attempt was killed. Until a run is finished
    at least two stay: an attempt that starts at this moment may have found the older one.

    Args:
        run_uri: the run.
        keep: how many of the newest stay.
        metric: HEAD/METRIC by which checkpoints are compared; of equal ones the earliest is the
            best.
        claim: of this process.
        lower_is_better: whether less of it is better.

    Raises:
        StaleAttemptError: if a newer attempt owns the run.
    """
    states = _states(run_uri)
    sign = -1 if lower_is_better else 1
    scored = [
        (sign * value, -place.step, place)
        for place, state in states.items()
        if (value := state.metrics.get(metric)) is not None
    ]
    top = max(scored)[2] if scored else None
    claim.check()
    if top is not None:
        best = BestCheckpoint(
            checkpoint=f"checkpoints/{top.uri.rpartition('/')[2]}",
            step=top.step,
            metric=metric,
            value=max(scored)[0] * sign,
            metrics=states[top].metrics,
        )
        content = json.dumps(dataclasses.asdict(best), indent=1, allow_nan=False)
        storage.write(best_file(run_uri), f"{content}\n".encode())
    last = max(states)
    kept = {*sorted(states)[-(keep if states[last].finished else max(2, keep)) :], top}
    for place in checkpoint_folders(run_uri):
        if place not in kept and place < last:
            discard(place.uri)


def _states(run_uri: str) -> dict[CheckpointFolder, TrainState]:
    """The states of the checkpoints that count and can be read."""
    states = {}
    for place in current_checkpoints(run_uri):
        try:
            states[place] = read_state(place.uri)
        except ValueError as error:
            _log.warning("checkpoint %s is passed over: %s", place.uri, error)
    return states


def discard(uri: str) -> None:
    """Removes a checkpoint, its manifest first, so that an interrupted removal leaves nothing that
    looks whole.
    """
    storage.remove(storage.join(uri, "MANIFEST.json"))
    storage.remove(uri)
