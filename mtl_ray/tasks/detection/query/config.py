"""Config of the heads that predict a set of objects from queries: ``detr`` and
``deformable_detr``.
"""

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
class QueryOptions(HeadOptions):
    """The options that both heads have; the defaults are the published ones."""

    task: ClassVar[DetectionTask] = DETECTION
    annotation: ClassVar[Annotation] = "instances"
    levels: tuple[str, ...] = ("P5",)
    """Feature maps, each ``channels`` wide: of a neck such as ``channel_mapper``."""
    queries: int = Field(default=100, ge=1)
    """Most objects that the head can predict in an image; of more objects in training some stay
    unmatched.
    """
    channels: int = Field(default=256, ge=4)
    """Width of the transformer."""
    heads: int = Field(default=8, ge=1)
    """Of each attention."""
    encoder_layers: int = Field(default=6, ge=1)
    decoder_layers: int = Field(default=6, ge=1)
    """Each has losses of its own."""
    feedforward: int = Field(default=2048, ge=1)
    """Hidden width of the layers behind each attention."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """In the transformer. It draws from torch's generator."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the class loss."""
    box_weight: float = Field(default=5.0, ge=0)
    """Weight of the L1 loss of boxes."""
    iou_weight: float = Field(default=2.0, ge=0)
    """Weight of the GIoU loss of boxes."""
    match_class_weight: float = Field(default=1.0, ge=0)
    """Weight of the class in the cost of a match."""
    match_box_weight: float = Field(default=5.0, ge=0)
    """Weight of the L1 distance of boxes in the cost of a match."""
    match_iou_weight: float = Field(default=2.0, ge=0)
    """Weight of the GIoU in the cost of a match."""
    max_detections: int = Field(default=100, ge=1)
    """Detections of an image, best first; there is no suppression."""

    def __post_init__(self) -> None:
        if self.channels % self.heads or self.channels % 4:
            raise ValueError(
                f"channels: {self.channels} must be a multiple of 4 and of the {self.heads} heads"
            )

    def check_features(self, channels: Mapping[str, int], strides: Mapping[str, int]) -> None:
        """Raises a ValueError if the features are no maps of the width of the transformer."""
        check_maps(self.type, self.levels, strides)
        other = [level for level in self.levels if channels[level] != self.channels]
        if other:
            raise ValueError(
                f"head type {self.type!r} reads features of {self.channels} channels, "
                f"{', '.join(other)} has {channels[other[0]]}. Fix: a neck of type channel_mapper "
                f"with channels: {self.channels}"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DetrHead(QueryOptions):
    """DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872): a transformer on one feature
    map.
    """

    type: Literal["detr"] = "detr"
    background_weight: float = Field(default=0.1, gt=0)
    """Weight of queries without an object in the class loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.levels) != 1:
            raise ValueError(f"levels: detr reads one feature map, not {len(self.levels)}")
        if self.max_detections > self.queries:
            raise ValueError(
                f"max_detections: {self.max_detections} is more than the {self.queries} queries, "
                "each of which gives one detection"
            )

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.query.detr import Detr

        self.check_features(channels, strides)
        return Detr(self, len(vocabulary.classes[self.annotation]))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeformableDetrHead(QueryOptions):
    """Deformable DETR (Zhu et al. 2021, https://arxiv.org/abs/2010.04159): attention to a few
    sampled places of several feature maps.
    """

    type: Literal["deformable_detr"] = "deformable_detr"
    levels: tuple[str, ...] = ("P3", "P4", "P5", "P6")
    queries: int = Field(default=300, ge=1)
    """Most objects that the head can predict in an image."""
    feedforward: int = Field(default=1024, ge=1)
    class_weight: float = Field(default=2.0, ge=0)
    match_class_weight: float = Field(default=2.0, ge=0)
    points: int = Field(default=4, ge=1)
    """Places that each head of an attention samples on each level."""
    refine: bool = False
    """Each decoder layer refines the boxes of the one before and has classifiers of its own
    (iterative bounding box refinement).
    """
    two_stage: bool = False
    """Queries are the best proposals of the encoder, not learned; it needs ``refine``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.levels:
            raise ValueError("levels: at least one feature map is needed")
        if self.two_stage and not self.refine:
            raise ValueError("two_stage needs refine: the proposals are what is refined")

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.detection.query.deformable_detr import DeformableDetr

        self.check_features(channels, strides)
        classes = len(vocabulary.classes[self.annotation])
        if self.max_detections > self.queries * classes:
            raise ValueError(
                f"max_detections: {self.max_detections} is more than {self.queries} queries times "
                f"{classes} classes"
            )
        return DeformableDetr(self, classes)


HEADS: tuple[type[AnyHead], ...] = (DetrHead, DeformableDetrHead)
