"""A decoded sample on its way to the canvas: what augmentation changes."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.decode import decode_image, decode_semantic
from mtl_ray.loading.join import Recoding
from mtl_ray.samples import Sample


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Objects:
    """N boxes as parallel arrays.

    Attributes:
        boxes_xyxy: (N, 4) float32 pixels of the scene.
        classes: (N,) int64.
        crowd: (N,) bool, a region to ignore: COCO ``iscrowd`` or Pascal VOC ``difficult``.
    """

    boxes_xyxy: NDArray[np.float32]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    def chosen(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Objects":
        """Some of them."""
        return Objects(boxes_xyxy=self.boxes_xyxy[which], classes=self.classes[which], crowd=self.crowd[which])

    def moved(self, boxes_xyxy: NDArray[np.float32]) -> "Objects":
        """The same objects with other boxes."""
        return Objects(boxes_xyxy=boxes_xyxy.astype(np.float32, copy=False), classes=self.classes, crowd=self.crowd)

    def clipped(self, height: int, width: int, min_visible: float = 0.0, min_side_px: float = 1.0) -> "Objects":
        """Boxes cut off at the edges of a (height, width) frame.

        Those of whose area less than ``min_visible`` is left are dropped (regions to ignore stay), and those with a side under
        ``min_side_px``.
        """
        before = (self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]).prod(axis=1)
        limit = np.array([width, height, width, height], np.float32)
        boxes = np.clip(self.boxes_xyxy, 0, limit)
        sides = boxes[:, 2:] - boxes[:, :2]
        seen = (sides.prod(axis=1) >= min_visible * before) | self.crowd
        keep = seen & (sides.min(axis=1) >= min_side_px)
        return self.moved(boxes) if keep.all() else self.moved(boxes).chosen(keep)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """One image and what is known of it, in pixels of this image; ``None`` is "not annotated".

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (K,) int64.
        objects: the boxes.
        semantic: (H, W) uint8 class indices.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    objects: Objects | None
    semantic: NDArray[np.uint8] | None

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def num_bytes(self) -> int:
        """Memory of the image and the map."""
        return self.image.nbytes + (0 if self.semantic is None else self.semantic.nbytes)


@dataclass(frozen=True, slots=True)
class Fault:
    """A sample that could not be read, by its key, and why."""

    key: str
    reason: str


def scene_of(sample: Sample, recoding: Recoding, kinds: Collection[str], max_pixels: int) -> Scene:
    """Decodes a sample; its class indices become those of the joined vocabulary. Kinds of annotation not in ``kinds`` are left out.

    Raises:
        ValueError: if the image or the map cannot be read or is not of the size that the sample states.
    """
    image = decode_image(sample.image, max_pixels)
    _check_size("picture", image, sample)
    labels = recoding.labels[sample.labels] if sample.labels is not None and "labels" in kinds else None
    objects = None
    if sample.instances is not None and "instances" in kinds:
        found = sample.instances
        classes = recoding.instances[found.classes]
        objects = Objects(boxes_xyxy=found.boxes_xyxy, classes=classes, crowd=found.crowd | found.difficult)
    semantic = None
    if sample.semantic is not None and "semantic" in kinds:
        stored = decode_semantic(sample.semantic, max_pixels)
        _check_size("semantic map", stored, sample)
        semantic = recoding.semantic[stored]
    return Scene(image=image, labels=labels, objects=objects, semantic=semantic)


def _check_size(what: str, decoded: NDArray[np.uint8], sample: Sample) -> None:
    height, width = decoded.shape[:2]
    if (height, width) != (sample.height, sample.width):
        raise ValueError(f"the {what} is {width} x {height} pixels, its record says {sample.width} x {sample.height}")
