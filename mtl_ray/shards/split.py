"""The word Split: the Samples under one manifest, readable at random and in stored order."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.annotations.instance_values import Instances
from mtl_ray.samples import IGNORE_INDEX, Annotation, Sample, Vocabulary
from mtl_ray.shards.cache import default_cache
from mtl_ray.shards.local import LocalShards, ShardFiles
from mtl_ray.shards.manifest import Encoding, Manifest, read_manifest
from mtl_ray.shards.remote import RemoteShards

MAX_OPEN_BLOCKS = 256
"""Blocks whose layout is kept at hand. Their bytes are mapped, not copied."""
MAX_CHECKED_AT_OPEN = 1000
"""Up to so many shards, all sizes are compared with one listing when a split is opened; beyond, each as it is first read."""


BoxColumns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]
"""Of I rows with N objects: height and width of each image (I, 2), objects of each row (I,), boxes_xyxy (N, 4), crowd (N,)."""


class Block(Protocol):
    """A run of Samples that lies together in a shard."""

    def __len__(self) -> int:
        """Samples of the block."""
        ...

    def __getitem__(self, row: int) -> Sample:
        """One of them."""
        ...

    def classes(self, annotation: Annotation) -> Iterator[NDArray[np.int64]]:
        """The class indices of each row for labels or instances."""
        ...

    def semantic(self, row: int) -> bytes | None:
        """The encoded semantic map of a row."""
        ...

    def objects(self, row: int) -> tuple[int, int, Instances | None]:
        """Height and width of the image of a row, and its objects."""
        ...

    def boxes(self) -> BoxColumns:
        """The boxes of all rows."""
        ...


class Split:
    """The samples under one manifest; threads and forked or unpickled copies may use it at the same time.

    Attributes:
        uri: its folder.
        manifest: its index.
        block_rows: (B,) int64, rows of each block in stored order.
    """

    def __init__(self, uri: str, manifest: Manifest) -> None:
        """Opens no file; ``open_split`` also reads the manifest."""
        self.uri = uri
        self.manifest = manifest
        self.block_rows = manifest.block_rows
        self._files = _shard_files(uri, manifest)
        self._checked = np.zeros(len(self.block_rows), np.bool_)
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Block] = OrderedDict()

    def __reduce__(self) -> tuple[type["Split"], tuple[str, Manifest]]:
        return Split, (self.uri, self.manifest)

    @property
    def vocabulary(self) -> Vocabulary:
        """What the numbers of its samples mean."""
        return self.manifest.vocabulary

    @property
    def num_samples(self) -> int:
        """Rows of all shards."""
        return self.manifest.num_samples

    def read_block(self, block: int) -> list[Sample]:
        """All samples of a block.

        Raises:
            ValueError: if its bytes are not those that were written.
        """
        found = self._block(block)
        return [found[row] for row in range(len(found))]

    def read_row(self, block: int, row: int) -> Sample:
        """One sample; the rest of its block is not touched, apart from its checksum at the first visit.

        Raises:
            ValueError: if the bytes of the block are not those that were written.
        """
        return self._block(block)[row]

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """The samples [start, stop) in stored order.

        Raises:
            ValueError: if the bytes of a block are not those that were written.
        """
        ends = np.cumsum(self.block_rows)
        for block in range(int(np.searchsorted(ends, start, side="right")), len(ends)):
            first = int(ends[block] - self.block_rows[block])
            if first >= stop:
                return
            for row in range(max(start - first, 0), min(stop - first, int(self.block_rows[block]))):
                yield self.read_row(block, row)

    def prefetch(self, blocks: Iterable[int]) -> None:
        """Says that these blocks will be read soon; from a bucket they are brought near meanwhile. Returns at once."""
        self._files.prefetch(list(blocks))

    def scan_classes(self, annotation: Annotation) -> Iterator[NDArray[np.int64]]:
        """The class indices of each row in stored order (once for each object; sorted and once for semantic maps); no image is read."""
        for index in range(len(self.block_rows)):
            block = open_block(self.manifest.encoding, self._files.view(index))
            if annotation == "semantic":
                yield from (_classes_of_map(block.semantic(row)) for row in range(len(block)))
            else:
                yield from block.classes(annotation)

    def scan_objects(self) -> Iterator[tuple[int, int, Instances | None]]:
        """Height and width of each image in stored order, and its objects; no image is looked at."""
        for index in range(len(self.block_rows)):
            block = open_block(self.manifest.encoding, self._files.view(index))
            yield from (block.objects(row) for row in range(len(block)))

    def scan_boxes(self, blocks: Iterable[int] | None = None) -> Iterator[BoxColumns]:
        """The boxes of each block in stored order, or of some blocks, as arrays; no image is looked at."""
        for index in range(len(self.block_rows)) if blocks is None else blocks:
            yield open_block(self.manifest.encoding, self._files.view(index)).boxes()

    def _block(self, block: int) -> Block:
        with self._lock:
            if block in self._open:
                self._open.move_to_end(block)
                return self._open[block]
        found = open_block(self.manifest.encoding, self._checked_view(block))
        if len(found) != self.block_rows[block]:
            raise ValueError(f"{self._name(block)} holds {len(found)} rows, its manifest says {self.block_rows[block]}")
        with self._lock:
            self._open[block] = found
            if len(self._open) > MAX_OPEN_BLOCKS:
                self._open.popitem(last=False)
        return found

    def _checked_view(self, block: int) -> memoryview:
        view = self._files.view(block)
        if not self._checked[block]:
            if not self._is_whole(block, view):
                view = self._files.view(block) if self._files.renew(block) else view[:0]
                if not self._is_whole(block, view):
                    raise ValueError(f"{self._name(block)} does not have the content that its manifest says (CRC-32C)")
            self._checked[block] = True
        return view

    def _is_whole(self, block: int, view: memoryview) -> bool:
        return bool(google_crc32c.value(np.frombuffer(view, np.uint8)) == self.manifest.block_crc32c[block])

    def _name(self, block: int) -> str:
        shard = self.manifest.shard_names[int(np.searchsorted(np.cumsum(self.manifest.shard_blocks), block, side="right"))]
        return f"{storage.join(self.uri, shard)}, bytes from {self.manifest.block_offsets[block]},"


def open_split(uri: str) -> Split:
    """The split at a URI.

    Raises:
        ValueError: if there is none, its manifest is damaged, or does not match its shards.
    """
    uri = storage.absolute(uri)
    manifest = read_manifest(uri)
    if len(manifest.shard_names) <= MAX_CHECKED_AT_OPEN:
        _check_sizes(uri, manifest)
    return Split(uri, manifest)


def _check_sizes(uri: str, manifest: Manifest) -> None:
    present = storage.sizes(uri)
    for name, expected in zip(manifest.shard_names, manifest.shard_bytes.tolist(), strict=True):
        if name not in present:
            raise ValueError(f"split {uri} does not match its manifest: {name} is missing; convert the data set again")
        if present[name] != expected:
            raise ValueError(f"split {uri} does not match its manifest: {name} has {present[name]} bytes instead of {expected}")


def _shard_files(uri: str, manifest: Manifest) -> ShardFiles:
    if storage.is_remote(uri):
        return RemoteShards(uri, manifest, default_cache())
    return LocalShards(Path(uri), manifest)


def open_block(encoding: Encoding, data: memoryview) -> Block:
    """A block in some bytes; the libraries that blocks need are not imported for a manifest alone.

    Raises:
        ValueError: if the bytes are not a block.
    """
    if encoding == "arrow":
        from mtl_ray.shards.arrow import ArrowBlock

        return ArrowBlock(data)
    from mtl_ray.shards.tfrecord import RecordBlock

    return RecordBlock(data)


def _classes_of_map(encoded: bytes | None) -> NDArray[np.int64]:
    from mtl_ray.inputs.image_file import NO_LIMIT, load_image, open_image

    if encoded is None:
        return np.zeros(0, np.int64)
    values = set(np.unique(np.asarray(load_image(open_image(encoded, NO_LIMIT)))).tolist()) - {IGNORE_INDEX}
    return np.array(sorted(values), np.int64)
