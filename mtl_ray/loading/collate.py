"""Scenes become the slots of a Batch. Inputs are written once, straight into the batch's memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.scene import AnyKind, InvalidSample, Scene
from mtl_ray.samples import Vocabulary


@dataclass(frozen=True, slots=True)
class BatchSlot:
    """What is known of one slot once its input lies in the batch: the annotations, which are
    collated at the end.

    Attributes:
        key: of the sample.
        parts: by kind, placed in the network's frame; a kind that is absent is not annotated.
        known_classes: see ``Scene``; empty for a sample that could not be read.
        invalid: what could not be read on the way: the sample itself, or partners of its mosaic.
    """

    key: str
    parts: Mapping[AnyKind, Any] = field(default_factory=dict)
    known_classes: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    invalid: tuple[InvalidSample, ...] = ()


class InputBuffers:
    """The memory of one batch of inputs; threads fill different slots at the same time."""

    def __init__(self, size: int, rule: AnyCanvas, *, pinned: bool) -> None:
        """Reserves memory for ``size`` samples, page-locked where it is to be copied to a GPU
        (``pinned``).
        """
        self.rule = rule
        self.tensors: dict[str, Tensor] = {}
        for name, spec in rule.input.arrays(rule).items():
            dtype = torch.from_numpy(np.empty(0, spec.dtype)).dtype
            self.tensors[name] = torch.empty((size, *spec.shape), dtype=dtype, pin_memory=pinned)
        self._arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}

    def fill(self, slot: int, key: str, scene: Scene, rule: AnyCanvas | None = None) -> BatchSlot:
        """Puts a scene into the network's frame at a slot; ``rule`` is another way to fit it to
        a frame of the same size.
        """
        rule = rule or self.rule
        arrays = self._slot(slot)
        frame = rule.input.fill(scene.raw, rule, arrays)
        if scene.valid_hw is not None:  # a transform has put the image on the canvas
            arrays["valid_hw"][:] = scene.valid_hw
        parts = {kind: kind.place(part, frame) for kind, part in scene.parts.items()}
        return BatchSlot(key, parts, scene.known_classes)

    def leave_empty(self, slot: int, key: str) -> BatchSlot:
        """Fills a slot whose sample could not be read."""
        self.rule.input.fill_empty(self.rule, self._slot(slot))
        return BatchSlot(key)

    def trimmed(self) -> dict[str, Tensor]:
        """The inputs, once all slots are filled; see ``Input.trim``."""
        trimmed = self.rule.input.trim(self._arrays)
        return {
            name: self.tensors[name][tuple(slice(length) for length in values.shape)]
            for name, values in trimmed.items()
        }

    def _slot(self, slot: int) -> dict[str, NDArray[Any]]:
        return {name: array[slot] for name, array in self._arrays.items()}


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Makes a Batch of filled slots.

    Attributes:
        vocabulary: of the run; its kinds of annotation are the targets.
        kinds: those kinds.
        fields: by kind, further arrays that a head reads, such as masks.
        pinned: as in ``InputBuffers``.
    """

    vocabulary: Vocabulary
    kinds: Sequence[AnyKind]
    fields: Mapping[str, frozenset[str]]
    pinned: bool

    def __call__(self, buffers: InputBuffers, slots: Sequence[BatchSlot]) -> Batch:
        """The Batch of ``buffers``, whose slots are all filled."""
        targets = {kind.name: self._targets(kind, slots, buffers.rule) for kind in self.kinds}
        return Batch(
            inputs=buffers.trimmed(), targets=targets, keys=tuple(slot.key for slot in slots)
        )

    def _targets(
        self, kind: AnyKind, slots: Sequence[BatchSlot], rule: AnyCanvas
    ) -> dict[str, Tensor]:
        parts = [slot.parts.get(kind) for slot in slots]
        classes = self.vocabulary.classes[kind.name]
        arrays = dict(kind.collate(parts, classes, rule, self.fields.get(kind.name, frozenset())))
        arrays["annotated"] = np.array([part is not None for part in parts], np.bool_)
        known = np.ones((len(slots), len(classes)), np.bool_)
        for row, slot in enumerate(slots):
            if kind.name in slot.known_classes:
                known[row] = slot.known_classes[kind.name]
        arrays["known_classes"] = known
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
        }
        return (
            {name: tensor.pin_memory() for name, tensor in tensors.items()}
            if self.pinned
            else tensors
        )
