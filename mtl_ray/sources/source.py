"""What every kind of raw dataset becomes: a Source, a list of records that can each be read into a Sample."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mtl_ray.layout import DEFAULT, Layout
from mtl_ray.samples import Sample, Vocabulary

if TYPE_CHECKING:
    from mtl_ray.sources.image_reading import ImageRule


@dataclass(frozen=True, slots=True)
class SkippedItem:
    """Something in a dataset that did not become part of a Sample, and why; or, as a note, what was read with a change.

    Attributes:
        file: the image or annotation file, relative to the root of the dataset.
        object: which of the file's objects ("annotation 17", "line 3"); empty where it is the whole file.
        reason: one clause for a person to read: a general part and, behind ": ", what is special to this item. Items with
            the same general part are counted together.
        note: True if nothing was left out: the item was used, but a user should know how (such as an image without an
            annotation file, or a mask of which a part was dropped).
    """

    file: str
    object: str
    reason: str
    note: bool = False

    def __post_init__(self) -> None:
        for name in ("file", "object", "reason"):
            object.__setattr__(self, name, as_text(getattr(self, name)))


NOT_UTF8 = "file name that is not UTF-8: bytes that are no text are written as %XX"
"""Note on an image whose name was made on a system with another encoding."""
UNKNOWN_CLASS = "unknown class"
"""General part of the reason of an object whose class is not in the list of classes."""


def unknown_class(name: object) -> str:
    """The reason to skip an object of a class that nobody listed."""
    return f"{UNKNOWN_CLASS}: {name}"


class UnreadableError(ValueError):
    """Raised by a reader for a record of which no Sample can be made; ``item`` says why."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.item = SkippedItem(file, "", reason)


Reading = tuple[Sample, list[SkippedItem]]
"""A Sample and those of its objects that were left out."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A raw dataset's split, listed but not read. It is picklable, and no larger than its records.

    Attributes:
        vocabulary: what the numbers in the Samples mean.
        records: what the reader needs to know of each image, small.
        reader: makes a Sample of a record; a function of a module, or a ``functools.partial`` of one. Raises ``UnreadableError``.
        skipped: what was found wrong while listing.
        layout: which inputs and kinds of annotation the Samples have.
        fingerprint: changes when the listing, an annotation, or the size, tag or time of an image changes.
    """

    vocabulary: Vocabulary
    records: Sequence[Any]
    reader: Callable[[Any], Reading]
    skipped: tuple[SkippedItem, ...] = ()
    fingerprint: str
    layout: Layout = DEFAULT

    def __post_init__(self) -> None:
        for name in (name for names in self.vocabulary.classes.values() for name in names):
            if as_text(name) != name:
                raise ValueError(f"the class name {as_text(name)!r} is not UTF-8 text; Fix: rename its folder, or write its file in UTF-8")

    def __len__(self) -> int:
        return len(self.records)

    def take(self, indices: Iterable[int]) -> "Source":
        """The Source of some of the records, in this order: what one task of many needs to be sent."""
        return replace(self, records=tuple(self.records[int(index)] for index in indices), skipped=())

    def read(self, index: int) -> tuple[Sample | None, list[SkippedItem]]:
        """The Sample of a record, or None, and whatever of it was left out."""
        try:
            sample, skipped = self.reader(self.records[index])
        except UnreadableError as error:
            return None, [error.item]
        if (key := as_text(sample.key)) == sample.key:
            return sample, skipped
        return replace(sample, key=key), [*skipped, SkippedItem(key, "", NOT_UTF8, note=True)]


class RawSource:
    """Base of the config classes of raw datasets.

    A plugin's class is a pydantic dataclass with a literal ``type``, ``root``, ``split`` and options of its own.

    Attributes:
        annotated: False for datasets without annotations.
        pixel_masks: True if the masks are stored per pixel; COCO files then get run lengths by default.
    """

    annotated: ClassVar[bool] = True
    pixel_masks: ClassVar[bool] = False

    def open(self, rule: "ImageRule") -> Source:
        """Lists the split.

        Args:
            rule: how large images may be, and whether image files may be missing.

        Raises:
            FileNotFoundError: saying what was looked for and what is there.
            ValueError: if an annotation file as a whole makes no sense.
        """
        raise NotImplementedError


def fingerprint_of(parts: Iterable[str | bytes]) -> str:
    """A sha256 over texts, such as the names and stamps of a listing and the contents of its annotation files."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def as_text(name: str) -> str:
    """A name of which every character can be written: a byte of a file name that is no UTF-8 becomes ``%XX``."""
    if name.isascii():
        return name
    return re.sub("[\ud800-\udfff]", lambda odd: f"%{ord(odd[0]) - 0xDC00:02X}" if 0xDC80 <= ord(odd[0]) < 0xDD00 else "\ufffd", name)
