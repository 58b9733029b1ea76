"""The config of a pipeline, from raw images to answers over HTTP."""

from dataclasses import replace
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.extend import extended, named_plugins
from mtl_ray.config.strict import STRICT
from mtl_ray.config.tree import Node
from mtl_ray.config.validate import validate
from mtl_ray.experiment import ExperimentConfig, with_used_plugins
from mtl_ray.plugin import installed_plugins
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
    """The value that each metric must reach, by HEAD/METRIC: the least, or the most where less is
    better.
    """
    pictures: int = Field(default=6, ge=1)
    """Number of validation samples that are sent to the server, compared with torch, and drawn."""


def read_pipeline(tree: Node) -> PipelineConfig:
    """The config that a tree describes, with what the plugins of its experiment and the installed
    ones add.

    Raises:
        ValueError: naming file and line of each mistake, or the plugin that is missing.
    """
    plugins = dict.fromkeys((*named_plugins(tree, "experiment"), *installed_plugins()))
    config = validate(tree, extended(PipelineConfig, tuple(plugins)))
    return replace(config, experiment=with_used_plugins(config.experiment))
