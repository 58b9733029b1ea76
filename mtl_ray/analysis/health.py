"""The counts of a dataset check. Parts of a dataset are counted separately and merged."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.health_clouds import CloudHealth
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.sources.findings import Findings

MAX_NAMED = 200
"""Most problems of one kind that are listed for each part; all are counted."""
STEPS = 4
"""Bins per octave in the histograms."""
SIDE_OCTAVES = (-2, 12)
"""Range of the square root of a box's area: 1/4 to 4096 pixels."""
SHAPE_OCTAVES = (-5, 5)
"""Range of width / height of a box."""
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HealthProblem:
    """A problem of a sample or a file.

    Attributes:
        kind: such as "empty box".
        key: of the sample, or the file.
        text: details; may be empty.
    """

    kind: str
    key: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Hashes that identify an image.

    Attributes:
        key: of its sample.
        row: of its sample in the dataset.
        content: hash of the file; None if there is no file.
        look: a coarse and a fine perceptual hash; None if the image does not decode or is almost
            uniform.
    """

    key: str
    row: int
    content: bytes | None
    look: tuple[bytes, bytes] | None


@dataclass(kw_only=True, eq=False)
class Health:
    """Counts over samples; C classes of each kind of annotation.

    Attributes:
        vocabulary: the names of the class numbers.
        samples: number of samples.
        annotated, empty: by kind, samples with this annotation, and those of them without any
            content.
        images: by kind, (C,) samples with each class.
        objects: (C,) objects of each class.
        crowd, difficult: objects that are regions to ignore.
        pixels: (C,) pixels of semantic maps.
        no_class: pixels of semantic maps without a class.
        sides, shapes: histograms of boxes over octaves, STEPS bins each.
        coco_sizes: objects by the stated area, which is that of the mask if there is one: under 32
            x 32 pixels, under 96 x 96, larger.
        per_image: annotated samples by their number of objects.
        sizes: images by (width, height).
        colour: sums of the values of each channel, of their squares, and their number.
        problems, counted: the listed problems, and the number of each kind.
        identities: of all samples.
        clouds: counts of point clouds and boxes in space.
        findings: what the reader or the conversion skipped or changed, as in ``jobs.convert``.
    """

    vocabulary: Vocabulary
    samples: int = 0
    annotated: Counter[Annotation] = field(default_factory=Counter)
    empty: Counter[Annotation] = field(default_factory=Counter)
    images: dict[Annotation, Counts] = field(init=False)
    objects: Counts = field(init=False)
    crowd: int = 0
    difficult: int = 0
    pixels: Counts = field(init=False)
    no_class: int = 0
    sides: Counts = field(
        default_factory=lambda: np.zeros(STEPS * (SIDE_OCTAVES[1] - SIDE_OCTAVES[0]), np.int64)
    )
    shapes: Counts = field(
        default_factory=lambda: np.zeros(STEPS * (SHAPE_OCTAVES[1] - SHAPE_OCTAVES[0]), np.int64)
    )
    coco_sizes: Counts = field(default_factory=lambda: np.zeros(3, np.int64))
    per_image: Counter[int] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    colour: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 3)))
    problems: list[HealthProblem] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    identities: list[Identity] = field(default_factory=list)
    clouds: CloudHealth = field(default_factory=CloudHealth)
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        classes = self.vocabulary.classes
        self.images = {kind: np.zeros(len(names), np.int64) for kind, names in classes.items()}
        self.objects = np.zeros(len(classes.get("instances", ())), np.int64)
        self.pixels = np.zeros(len(classes.get("semantic", ())), np.int64)

    @property
    def unit(self) -> str:
        """What its samples are, for people."""
        if len(self.clouds.clouds):
            return "clouds"
        return "images" if self.sizes or not self.samples else "samples"

    def report(self, kind: str, key: str, text: str = "") -> None:
        """Counts a problem, and lists it unless there are too many of its kind."""
        self.counted[kind] += 1
        if self.counted[kind] <= MAX_NAMED:
            self.problems.append(HealthProblem(kind, key, text))

    def merge(self, other: "Health") -> None:
        """Adds the counts of other samples of the same dataset."""
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
        self.clouds.merge(other.clouds)
        self.findings.merge(other.findings)


def in_octaves(values: NDArray[np.float64], octaves: tuple[int, int]) -> Counts:
    """A histogram of values above 0.

    Values outside the range count in the first or the last bin.
    """
    low, high = octaves
    bins = (
        np.floor((np.log2(values) - low) * STEPS).clip(0, (high - low) * STEPS - 1).astype(np.int64)
    )
    return np.bincount(bins, minlength=(high - low) * STEPS)


def bin_edges(octaves: tuple[int, int]) -> NDArray[np.float64]:
    """The edges of the bins of ``in_octaves``."""
    low, high = octaves
    return np.asarray(2.0 ** (np.arange((high - low) * STEPS + 1) / STEPS + low), np.float64)
