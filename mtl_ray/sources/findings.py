"""Counts of skipped and changed items, and when a conversion must not be published.

Shared by ``jobs.convert`` and ``jobs.analyze dataset``.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mtl_ray.inputs.image import IMAGE
from mtl_ray.sources.source import UNKNOWN_CLASS, SkippedItem

_WORTH_A_WARNING = 0.01
"""Share of skipped images or annotations above which a warning is printed."""
_REASONS = 3
"""Number of reasons in the warning."""
_NAMES = 5


@dataclass(kw_only=True, eq=False)
class Findings:
    """Counts of read items, rejected items and notes; those of several parts can be merged.

    Attributes:
        images: number of samples that were read.
        annotated: number of those with any kind of annotation, also an empty one.
        annotations: number of objects, labels and semantic maps that were read.
        rejected_images: number of whole images that were skipped.
        reasons: number of rejected images and annotations, by the general part of the reason.
        notes: number of items that were read with a change, by the general part of the note.
        unknown: number of rejected objects of unknown classes, by class.
        first: the first item of each reason or note.
        noun: what a sample is called in messages.
    """

    images: int = 0
    annotated: int = 0
    annotations: int = 0
    rejected_images: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    first: dict[str, SkippedItem] = field(default_factory=dict)
    noun: str = IMAGE.noun

    @property
    def rejected(self) -> int:
        """Number of skipped images and annotations."""
        return self.reasons.total()

    @property
    def rejected_annotations(self) -> int:
        """Number of skipped annotations, of images that were read or of no image."""
        return self.rejected - self.rejected_images

    def add(self, items: Iterable[SkippedItem]) -> None:
        """Counts rejected items and notes."""
        for item in items:
            general, _, special = item.reason.partition(": ")
            self.first.setdefault(general, item)
            if item.note:
                self.notes[general] += 1
                continue
            self.reasons[general] += 1
            self.rejected_images += not item.object
            if general == UNKNOWN_CLASS:
                self.unknown[special] += 1

    def merge(self, other: "Findings") -> None:
        """Adds the counts of another part of the same dataset."""
        self.noun = other.noun if other.images else self.noun
        self.images += other.images
        self.annotated += other.annotated
        self.annotations += other.annotations
        self.rejected_images += other.rejected_images
        self.reasons += other.reasons
        self.notes += other.notes
        self.unknown += other.unknown
        self.first = {**other.first, **self.first}


def refusal(
    findings: Findings, counts: Mapping[str, Mapping[str, int]], *, allow_empty: bool = False
) -> str:
    """The reason why a split must not be published; empty if it may be.

    Args:
        findings: counts of the split.
        counts: images of each class, by kind of annotation and class name.
        allow_empty: whether a split may have no annotation at all (all images are negatives).
    """
    if findings.annotated and not findings.annotations and findings.rejected_annotations:
        return (
            f"all {findings.rejected_annotations:,} annotations were rejected, most of them: "
            f"{_most_frequent(findings)}"
        )
    if findings.annotated and not findings.annotations and not allow_empty:
        return (
            f"none of the {findings.images:,} {findings.noun}s has an annotation; "
            "Fix: check the folder and the names of the label files; --allow-empty takes a split "
            "of negatives"
        )
    absent = [name for classes in counts.values() for name, count in classes.items() if not count]
    if absent and findings.unknown:
        unknown = ", ".join(
            f"{name!r} ({count:,})" for name, count in findings.unknown.most_common(_NAMES)
        )
        more = f" and {len(absent) - _NAMES} more" if len(absent) > _NAMES else ""
        return (
            f"no annotation has the class {', '.join(map(repr, absent[:_NAMES]))}{more}, while "
            f"{findings.unknown.total():,} were rejected for classes that are not in the list: "
            f"{unknown}; "
            "Fix: write the class names as the annotations have them"
        )
    return ""


def remarks(findings: Findings) -> Iterator[str]:
    """Lines for the user: a warning if many items were rejected, then the notes, most frequent
    first.
    """
    shares = {
        f"{findings.noun}s": (findings.rejected_images, findings.images + findings.rejected_images),
        "annotations": (
            findings.rejected_annotations,
            findings.annotations + findings.rejected_annotations,
        ),
    }
    much = [
        f"{bad:,} of {whole:,} {what}"
        for what, (bad, whole) in shares.items()
        if bad > _WORTH_A_WARNING * whole
    ]
    if much:
        yield f"warning: {' and '.join(much)} were rejected: {_most_frequent(findings)}"
    for general, count in findings.notes.most_common():
        yield f"note: {count:,} x {general}, such as {_example(findings.first[general])}"


def sentence_of(item: SkippedItem) -> str:
    """An item in one line."""
    return ": ".join(filter(None, (item.file, item.object, item.reason)))


def _most_frequent(findings: Findings) -> str:
    reasons = findings.reasons.most_common(_REASONS)
    return "; ".join(
        f"{count:,} x {general} (such as {_example(findings.first[general])})"
        for general, count in reasons
    )


def _example(item: SkippedItem) -> str:
    return ", ".join(filter(None, (item.file, item.object, item.reason.partition(": ")[2])))
