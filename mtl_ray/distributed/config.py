"""The config of a pipeline, from raw images to answers over HTTP."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.sources.config import SourceConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RawData:
    """The raw datasets from which the splits of the experiment are converted."""

    train: SourceConfig
    """Becomes the split at experiment.data.train.uri."""
    val: SourceConfig
    """Becomes the split at experiment.data.val.uri."""
    format: Literal["arrow", "tfrecord"] = "arrow"
    """Format of the shards."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PipelineConfig:
    """The config of ``jobs.pipeline``."""

    experiment: ExperimentConfig
    """The experiment; usually ``_base_`` names its file."""
    convert: RawData | None = None
    """If absent, the splits must exist already."""
    expect: dict[str, float] = Field(default_factory=dict)
    """The least value that each metric must reach, by HEAD/METRIC."""
    pictures: int = Field(default=6, ge=1)
    """Number of validation images that are sent to the server, compared with torch, and drawn."""
