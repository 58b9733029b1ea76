"""Config classes of raw datasets and of a conversion; each field is also a CLI option of ``jobs.convert``."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.extend import Slot
from mtl_ray.config.strict import STRICT
from mtl_ray.sources.object_configs import Cityscapes, Coco, Labelme, Nuimages, Text, Via, Voc, Yolo
from mtl_ray.sources.source import RawSource, Source

if TYPE_CHECKING:
    from mtl_ray.sources.image_reading import ImageRule


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

    def open(self, rule: "ImageRule") -> Source:
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

    def open(self, rule: "ImageRule") -> Source:
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

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.image_folder import open_unannotated

        return open_unannotated(self, rule)


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

    def open(self, rule: "ImageRule") -> Source:
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

    def open(self, rule: "ImageRule") -> Source:
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

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.semantic_png import open_semantic_png

        return open_semantic_png(self, rule)


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
