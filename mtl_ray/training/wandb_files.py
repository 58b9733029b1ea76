"""What W&B's own files in a run's folder hold.

A ``.wandb`` file is a log of LevelDB's format (seven bytes of head, then blocks of 32 KiB with records of CRC-32, length and type) of
protobuf messages. What a killed process had not written yet is missing at its end: up to a block, or all of a short run.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from mtl_ray import storage

_HEAD, _BLOCK = 7, 32768
_RECORD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class Held(NamedTuple):
    """What files hold of a run: the last step, 0 if there is none, and the URIs and aliases of its artifacts."""

    step: int
    artifacts: frozenset[tuple[str, str]]


def held_in(run_uri: str, run_id: str) -> Held:
    """What all W&B files in a run's folder hold together, whole or cut off.

    Args:
        run_uri: the run's folder.
        run_id: of the run with W&B.
    """
    step, artifacts = 0, set()
    for uri in wandb_files(run_uri, run_id):
        for record in records(storage.read(uri)):
            if record.HasField("history"):
                step = max(step, step_of(record.history))
            elif record.HasField("artifact"):
                where = json.loads(record.artifact.metadata or "{}").get("uri", "")
                artifacts |= {(where, alias) for alias in record.artifact.aliases}
    return Held(step, frozenset(artifacts))


def wandb_files(run_uri: str, run_id: str) -> list[str]:
    """The ``.wandb`` files in a run's folder, of all attempts, in the order in which they were begun."""
    found = storage.files(storage.join(run_uri, "wandb"))
    mine = (uri for uri in found if uri.endswith(f"/run-{run_id}.wandb") and "/latest-run/" not in uri)
    # run-20261120_114153-ID, and -1 after it for the second of that second
    return sorted(mine, key=lambda uri: uri.split("/")[-2].removeprefix("offline-"))


def step_of(history: Any) -> int:
    """The step of a history record."""
    return int(next(json.loads(item.value_json) for item in history.item if "_step" in (item.key, *item.nested_key)))


def records(data: bytes) -> Iterator[Any]:
    """The messages (``wandb_internal_pb2.Record``) of a file, up to where it is cut off."""
    from wandb.proto.wandb_internal_pb2 import Record

    for message in _messages(data):
        yield Record.FromString(message)


def _messages(data: bytes) -> Iterator[bytes]:
    place, parts = _HEAD, b""
    while place + _RECORD.size <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _RECORD.size:
            place += left
            continue
        _, length, kind = _RECORD.unpack_from(data, place)
        place += _RECORD.size
        if not _FULL <= kind <= _LAST or place + length > len(data):
            return
        parts = data[place : place + length] if kind in (_FULL, _FIRST) else parts + data[place : place + length]
        place += length
        if kind in (_FULL, _LAST):
            yield parts
