"""Config of the dense heads, which predict on every cell of their levels: ``yolov3`` and
``retinanet``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.tasks.detection.options import (
    Selection,
    check_equal_channels,
    check_maps,
    stride_of,
)
from mtl_ray.tasks.detection.task import DETECTION, DetectionTask
from mtl_ray.tasks.task import AnyHead, HeadOptions

if TYPE_CHECKING:
    from mtl_ray.models.head import Head


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Yolov3Head(HeadOptions):
    """YOLOv3 (Redmon and Farhadi 2018): anchors on each level, objectness and independent class
    scores.
    """

    type: Literal["yolov3"] = "yolov3"
    task: ClassVar[DetectionTask] = DETECTION
    annotation: ClassVar[Annotation] = "instances"
    levels: tuple[str, ...] = ("P3", "P4", "P5")
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    """(width, height) in canvas pixels, a list for each level in the order of ``levels``; the lists
    may have different lengths.
    """
    channels: int = Field(default=128, ge=1)
    box_weight: float = Field(default=5.0, ge=0)
    """Weight of the box loss (CIoU) among this head's losses."""
    objectness_weight: float = Field(default=1.0, ge=0)
    """Weight of the objectness loss."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the class loss."""
    select: Selection = Field(default_factory=Selection)

    def __post_init__(self) -> None:
        if len(self.anchors) != len(self.levels) or not self.levels:
            raise ValueError(
                f"anchors: one list for each of the {len(self.levels)} levels is needed, not "
                f"{len(self.anchors)}"
            )
        empty = [
            level for level, anchors in zip(self.levels, self.anchors, strict=True) if not anchors
        ]
        if empty:
            raise ValueError(
                f"anchors: {', '.join(empty)} has no anchors. Fix: remove it from levels, and its "
                "empty list from anchors"
            )
        if any(side <= 0 for level in self.anchors for anchor in level for side in anchor):
            raise ValueError("anchors: width and height must be above 0")

    def anchor_sides(self) -> tuple[float, float]:
        """See ``AnchoredHead``."""
        sides = [(width * height) ** 0.5 for level in self.anchors for width, height in level]
        return min(sides), max(sides)

    def anchor_advice(self, name: str) -> str:
        """See ``AnchoredHead``."""
        return "python -m jobs.anchors"

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.dense.yolov3 import Yolov3

        check_maps(self.type, self.levels, strides)
        return Yolov3(self, channels, strides, len(vocabulary.classes[self.annotation]))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RetinaNetHead(HeadOptions):
    """RetinaNet (Lin et al. 2017): dense anchors, focal loss, shared towers."""

    type: Literal["retinanet"] = "retinanet"
    task: ClassVar[DetectionTask] = DETECTION
    annotation: ClassVar[Annotation] = "instances"
    levels: tuple[str, ...] = ("P3", "P4", "P5")
    channels: int = Field(default=128, ge=1)
    convs: int = Field(default=2, ge=0)
    """Convolutions of each tower."""
    anchor_scale: float = Field(default=4.0, gt=0)
    """Side of the smallest anchor of a level, in cells."""
    octaves: int = Field(default=3, ge=1)
    """Anchor sizes of a level: steps from the smallest size to twice that."""
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height / width of the anchors."""
    box_weight: float = Field(default=2.0, ge=0)
    """Weight of the box loss (GIoU) among this head's losses."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the class loss (focal)."""
    select: Selection = Field(default_factory=Selection)

    def anchor_sides(self) -> tuple[float, float]:
        """See ``AnchoredHead``."""
        octaves = (1.0, 2 ** ((self.octaves - 1) / self.octaves))
        sides = [
            self.anchor_scale * octave * stride_of(level)
            for level in self.levels
            for octave in octaves
        ]
        return min(sides), max(sides)

    def anchor_advice(self, name: str) -> str:
        """See ``AnchoredHead``."""
        return f"a smaller model.heads.{name}.anchor_scale"

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.dense.retinanet import RetinaNet

        check_maps(self.type, self.levels, strides)
        check_equal_channels(self.type, self.levels, channels)
        return RetinaNet(self, channels, strides, len(vocabulary.classes[self.annotation]))


HEADS: tuple[type[AnyHead], ...] = (Yolov3Head, RetinaNetHead)
