"""A raw dataset as a Source: a list of records, each of which can be read into a Sample."""

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
    """An item of a dataset that was skipped, and why; or, as a note, an item that was used with a
    change.

    Attributes:
        file: the image or annotation file, relative to the root of the dataset.
        object: the object in the file ("annotation 17", "line 3"); empty for the whole file.
        reason: a general part and, after ": ", details of this item. Items with the same general
            part are counted together.
        note: True if the item was used, such as an image without an annotation file, or a mask
            without one of its parts.
    """

    file: str
    object: str
    reason: str
    note: bool = False

    def __post_init__(self) -> None:
        for name in ("file", "object", "reason"):
            object.__setattr__(self, name, as_text(getattr(self, name)))


NOT_UTF8 = "file name that is not UTF-8: bytes that are not text are written as %XX"
"""Note on an image whose name has another encoding."""
UNKNOWN_CLASS = "unknown class"
"""General part of the reason for an object whose class is not in the list of classes."""


def unknown_class(name: object) -> str:
    """The reason to skip an object whose class is not listed."""
    return f"{UNKNOWN_CLASS}: {name}"


class UnreadableError(ValueError):
    """Raised by a reader if a record gives no Sample; ``item`` has the reason."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.item = SkippedItem(file, "", reason)


Reading = tuple[Sample, list[SkippedItem]]
"""A Sample and its skipped objects and notes."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A listed split of a raw dataset. It is picklable and holds no image data.

    Attributes:
        vocabulary: class names and keypoints.
        records: one small record per sample, for the reader.
        reader: reads a record into a Sample; a module-level function or a ``functools.partial`` of
            one. Raises ``UnreadableError``.
        skipped: items that were skipped while listing, and notes.
        layout: the inputs and kinds of annotation of the Samples.
        fingerprint: changes with the listing, an annotation, or the size, tag or time of an image.
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
                raise ValueError(
                    f"the class name {as_text(name)!r} is not UTF-8 text; Fix: rename its folder, "
                    "or write its file in UTF-8"
                )

    def __len__(self) -> int:
        return len(self.records)

    def take(self, indices: Iterable[int]) -> "Source":
        """The Source of some records, in this order; a task gets one."""
        return replace(
            self, records=tuple(self.records[int(index)] for index in indices), skipped=()
        )

    def read(self, index: int) -> tuple[Sample | None, list[SkippedItem]]:
        """The Sample of a record, or None, with its skipped items."""
        try:
            sample, skipped = self.reader(self.records[index])
        except UnreadableError as error:
            return None, [error.item]
        if (key := as_text(sample.key)) == sample.key:
            return sample, skipped
        return replace(sample, key=key), [*skipped, SkippedItem(key, "", NOT_UTF8, note=True)]


class RawSource:
    """Base of the config classes of raw datasets.

    A plugin's class is a pydantic dataclass with a literal ``type``, ``root``, ``split`` and
    options of its own.

    Attributes:
        annotated: False for datasets without annotations.
        pixel_masks: True if the masks are stored per pixel; COCO files then get run lengths by
            default.
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
    """A sha256 over texts, such as names and stamps of files and contents of annotation files."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def as_text(name: str) -> str:
    """A name as valid text: bytes of a file name that are not UTF-8 become ``%XX``."""
    if name.isascii():
        return name
    return re.sub(
        "[\ud800-\udfff]",
        lambda odd: f"%{ord(odd[0]) - 0xDC00:02X}" if 0xDC80 <= ord(odd[0]) < 0xDD00 else "\ufffd",
        name,
    )
