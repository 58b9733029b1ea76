"""Opens a raw dataset."""

from mtl_ray.sources.config import RawSource
from mtl_ray.sources.picture import USUAL_RULE, ImageRule
from mtl_ray.sources.source import Source


def open_source(config: RawSource, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split of a dataset; see ``RawSource.open``."""
    return config.open(rule)
