"""Config of the real-time heads ``dfine`` and ``rtdetr_v2``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.tasks.detection.options import check_maps
from mtl_ray.tasks.detection.task import DETECTION, DetectionTask
from mtl_ray.tasks.task import AnyHead, HeadOptions

if TYPE_CHECKING:
    from mtl_ray.models.head import Head


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Denoising:
    """Further queries of training, made of objects with noise (Zhang et al. 2022, DINO, section
    3.3): the head learns to restore the objects, and to reject those with more noise.
    """

    queries: int = Field(default=100, ge=0)
    """Restored queries of an image, as many as rejected ones; 0: no such queries. An image with
    more objects has one of each for each object.
    """
    label_noise: float = Field(default=0.5, ge=0, le=1)
    """Half of this part of the queries gets a random class."""
    box_noise: float = Field(default=1.0, ge=0)
    """Largest shift of an edge of a restored query, in half widths or heights; that of a rejected
    one is twice as large, and at least this.
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Matching:
    """Costs of the matching of queries and objects, and the constants of its focal class cost."""

    class_cost: float = Field(default=2.0, ge=0)
    box_cost: float = Field(default=5.0, ge=0)
    """Of the L1 distance of the boxes, as parts of the canvas."""
    iou_cost: float = Field(default=2.0, ge=0)
    """Of GIoU."""
    alpha: float = Field(default=0.25, ge=0, le=1)
    gamma: float = Field(default=2.0, ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RealTimeOptions(HeadOptions):
    """What ``dfine`` and ``rtdetr_v2`` share.

    Boxes are parts of the whole canvas, with its padding, as in the originals, which stretch
    images: no token is masked.
    """

    task: ClassVar[DetectionTask] = DETECTION
    annotation: ClassVar[Annotation] = "instances"
    levels: tuple[str, ...] = Field(default=("P3", "P4", "P5"), min_length=1)
    """From fine to coarse, each of half the size of the one before."""
    channels: int = Field(default=256, ge=8)
    queries: int = Field(default=300, ge=1)
    layers: int = Field(default=6, ge=1)
    """Decoder layers."""
    heads: int = Field(default=8, ge=1)
    feedforward: int = Field(default=1024, ge=1)
    """Inner channels of the decoder layers."""
    points: int | tuple[int, ...] = 4
    """Sampling points of each head, on each level or level by level."""
    offset_scale: float = Field(default=0.5, gt=0)
    """Sampling offsets of 1 are this part of the query's box."""
    sampling: Literal["bilinear", "discrete"] = "bilinear"
    """discrete: the nearest cell, for runtimes without grid sampling."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    denoising: Denoising = Field(default_factory=Denoising)
    matching: Matching = Field(default_factory=Matching)
    class_loss: Literal["mal", "vfl"] = "vfl"
    """mal: matchability-aware (Huang et al. 2024, DEIM). vfl: varifocal (Zhang et al. 2021)."""
    mal_gamma: float = Field(default=1.5, ge=0)
    vfl_alpha: float = Field(default=0.75, ge=0)
    vfl_gamma: float = Field(default=2.0, ge=0)
    class_weight: float = Field(default=1.0, ge=0)
    box_weight: float = Field(default=5.0, ge=0)
    """Weight of the L1 loss of boxes, as parts of the canvas."""
    iou_weight: float = Field(default=2.0, ge=0)
    """Weight of the GIoU loss."""
    max_detections: int = Field(default=300, ge=1)
    """Most detections of an image: the best pairs of a query and a class, without suppression."""

    def __post_init__(self) -> None:
        if self.channels % self.heads:
            raise ValueError(f"heads: {self.channels} channels do not divide by {self.heads}")
        if len(self.level_points) != len(self.levels) or min(self.level_points) < 1:
            raise ValueError(
                f"points: one number, or one for each of the {len(self.levels)} levels"
            )

    @property
    def level_points(self) -> tuple[int, ...]:
        """Sampling points of each head by level."""
        if isinstance(self.points, int):
            return (self.points,) * len(self.levels)
        return self.points


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DFineHead(RealTimeOptions):
    """D-FINE (Peng et al. 2024) with the losses of DEIM (Huang et al. 2024): queries from the best
    tokens, boxes refined as distributions over the shifts of their edges.
    """

    type: Literal["dfine"] = "dfine"
    points: int | tuple[int, ...] = (3, 6, 3)
    class_loss: Literal["mal", "vfl"] = "mal"
    bins: int = Field(default=32, ge=4, multiple_of=2)
    """Steps of the shift of an edge; a distribution has one bin more."""
    largest_shift: float = Field(default=0.5, gt=0)
    """Of an edge, in widths or heights, at the last bin but one (``up`` in the paper)."""
    curvature: float = Field(default=4.0, gt=0)
    """How much finer the bins are near 0 (``c`` in the paper, ``reg_scale`` in its code)."""
    quality_bins: int = Field(default=4, ge=1)
    """Largest probabilities of each edge that tell how good a box is."""
    quality_channels: int = Field(default=64, ge=1)
    quality_layers: int = Field(default=2, ge=1)
    fgl_weight: float = Field(default=0.15, ge=0)
    """Weight of the fine-grained localization loss."""
    ddf_weight: float = Field(default=1.5, ge=0)
    """Weight of the distillation of the last layer's distributions into the others."""
    temperature: float = Field(default=5.0, gt=0)
    """Of the distillation."""
    criterion: Literal["published", "transformers"] = "published"
    """published: boxes of all layers learn the union of their matches (section 4.2 of the paper).
    transformers: as ``DFineForObjectDetection`` computes its loss, for comparisons: each layer has
    its own matches, the last has no distribution losses, the classes of a layer go with the
    distributions of the next one, and the weights of the distillation depend on the whole batch.
    """

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.realtime.dfine import DFine

        check_maps(self.type, self.levels, strides)
        return DFine(self, channels, len(vocabulary.classes[self.annotation]))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RtDetrV2Head(RealTimeOptions):
    """RT-DETRv2 (Lv et al. 2024): as ``dfine``, with boxes as four numbers."""

    type: Literal["rtdetr_v2"] = "rtdetr_v2"

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.realtime.dfine import RtDetrV2

        check_maps(self.type, self.levels, strides)
        return RtDetrV2(self, channels, len(vocabulary.classes[self.annotation]))


HEADS: tuple[type[AnyHead], ...] = (DFineHead, RtDetrV2Head)
