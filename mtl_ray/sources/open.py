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
from mtl_ray.sources.picture import USUAL_RULE, ImageRule
from mtl_ray.sources.pictures import open_pictures
from mtl_ray.sources.semantic_png import open_semantic_png
from mtl_ray.sources.source import Source
from mtl_ray.sources.text import open_text
from mtl_ray.sources.via import open_via
from mtl_ray.sources.voc import open_voc
from mtl_ray.sources.yolo import open_yolo


def open_source(config: RawConfig, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split of a dataset.

    Args:
        config: where it is and how it is read.
        rule: how large its images may be, and whether they may be absent.

    Raises:
        FileNotFoundError: saying what was looked for and what is there.
        ValueError: if an annotation file as a whole makes no sense.
    """
    match config:
        case Coco():
            return open_coco(config, rule)
        case Voc():
            return open_voc(config, rule)
        case Yolo():
            return open_yolo(config, rule)
        case Text():
            return open_text(config, rule)
        case List():
            return open_list(config, rule)
        case ImageFolder():
            return open_image_folder(config, rule)
        case Idx():
            return open_idx(config)
        case SemanticPng():
            return open_semantic_png(config, rule)
        case Cityscapes():
            return open_cityscapes(config, rule)
        case Nuimages():
            return open_nuimages(config, rule)
        case Labelme():
            return open_labelme(config, rule)
        case Via():
            return open_via(config, rule)
        case Pictures():
            return open_pictures(config, rule)
        case Digits():
            return open_digits(config)
