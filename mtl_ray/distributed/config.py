"""The config of a pipeline: from raw images to answers over HTTP, from one file."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.sources.config import SourceConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Raw:
    """The raw data that the splits of the experiment are made from."""

    train: SourceConfig
    """Becomes the split at experiment.data.train.uri."""
    val: SourceConfig
    """Becomes the split at experiment.data.val.uri."""
    format: Literal["arrow", "tfrecord"] = "arrow"
    """Of the shards."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PipelineConfig:
    """What ``jobs.pipeline`` runs."""

    experiment: ExperimentConfig
    """The run; usually ``_base_`` names its file."""
    convert: Raw | None = None
    """If absent, the splits are there already."""
    expect: dict[str, float] = Field(default_factory=dict)
    """The least that the evaluation must find, by HEAD/METRIC."""
    pictures: int = Field(default=6, ge=1)
    """Validation pictures that are sent to the server, compared with torch, and drawn."""
