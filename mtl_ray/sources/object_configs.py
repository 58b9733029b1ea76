"""Config classes of raw datasets with annotated objects; each field is also a CLI option of
``jobs.convert``.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.sources.source import RawSource, Source

if TYPE_CHECKING:
    from mtl_ray.sources.image_reading import ImageRule


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Coco(RawSource):
    """COCO: one JSON file per split, with boxes, polygons or run lengths, crowds, keypoints."""

    type: Literal["coco"] = "coco"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """Part of the file's name: annotations/instances_SPLIT2017.json, SPLIT.json,
    SPLIT/_annotations.coco.json, ...
    """
    annotations: str | None = None
    """The annotation file, relative to ROOT, if it has another name; then only its categories
    are used.
    """
    images: str | None = None
    """Folder of the images, relative to ROOT; by default the folder that holds the listed
    images.
    """
    keypoints: bool = False
    """Read person_keypoints_SPLIT*.json instead of instances_SPLIT*.json."""
    classes: str | None = None
    """File with one class name per line: only these, in this order; by default all categories by
    id.
    """

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.coco import open_coco

        return open_coco(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Yolo(RawSource):
    """YOLO: one text file per image, lines "class cx cy w h" or "class x1 y1 x2 y2 ..."
    (polygon), relative to width and height.
    """

    type: Literal["yolo"] = "yolo"
    root: str
    """The folder with data.yaml, or with images/ and labels/."""
    split: str
    """Its name in data.yaml, else images/SPLIT, SPLIT/images, or a list SPLIT.txt of ids."""
    classes: str | None = None
    """File with one class name per line; by default the names in data.yaml, or numbers."""
    labels: str | None = None
    """Replaces "images" in the path of a label file; by default labels."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.yolo import open_yolo

        return open_yolo(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Text(RawSource):
    """ObjectiveMTL's boxes: a list of ids, images/ID.jpg, labels/ID.txt with lines "class xmin
    ymin xmax ymax" in pixels.
    """

    type: Literal["text"] = "text"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The list of ids: SPLIT.txt in ROOT, meta/, splits/ or ImageSets/Main/."""
    classes: str | None = None
    """File with one class name per line; by default all that occur in the labels, sorted;
    numbers are positions in the list.
    """
    separator: str | None = None
    """Separator of the fields of a line; by default any blanks."""
    images: str = "images"
    """Folder of the images, relative to ROOT."""
    labels: str = "labels"
    """Folder of the label files, relative to ROOT."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.text import open_text

        return open_text(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Voc(RawSource):
    """Pascal VOC: a list of ids, Annotations/*.xml, JPEGImages, and SegmentationClass if
    --semantic-classes is given.
    """

    type: Literal["voc"] = "voc"
    root: str
    """The folder with Annotations/ and JPEGImages/ (or annotations/ and images/), or a parent
    such as VOCdevkit with VOC2007.
    """
    split: str
    """The list SPLIT.txt in ImageSets/Main, meta/ or splits/; all annotations if the dataset has
    no lists.
    """
    years: tuple[str, ...] | None = None
    """Folders to read together, such as VOC2007 or 2007; by default all in a ROOT like
    VOCdevkit.
    """
    classes: str | None = None
    """File with one class name per line; by default all names in Annotations, sorted."""
    style: Literal["det", "mtl"] = "det"
    """mtl: also the attributes property, gender and age, and 18 keypoints of the body."""
    semantic_classes: str | None = None
    """File with one name per line for the indices in SegmentationClass/*.png, background first;
    without it they are not read.
    """
    compat: bool | None = None
    """Boxes without their last row and column of pixels, as in MMDetection's converter, to
    compare with its results.
    """

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.voc import open_voc

        return open_voc(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cityscapes(RawSource):
    """Cityscapes: leftImg8bit and gtFine (instanceIds, polygons or labelIds); eight classes of
    objects, 19 semantic ones.
    """

    pixel_masks: ClassVar[bool] = True
    type: Literal["cityscapes"] = "cityscapes"
    root: str
    """The folder that has leftImg8bit/ and gtFine/."""
    split: str
    """train, val or test: the folder in both; all images if there is no such folder."""
    annotations: Literal["instance_ids", "polygons", "label_ids"] | None = None
    """Annotation files to read; by default the first of these that an image has. label_ids give
    only the semantic map.
    """
    images: str = "leftImg8bit"
    """Folder of the images, and suffix of their names."""
    labels: str = "gtFine"
    """Folder of the annotations, and part of their names: also gtCoarse."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.cityscapes import open_cityscapes

        return open_cityscapes(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Nuimages(RawSource):
    """nuImages: the key frames of a version, ten classes of objects with masks, and the semantic
    map of its development kit.
    """

    pixel_masks: ClassVar[bool] = True
    type: Literal["nuimages"] = "nuimages"
    root: str
    """The folder that has samples/ and v1.0-train/, v1.0-val/, v1.0-mini/, ..."""
    split: str
    """The version, such as v1.0-train, or train for short."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.nuimages import open_nuimages

        return open_nuimages(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Labelme(RawSource):
    """labelme: one JSON file per image with polygons, rectangles, circles, masks; shapes of one
    label and group are one object.
    """

    type: Literal["labelme"] = "labelme"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The folder of the JSON files below ROOT, or a list SPLIT.txt; all of ROOT if it has
    neither.
    """
    classes: str | None = None
    """File with one class name per line; by default all labels in ROOT except __ignore__ and
    _background_, sorted.
    """

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.labelme import open_labelme

        return open_labelme(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Via(RawSource):
    """VIA (VGG Image Annotator): one JSON file per split with polygons, rectangles, circles,
    ellipses.
    """

    type: Literal["via"] = "via"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The folder with the JSON file, or part of its name."""
    annotations: str | None = None
    """The JSON file, relative to ROOT."""
    images: str | None = None
    """Folder of the images, relative to ROOT; by default the folder that holds the listed
    images.
    """
    attribute: str | None = None
    """The region attribute that holds the class; by default the only one, or class, name, label,
    type, category.
    """
    classes: str | None = None
    """File with one class name per line; by default all that occur, sorted; "object" if regions
    have no attributes.
    """

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.via import open_via

        return open_via(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InstancePng(RawSource):
    """Images and index PNGs of objects (Penn-Fudan: one value an object), paired by a list
    (ROOT/SPLIT.txt) or by their file names; boxes are those of the masks.
    """

    pixel_masks: ClassVar[bool] = True
    type: Literal["instance_png"] = "instance_png"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The list, or the folder below ROOT; any name if --images and --labels are given."""
    class_name: str | None = None
    """The class of all objects; "object" by default."""
    divisor: int | None = Field(default=None, ge=2)
    """A value is DIVISOR x class number + number of the object (Cityscapes: 1000); a value below
    DIVISOR is a class number alone: a region with many objects (crowd).
    """
    values: str | None = None
    """File with lines "VALUE NAME" or "FIRST-LAST NAME": the classes of values, or of class
    numbers if --divisor is given; "-" means no object. Others are skipped.
    """
    classes: str | None = None
    """File with one class name per line, for class numbers 1, 2, ... (with --divisor)."""
    background: tuple[int, ...] = (0,)
    """Values that are no object (VOC's SegmentationObject: 0 and 255)."""
    images: str | None = None
    """Folder of the images, relative to ROOT."""
    labels: str | None = None
    """Folder of the index PNGs, relative to ROOT."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.instance_png import open_instance_png

        return open_instance_png(self, rule)
