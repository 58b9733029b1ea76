"""What is known of one image: the word Sample, and the Vocabulary that gives its numbers their names.

Everything here is in the original image as it is shown (EXIF orientation applied). ``None`` means "not annotated": no loss
and no score come from it. An empty array means "annotated, and there is nothing".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Annotation = Literal["labels", "instances", "semantic"]
"""The kinds of annotation that a Sample can carry; a head reads exactly one of them."""

IGNORE_INDEX = 255
"""The value of a semantic map that means "this pixel has no class": it gives neither loss nor score."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Instances:
    """The objects of one image, N of them, as parallel arrays.

    Attributes:
        boxes_xyxy: (N, 4) float32, pixels of the shown image, x2 and y2 exclusive (a box over the whole image ends at width, height).
        classes: (N,) int64, indices into ``Vocabulary.instances``.
        ids: (N,) int64, the annotation ids of the source; -1 where it has none.
        areas: (N,) float32, square pixels as the source states them (box area where it does not).
        crowd: (N,) bool, COCO ``iscrowd``: a region with many objects; never a training target, an ignore region in COCO metrics.
        difficult: (N,) bool, Pascal VOC ``difficult``.
        truncated: (N,) bool, Pascal VOC ``truncated``.
        masks: N COCO run-length encodings (the compressed ``counts`` bytes, of size (height, width) of the image), b"" for an
            object without one; None where the set has no masks.
        keypoints: (N, K, 3) float32 as x, y, visibility (0 not labelled, 1 hidden, 2 visible); None where the set has none.
        attributes: further (N,) int64 columns by name, -1 where unknown.
    """

    boxes_xyxy: NDArray[np.float32]
    classes: NDArray[np.int64]
    ids: NDArray[np.int64]
    areas: NDArray[np.float32]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    masks: tuple[bytes, ...] | None = None
    keypoints: NDArray[np.float32] | None = None
    attributes: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """One image with whatever is known of it.

    Attributes:
        key: unique in its split; for files, the path relative to the image folder.
        image: the encoded file as it was found (JPEG, PNG, ...), at most a few megabytes.
        height, width: pixels of the image as it is shown.
        labels: (K,) int64 indices of the classes the image has, into ``Vocabulary.labels``.
        instances: the objects.
        semantic: a PNG of one uint8 class index a pixel, (height, width), ``IGNORE_INDEX`` where there is none.
    """

    key: str
    image: bytes
    height: int
    width: int
    labels: NDArray[np.int64] | None = None
    instances: Instances | None = None
    semantic: bytes | None = None

    @property
    def annotated(self) -> bool:
        """Whether it carries annotations of any kind, be it an empty list."""
        return any(each is not None for each in (self.labels, self.instances, self.semantic))


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The names behind the numbers of a split; it travels inside every manifest, checkpoint and bundle.

    Attributes:
        classes: class names by kind of annotation; a kind that the split does not annotate is absent.
        exclusive_labels: True if every image has exactly one label.
        keypoints: names of the keypoints of an instance, in order.
        skeleton: pairs of keypoint indices (from 0) to be joined by a line.
        mirror: for each keypoint the index of the one it becomes when the image is flipped from left to right.
        colours: RGB of each class by kind of annotation, where the source has its own.
        category_ids: the source's own category number of each class by kind (COCO's have gaps), where it has them.
    """

    classes: Mapping[Annotation, tuple[str, ...]]
    exclusive_labels: bool = False
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    mirror: tuple[int, ...] = ()
    colours: Mapping[Annotation, tuple[tuple[int, int, int], ...]] = field(default_factory=dict)
    category_ids: Mapping[Annotation, tuple[int, ...]] = field(default_factory=dict)
