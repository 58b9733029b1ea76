"""Samples become shards, and shards become a split once its manifest is written."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from mtl_ray import storage
from mtl_ray.config.validate import read_record
from mtl_ray.layout import DEFAULT, Layout
from mtl_ray.samples import Annotation, Sample, Vocabulary
from mtl_ray.shards import arrow, tfrecord
from mtl_ray.shards.local import map_file
from mtl_ray.shards.manifest import (
    MANIFEST,
    Encoding,
    Manifest,
    ShardEntry,
    layout_of,
    manifest_bytes,
    read_manifest,
)
from mtl_ray.shards.split import open_block

CLASS_COUNTS = "class_counts.json"
BLOCK_BYTES = 8 << 20
"""A block is about so large: what is permuted as a whole, and what one checksum covers."""
BLOCK_ROWS = 256
MAX_SAMPLE_BYTES = 1 << 29


def shard_name(name: str, index: int) -> str:
    """The name of a shard of a split, without its suffix: ``train-00003``."""
    return f"{name}-{index:05d}"


def write_shard(
    uri: str,
    name: str,
    samples: Iterable[Sample],
    *,
    encoding: Encoding = "arrow",
    keypoints: tuple[str, ...] = (),
    layout: Layout = DEFAULT,
) -> ShardEntry:
    """Writes a shard whole or not at all, in place of one that is there.

    Args:
        uri: the folder of the split.
        name: of the shard, without suffix; see ``shard_name``.
        samples: are read once; a block of them is in memory at a time.
        encoding: of the file; beside a TFRecord lies its ``.idx``.
        keypoints: names under which TFRecords also carry the keypoints for readers elsewhere.
        layout: what the samples consist of.

    Returns:
        What ``publish_manifest`` needs to know of the shard.

    Raises:
        ValueError: for a sample that is too large.
    """
    counts = _Counts(layout)
    file = name + (arrow.SUFFIX if encoding == "arrow" else tfrecord.SUFFIX)
    with storage.writing(storage.join(uri, file)) as path:
        blocks = counts.over(_blocks(samples, layout))
        if encoding == "arrow":
            offsets, lengths = arrow.write_blocks(path, blocks, layout)
        else:
            offsets, lengths = tfrecord.write_blocks(path, blocks, layout, keypoints=keypoints)
            storage.write(
                storage.join(uri, name + tfrecord.INDEX_SUFFIX), tfrecord.index_text(path).encode()
            )
        return _entry(file, encoding, path, offsets, lengths, counts)


def publish_manifest(
    uri: str,
    entries: list[ShardEntry],
    *,
    name: str,
    encoding: Encoding = "arrow",
    vocabulary: Vocabulary,
    shuffled: bool,
    provenance: Mapping[str, Any],
) -> Manifest:
    """Makes a split of the shards in a folder, in the order given: writes ``class_counts.json``
    and, last, the manifest.

    What cannot be read back is never published: ``write_shard`` has read its rows, and the manifest
    is parsed before it is written.

    Args:
        uri: the folder that the shards were written to.
        entries: what ``write_shard`` said of each.
        name: of the split, such as "train".
        encoding: of the shards.
        vocabulary: what the numbers of the samples mean.
        shuffled: whether rows were put into random order over the whole split.
        provenance: where the samples come from (source, options, seed); JSON values.

    Raises:
        ValueError: if there is another split already, or what was written cannot be read. The same
            split written again is no error.
    """
    content = manifest_bytes(
        entries,
        name=name,
        encoding=encoding,
        shuffled=shuffled,
        provenance=provenance,
        vocabulary=vocabulary,
    )
    location = storage.join(uri, MANIFEST)
    if not storage.exists(location):
        storage.write(
            storage.join(uri, CLASS_COUNTS),
            json.dumps(class_counts(entries, vocabulary), indent=1).encode(),
        )
        storage.write_new(location, content)
    if storage.read(location) != content:
        raise ValueError(
            f"there is another split at {uri} already; remove it or choose another place"
        )
    return read_manifest(uri)


def class_counts(
    entries: Sequence[ShardEntry], vocabulary: Vocabulary
) -> dict[str, dict[str, dict[str, int]]]:
    """How many images, and objects or pixels, have each class:
    ``counts[annotation]["images"][class name]``.
    """
    found = {}
    for kind in layout_of(entries).annotations:
        if names := vocabulary.classes.get(kind.name):
            found[kind.name] = {
                "images": _by_class((entry.images for entry in entries), kind.name, names)
            }
            if kind.unit is not None:
                found[kind.name][kind.unit] = _by_class(
                    (entry.units for entry in entries), kind.name, names
                )
    return found


def read_class_counts(uri: str) -> dict[str, dict[str, dict[str, int]]]:
    """``class_counts`` of a finished split.

    Raises:
        ValueError: if its file is damaged.
    """
    place = storage.join(uri, CLASS_COUNTS)
    return read_record(storage.read(place), dict[str, dict[str, dict[str, int]]], place)


def _by_class(
    counts: Iterable[Mapping[str, Mapping[int, int]]], kind: str, names: Sequence[str]
) -> dict[str, int]:
    total: Counter[int] = Counter()
    for each in counts:
        total.update(each.get(kind, {}))
    return {name: total[index] for index, name in enumerate(names)}


class _Counts:
    """What is counted while samples pass by on their way to a file."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.block_rows: list[int] = []
        self.annotations = 0
        self.images: dict[str, Counter[int]] = {kind.name: Counter() for kind in layout.annotations}
        self.units: dict[str, Counter[int]] = {
            kind.name: Counter() for kind in layout.annotations if kind.unit is not None
        }

    def over(self, blocks: Iterable[list[Sample]]) -> Iterator[list[Sample]]:
        for block in blocks:
            self.block_rows.append(len(block))
            for sample in block:
                self._add(sample)
            yield block
            # so that the memory of this block holds the next one, which saves a fifth of the time
            del block

    def _add(self, sample: Sample) -> None:
        for kind in self.layout.annotations:
            value = sample.annotations.get(kind.name)
            if value is not None:
                counts = kind.count(value)
                self.annotations += kind.num_annotations(value, counts)
                self.images[kind.name].update(counts.keys())
                if kind.unit is not None:
                    self.units[kind.name].update(counts)


def classes_of(sample: Sample, layout: Layout = DEFAULT) -> dict[Annotation, set[int]]:
    """The classes that a sample has, by kind of annotation."""
    kinds = (kind for kind in layout.annotations if kind.name in sample.annotations)
    return {kind.name: set(kind.classes(sample.annotations[kind.name]).tolist()) for kind in kinds}


def _blocks(samples: Iterable[Sample], layout: Layout) -> Iterator[list[Sample]]:
    """The samples in runs of at most BLOCK_ROWS and, unless it is one alone, at most
    BLOCK_BYTES.
    """
    block: list[Sample] = []
    size = 0
    for sample in samples:
        added = _size(sample, layout)
        if block and (len(block) == BLOCK_ROWS or size + added > BLOCK_BYTES):
            yield block
            block, size = [], 0
        block.append(sample)
        size += added
    if block:
        yield block


def _size(sample: Sample, layout: Layout) -> int:
    """About the bytes that a sample takes in a shard."""
    found = sum(each.num_bytes(sample.inputs[each.name]) for each in layout.inputs)
    found += sum(
        kind.num_bytes(sample.annotations[kind.name])
        for kind in layout.annotations
        if kind.name in sample.annotations
    )
    if found > MAX_SAMPLE_BYTES:
        raise ValueError(f"{sample.key} takes {found} bytes; a sample may have {MAX_SAMPLE_BYTES}")
    return found


def _entry(
    name: str,
    encoding: Encoding,
    path: Path,
    offsets: list[int],
    lengths: list[int],
    counts: _Counts,
) -> ShardEntry:
    """Measures a shard as it lies on the disk, so that the checksums are of what was written and
    not of what was meant.

    Every row is read back: a shard that cannot be read is never published.
    """
    whole = map_file(path)
    data = np.frombuffer(whole, np.uint8)
    for start, length, rows in zip(offsets, lengths, counts.block_rows, strict=True):
        block = open_block(encoding, memoryview(whole)[start : start + length], counts.layout)
        assert len(block) == rows, (
            f"{name}: a block of {rows} rows was written, {len(block)} are read"
        )
        for row in range(rows):
            block[row]
    checksums = [
        google_crc32c.value(data[start : start + length])
        for start, length in zip(offsets, lengths, strict=True)
    ]
    return ShardEntry(
        name=name,
        rows=sum(counts.block_rows),
        bytes=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        block_offsets=tuple(offsets),
        block_bytes=tuple(lengths),
        block_rows=tuple(counts.block_rows),
        block_crc32c=tuple(checksums),
        layout=counts.layout,
        annotations=counts.annotations,
        images={kind: dict(counter) for kind, counter in counts.images.items()},
        units={kind: dict(counter) for kind, counter in counts.units.items()},
    )
