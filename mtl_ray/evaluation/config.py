"""The ``evaluate`` section of a config."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.inference.config import SlideConfig, TtaConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OcclusionConfig:
    """Recall of occluded and of separated objects, beside the other metrics of each head that
    finds objects.
    """

    occluded: str
    """List of the occluded objects, as ``jobs.analyze occlusion --lists`` writes it: a path or
    URI.
    """
    separated: str
    """List of the separated objects."""
    score_threshold: float = Field(default=0.3, ge=0, le=1)
    """Detections with a lower score are ignored."""
    iou_threshold: float = Field(default=0.75, gt=0, le=1)
    """Least IoU of masks, or of boxes if the head predicts no masks."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """How a model is evaluated."""

    batch: int = Field(default=16, ge=1)
    """Images that go through the network together."""
    pictures: int = Field(default=8, ge=0)
    """Samples that each evaluation draws, with ground truth and predictions side by side."""
    occlusion: OcclusionConfig | None = None
    """Also measures the recall of occluded and separated objects."""
    class_agnostic: bool = False
    """Objects of all classes count as of one, in the evaluations of a training
    (``jobs.evaluate --class-agnostic``)."""
    tta: TtaConfig | None = None
    """Test-time augmentation, in the evaluations of a training, ``jobs.evaluate`` and
    ``jobs.predict``."""
    slide: SlideConfig | None = Field(default=None, exclude_if=lambda slide: slide is None)
    """Class maps of large images are predicted in windows: in the evaluations of a training, and by
    its checkpoints, bundles and servers."""
