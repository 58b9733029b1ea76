"""Samples become shards, and shards become a split once its manifest is written."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from mtl_ray import storage
from mtl_ray.inputs.image_file import NO_LIMIT, load_image, open_image
from mtl_ray.samples import IGNORE_INDEX, Annotation, Sample, Vocabulary
from mtl_ray.shards import arrow, tfrecord
from mtl_ray.shards.local import map_file
from mtl_ray.shards.manifest import MANIFEST, Encoding, Manifest, ShardEntry, manifest_bytes, read_manifest
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
    uri: str, name: str, samples: Iterable[Sample], *, encoding: Encoding = "arrow", keypoints: tuple[str, ...] = ()
) -> ShardEntry:
    """Writes a shard whole or not at all, in place of one that is there.

    Args:
        uri: the folder of the split.
        name: of the shard, without suffix; see ``shard_name``.
        samples: are read once; a block of them is in memory at a time.
        encoding: of the file; beside a TFRecord lies its ``.idx``.
        keypoints: names under which TFRecords also carry the keypoints for readers elsewhere.

    Returns:
        What ``publish_manifest`` needs to know of the shard.

    Raises:
        ValueError: for a sample that is too large.
    """
    counts = _Counts()
    file = name + (arrow.SUFFIX if encoding == "arrow" else tfrecord.SUFFIX)
    with storage.writing(storage.join(uri, file)) as path:
        blocks = counts.over(_blocks(samples))
        if encoding == "arrow":
            offsets, lengths = arrow.write_blocks(path, blocks)
        else:
            offsets, lengths = tfrecord.write_blocks(path, blocks, keypoints=keypoints)
            storage.write(storage.join(uri, name + tfrecord.INDEX_SUFFIX), tfrecord.index_text(path).encode())
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
    """Makes a split of the shards in a folder, in the order given: writes ``class_counts.json`` and, last, the manifest.

    What cannot be read back is never published: ``write_shard`` has read its rows, and the manifest is parsed before it is written.

    Args:
        uri: the folder that the shards were written to.
        entries: what ``write_shard`` said of each.
        name: of the split, such as "train".
        encoding: of the shards.
        vocabulary: what the numbers of the samples mean.
        shuffled: whether rows were put into random order over the whole split.
        provenance: where the samples come from (source, options, seed); JSON values.

    Raises:
        ValueError: if there is another split already, or what was written cannot be read. The same split written again is no error.
    """
    content = manifest_bytes(entries, name=name, encoding=encoding, shuffled=shuffled, provenance=provenance, vocabulary=vocabulary)
    location = storage.join(uri, MANIFEST)
    if not storage.exists(location):
        storage.write(storage.join(uri, CLASS_COUNTS), json.dumps(class_counts(entries, vocabulary), indent=1).encode())
        storage.write_new(location, content)
    if storage.read(location) != content:
        raise ValueError(f"there is another split at {uri} already; remove it or choose another place")
    return read_manifest(uri)


def class_counts(entries: Iterable[ShardEntry], vocabulary: Vocabulary) -> dict[str, dict[str, dict[str, int]]]:
    """How many images, instances or pixels have each class: ``counts[annotation]["images"][class name]``."""
    images: dict[Annotation, Counter[int]] = {"labels": Counter(), "instances": Counter(), "semantic": Counter()}
    parts: dict[Annotation, tuple[str, Counter[int]]] = {"instances": ("instances", Counter()), "semantic": ("pixels", Counter())}
    for entry in entries:
        parts["instances"][1].update(entry.instances)
        parts["semantic"][1].update(entry.pixels)
        for kind, counter in images.items():
            counter.update(entry.images.get(kind, {}))
    found = {}
    for kind, counter in images.items():
        if names := vocabulary.classes.get(kind):
            found[kind] = {"images": {name: counter[index] for index, name in enumerate(names)}}
            if kind in parts:
                column, of_class = parts[kind]
                found[kind][column] = {name: of_class[index] for index, name in enumerate(names)}
    return {str(kind): counts for kind, counts in found.items()}


class _Counts:
    """What is counted while samples pass by on their way to a file."""

    def __init__(self) -> None:
        self.block_rows: list[int] = []
        self.images: dict[Annotation, Counter[int]] = {"labels": Counter(), "instances": Counter(), "semantic": Counter()}
        self.instances: Counter[int] = Counter()
        self.pixels: Counter[int] = Counter()

    def over(self, blocks: Iterable[list[Sample]]) -> Iterator[list[Sample]]:
        for block in blocks:
            self.block_rows.append(len(block))
            for sample in block:
                pixels = _pixels(sample.semantic) if sample.semantic is not None else {}
                self.pixels.update(pixels)
                if sample.instances is not None:
                    self.instances.update(sample.instances.classes.tolist())
                for kind, classes in classes_of(sample, pixels).items():
                    self.images[kind].update(classes)
            yield block
            del block  # so that the memory of this block holds the next one, which saves a fifth of the time


def classes_of(sample: Sample, pixels: Mapping[int, int] | None = None) -> dict[Annotation, set[int]]:
    """The classes that a sample has, by kind of annotation.

    Args:
        sample: any.
        pixels: those of each class in its semantic map, where they are known already.
    """
    found: dict[Annotation, set[int]] = {}
    if sample.labels is not None:
        found["labels"] = set(sample.labels.tolist())
    if sample.instances is not None:
        found["instances"] = set(sample.instances.classes.tolist())
    if sample.semantic is not None:
        found["semantic"] = set(_pixels(sample.semantic) if pixels is None else pixels)
    return found


def _pixels(png: bytes) -> dict[int, int]:
    """The pixels of each class in a semantic map; none where it is damaged, which is for whoever reads it to say."""
    try:
        classes = np.asarray(load_image(open_image(png, NO_LIMIT)))
    except ValueError:
        return {}
    if classes.ndim != 2 or classes.dtype != np.uint8:
        return {}
    counts = np.bincount(classes.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    return {int(index): int(counts[index]) for index in np.flatnonzero(counts)}


def _blocks(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """The samples in runs of at most BLOCK_ROWS and, unless it is one alone, at most BLOCK_BYTES."""
    block: list[Sample] = []
    size = 0
    for sample in samples:
        added = _size(sample)
        if block and (len(block) == BLOCK_ROWS or size + added > BLOCK_BYTES):
            yield block
            block, size = [], 0
        block.append(sample)
        size += added
    if block:
        yield block


def _size(sample: Sample) -> int:
    """About the bytes that a sample takes in a shard."""
    masks = sample.instances.masks or () if sample.instances is not None else ()
    found = len(sample.image) + len(sample.semantic or b"") + sum(map(len, masks))
    if found > MAX_SAMPLE_BYTES:
        raise ValueError(f"{sample.key} takes {found} bytes; a sample may have {MAX_SAMPLE_BYTES}")
    return found


def _entry(name: str, encoding: Encoding, path: Path, offsets: list[int], lengths: list[int], counts: _Counts) -> ShardEntry:
    """Measures a shard as it lies on the disk, so that the checksums are of what was written and not of what was meant.

    Every row is read back: a shard that cannot be read is never published.
    """
    whole = map_file(path)
    data = np.frombuffer(whole, np.uint8)
    for start, length, rows in zip(offsets, lengths, counts.block_rows, strict=True):
        block = open_block(encoding, memoryview(whole)[start : start + length])
        assert len(block) == rows, f"{name}: a block of {rows} rows was written, {len(block)} are read"
        for row in range(rows):
            block[row]
    checksums = [google_crc32c.value(data[start : start + length]) for start, length in zip(offsets, lengths, strict=True)]
    return ShardEntry(
        name=name,
        rows=sum(counts.block_rows),
        bytes=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        block_offsets=tuple(offsets),
        block_bytes=tuple(lengths),
        block_rows=tuple(counts.block_rows),
        block_crc32c=tuple(checksums),
        images={kind: dict(counter) for kind, counter in counts.images.items()},
        instances=dict(counts.instances),
        pixels=dict(counts.pixels),
    )
