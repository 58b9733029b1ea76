"""The one place that lists the kinds of raw data sets."""

from mtl_ray.sources.config import Digits, ImageFolder, SemanticPng, SourceConfig, Voc
from mtl_ray.sources.digits import open_digits
from mtl_ray.sources.image_folder import open_image_folder
from mtl_ray.sources.semantic_png import open_semantic_png
from mtl_ray.sources.source import Source
from mtl_ray.sources.voc import open_voc


def open_source(config: SourceConfig) -> Source:
    """Lists a raw data set's split.

    Raises:
        FileNotFoundError: saying what was looked for and what is there.
        ValueError: if an annotation file as a whole makes no sense.
    """
    match config:
        case Digits():
            return open_digits(config)
        case ImageFolder():
            return open_image_folder(config)
        case Voc():
            return open_voc(config)
        case SemanticPng():
            return open_semantic_png(config)
