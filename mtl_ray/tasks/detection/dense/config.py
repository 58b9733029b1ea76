"""Config of the dense heads, which predict on every cell of their levels: ``yolov3``,
``retinanet``, ``fcos``, ``atss`` and ``gfl``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.tasks.detection.options import (
    Selection,
    cells,
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
    anchor_order: Literal["size", "ratio"] = "size"
    """Order of the anchors of a cell. size: all ratios of the smallest size come first. ratio: all
    sizes of the first ratio come first, as in the published networks.
    """
    anchor_offset: float = Field(default=0.5, ge=0, le=1)
    """Place of the anchors in their cell: 0.5 is its centre, 0 its top left corner (published)."""
    anchor_rule: Literal["exact", "torchvision"] = "exact"
    """torchvision: sides are whole pixels, and a level's stride is the canvas divided by its cells.
    """
    norm: Literal["batch", "group", "none"] = "batch"
    """Normalisation in the towers: none is published; group is that of torchvision's version 2."""
    norm_groups: int = Field(default=32, ge=1)
    """Groups of a group normalisation."""
    box_loss: Literal["giou", "l1", "smooth_l1"] = "giou"
    """giou: of the boxes. l1, smooth_l1: of their offsets from the anchors."""
    box_stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """The network's offsets (centre x, y, log width, height) are divided by these."""
    forced_to: Literal["first", "last", "own"] = "first"
    """The object of an anchor that is the best anchor of objects: the first or the last of them
    (OpenMMLab), or the object that it overlaps most (torchvision).
    """
    ignore_padding: bool = False
    """Anchors on the padding of the canvas are not trained, as in OpenMMLab. By default they are
    background.
    """
    box_weight: float = Field(default=2.0, ge=0)
    """Weight of the box loss among this head's losses."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the class loss (focal)."""
    select: Selection = Field(default_factory=Selection)

    def level_sizes(self, canvas_hw: tuple[int, int]) -> tuple[int, ...]:
        """See ``decode.LevelledHead``."""
        anchors = self.octaves * len(self.ratios)
        return tuple(count * anchors for count in cells(self.levels, canvas_hw))

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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridSelection(Selection):
    """``Selection`` of the published dense detectors."""

    score_threshold: float = Field(default=0.05, ge=0, lt=1)
    iou_threshold: float = Field(default=0.6, gt=0, le=1)
    rank: Literal["candidate", "pair"] = "pair"
    threshold_on: Literal["score", "class"] = "class"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FcosSelection(GridSelection):
    """``Selection`` of the published FCOS without its later tricks."""

    iou_threshold: float = Field(default=0.5, gt=0, le=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridHead(HeadOptions):
    """Heads with one prediction on each cell and towers that all levels share."""

    task: ClassVar[DetectionTask] = DETECTION
    annotation: ClassVar[Annotation] = "instances"
    levels: tuple[str, ...] = ("P3", "P4", "P5", "P6", "P7")
    channels: int = Field(default=256, ge=1)
    convs: int = Field(default=4, ge=0)
    """Convolutions of each tower."""
    norm_groups: int = Field(default=32, ge=1)
    """Groups of the group normalisation after each convolution; they divide ``channels``."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the class loss."""
    box_weight: float = Field(default=2.0, ge=0)
    """Weight of the box loss among this head's losses."""
    select: GridSelection = Field(default_factory=GridSelection)

    def __post_init__(self) -> None:
        if self.channels % self.norm_groups:
            raise ValueError(
                f"norm_groups: {self.norm_groups} groups do not divide {self.channels} channels"
            )

    def level_sizes(self, canvas_hw: tuple[int, int]) -> tuple[int, ...]:
        """See ``decode.LevelledHead``."""
        return cells(self.levels, canvas_hw)

    def check(self, channels: Mapping[str, int], strides: Mapping[str, int]) -> None:
        """Raises a ValueError if the features do not fit."""
        check_maps(self.type, self.levels, strides)
        check_equal_channels(self.type, self.levels, channels)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FcosHead(GridHead):
    """FCOS (Tian et al. 2019): points, centerness; its later tricks by options."""

    type: Literal["fcos"] = "fcos"
    center_sampling: bool = False
    """Only points near the centre of an object learn it."""
    center_radius: float = Field(default=1.5, gt=0)
    """How near, in cells."""
    norm_on_bbox: bool = False
    """The network predicts positive multiples of the stride instead of the logarithm of pixels."""
    centerness_on_reg: bool = False
    """Centerness belongs to the tower of the boxes instead of that of the classes."""
    conv_bias: bool = False
    """Convolutions of the towers have biases before their normalisation."""
    points: Literal["centre", "torchvision"] = "centre"
    """Place of a point in its cell. torchvision: its top left corner, and a level's stride is the
    canvas divided by its cells.
    """
    limits: tuple[float, ...] | None = None
    """Largest distance in canvas pixels to the farthest side, of each level but the last; by
    default eight strides.
    """
    box_loss: Literal["iou", "giou"] = "iou"
    """iou: -log(IoU). giou: 1 - GIoU."""
    box_weight: float = Field(default=1.0, ge=0)
    """Weight of the box loss among this head's losses."""
    centerness_weight: float = Field(default=1.0, ge=0)
    """Weight of the centerness loss."""
    select: FcosSelection = Field(default_factory=FcosSelection)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limits is not None and len(self.limits) != len(self.levels) - 1:
            raise ValueError(
                f"limits: {len(self.levels) - 1} numbers are needed for {len(self.levels)} levels, "
                f"not {len(self.limits)}"
            )

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.dense.fcos import Fcos

        self.check(channels, strides)
        return Fcos(self, channels, strides, len(vocabulary.classes[self.annotation]))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AtssHead(GridHead):
    """ATSS (Zhang et al. 2020): one anchor on each cell, adaptive assignment, centerness."""

    type: Literal["atss"] = "atss"
    anchor_scale: float = Field(default=8.0, gt=0)
    """Side of the anchors in cells."""
    nearest: int = Field(default=9, ge=1)
    """Anchors of each level that an object considers."""
    box_stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    """The network's offsets (centre x, y, log width, height) are divided by these."""
    centerness_weight: float = Field(default=1.0, ge=0)
    """Weight of the centerness loss."""

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.dense.atss import Atss

        self.check(channels, strides)
        return Atss(self, channels, strides, len(vocabulary.classes[self.annotation]))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GflHead(GridHead):
    """Generalized focal loss (Li et al. 2020): the class score is the quality of the box, and sides
    are distributions.
    """

    type: Literal["gfl"] = "gfl"
    anchor_scale: float = Field(default=8.0, gt=0)
    """Side in cells of the anchors by which objects are assigned."""
    nearest: int = Field(default=9, ge=1)
    """Points of each level that an object considers."""
    reg_max: int = Field(default=16, ge=1)
    """Largest distance to a side in cells."""
    dfl_weight: float = Field(default=0.25, ge=0)
    """Weight of the distribution focal loss."""

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.dense.gfl import Gfl

        self.check(channels, strides)
        return Gfl(self, channels, strides, len(vocabulary.classes[self.annotation]))


HEADS: tuple[type[AnyHead], ...] = (Yolov3Head, RetinaNetHead, FcosHead, AtssHead, GflHead)
