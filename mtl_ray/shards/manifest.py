"""The manifest of a split: what its shards are, where their blocks lie, and what their numbers
mean.

``manifest.json`` is written last, so a split exists once its manifest does. The index is kept as
columns, and a column of numbers as one string with blanks between them: 100 million samples
(100,000 shards, 400,000 blocks) are read in a fraction of a second, without a Python object for
each number, and a person can still read it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mtl_ray import storage
from mtl_ray.layout import DEFAULT, Layout
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.shards.number_columns import (
    Column,
    Words,
    join_numbers,
    read_numbers,
    read_words,
    take,
)
from mtl_ray.vocabulary import vocabulary_from_json, vocabulary_to_json

Encoding = Literal["arrow", "tfrecord"]

MANIFEST = "manifest.json"
FORMAT = "mtl_ray split"
VERSION = 1
READABLE_VERSIONS = (1,)
"""This version and, once there is one, the version before."""
MAX_MANIFEST_BYTES = 1 << 29
_MAX_NUMBER = 1 << 52
# possessive, as the repeats below: a long text takes no stack
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}+"
_NAMES = re.compile(rf"(?:{_NAME}(?: {_NAME})*+)?+")
_HASHES = re.compile(r"(?:[0-9a-f]{64}+(?: [0-9a-f]{64}+)*+)?+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """What ``write_shard`` says of the shard that it wrote; tuples have an item a block.

    Attributes:
        name: the file, in the folder of the split.
        rows, bytes, sha256: of the whole file.
        block_offsets, block_bytes: where each block lies in the file.
        block_rows: samples of each block.
        block_crc32c: CRC-32C of the bytes of each block.
        layout: what its samples consist of.
        annotations: how many annotations of all kinds there are.
        images: by kind of annotation, how many samples have each class (by its index).
        units: by kind, how many objects or pixels have each class; only for kinds that count them.
    """

    name: str
    rows: int
    bytes: int
    sha256: str
    block_offsets: tuple[int, ...]
    block_bytes: tuple[int, ...]
    block_rows: tuple[int, ...]
    block_crc32c: tuple[int, ...]
    layout: Layout = DEFAULT
    annotations: int = 0
    images: Mapping[Annotation, Mapping[int, int]] = field(default_factory=dict)
    units: Mapping[Annotation, Mapping[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """The index of a split: S shards, B blocks, in stored order.

    Attributes:
        name: of the split, such as "train".
        encoding: of all its shards.
        shuffled: whether the rows were put into random order when they were written.
        provenance: where the split comes from (source, options, seed), as it was given to
            ``publish_manifest``.
        vocabulary: what the numbers mean.
        layout: what its samples consist of: its columns, and the plugins that give some of them.
        digest: SHA-256 of the manifest itself; two splits with equal digests hold the same samples
            in the same order.
        shard_names: S names of files.
        shard_sha256: S checksums in hexadecimal.
        shard_rows, shard_bytes, shard_blocks: (S,); rows, bytes and number of blocks of each shard.
        block_offsets, block_bytes, block_rows, block_crc32c: (B,).
    """

    name: str
    encoding: Encoding
    shuffled: bool
    provenance: Mapping[str, Any]
    vocabulary: Vocabulary
    layout: Layout
    digest: str
    shard_names: Words
    shard_sha256: Words
    shard_rows: Column
    shard_bytes: Column
    shard_blocks: Column
    block_offsets: Column
    block_bytes: Column
    block_rows: Column
    block_crc32c: Column

    @property
    def num_samples(self) -> int:
        """Rows of all shards."""
        return int(self.shard_rows.sum())

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards."""
        return int(self.shard_bytes.sum())


def manifest_bytes(
    entries: list[ShardEntry],
    *,
    name: str,
    encoding: Encoding,
    shuffled: bool,
    provenance: Mapping[str, Any],
    vocabulary: Vocabulary,
) -> bytes:
    """The JSON of a manifest over some shards, in this order, which ``read_manifest`` can read.

    Raises:
        ValueError: if it could not, for example because the vocabulary does not fit together.
    """
    layout = layout_of(entries)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "encoding": encoding,
        "shuffled": shuffled,
        "rows": sum(entry.rows for entry in entries),
        "provenance": dict(provenance),
        "vocabulary": vocabulary_to_json(vocabulary),
        "columns": dict(layout.columns),
        **({"plugins": list(layout.plugins)} if layout.plugins else {}),
        "shards": {
            "name": " ".join(entry.name for entry in entries),
            "sha256": " ".join(entry.sha256 for entry in entries),
            "rows": join_numbers(entry.rows for entry in entries),
            "bytes": join_numbers(entry.bytes for entry in entries),
            "blocks": join_numbers(len(entry.block_rows) for entry in entries),
        },
        "blocks": {
            "offset": join_numbers(value for entry in entries for value in entry.block_offsets),
            "bytes": join_numbers(value for entry in entries for value in entry.block_bytes),
            "rows": join_numbers(value for entry in entries for value in entry.block_rows),
            "crc32c": join_numbers(value for entry in entries for value in entry.block_crc32c),
        },
    }
    data = json.dumps(content, indent=1).encode()
    try:
        parse_manifest(data)
    except ValueError as error:
        raise ValueError(f"the split {name!r} cannot be written: {error}") from error
    return data


def layout_of(entries: Iterable[ShardEntry]) -> Layout:
    """The one layout of some shards.

    Raises:
        ValueError: if they have different ones.
    """
    layouts = list(dict.fromkeys(entry.layout for entry in entries)) or [DEFAULT]
    if len(layouts) > 1:
        raise ValueError("the shards of a split must have the same columns")
    return layouts[0]


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in the bytes of its file.

    Raises:
        ValueError: if it is cut short or does not fit together.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ValueError(f"it is larger than {MAX_MANIFEST_BYTES} bytes, which no split needs")
    digest = hashlib.sha256(data).hexdigest()
    try:
        return _parse(json.loads(data), digest)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_manifest(uri: str) -> Manifest:
    """The manifest of the split at a URI.

    Raises:
        ValueError: if there is no split, or the manifest is cut short or does not fit together.
    """
    uri = storage.absolute(uri)
    location = storage.join(uri, MANIFEST)
    try:
        if storage.size(location) > MAX_MANIFEST_BYTES:
            raise ValueError(
                f"{location} is larger than {MAX_MANIFEST_BYTES} bytes, which no split needs"
            )
        data = storage.read(location)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"there is no split at {uri}: it has no {MANIFEST}, which conversion writes last"
        ) from error
    try:
        return parse_manifest(data)
    except ValueError as error:
        raise ValueError(
            f"the {MANIFEST} of {uri} is damaged: {error}; convert the dataset again"
        ) from error


def _parse(content: Any, digest: str) -> Manifest:
    """The manifest in some JSON, which is emptied on the way."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    if content.get("version") not in READABLE_VERSIONS:
        raise ValueError(
            f"its version {content.get('version')!r} is not one that this program reads "
            f"{READABLE_VERSIONS}"
        )
    if content.get("encoding") not in ("arrow", "tfrecord"):
        raise ValueError(f"its encoding {content.get('encoding')!r} is neither arrow nor tfrecord")
    shards, blocks = take(content, "shards", dict), take(content, "blocks", dict)
    layout = _layout(content)
    manifest = Manifest(
        name=take(content, "name", str),
        encoding=content["encoding"],
        shuffled=take(content, "shuffled", bool),
        provenance=take(content, "provenance", dict),
        vocabulary=_vocabulary(content, layout),
        layout=layout,
        digest=digest,
        shard_names=read_words(shards, "name", _NAMES),
        shard_sha256=read_words(shards, "sha256", _HASHES),
        shard_rows=read_numbers(shards, "rows"),
        shard_bytes=read_numbers(shards, "bytes"),
        shard_blocks=read_numbers(shards, "blocks"),
        block_offsets=read_numbers(blocks, "offset"),
        block_bytes=read_numbers(blocks, "bytes"),
        block_rows=read_numbers(blocks, "rows"),
        block_crc32c=read_numbers(blocks, "crc32c"),
    )
    _check(manifest, take(content, "rows", int))
    return manifest


def _layout(content: dict[str, Any]) -> Layout:
    """What the manifest lists; a manifest of an earlier version lists nothing."""
    plugins = content.pop("plugins", [])
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise ValueError("its 'plugins' are not names")
    if "columns" not in content:
        return DEFAULT
    columns = take(content, "columns", dict)
    if not all(isinstance(kind, str) for kind in columns.values()):
        raise ValueError("its 'columns' are not names of types")
    return Layout.of_columns(columns, plugins)


def _vocabulary(content: dict[str, Any], layout: Layout) -> Vocabulary:
    vocabulary = vocabulary_from_json(take(content, "vocabulary", dict))
    known = {kind.name for kind in layout.annotations}
    for kinds in (vocabulary.classes, vocabulary.colours, vocabulary.category_ids):
        if unknown := [kind for kind in kinds if kind not in known]:
            raise ValueError(f"its vocabulary has the unknown kind of annotation {unknown[0]!r}")
    return vocabulary


def _check(manifest: Manifest, rows: int) -> None:
    """That the columns are of one length and agree with each other."""
    shards = (manifest.shard_rows, manifest.shard_bytes, manifest.shard_blocks)
    blocks = (
        manifest.block_offsets,
        manifest.block_bytes,
        manifest.block_rows,
        manifest.block_crc32c,
    )
    words = (manifest.shard_names, manifest.shard_sha256)
    if (
        len({len(column) for column in (*shards, *words)}) > 1
        or len({len(column) for column in blocks}) > 1
    ):
        raise ValueError("its columns are not of one length")
    if any(
        column.size and not 0 <= column.min() <= column.max() < _MAX_NUMBER
        for column in (*shards, *blocks)
    ):
        raise ValueError("it has a number that is negative or too large")
    if manifest.shard_blocks.sum() != len(manifest.block_rows):
        raise ValueError(
            f"its shards have {manifest.shard_blocks.sum()} blocks, but {len(manifest.block_rows)} "
            "are listed"
        )
    first_rows = np.append(0, np.cumsum(manifest.block_rows))[
        np.append(0, np.cumsum(manifest.shard_blocks))
    ]
    if (
        rows != first_rows[-1]
        or not np.array_equal(np.diff(first_rows), manifest.shard_rows)
        or (manifest.block_rows == 0).any()
    ):
        raise ValueError("the rows of its blocks do not add up")
    beyond = np.repeat(manifest.shard_bytes, manifest.shard_blocks)
    beyond -= manifest.block_offsets
    beyond -= manifest.block_bytes
    if beyond.size and beyond.min() < 0:
        raise ValueError("a block reaches beyond the end of its shard")
