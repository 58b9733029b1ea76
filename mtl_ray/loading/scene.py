"""A decoded sample on its way to the network: what transforms change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import AnnotationKind, ClassMapper
from mtl_ray.inputs.input import Input
from mtl_ray.inputs.point_cloud import PointCloud
from mtl_ray.samples import Sample

AnyKind = AnnotationKind[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """The decoded input of one sample, and what is annotated.

    Attributes:
        raw: the decoded input, such as (H, W, 3) uint8 RGB or a ``PointCloud``.
        parts: the annotation of each kind (``AnnotationKind.load``); a kind that is absent is not
            annotated.
        mirror: for each keypoint the one that it becomes in a mirror.
        known_classes: by kind, (C,) bool: the classes that the dataset of this sample annotates, of
            those of the run.
        valid_hw: height and width of the part of the image, from its top left corner, that is no
            padding, where a transform has put it on a canvas; None for all of it.
    """

    raw: Any
    parts: Mapping[AnyKind, Any]
    mirror: tuple[int, ...] = ()
    known_classes: Mapping[str, NDArray[np.bool_]]
    valid_hw: tuple[int, int] | None = None

    @property
    def image(self) -> NDArray[np.uint8]:
        """The image of a scene that has one."""
        found: NDArray[np.uint8] = self.raw
        return found

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def cloud(self) -> PointCloud:
        """The cloud of a scene that has one."""
        found: PointCloud = self.raw
        return found

    def num_bytes(self, source: Input[Any, Any, Any, Any]) -> int:
        """About the memory that it takes; ``source`` is the kind of its input."""
        return source.num_raw_bytes(self.raw) + sum(
            kind.num_loaded_bytes(part) for kind, part in self.parts.items()
        )

    def part(self, name: str) -> Any | None:
        """The annotation of a kind by its name; None if it is not annotated."""
        return next((part for kind, part in self.parts.items() if kind.name == name), None)

    def changed(self, raw: Any, change: Callable[[AnyKind, Any], Any]) -> "Scene":
        """Another input, and each annotation changed in the same way."""
        return replace(
            self,
            raw=raw,
            parts={kind: change(kind, part) for kind, part in self.parts.items()},
            valid_hw=None,
        )


@dataclass(frozen=True, slots=True)
class InvalidSample:
    """A sample that could not be read, by its key, and why."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneRule:
    """How the samples of one split become scenes.

    Attributes:
        input: the input that the network takes.
        kinds: the kinds of annotation that are loaded, with what their class indices become.
        fields: by kind, further arrays that a head reads, such as masks.
        known_classes, mirror: see ``Scene``.
        limit: the most pixels or values of an input.
    """

    input: Input[Any, Any, Any, Any]
    kinds: Mapping[AnyKind, ClassMapper]
    fields: Mapping[str, frozenset[str]]
    known_classes: Mapping[str, NDArray[np.bool_]]
    mirror: tuple[int, ...]
    limit: int

    def decode(self, sample: Sample) -> Scene:
        """Decodes a sample.

        Raises:
            ValueError: in one sentence, if the input or an annotation cannot be read, or they do
                not fit together.
        """
        if self.input.name not in sample.inputs:
            raise ValueError(
                f"it has no {self.input.name}, it has {', '.join(sample.inputs)} (data.canvas.type)"
            )
        raw = self.input.decode(sample.inputs[self.input.name], self.limit)
        parts = {}
        for kind, mapper in self.kinds.items():
            value = sample.annotations.get(kind.name)
            if value is not None:
                parts[kind] = kind.load(
                    value, mapper, raw, self.limit, self.fields.get(kind.name, frozenset())
                )
        return Scene(raw=raw, parts=parts, mirror=self.mirror, known_classes=self.known_classes)
