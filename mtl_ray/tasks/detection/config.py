"""Config of the detection heads: ``yolov3`` and ``retinanet``."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Selection:
    """How boxes are chosen among a head's candidates."""

    score_threshold: float = Field(default=0.02, ge=0, lt=1)
    iou_threshold: float = Field(default=0.5, gt=0, le=1)
    """Boxes of one class that overlap more are suppressed."""
    max_detections: int = Field(default=100, ge=1)
    """Boxes of an image that are kept."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Yolov3Head:
    """YOLOv3 (Redmon and Farhadi 2018): anchors on each level, objectness and independent class scores."""

    type: Literal["yolov3"] = "yolov3"
    task: ClassVar[str] = "detection"
    annotation: ClassVar[str] = "instances"
    weight: float = Field(default=1.0, ge=0)
    """Weight of this head's losses in the sum."""
    levels: tuple[str, ...] = ("P3", "P4", "P5")
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    """(width, height) in canvas pixels, a list for each level in the order of ``levels``."""
    channels: int = Field(default=128, ge=1)
    select: Selection = Field(default_factory=Selection)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RetinaNetHead:
    """RetinaNet (Lin et al. 2017): dense anchors, focal loss, shared towers."""

    type: Literal["retinanet"] = "retinanet"
    task: ClassVar[str] = "detection"
    annotation: ClassVar[str] = "instances"
    weight: float = Field(default=1.0, ge=0)
    levels: tuple[str, ...] = ("P3", "P4", "P5")
    channels: int = Field(default=128, ge=1)
    convs: int = Field(default=2, ge=0)
    """Convolutions of each tower."""
    select: Selection = Field(default_factory=Selection)


HeadConfig = Annotated[Yolov3Head | RetinaNetHead, Field(discriminator="type")]
