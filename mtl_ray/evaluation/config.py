"""The ``evaluate`` section of a config."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """How a model is measured."""

    batch: int = Field(default=16, ge=1)
    """Images that go through the network together."""
    pictures: int = Field(default=8, ge=0)
    """Samples drawn with truth and predictions side by side at each evaluation."""
