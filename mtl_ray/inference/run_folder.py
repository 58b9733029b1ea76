"""The content of a run's folder: its attempts, and the current checkpoints, which lead to the
newest attempt.

Every start of a run claims the next number under ``attempts/`` before it trains, and records the
step from which it continues. A checkpoint of step s by attempt a is current if every later attempt
started at step s or later. So a checkpoint that a process of an older attempt publishes late is
never used, and no lock is needed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST
from mtl_ray.config.validate import read_record

BEFORE_NUMBERS = 0
"""The attempt of checkpoints whose folder does not name one, as they were written before attempts
had numbers.
"""
_FOLDER = re.compile(r"step-(\d{8,})(?:-a(\d{4,}))?")
_ATTEMPT = re.compile(r"\d{8,}\.json")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The content of ``attempts/00000007.json``.

    Attributes:
        attempt: its number, from 1.
        from_step, from_checkpoint: where it continues: the steps done, and the name of the
            checkpoint's folder; 0 and None at the start.
        world_size: of its group of workers.
        host, pid: of its rank 0.
        started: seconds since 1970.
        run_id: of the trackers, the same for all attempts.
        ends: the last step of each earlier attempt that counts, by number; attempts that are absent
            do not count.
    """

    attempt: int
    from_step: int
    from_checkpoint: str | None
    world_size: int
    host: str
    pid: int
    started: float
    run_id: str
    ends: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BestCheckpoint:
    """The content of ``best.json``.

    Attributes:
        checkpoint: its folder, relative to the run.
        step: the steps done.
        metric, value: HEAD/METRIC by which it was chosen, and its value.
        metrics: all values of its evaluation; None for what has no value.
    """

    checkpoint: str
    step: int
    metric: str
    value: float
    metrics: Mapping[str, float | None]


class CheckpointFolder(NamedTuple):
    """A checkpoint's folder in ``checkpoints/``; they sort by step."""

    step: int
    attempt: int
    uri: str


def checkpoint_folder(run_uri: str, step: int, attempt: int) -> str:
    """The folder of the checkpoint after ``step`` steps of an attempt."""
    return storage.join(
        run_uri,
        "checkpoints",
        f"step-{step:08d}" + (f"-a{attempt:04d}" if attempt != BEFORE_NUMBERS else ""),
    )


def attempt_file(run_uri: str, attempt: int) -> str:
    """The file of an attempt."""
    return storage.join(run_uri, "attempts", f"{attempt:08d}.json")


def newest_attempt(run_uri: str) -> Attempt | None:
    """The attempt that owns a run; None before the first one.

    Raises:
        ValueError: if its file is damaged.
    """
    found = [
        int(name.removesuffix(".json"))
        for name in storage.names(storage.join(run_uri, "attempts"))
        if _ATTEMPT.fullmatch(name)
    ]
    if not found:
        return None
    uri = attempt_file(run_uri, max(found))
    return read_record(storage.read(uri), Attempt, uri)


def best_file(run_uri: str) -> str:
    """The file that names the best checkpoint of a run."""
    return storage.join(run_uri, "best.json")


def best_checkpoint(run_uri: str) -> BestCheckpoint | None:
    """What ``best.json`` says; None if nothing was measured.

    Raises:
        ValueError: if it is damaged.
    """
    uri = best_file(run_uri)
    try:
        return read_record(storage.read(uri), BestCheckpoint, uri)
    except FileNotFoundError:
        return None


def checkpoint_folders(run_uri: str) -> list[CheckpointFolder]:
    """All folders of checkpoints by step, complete or not, current or not."""
    base = storage.join(run_uri, "checkpoints")
    names = {name: match for name in storage.names(base) if (match := _FOLDER.fullmatch(name))}
    return sorted(
        CheckpointFolder(int(match[1]), int(match[2] or BEFORE_NUMBERS), storage.join(base, name))
        for name, match in names.items()
    )


def is_current(folder: CheckpointFolder, owner: Attempt | None) -> bool:
    """True if a checkpoint leads to the attempt that owns the run, or was written by it."""
    if owner is None:
        return folder.attempt == BEFORE_NUMBERS
    return folder.attempt == owner.attempt or folder.step <= owner.ends.get(folder.attempt, -1)


def is_whole(folder: CheckpointFolder) -> bool:
    """True if a folder is complete: it has a manifest, which is written last."""
    return storage.exists(storage.join(folder.uri, MANIFEST))


def current_checkpoints(run_uri: str) -> list[CheckpointFolder]:
    """The complete checkpoints that lead to the newest attempt, by step."""
    owner = newest_attempt(run_uri)
    return [
        folder
        for folder in checkpoint_folders(run_uri)
        if is_current(folder, owner) and is_whole(folder)
    ]
