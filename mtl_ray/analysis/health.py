"""What is counted when the health of a data set is looked at; parts of it are counted anywhere and merged."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.sources.findings import Findings

MAX_NAMED = 200
"""Problems of one kind that are named in each part; all are counted."""
STEPS = 4
"""Bins of an octave in the histograms."""
SIDE_OCTAVES = (-2, 12)
"""Of the square root of a box's area in pixels: from a quarter to 4096."""
SHAPE_OCTAVES = (-5, 5)
"""Of width / height of a box."""
Histogram = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that should be looked at.

    Attributes:
        kind: such as "empty box".
        key: of the sample, or the file.
        text: what is wrong there; may be empty.
    """

    kind: str
    key: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """By what a picture is known again.

    Attributes:
        key: of its sample.
        row: of its sample in the data set.
        content: a hash of the file; None if there is none.
        look: a rough and a finer hash of what it shows; None if it does not decode or shows next to nothing.
    """

    key: str
    row: int
    content: bytes | None
    look: tuple[bytes, bytes] | None


@dataclass(kw_only=True, eq=False)
class Health:
    """Counts over samples; C classes of each kind of annotation.

    Attributes:
        vocabulary: what the numbers mean.
        samples: how many.
        annotated, empty: by kind, samples with this annotation, and those of them in which there is nothing.
        images: by kind, (C,) samples that have each class.
        objects: (C,) objects.
        crowd, difficult: objects that are regions to ignore.
        pixels: (C,) pixels of semantic maps.
        no_class: pixels of semantic maps that have none.
        sides, shapes: histograms of boxes over octaves, STEPS bins each.
        coco_sizes: objects by the stated area, which is that of the mask if there is one: under 32 x 32 pixels, under 96 x 96, larger.
        per_image: annotated samples by their number of objects.
        sizes: pictures by (width, height).
        colour: sums of the values of each channel, of their squares, and how many there are.
        problems, counted: those that are named, and how many there are of each kind.
        identities: of all samples.
        findings: what the reader, or the conversion, left out or read with a change, as ``jobs.convert`` says it.
    """

    vocabulary: Vocabulary
    samples: int = 0
    annotated: Counter[Annotation] = field(default_factory=Counter)
    empty: Counter[Annotation] = field(default_factory=Counter)
    images: dict[Annotation, Histogram] = field(init=False)
    objects: Histogram = field(init=False)
    crowd: int = 0
    difficult: int = 0
    pixels: Histogram = field(init=False)
    no_class: int = 0
    sides: Histogram = field(default_factory=lambda: np.zeros(STEPS * (SIDE_OCTAVES[1] - SIDE_OCTAVES[0]), np.int64))
    shapes: Histogram = field(default_factory=lambda: np.zeros(STEPS * (SHAPE_OCTAVES[1] - SHAPE_OCTAVES[0]), np.int64))
    coco_sizes: Histogram = field(default_factory=lambda: np.zeros(3, np.int64))
    per_image: Counter[int] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    colour: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 3)))
    problems: list[Problem] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    identities: list[Identity] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        classes = self.vocabulary.classes
        self.images = {kind: np.zeros(len(names), np.int64) for kind, names in classes.items()}
        self.objects = np.zeros(len(classes.get("instances", ())), np.int64)
        self.pixels = np.zeros(len(classes.get("semantic", ())), np.int64)

    def report(self, kind: str, key: str, text: str = "") -> None:
        """Counts a problem, and names it if there are not too many of its kind."""
        self.counted[kind] += 1
        if self.counted[kind] <= MAX_NAMED:
            self.problems.append(Problem(kind, key, text))

    def merge(self, other: "Health") -> None:
        """Adds what was counted of other samples of the same data set."""
        self.samples += other.samples
        self.crowd += other.crowd
        self.difficult += other.difficult
        self.no_class += other.no_class
        for name in ("annotated", "empty", "per_image", "sizes", "counted"):
            getattr(self, name).update(getattr(other, name))
        for name in ("objects", "pixels", "sides", "shapes", "coco_sizes", "colour"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, counts in other.images.items():
            self.images[kind] = self.images[kind] + counts
        self.problems += other.problems
        self.identities += other.identities
        self.findings.merge(other.findings)


def in_octaves(values: NDArray[np.float64], octaves: tuple[int, int]) -> Histogram:
    """How many values above 0 fall into each bin; those beyond the ends are in the first and the last."""
    low, high = octaves
    bins = np.floor((np.log2(values) - low) * STEPS).clip(0, (high - low) * STEPS - 1).astype(np.int64)
    return np.bincount(bins, minlength=(high - low) * STEPS)


def bin_edges(octaves: tuple[int, int]) -> NDArray[np.float64]:
    """Where the bins of ``in_octaves`` begin and end."""
    low, high = octaves
    return np.asarray(2.0 ** (np.arange((high - low) * STEPS + 1) / STEPS + low), np.float64)
