"""Protocol and helpers of writers, which write the Samples of a split to files of another
format.
"""

import os
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from mtl_ray import storage
from mtl_ray.inputs.image_header import JPEG, PNG
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.folders import is_image
from mtl_ray.sources.source import SkippedItem, UnreadableError

_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Characters that neither XML nor a list with one name per line can hold."""
WrittenMasks = Literal["rle", "polygons", "none"]
Writing = tuple[Any, list[SkippedItem]]
"""A small picklable record for the split's own file, and the items that the format cannot
express.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Output of a writer.

    Attributes:
        uri: the folder of the dataset, which may hold other splits; or a COCO file.
        split: name of the split, part of file names.
        vocabulary: class names and keypoints.
        images: whether image files are written.
        masks: form of masks; None for the default of the format.
        annotated: False if no image is annotated, so that images get no note.
    """

    uri: str
    split: str
    vocabulary: Vocabulary
    images: bool = True
    masks: WrittenMasks | None = None
    annotated: bool = True


class Writer(Protocol):
    """Writes a split; picklable. ``write`` runs anywhere, ``finish`` once, with the records of
    all samples in order.
    """

    @property
    def target(self) -> Target:
        """The output."""
        ...

    def write(self, sample: Sample) -> Writing:
        """Writes the files of one sample.

        Raises:
            UnreadableError: if the sample cannot be written.
        """
        ...

    def finish(self, records: Iterable[Any]) -> str:
        """Writes the split's own file, last, and gives its URI.

        Raises:
            ValueError: if the folder holds a different dataset, or two samples have the same name.
        """
        ...


def path_of(sample: Sample) -> str:
    """The path of a sample's image in the folder of images: its key, with a suffix if it lacks one.

    Raises:
        UnreadableError: if the path leaves the folder or has control characters.
    """
    key = sample.key
    if "\\" in key or "\0" in key or not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise UnreadableError(key, "its name is not a path inside a folder")
    if len(key.splitlines()) > 1 or _CONTROL.search(key):
        raise UnreadableError(repr(key), "its name has control characters")
    return key if is_image(key) else key + _suffix(sample.image)


def stem_of(path: str) -> str:
    """A path without its suffix."""
    return path.rpartition(".")[0]


def write_image(uri: str, sample: Sample) -> None:
    """Writes a sample's image, unless a file of its size exists."""
    if (
        not storage.is_remote(uri)
        and storage.exists(uri)
        and storage.size(uri) == len(sample.image)
    ):
        return
    write_file(uri, sample.image)


def write_file(uri: str, data: bytes) -> None:
    """Writes one of many small files atomically, without waiting for the disk (70 times slower):
    ``flush_to_disk`` does.
    """
    if storage.is_remote(uri):
        storage.write(uri, data)
        return
    path = Path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(uri: str) -> None:
    """Flushes all written files to the disk, if the output is local."""
    if not storage.is_remote(uri):
        os.sync()


def unique(paths: Iterable[str], what: str) -> list[str]:
    """The paths as a list.

    Raises:
        ValueError: if a path is repeated.
    """
    found = list(paths)
    if len(set(found)) < len(found):
        twice = next(path for number, path in enumerate(found) if path in found[:number])
        raise ValueError(
            f"two images would have the same {what}, {twice}: they differ in folder or suffix only"
        )
    return found


def needs(
    vocabulary: Vocabulary, kind: Literal["instances", "semantic"], form: str
) -> tuple[str, ...]:
    """The class names of a kind of annotation.

    Raises:
        ValueError: if the dataset has none, or a class name has line breaks or control characters.
    """
    if kind not in vocabulary.classes:
        has = ", ".join(vocabulary.classes) or "nothing"
        raise ValueError(f"--format {form} needs {kind}; the dataset has {has}")
    names = vocabulary.classes[kind]
    if form != "coco" and (
        odd := [name for name in names if len(name.splitlines()) != 1 or _CONTROL.search(name)]
    ):
        raise ValueError(
            f"--format {form} cannot hold the class name {odd[0]!r}; rename it with --classes when "
            "the dataset is converted"
        )
    return names


def _suffix(data: bytes) -> str:
    if data.startswith(JPEG) or not data:  # a missing image has no bytes
        return ".jpg"
    return (
        ".png"
        if data.startswith(PNG)
        else ".bmp"
        if data.startswith(b"BM")
        else ".webp"
        if data[8:12] == b"WEBP"
        else ".img"
    )
