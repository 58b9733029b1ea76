"""Scenes become the slots of a Batch. Images and maps are written once, straight into the batch's memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtl_ray.inputs.frame import Frame, frame_of, place, place_map
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.scene import Fault, Objects, Scene
from mtl_ray.samples import IGNORE_INDEX, Vocabulary


@dataclass(frozen=True, slots=True)
class Slot:
    """What is known of one slot once its image lies in the batch: the small things, which are collated at the end.

    Attributes:
        key: of the sample.
        frame: of its image, after augmentation.
        labels, objects: None if not annotated; boxes in canvas pixels.
        semantic: whether there is a map.
        faults: what could not be read on the way: the sample itself, or partners of its mosaic.
    """

    key: str
    frame: Frame
    labels: NDArray[np.int64] | None = None
    objects: Objects | None = None
    semantic: bool = False
    faults: tuple[Fault, ...] = ()


class Canvases:
    """The memory of one batch of images and maps; threads fill different slots at the same time."""

    def __init__(self, size: int, rule: Canvas, *, semantic: bool, pinned: bool) -> None:
        """Reserves memory for ``size`` samples, page-locked where it is to be copied to a GPU (``pinned``)."""
        self.rule = rule
        self.image = torch.empty(size, 3, rule.height, rule.width, dtype=torch.uint8, pin_memory=pinned)
        self.semantic = torch.empty(size, rule.height, rule.width, dtype=torch.uint8, pin_memory=pinned) if semantic else None
        self._image = self.image.numpy()
        self._semantic = None if self.semantic is None else self.semantic.numpy()

    def fill(self, slot: int, key: str, scene: Scene) -> Slot:
        """Puts a scene on the canvas of a slot."""
        canvas, frame = place(scene.image, self.rule)
        cv2.split(canvas, list(self._image[slot]))
        if self._semantic is not None:
            self._semantic[slot] = IGNORE_INDEX if scene.semantic is None else place_map(scene.semantic, frame, IGNORE_INDEX)
        objects = scene.objects
        if objects is not None:
            placed = objects.moved(frame.boxes_to_canvas(objects.boxes_xyxy))
            objects = placed.clipped(frame.valid_height, frame.valid_width)
        return Slot(key, frame, scene.labels, objects, scene.semantic is not None)

    def leave_empty(self, slot: int, key: str) -> Slot:
        """Fills a slot whose sample could not be read with the padding's grey."""
        self._image[slot] = self.rule.pad
        if self._semantic is not None:
            self._semantic[slot] = IGNORE_INDEX
        return Slot(key, frame_of(self.rule.height, self.rule.width, self.rule))


def collate(canvases: Canvases, slots: Sequence[Slot], vocabulary: Vocabulary) -> Batch:
    """The Batch of filled slots; its targets are the kinds of annotation that the vocabulary has."""
    valid = [(slot.frame.valid_height, slot.frame.valid_width) for slot in slots]
    targets: dict[str, Mapping[str, Tensor]] = {}
    if "instances" in vocabulary.classes:
        targets["instances"] = _instances([slot.objects for slot in slots])
    if canvases.semantic is not None:
        targets["semantic"] = {"classes": canvases.semantic, "annotated": _flags([slot.semantic for slot in slots])}
    if "labels" in vocabulary.classes:
        targets["labels"] = _labels([slot.labels for slot in slots], len(vocabulary.classes["labels"]))
    return Batch(
        inputs={"image": canvases.image, "valid_hw": torch.tensor(valid, dtype=torch.int32).reshape(len(slots), 2)},
        targets=targets,
        keys=tuple(slot.key for slot in slots),
    )


def _flags(values: Sequence[bool]) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def _instances(objects: Sequence[Objects | None]) -> dict[str, Tensor]:
    """Padded to the most of any sample, at least 1."""
    most = max([1, *(len(each.classes) for each in objects if each is not None)])
    boxes = np.zeros((len(objects), most, 4), np.float32)
    classes = np.zeros((len(objects), most), np.int64)
    crowd, present = np.zeros((2, len(objects), most), np.bool_)
    for row, each in enumerate(objects):
        if each is not None:
            count = len(each.classes)
            boxes[row, :count], classes[row, :count], crowd[row, :count] = each.boxes_xyxy, each.classes, each.crowd
            present[row, :count] = True
    target = {"boxes": boxes, "classes": classes, "crowd": crowd, "present": present}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in target.items()}
    return tensors | {"annotated": _flags([each is not None for each in objects])}


def _labels(labels: Sequence[NDArray[np.int64] | None], num_classes: int) -> dict[str, Tensor]:
    present = np.zeros((len(labels), num_classes), np.float32)
    for row, each in enumerate(labels):
        if each is not None:
            present[row, each] = 1
    return {"present": torch.from_numpy(present), "annotated": _flags([each is not None for each in labels])}
