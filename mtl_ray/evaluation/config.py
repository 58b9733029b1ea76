"""The ``evaluate`` section of a config."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OcclusionConfig:
    """Recall of occluded and of separated objects, beside the other metrics of each head that finds objects."""

    occluded: str
    """List of the occluded objects, as ``jobs.analyze occlusion --lists`` writes it: a path or URI."""
    separated: str
    """List of the separated objects."""
    score_threshold: float = Field(default=0.3, ge=0, le=1)
    """Detections with a lower score find nothing."""
    iou_threshold: float = Field(default=0.75, gt=0, le=1)
    """Overlap of masks, or of boxes where the head gives no masks."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """How a model is measured."""

    batch: int = Field(default=16, ge=1)
    """Images that go through the network together."""
    pictures: int = Field(default=8, ge=0)
    """Samples drawn with truth and predictions side by side at each evaluation."""
    occlusion: OcclusionConfig | None = None
    """Also measure how many occluded and separated objects are found."""
