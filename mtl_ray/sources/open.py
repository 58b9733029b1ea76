"""The one place that lists the kinds of raw data sets."""

from mtl_ray.sources.cityscapes import open_cityscapes
from mtl_ray.sources.coco import open_coco
from mtl_ray.sources.config import (
    Cityscapes,
    Coco,
    Digits,
    Idx,
    ImageFolder,
    Labelme,
    List,
    Nuimages,
    Pictures,
    RawConfig,
    SemanticPng,
    Text,
    Via,
    Voc,
    Yolo,
)
from mtl_ray.sources.digits import open_digits
from mtl_ray.sources.idx import open_idx
from mtl_ray.sources.image_folder import open_image_folder
from mtl_ray.sources.label_list import open_list
from mtl_ray.sources.labelme import open_labelme
from mtl_ray.sources.nuimages import open_nuimages
from mtl_ray.sources.pictures import open_pictures
from mtl_ray.sources.semantic_png import open_semantic_png
from mtl_ray.sources.source import Source
from mtl_ray.sources.text import open_text
from mtl_ray.sources.via import open_via
from mtl_ray.sources.voc import open_voc
from mtl_ray.sources.yolo import open_yolo


def open_source(config: RawConfig) -> Source:
    """Lists a raw data set's split.

    Raises:
        FileNotFoundError: saying what was looked for and what is there.
        ValueError: if an annotation file as a whole makes no sense.
    """
    match config:
        case Coco():
            return open_coco(config)
        case Voc():
            return open_voc(config)
        case Yolo():
            return open_yolo(config)
        case Text():
            return open_text(config)
        case List():
            return open_list(config)
        case ImageFolder():
            return open_image_folder(config)
        case Idx():
            return open_idx(config)
        case SemanticPng():
            return open_semantic_png(config)
        case Cityscapes():
            return open_cityscapes(config)
        case Nuimages():
            return open_nuimages(config)
        case Labelme():
            return open_labelme(config)
        case Via():
            return open_via(config)
        case Pictures():
            return open_pictures(config)
        case Digits():
            return open_digits(config)
