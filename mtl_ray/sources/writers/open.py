"""Opens the writer of a file format; new formats are added here."""

from typing import Literal

from mtl_ray.sources.writers.coco import open_coco_writer
from mtl_ray.sources.writers.kitti import open_kitti_writer
from mtl_ray.sources.writers.semantic_png import open_semantic_png_writer
from mtl_ray.sources.writers.voc import open_voc_writer
from mtl_ray.sources.writers.writer import Target, Writer
from mtl_ray.sources.writers.yolo import open_yolo_writer

FileFormat = Literal["coco", "yolo", "voc", "semantic_png", "kitti"]


def open_writer(form: FileFormat, target: Target) -> Writer:
    """The writer of a format.

    Raises:
        ValueError: if the dataset lacks the annotations of the format, or an option does not apply.
    """
    match form:
        case "coco":
            return open_coco_writer(target)
        case "yolo":
            return open_yolo_writer(target)
        case "voc":
            return open_voc_writer(target)
        case "semantic_png":
            return open_semantic_png_writer(target)
        case "kitti":
            return open_kitti_writer(target)
