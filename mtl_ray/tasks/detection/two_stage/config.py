"""Config of the heads that classify regions of interest: ``faster_rcnn``, ``cascade_rcnn`` and
``mask_rcnn``.

The defaults are those of OpenMMLab's published models. The networks of torchvision have
``rounded_anchors``, ``min_box_px`` 0.001 (``rpn``) and 0.01 (``roi``), ``train_proposals`` 2000,
``aligned`` false, ``sampling`` 2 and, in training, ``beta`` 1/9.
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

Norm = Literal["none", "batch"]
"""Normalisation of convolutions of a branch of regions."""
Stds = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RpnOptions:
    """The region proposal network (Ren et al. 2015)."""

    channels: int = Field(default=256, ge=1)
    convs: int = Field(default=1, ge=1)
    anchor_scales: tuple[float, ...] = Field(default=(8.0,), min_length=1)
    """Sides of the anchors of a level, in cells."""
    ratios: tuple[float, ...] = Field(default=(0.5, 1.0, 2.0), min_length=1)
    """Height / width of the anchors."""
    rounded_anchors: bool = False
    """Corners of the anchors relative to their centre are whole pixels."""
    positive_iou: float = Field(default=0.7, gt=0, le=1)
    """IoU from which an anchor is an object."""
    negative_iou: float = Field(default=0.3, gt=0, le=1)
    """IoU below which it is background; between the two it is ignored."""
    least_iou: float = Field(default=0.3, gt=0, le=1)
    """The best anchors of an object are positive if their IoU reaches this."""
    border_px: float | None = Field(default=None, ge=0)
    """Anchors that cross the border of the image by more are not trained; null: all are."""
    samples: int = Field(default=256, ge=1)
    """Anchors of an image that are trained in a step."""
    positive_share: float = Field(default=0.5, gt=0, le=1)
    """Most positive ones among them."""
    train_candidates: int = Field(default=2000, ge=1)
    """Most anchors of a level that enter the suppression in training, best first."""
    train_proposals: int = Field(default=1000, ge=1)
    """Proposals of an image in training."""
    candidates: int = Field(default=1000, ge=1)
    """The same in prediction."""
    proposals: int = Field(default=1000, ge=1)
    """The same in prediction."""
    iou_threshold: float = Field(default=0.7, gt=0, le=1)
    """A proposal with more IoU to a better one of its level is suppressed."""
    min_box_px: float = Field(default=0.0, ge=0)
    """Proposals whose width or height does not exceed this are left out."""
    beta: float = Field(default=0.0, ge=0)
    """Where the box loss becomes linear (smooth L1); 0: L1."""
    class_weight: float = Field(default=1.0, ge=0)
    box_weight: float = Field(default=1.0, ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RoiStage:
    """A stage of the classifier of regions (Cai and Vasconcelos 2018)."""

    iou: float = Field(default=0.5, gt=0, le=1)
    """IoU from which a region is an object; below it is background."""
    stds: Stds = (0.1, 0.1, 0.2, 0.2)
    """Units of its box offsets x, y, log width, log height."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of its losses."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RoiOptions:
    """The classifier of regions of interest (Girshick 2015) on a pyramid (Lin et al. 2017)."""

    levels: int = Field(default=4, ge=1)
    """The features are pooled from the first so many levels of the head."""
    finest_px: float = Field(default=56.0, gt=0)
    """Side of the regions from which the second level is used, halved."""
    size: int = Field(default=7, ge=1)
    """Cells of a side of the pooled features."""
    sampling: int = Field(default=0, ge=0)
    """Samples of a side of a cell of RoIAlign (He et al. 2017); 0: by the size of the region. Of
    masks, too.
    """
    aligned: bool = True
    """The centre of the first cell of a feature map lies half a cell inside. Of masks, too."""
    convs: int = Field(default=0, ge=0)
    """Convolutions before the linear layers."""
    conv_channels: int = Field(default=256, ge=1)
    norm: Norm = "none"
    """Of these convolutions."""
    fcs: int = Field(default=2, ge=1)
    """Linear layers before the outputs."""
    channels: int = Field(default=1024, ge=1)
    """Of the linear layers."""
    class_agnostic: bool = False
    """One box for all classes instead of one for each."""
    samples: int = Field(default=512, ge=1)
    """Regions of an image that are trained in a step; its objects are among the candidates."""
    positive_share: float = Field(default=0.25, gt=0, le=1)
    """Most positive ones among them."""
    low_quality: bool = False
    """The best proposals of an object that reach ``iou`` belong to it, even if another object
    overlaps them more.
    """
    stages: tuple[RoiStage, ...] = Field(default=(RoiStage(),), min_length=1)
    min_box_px: float = Field(default=0.0, ge=0)
    """Detections whose width or height is below this are left out before the suppression."""
    beta: float = Field(default=0.0, ge=0)
    """Where the box loss becomes linear (smooth L1); 0: L1."""
    class_weight: float = Field(default=1.0, ge=0)
    box_weight: float = Field(default=1.0, ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MaskOptions:
    """The mask branch (He et al. 2017); masks have twice ``size`` cells a side."""

    size: int = Field(default=14, ge=1)
    """Cells of a side of the pooled features."""
    convs: int = Field(default=4, ge=0)
    channels: int = Field(default=256, ge=1)
    norm: Norm = "none"
    """Of the convolutions."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of the mask loss."""


CASCADE = (
    RoiStage(),
    RoiStage(iou=0.6, stds=(0.05, 0.05, 0.1, 0.1), weight=0.5),
    RoiStage(iou=0.7, stds=(0.033, 0.033, 0.067, 0.067), weight=0.25),
)
"""The published stages."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CascadeRpn(RpnOptions):
    """``RpnOptions`` of the published Cascade R-CNN."""

    border_px: float | None = Field(default=0.0, ge=0)
    train_proposals: int = Field(default=2000, ge=1)
    beta: float = Field(default=1 / 9, ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CascadeRoi(RoiOptions):
    """``RoiOptions`` of the published Cascade R-CNN."""

    class_agnostic: bool = True
    stages: tuple[RoiStage, ...] = Field(default=CASCADE, min_length=1)
    beta: float = Field(default=1.0, ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MaskRoi(RoiOptions):
    """``RoiOptions`` of the published Mask R-CNN."""

    low_quality: bool = True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RegionSelection(Selection):
    """``Selection`` of the published two-stage detectors."""

    score_threshold: float = Field(default=0.05, ge=0, lt=1)
    candidates: int | None = Field(default=4000, ge=1)
    """Most pairs of a region and a class that enter the suppression, best first; null: all."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TwoStageHead(HeadOptions):
    """What the two-stage heads share."""

    task: ClassVar[DetectionTask] = DETECTION
    annotation: ClassVar[Annotation] = "instances"
    levels: tuple[str, ...] = ("P2", "P3", "P4", "P5", "P6")
    rpn: RpnOptions = Field(default_factory=RpnOptions)
    roi: RoiOptions = Field(default_factory=RoiOptions)
    select: RegionSelection = Field(default_factory=RegionSelection)

    def __post_init__(self) -> None:
        if self.roi.levels > len(self.levels):
            raise ValueError(
                f"roi.levels: the head has {len(self.levels)} levels, not {self.roi.levels}"
            )
        unused = ("rank", "threshold_on", "score", "best_class")
        changed = [
            name for name in unused if getattr(self.select, name) != getattr(Selection(), name)
        ]
        if changed:
            raise ValueError(
                f"select: a two-stage head ranks pairs of a region and a class by their score; "
                f"{', '.join(changed)} cannot be chosen"
            )

    @property
    def mask_branch(self) -> MaskOptions | None:
        """The options of the mask branch; None if there is none."""
        return None

    def anchor_sides(self) -> tuple[float, float]:
        """See ``AnchoredHead``."""
        sides = [
            scale * stride_of(level) for level in self.levels for scale in self.rpn.anchor_scales
        ]
        return min(sides), max(sides)

    def anchor_advice(self, name: str) -> str:
        """See ``AnchoredHead``."""
        return f"smaller model.heads.{name}.rpn.anchor_scales"

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.two_stage.faster_rcnn import FasterRcnn

        check_maps(self.type, self.levels, strides)
        check_equal_channels(self.type, self.levels, channels)
        return FasterRcnn(self, channels, strides, len(vocabulary.classes[self.annotation]))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FasterRcnnHead(TwoStageHead):
    """Faster R-CNN (Ren et al. 2015) on a feature pyramid (Lin et al. 2017)."""

    type: Literal["faster_rcnn"] = "faster_rcnn"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CascadeRcnnHead(TwoStageHead):
    """Cascade R-CNN (Cai and Vasconcelos 2018): each stage refines the regions of the last."""

    type: Literal["cascade_rcnn"] = "cascade_rcnn"
    rpn: CascadeRpn = Field(default_factory=CascadeRpn)
    roi: CascadeRoi = Field(default_factory=CascadeRoi)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MaskRcnnHead(TwoStageHead):
    """Mask R-CNN (He et al. 2017): Faster R-CNN and a mask of each object. With several
    ``roi.stages`` it is Cascade Mask R-CNN.
    """

    type: Literal["mask_rcnn"] = "mask_rcnn"
    fields: ClassVar[frozenset[str]] = frozenset({"masks"})
    mask_frame: ClassVar[Literal["box"]] = "box"
    """Its masks are grids over the boxes of the detections."""
    roi: MaskRoi = Field(default_factory=MaskRoi)
    mask: MaskOptions = Field(default_factory=MaskOptions)

    @property
    def mask_branch(self) -> MaskOptions:
        """See ``TwoStageHead``."""
        return self.mask


HEADS: tuple[type[AnyHead], ...] = (FasterRcnnHead, CascadeRcnnHead, MaskRcnnHead)
