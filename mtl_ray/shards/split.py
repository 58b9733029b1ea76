"""A Split: the samples under one manifest, readable at random and in stored order."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.annotations.instance_values import Instances
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.layout import DEFAULT, Layout
from mtl_ray.samples import Annotation, Sample, Vocabulary
from mtl_ray.shards.cache import default_cache
from mtl_ray.shards.local import LocalShards, ShardFiles
from mtl_ray.shards.manifest import Encoding, Manifest, read_manifest
from mtl_ray.shards.remote import RemoteShards

MAX_OPEN_BLOCKS = 256
"""Blocks whose layout is kept at hand. Their bytes are mapped, not copied."""
MAX_CHECKED_AT_OPEN = 1000
"""Up to so many shards, all sizes are compared with one listing when a split is opened; beyond,
each as it is first read.
"""


class BoxColumns(NamedTuple):
    """Of I rows with N objects.

    Attributes:
        sizes: (I, 2) height and width of each image.
        counts: (I,) objects of each row.
        boxes_xyxy: (N, 4).
        crowd: (N,).
        classes: (N,) class indices.
    """

    sizes: NDArray[np.int64]
    counts: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float32]
    crowd: NDArray[np.bool_]
    classes: NDArray[np.int64]


class Block(Protocol):
    """A run of Samples that lies together in a shard."""

    def __len__(self) -> int:
        """Samples of the block."""
        ...

    def __getitem__(self, row: int) -> Sample:
        """One of them."""
        ...

    def outline(self, row: int) -> Sample:
        """One of them, unchecked; the bytes of its inputs may be empty."""
        ...

    def annotation(self, kind: AnnotationKind[Any, Any], row: int) -> Any | None:
        """The annotation of a row; no input is read."""
        ...

    def classes(self, kind: AnnotationKind[Any, Any]) -> Iterator[NDArray[np.int64]]:
        """The class indices of each row; none where it is not annotated."""
        ...

    def flat(self, column: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The numbers of a list column end to end, and how many each row has."""
        ...

    def integers(self, column: str) -> NDArray[np.int64]:
        """The numbers of a column of type int32."""
        ...


class Split:
    """The samples under one manifest; threads and forked or unpickled copies may use it at the same
    time.

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
        """One sample; the rest of its block is not touched, apart from its checksum at the first
        visit.

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
        """Says that these blocks will be read soon; from a bucket they are brought near
        meanwhile. Returns at once.
        """
        self._files.prefetch(list(blocks))

    @property
    def annotations(self) -> Mapping[Annotation, AnnotationKind[Any, Any]]:
        """The kinds of annotation of its vocabulary, by name."""
        return {
            kind.name: kind
            for kind in self.manifest.layout.annotations
            if kind.name in self.vocabulary.classes
        }

    def scan_classes(self, annotation: Annotation) -> Iterator[NDArray[np.int64]]:
        """The class indices of each row in stored order (of each object, or each class once); no
        input is read.
        """
        kind = next(kind for kind in self.manifest.layout.annotations if kind.name == annotation)
        for block in self._unkept_blocks():
            yield from block.classes(kind)

    def scan(self, kind: AnnotationKind[Any, Any]) -> Iterator[Any | None]:
        """The annotation of each row in stored order, None where there is none; no input is
        read.
        """
        for block in self._unkept_blocks():
            yield from (block.annotation(kind, row) for row in range(len(block)))

    def scan_outlines(self) -> Iterator[Sample]:
        """The samples in stored order; of their inputs only what describes the data is there, such
        as a size or a calibration, and its bytes may be empty.
        """
        for block in self._unkept_blocks():
            yield from map(block.outline, range(len(block)))

    def scan_objects(self) -> Iterator[tuple[int, int, Instances | None]]:
        """Height and width of each image in stored order, and its objects; no image is looked
        at.
        """
        for block in self._unkept_blocks():
            sizes = zip(
                block.integers("height").tolist(), block.integers("width").tolist(), strict=True
            )
            yield from (
                (height, width, block.annotation(INSTANCES, row))
                for row, (height, width) in enumerate(sizes)
            )

    def scan_boxes(self, blocks: Iterable[int] | None = None) -> Iterator[BoxColumns]:
        """The boxes of each block in stored order, or of some blocks, as arrays; no image is
        looked at.
        """
        for block in self._unkept_blocks(blocks):
            sizes = np.stack([block.integers("height"), block.integers("width")], axis=1)
            boxes, counts = block.flat("boxes_xyxy")
            yield BoxColumns(
                sizes=sizes,
                counts=counts // 4,
                boxes_xyxy=boxes.reshape(-1, 4),
                crowd=block.flat("crowd")[0],
                classes=block.flat("classes")[0],
            )

    def _unkept_blocks(self, blocks: Iterable[int] | None = None) -> Iterator[Block]:
        """Blocks that are looked at once, without their checksums."""
        for index in range(len(self.block_rows)) if blocks is None else blocks:
            yield open_block(self.manifest.encoding, self._files.view(index), self.manifest.layout)

    def _block(self, block: int) -> Block:
        with self._lock:
            if block in self._open:
                self._open.move_to_end(block)
                return self._open[block]
        found = open_block(self.manifest.encoding, self._checked_view(block), self.manifest.layout)
        if len(found) != self.block_rows[block]:
            raise ValueError(
                f"{self._name(block)} holds {len(found)} rows, its manifest says "
                f"{self.block_rows[block]}"
            )
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
                    raise ValueError(
                        f"{self._name(block)} does not have the content that its manifest says "
                        "(CRC-32C)"
                    )
            self._checked[block] = True
        return view

    def _is_whole(self, block: int, view: memoryview) -> bool:
        return bool(
            google_crc32c.value(np.frombuffer(view, np.uint8)) == self.manifest.block_crc32c[block]
        )

    def _name(self, block: int) -> str:
        shard = self.manifest.shard_names[
            int(np.searchsorted(np.cumsum(self.manifest.shard_blocks), block, side="right"))
        ]
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
            raise ValueError(
                f"split {uri} does not match its manifest: {name} is missing; convert the dataset "
                "again"
            )
        if present[name] != expected:
            raise ValueError(
                f"split {uri} does not match its manifest: {name} has {present[name]} bytes "
                f"instead of {expected}"
            )


def _shard_files(uri: str, manifest: Manifest) -> ShardFiles:
    if storage.is_remote(uri):
        return RemoteShards(uri, manifest, default_cache())
    return LocalShards(Path(uri), manifest)


def open_block(encoding: Encoding, data: memoryview, layout: Layout = DEFAULT) -> Block:
    """A block in some bytes; the libraries that blocks need are not imported for a manifest alone.

    Raises:
        ValueError: if the bytes are not a block.
    """
    if encoding == "arrow":
        from mtl_ray.shards.arrow import ArrowBlock

        return ArrowBlock(data, layout)
    from mtl_ray.shards.tfrecord import RecordBlock

    return RecordBlock(data, layout)
