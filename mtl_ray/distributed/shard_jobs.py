"""The shards of a conversion, made one by one: each leaves a note, so that a conversion that was killed goes on where it was."""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any

from mtl_ray import storage
from mtl_ray.samples import Sample
from mtl_ray.shards.manifest import Encoding, ShardEntry
from mtl_ray.shards.write import write_shard
from mtl_ray.sources.source import SkippedItem, Source

_NOTE = ".part.json"
_VERSION = 2
"""Of the notes."""
_AT_A_TIME = 16
"""Images that are fetched from a bucket at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One shard to be made.

    Attributes:
        uri: the folder of the split.
        name: of the shard, without suffix.
        encoding: of the shard.
        source: its samples, in their order.
        remote: whether they lie in a bucket, which answers each request only after a while.
        job: what this conversion is; a note of another one is not believed.
    """

    uri: str
    name: str
    encoding: Encoding
    source: Source
    remote: bool
    job: str


@dataclass(slots=True)
class Written:
    """A shard that was made (None if none of its samples can be read), what was left out, and how many samples are annotated."""

    entry: ShardEntry | None
    skipped: list[SkippedItem]
    annotated: int


def write_part(part: Part) -> Written:
    """Makes a shard, unless its note says that it is there."""
    note = storage.join(part.uri, part.name + _NOTE)
    if (found := _read_note(note, part)) is not None:
        return found
    written = Written(None, [], 0)
    keypoints, layout = part.source.vocabulary.keypoints, part.source.layout
    entry = write_shard(part.uri, part.name, _samples(part, written), encoding=part.encoding, keypoints=keypoints, layout=layout)
    written.entry = entry if entry.rows else None
    storage.write(note, json.dumps({"job": part.job, "written": _to_json(written)}).encode())
    return written


def job_of(provenance: dict[str, Any], num_parts: int) -> str:
    """A name for a conversion that any change of its request or its inputs changes."""
    return hashlib.sha256(json.dumps([provenance, num_parts, _VERSION], sort_keys=True).encode()).hexdigest()


def clear(uri: str, entries: list[ShardEntry]) -> None:
    """Removes the notes, and shards that an earlier conversion to this place left unfinished."""
    kept = {entry.name.rpartition(".")[0] for entry in entries}
    for name in storage.names(uri):
        shard = re.fullmatch(r"(.+-\d{5,})(\.arrow|\.tfrecord|\.idx|\.part\.json)", name)
        if shard and (shard[1] not in kept or shard[2] == _NOTE):
            storage.remove(storage.join(uri, name))


def _samples(part: Part, written: Written) -> Iterator[Sample]:
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for start in range(0, len(part.source), _AT_A_TIME):
            indices = range(start, min(start + _AT_A_TIME, len(part.source)))
            for sample, found in pool.map(part.source.read, indices) if part.remote else map(part.source.read, indices):
                written.skipped += found
                if sample is not None:
                    written.annotated += sample.annotated
                    yield sample


def _read_note(uri: str, part: Part) -> Written | None:
    try:
        content = json.loads(storage.read(uri))
    except FileNotFoundError:
        return None
    if content["job"] != part.job:  # of another conversion, or of an earlier version
        return None
    entry = _entry(content["written"]["entry"], part) if content["written"]["entry"] else None
    if entry and not storage.exists(storage.join(part.uri, entry.name)):
        return None
    return Written(entry, [SkippedItem(**item) for item in content["written"]["rejects"]], content["written"]["annotated"])


def _to_json(written: Written) -> dict[str, Any]:
    """All but the layout, which the part knows."""
    entry = None
    if written.entry is not None:
        entry = {each.name: getattr(written.entry, each.name) for each in fields(written.entry) if each.name != "layout"}
    return {"entry": entry, "rejects": [asdict(item) for item in written.skipped], "annotated": written.annotated}


def _entry(content: dict[str, Any], part: Part) -> ShardEntry:
    """A ShardEntry from JSON, whose keys are texts and whose sequences are lists."""
    for name in ("images", "units"):
        content[name] = {kind: {int(key): count for key, count in counts.items()} for kind, counts in content[name].items()}
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    return ShardEntry(layout=part.source.layout, **plain)
