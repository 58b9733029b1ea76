"""What lies in a run's folder: its attempts, and the checkpoints on the line that leads to the
newest of them.

Every start of a run claims the next number under ``attempts/`` before it trains, and says from
which step it goes on. A checkpoint of step s by attempt a is on the line if every later attempt
began at s or after it: had one begun before, it would have left that checkpoint behind. So whatever
a process of an older attempt publishes late is never found, at whatever moment it wakes up, and no
lock is needed.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST

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
        from_step, from_checkpoint: where it goes on: the steps done, and the name of the
            checkpoint's folder; 0 and None at the start.
        world_size: of its group of workers.
        host, pid: of its rank 0.
        started: seconds since 1970.
        run_id: of the trackers, the same for all attempts.
        ends: the last step that counts of each earlier attempt, by number; of those that are absent
            nothing counts.
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


class CheckpointFolder(NamedTuple):
    """A checkpoint's folder in ``checkpoints/``; they sort by step."""

    step: int
    attempt: int
    uri: str


def checkpoint_folder(run_uri: str, step: int, attempt: int) -> str:
    """Where the checkpoint after ``step`` steps of an attempt lies."""
    return storage.join(run_uri, "checkpoints", f"step-{step:08d}" + (f"-a{attempt:04d}" if attempt != BEFORE_NUMBERS else ""))


def attempt_file(run_uri: str, attempt: int) -> str:
    """Where an attempt is written down."""
    return storage.join(run_uri, "attempts", f"{attempt:08d}.json")


def newest_attempt(run_uri: str) -> Attempt | None:
    """The attempt that owns a run; None if there was none yet."""
    found = [int(name.removesuffix(".json")) for name in storage.names(storage.join(run_uri, "attempts")) if _ATTEMPT.fullmatch(name)]
    if not found:
        return None
    content = json.loads(storage.read(attempt_file(run_uri, max(found))))
    return Attempt(**{**content, "ends": {int(attempt): step for attempt, step in content["ends"].items()}})


def checkpoint_folders(run_uri: str) -> list[CheckpointFolder]:
    """All folders of checkpoints, whole or not, on the line or not, by step."""
    base = storage.join(run_uri, "checkpoints")
    names = {name: match for name in storage.names(base) if (match := _FOLDER.fullmatch(name))}
    return sorted(
        CheckpointFolder(int(match[1]), int(match[2] or BEFORE_NUMBERS), storage.join(base, name)) for name, match in names.items()
    )


def is_current(place: CheckpointFolder, owner: Attempt | None) -> bool:
    """True if a checkpoint leads to the attempt that owns the run, or was made by it."""
    if owner is None:
        return place.attempt == BEFORE_NUMBERS
    return place.attempt == owner.attempt or place.step <= owner.ends.get(place.attempt, -1)


def is_whole(place: CheckpointFolder) -> bool:
    """True if a folder has a manifest, which is written last."""
    return storage.exists(storage.join(place.uri, MANIFEST))


def current_checkpoints(run_uri: str) -> list[CheckpointFolder]:
    """The whole checkpoints that count, by step."""
    owner = newest_attempt(run_uri)
    return [place for place in checkpoint_folders(run_uri) if is_current(place, owner) and is_whole(place)]
