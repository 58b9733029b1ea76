"""What may be said of each kind of raw dataset: one dataclass a kind, in a config and on the command line alike."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.extend import Slot
from mtl_ray.config.strict import STRICT

if TYPE_CHECKING:
    from mtl_ray.sources.image_reading import ImageRule
    from mtl_ray.sources.source import Source


class RawSource:
    """What every config class of a raw dataset has.

    A plugin's class is a pydantic dataclass with a literal ``type``, ``root``, ``split`` and options of its own.

    Attributes:
        annotated: False for images that nobody has annotated.
        pixel_masks: True if its masks were never polygons; its own programs write them as run lengths.
    """

    annotated: ClassVar[bool] = True
    pixel_masks: ClassVar[bool] = False

    def open(self, rule: "ImageRule") -> "Source":
        """Lists the split.

        Args:
            rule: how large its images may be, and whether they may be absent.

        Raises:
            FileNotFoundError: saying what was looked for and what is there.
            ValueError: if an annotation file as a whole makes no sense.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Digits(RawSource):
    """The built-in set: handwritten digits of scikit-learn in scenes with backgrounds from its photographs."""

    type: Literal["digits"] = "digits"
    root: str = "-"
    """Not used: the set is made, not read."""
    split: str
    """"train" shows other handwriting and other places than every other split; the name also seeds the scenes."""
    num: int = Field(default=3000, ge=1)
    """Scenes."""
    size: int = Field(default=128, ge=64, le=1024)
    """Height and width of a scene in pixels."""
    seed: int = 0
    """Another seed gives other scenes; on the command line it is also that of the order of rows."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.digits import open_digits

        return open_digits(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageFolder(RawSource):
    """One folder a class: ROOT/SPLIT/CLASS/*.jpg, also deeper."""

    type: Literal["image_folder"] = "image_folder"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The folder below ROOT."""
    classes: str | None = None
    """File with one class name a line, in order; by default the names of the folders of all splits, sorted."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.image_folder import open_image_folder

        return open_image_folder(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UnannotatedImages(RawSource):
    """Images that nobody has annotated, to be listed for a test: with --format coco a file of images and categories."""

    annotated: ClassVar[bool] = False
    type: Literal["pictures"] = "pictures"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The folder below ROOT, also deeper; ROOT itself where the images lie directly in it."""
    classes: str
    """File with one class name a line, of the objects that will be looked for."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.image_folder import open_unannotated

        return open_unannotated(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Coco(RawSource):
    """COCO: one JSON file a split, with boxes, polygons or run lengths, crowds, keypoints."""

    type: Literal["coco"] = "coco"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """Part of the file's name: annotations/instances_SPLIT2017.json, SPLIT.json, SPLIT/_annotations.coco.json, ..."""
    annotations: str | None = None
    """The annotation file, relative to ROOT, where it has another name; then its categories alone count."""
    images: str | None = None
    """Folder of the images, relative to ROOT; by default the one in which the listed images are."""
    keypoints: bool = False
    """Read person_keypoints_SPLIT*.json instead of instances_SPLIT*.json."""
    classes: str | None = None
    """File with one class name a line: only these, in this order; by default all categories by id."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.coco import open_coco

        return open_coco(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Yolo(RawSource):
    """YOLO: a text file an image, lines "class cx cy w h" or "class x1 y1 x2 y2 ..." (polygon), as shares of width and height."""

    type: Literal["yolo"] = "yolo"
    root: str
    """The folder with data.yaml, or with images/ and labels/."""
    split: str
    """What data.yaml calls it, else images/SPLIT, SPLIT/images, or a list SPLIT.txt of ids."""
    classes: str | None = None
    """File with one class name a line; by default the names in data.yaml, or numbers."""
    labels: str | None = None
    """What stands for "images" in the path of an image's label file; by default labels."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.yolo import open_yolo

        return open_yolo(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Text(RawSource):
    """ObjectiveMTL's normal boxes: a list of ids, images/ID.jpg, labels/ID.txt with lines "class xmin ymin xmax ymax" in pixels."""

    type: Literal["text"] = "text"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The list of ids: SPLIT.txt in ROOT, meta/, splits/ or ImageSets/Main/."""
    classes: str | None = None
    """File with one class name a line; by default all that occur in the labels, sorted; numbers are places in the list."""
    separator: str | None = None
    """Between the fields of a line; by default any blanks."""
    images: str = "images"
    """Folder of the images, relative to ROOT."""
    labels: str = "labels"
    """Folder of the label files, relative to ROOT."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.text import open_text

        return open_text(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class List(RawSource):
    """ObjectiveMTL's image labels: a list with lines "id label height width", images/ID.jpg."""

    type: Literal["list"] = "list"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The list: SPLIT.txt in ROOT, meta/ or splits/."""
    classes: str | None = None
    """File with one class name a line; by default all that occur in the lists of ROOT, sorted; numbers are places in the list."""
    separator: str | None = None
    """Between the fields of a line; by default any blanks."""
    images: str = "images"
    """Folder of the images, relative to ROOT."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.label_list import open_list

        return open_list(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Idx(RawSource):
    """IDX files as of MNIST: SPLIT-images-idx3-ubyte and SPLIT-labels-idx1-ubyte, also .gz; images become PNGs."""

    type: Literal["idx"] = "idx"
    root: str
    """The folder of the files (a path or s3://...)."""
    split: str
    """Start of their names; val and test also mean t10k."""
    classes: str | None = None
    """File with one class name a line; by default numbers."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.idx import open_idx

        return open_idx(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Shards(RawSource):
    """A split that was converted before, to be written again in another form."""

    type: Literal["shards"] = "shards"
    root: str
    """The folder of the split."""
    split: str
    """What the new split is called."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Voc(RawSource):
    """Pascal VOC: a list of ids, Annotations/*.xml, JPEGImages, and SegmentationClass where class names for it are given."""

    type: Literal["voc"] = "voc"
    root: str
    """The folder that has Annotations/ (and JPEGImages/; or annotations/ and images/), or one above it: VOCdevkit with VOC2007, VOC2012."""
    split: str
    """The list SPLIT.txt in ImageSets/Main, meta/ or splits/; all annotations where the set has no lists."""
    years: tuple[str, ...] | None = None
    """Folders to be read together, such as VOC2007 or 2007; by default all of a ROOT like VOCdevkit."""
    classes: str | None = None
    """File with one class name a line; by default all names in Annotations, sorted."""
    style: Literal["det", "mtl"] = "det"
    """mtl: also the attributes property, gender and age, and 18 key nodes of the body."""
    semantic_classes: str | None = None
    """File with one name a line for the indices in SegmentationClass/*.png, background first; without it these are not read."""
    compat: bool | None = None
    """Boxes without their last row and column of pixels, as MMDetection's converter has them, to compare with its numbers."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.voc import open_voc

        return open_voc(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SemanticPng(RawSource):
    """Images and index PNGs, paired by a list (ROOT/SPLIT.txt, lines "image label" or ids) or by their file names."""

    type: Literal["semantic_png"] = "semantic_png"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The list or the folder below ROOT."""
    classes: str | None = None
    """File with one class name a line, from index 0 on; by default one class for every index found in the set."""
    ignore: tuple[int, ...] = (255,)
    """Indices that mean "no class here", as they stand in the files."""
    reduce_zero_label: bool | None = None
    """ADE20K: 0 means "no class here" too, and 1 is the first class. Names and classes count from there."""
    values: str | None = None
    """File with lines "value name" or "red green blue name" where maps have not indices; a name may be there again, "-" is no class."""
    label_ids: Literal["cityscapes"] | None = None
    """The values are label ids of which some become classes: the 19 of Cityscapes by their train ids."""
    images: str | None = None
    """Folder of the images, relative to ROOT."""
    labels: str | None = None
    """Folder of the index PNGs, relative to ROOT."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.semantic_png import open_semantic_png

        return open_semantic_png(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cityscapes(RawSource):
    """Cityscapes: leftImg8bit and gtFine (instanceIds, polygons or labelIds); eight classes of objects, 19 semantic ones."""

    pixel_masks: ClassVar[bool] = True
    type: Literal["cityscapes"] = "cityscapes"
    root: str
    """The folder that has leftImg8bit/ and gtFine/."""
    split: str
    """train, val or test: the folder in both; where there is none, all images."""
    annotations: Literal["instance_ids", "polygons", "label_ids"] | None = None
    """What is read of gtFine; by default the first of these that an image has. label_ids give the semantic map alone."""
    images: str = "leftImg8bit"
    """Folder of the images, and the end of their names."""
    labels: str = "gtFine"
    """Folder of the annotations, and part of their names: also gtCoarse."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.cityscapes import open_cityscapes

        return open_cityscapes(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Nuimages(RawSource):
    """nuImages: the key frames of a version, ten classes of objects with masks, and the semantic map of its development kit."""

    pixel_masks: ClassVar[bool] = True
    type: Literal["nuimages"] = "nuimages"
    root: str
    """The folder that has samples/ and v1.0-train/, v1.0-val/, v1.0-mini/, ..."""
    split: str
    """The version, such as v1.0-train, or train for short."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.nuimages import open_nuimages

        return open_nuimages(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Labelme(RawSource):
    """labelme: a JSON file an image with polygons, rectangles, circles, masks; shapes of one label and group are one object."""

    type: Literal["labelme"] = "labelme"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The folder of the JSON files below ROOT, or a list SPLIT.txt; all of ROOT where it has neither."""
    classes: str | None = None
    """File with one class name a line; by default all labels in ROOT but __ignore__ and _background_, sorted."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.labelme import open_labelme

        return open_labelme(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Via(RawSource):
    """VIA (VGG Image Annotator): one JSON file a split with polygons, rectangles, circles, ellipses."""

    type: Literal["via"] = "via"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The folder with the JSON file, or part of its name."""
    annotations: str | None = None
    """The JSON file, relative to ROOT."""
    images: str | None = None
    """Folder of the images, relative to ROOT; by default the one in which the listed images are."""
    attribute: str | None = None
    """The attribute of a region that is its class; by default the only one, or class, name, label, type, category."""
    classes: str | None = None
    """File with one class name a line; by default all that occur, sorted; "object" where regions have no attributes."""

    def open(self, rule: "ImageRule") -> "Source":
        """See ``RawSource``."""
        from mtl_ray.sources.via import open_via

        return open_via(self, rule)


_Drawn = Coco | Voc | Yolo | Text | SemanticPng | Digits | Cityscapes | Nuimages | Labelme | Via
RawConfig = _Drawn | List | ImageFolder | Idx | UnannotatedImages
SourceConfig = Annotated[RawConfig | Shards, Field(discriminator="type"), Slot("sources")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConvertConfig:
    """One split of a raw dataset and where its shards go."""

    source: SourceConfig
    """What is read."""
    to: str
    """Where it goes (a path or s3://...): the folder of the shards and their manifest, or of the files."""
    format: Literal["arrow", "tfrecord", "coco", "yolo", "voc", "semantic_png"] = "arrow"
    """arrow or tfrecord: shards. Others: a folder of files, which may hold further splits; for coco also a file, --to FILE.json."""
    shuffle: bool | None = None
    """Whether the rows are put into random order; by default those of shards are, unless they come from shards and have one."""
    seed: int = Field(default=0, ge=0)
    """Of that order."""
    shard_bytes: int = Field(default=128 << 20, gt=0)
    """A shard is about so large."""
    workers: int | None = Field(default=None, ge=1)
    """At most so many tasks at a time, by default two for each CPU; 1 works in this process, without Ray."""
    pictures: bool = True
    """Whether a folder of files gets the images too, or the annotations alone."""
    masks: Literal["rle", "polygons", "none"] | None = None
    """How files say masks of objects: coco and yolo as polygons, but coco those of cityscapes and nuimages as rle; voc not at all."""
    max_pixels: int | None = Field(default=None, gt=0)
    """Images with more pixels are rejected; 50 million by default."""
    allow_empty: bool = False
    """Whether a split may have no annotation at all, because all its images are negatives."""
    plugins: tuple[str, ...] = ()
    """Modules of plugins, which add sources, inputs and kinds of annotation; those of installed packages are always there."""
