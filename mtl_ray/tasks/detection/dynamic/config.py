"""Config of the dense heads with dynamic label assignment: ``yolox``, ``rtmdet`` and
``rtmdet_ins``.
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
)
from mtl_ray.tasks.detection.task import DETECTION, DetectionTask
from mtl_ray.tasks.task import AnyHead, HeadOptions

if TYPE_CHECKING:
    from mtl_ray.models.head import Head


@dataclass(frozen=True, kw_only=True, config=STRICT)
class YoloxSelection(Selection):
    """``Selection`` of the published YOLOX."""

    score_threshold: float = Field(default=0.01, ge=0, lt=1)
    iou_threshold: float = Field(default=0.65, gt=0, le=1)
    max_detections: int = Field(default=300, ge=1)
    candidates: int | None = Field(default=None, ge=1)
    rank: Literal["candidate", "pair"] = "pair"
    best_class: bool = True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class YoloxHead(HeadOptions):
    """YOLOX (Ge et al. 2021): no anchors, objectness, SimOTA. The defaults are those of YOLOX-l; s
    has 128 channels.
    """

    type: Literal["yolox"] = "yolox"
    task: ClassVar[DetectionTask] = DETECTION
    annotation: ClassVar[Annotation] = "instances"
    levels: tuple[str, ...] = ("P3", "P4", "P5")
    channels: int = Field(default=256, ge=1)
    convs: int = Field(default=2, ge=0)
    """Convolutions of each tower."""
    depthwise: bool = False
    """Depthwise and pointwise convolutions instead of 3x3 ones (YOLOX-nano)."""
    center_radius: float = Field(default=2.5, gt=0)
    """Half the side of the centre region of an object, in cells: candidates are there or in its
    box.
    """
    assign_topk: int = Field(default=10, ge=1)
    """Candidates whose overlaps are summed to the number of positive candidates of an object."""
    overlap_cost: float = Field(default=3.0, ge=0)
    """Weight of the overlap in the cost of the assignment."""
    class_cost: float = Field(default=1.0, ge=0)
    """Weight of the class score in the cost of the assignment."""
    box_weight: float = Field(default=5.0, ge=0)
    """Weight of the box loss (1 - IoU^2) among this head's losses."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the class loss."""
    objectness_weight: float = Field(default=1.0, ge=0)
    """Weight of the objectness loss."""
    l1_weight: float = Field(default=1.0, ge=0)
    """Weight of the L1 loss of the box offsets."""
    l1_from: int | None = Field(default=None, ge=0)
    """The optimiser step from which the L1 loss is on; null: never. YOLOX has it in the last 15 of
    300 epochs, in which mosaic is off.
    """
    select: YoloxSelection = Field(default_factory=YoloxSelection)

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.dynamic.yolox import Yolox

        check_maps(self.type, self.levels, strides)
        return Yolox(self, channels, strides, len(vocabulary.classes[self.annotation]))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _RtmdetOptions(HeadOptions):
    """What ``rtmdet`` and ``rtmdet_ins`` share.

    Attributes:
        one_tower: whether boxes are predicted by the tower of the classes.
    """

    task: ClassVar[DetectionTask] = DETECTION
    annotation: ClassVar[Annotation] = "instances"
    one_tower: ClassVar[bool] = False
    levels: tuple[str, ...] = ("P3", "P4", "P5")
    channels: int = Field(default=256, ge=1)
    convs: int = Field(default=2, ge=0)
    """Convolutions of each tower."""
    center_radius: float = Field(default=3.0, ge=0)
    """Distance of a candidate from the centre of an object, in cells, from which its cost grows
    fast.
    """
    assign_topk: int = Field(default=13, ge=1)
    """Candidates whose overlaps are summed to the number of positive candidates of an object."""
    overlap_cost: float = Field(default=3.0, ge=0)
    """Weight of the overlap in the cost of the assignment."""
    beta: float = Field(default=2.0, ge=0)
    """Exponent of the quality focal loss."""
    box_weight: float = Field(default=2.0, ge=0)
    """Weight of the box loss (GIoU) among this head's losses."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the class loss (quality focal loss)."""

    def level_sizes(self, canvas_hw: tuple[int, int]) -> tuple[int, ...]:
        """See ``LevelledHead``."""
        return cells(self.levels, canvas_hw)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RtmdetSelection(Selection):
    """``Selection`` of the published RTMDet."""

    score_threshold: float = Field(default=0.001, ge=0, lt=1)
    iou_threshold: float = Field(default=0.65, gt=0, le=1)
    max_detections: int = Field(default=300, ge=1)
    candidates: int | None = Field(default=30000, ge=1)
    rank: Literal["candidate", "pair"] = "pair"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RtmdetHead(_RtmdetOptions):
    """RTMDet (Lyu et al. 2022): no anchors, soft labels. The defaults are those of RTMDet-l; tiny
    has 96 channels and no ``exp_on_reg``.
    """

    type: Literal["rtmdet"] = "rtmdet"
    exp_on_reg: bool = True
    """The distances of the sides are exponentials, as in the published m, l and x; in tiny and s
    they are the outputs themselves.
    """
    select: RtmdetSelection = Field(default_factory=RtmdetSelection)

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.dynamic.rtmdet import Rtmdet

        check_maps(self.type, self.levels, strides)
        check_equal_channels(self.type, self.levels, channels)
        return Rtmdet(self, channels, strides, len(vocabulary.classes[self.annotation]))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RtmdetInsSelection(Selection):
    """``Selection`` of the published RTMDet-Ins."""

    score_threshold: float = Field(default=0.05, ge=0, lt=1)
    iou_threshold: float = Field(default=0.6, gt=0, le=1)
    rank: Literal["candidate", "pair"] = "pair"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RtmdetInsHead(_RtmdetOptions):
    """RTMDet-Ins (Lyu et al. 2022, section 3.5): RTMDet with instance masks, which a small network
    of each detection makes of features that all share. The defaults are those of RTMDet-Ins-l; tiny
    has 96 channels.
    """

    type: Literal["rtmdet_ins"] = "rtmdet_ins"
    fields: ClassVar[frozenset[str]] = frozenset({"masks"})
    one_tower: ClassVar[bool] = True
    mask_frame: ClassVar[Literal["canvas"]] = "canvas"
    prototypes: int = Field(default=8, ge=1)
    """Channels of the shared mask features."""
    mask_channels: int = Field(default=8, ge=1)
    """Channels of the network of a detection."""
    mask_convs: int = Field(default=3, ge=1)
    """Layers of the network of a detection."""
    feature_convs: int = Field(default=4, ge=0)
    """Convolutions of the mask features."""
    mask_loss_stride: int = Field(default=4, ge=1)
    """Canvas pixels per cell of the masks that are compared; a divisor of the first level's
    stride.
    """
    mask_weight: float = Field(default=2.0, ge=0)
    """Weight of the mask loss (dice) among this head's losses."""
    select: RtmdetInsSelection = Field(default_factory=RtmdetInsSelection)

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.dynamic.rtmdet_ins import RtmdetIns

        check_maps(self.type, self.levels, strides)
        check_equal_channels(self.type, self.levels, channels)
        if strides[self.levels[0]] % self.mask_loss_stride:
            raise ValueError(
                f"head {self.type!r}: mask_loss_stride {self.mask_loss_stride} is no divisor of "
                f"the stride of {self.levels[0]}, {strides[self.levels[0]]}"
            )
        return RtmdetIns(self, channels, strides, len(vocabulary.classes[self.annotation]))


HEADS: tuple[type[AnyHead], ...] = (YoloxHead, RtmdetHead, RtmdetInsHead)
