"""Writes the shards of a conversion one by one. Each leaves a note, so that an interrupted
conversion resumes.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from mtl_ray import storage
from mtl_ray.config.validate import read_record
from mtl_ray.samples import Sample
from mtl_ray.shards.manifest import Encoding, ShardEntry
from mtl_ray.shards.split import Split, open_split
from mtl_ray.shards.write import write_shard
from mtl_ray.sources.config import Shards
from mtl_ray.sources.source import Reading, SkippedItem, Source

_NOTE = ".part.json"
_VERSION = 2
"""Of the notes."""
_AT_A_TIME = 16
"""Images that are fetched from a bucket at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """One shard to write.

    Attributes:
        uri: the folder of the split.
        name: of the shard, without suffix.
        encoding: of the shard.
        source: its samples, in their order.
        remote: whether they are in a bucket, where each request has a latency.
        conversion: hash of the conversion; a note of another conversion is ignored.
    """

    uri: str
    name: str
    encoding: Encoding
    source: Source
    remote: bool
    conversion: str


@dataclass(slots=True)
class ShardResult:
    """A written shard.

    Attributes:
        entry: None if no sample could be read.
        skipped: samples and annotations that were skipped, and notes.
        annotated: number of samples with annotations.
    """

    entry: ShardEntry | None
    skipped: list[SkippedItem]
    annotated: int


@dataclass(frozen=True)
class _Written:
    """``_to_json`` of a ``ShardResult``."""

    entry: dict[str, Any] | None
    rejects: list[SkippedItem]
    annotated: int


@dataclass(frozen=True)
class _Note:
    """The content of a note."""

    job: str
    written: _Written


def write_job(job: ShardJob) -> ShardResult:
    """Writes a shard, unless its note says that it exists."""
    note = storage.join(job.uri, job.name + _NOTE)
    if (found := _read_note(note, job)) is not None:
        return found
    written = ShardResult(None, [], 0)
    keypoints, layout = job.source.vocabulary.keypoints, job.source.layout
    entry = write_shard(
        job.uri,
        job.name,
        _samples(job, written),
        encoding=job.encoding,
        keypoints=keypoints,
        layout=layout,
    )
    written.entry = entry if entry.rows else None
    storage.write(note, json.dumps({"job": job.conversion, "written": _to_json(written)}).encode())
    return written


def conversion_hash(provenance: dict[str, Any], num_parts: int) -> str:
    """Hash of a conversion: any change of its options or inputs changes it."""
    return hashlib.sha256(
        json.dumps([provenance, num_parts, _VERSION], sort_keys=True).encode()
    ).hexdigest()


def clear(uri: str, entries: list[ShardEntry]) -> None:
    """Removes the notes, and the shards of an earlier unfinished conversion to this folder."""
    kept = {entry.name.rpartition(".")[0] for entry in entries}
    for name in storage.names(uri):
        shard = re.fullmatch(r"(.+-\d{5,})(\.arrow|\.tfrecord|\.idx|\.part\.json)", name)
        if shard and (shard[1] not in kept or shard[2] == _NOTE):
            storage.remove(storage.join(uri, name))


def _samples(job: ShardJob, written: ShardResult) -> Iterator[Sample]:
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for start in range(0, len(job.source), _AT_A_TIME):
            indices = range(start, min(start + _AT_A_TIME, len(job.source)))
            for sample, found in (
                pool.map(job.source.read, indices) if job.remote else map(job.source.read, indices)
            ):
                written.skipped += found
                if sample is not None:
                    written.annotated += sample.annotated
                    yield sample


def _read_note(uri: str, job: ShardJob) -> ShardResult | None:
    try:
        note = read_record(storage.read(uri), _Note, uri)
    except (FileNotFoundError, ValueError):  # none, or damaged: the shard is written again
        return None
    if note.job != job.conversion:  # of another conversion, or of an earlier version
        return None
    entry = _entry(note.written.entry, job) if note.written.entry else None
    if entry and not storage.exists(storage.join(job.uri, entry.name)):
        return None
    return ShardResult(entry, note.written.rejects, note.written.annotated)


def _to_json(written: ShardResult) -> dict[str, Any]:
    """All but the layout, which the job has."""
    entry = None
    if written.entry is not None:
        entry = {
            each.name: getattr(written.entry, each.name)
            for each in fields(written.entry)
            if each.name != "layout"
        }
    return {
        "entry": entry,
        "rejects": [asdict(item) for item in written.skipped],
        "annotated": written.annotated,
    }


def _entry(content: dict[str, Any], job: ShardJob) -> ShardEntry:
    """A ShardEntry from JSON, whose keys are texts and whose sequences are lists."""
    for name in ("images", "units"):
        content[name] = {
            kind: {int(key): count for key, count in counts.items()}
            for kind, counts in content[name].items()
        }
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
    }
    return ShardEntry(layout=job.source.layout, **plain)


# A split that was converted before, as a Source: so it can be written again in the other form or
# with other shards.


def open_shards(config: Shards) -> Source:
    """Lists the samples of a split; ids, order and vocabulary stay as they are.

    Raises:
        ValueError: if there is no split, or its shards do not match its manifest.
    """
    split = open_split(storage.absolute(config.root))
    blocks = np.repeat(np.arange(len(split.block_rows)), split.block_rows)
    rows = np.arange(len(blocks)) - np.repeat(
        np.cumsum(split.block_rows) - split.block_rows, split.block_rows
    )
    return Source(
        vocabulary=split.vocabulary,
        records=list(zip(blocks.tolist(), rows.tolist(), strict=True)),
        reader=partial(_read, split),
        fingerprint=split.manifest.digest,
        layout=split.manifest.layout,
    )


def _read(split: Split, address: tuple[int, int]) -> Reading:
    return split.read_row(*address), []
