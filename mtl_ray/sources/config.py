"""Config classes of raw datasets and of a conversion; each field is also a CLI option of
``jobs.convert``.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.extend import Slot
from mtl_ray.config.strict import STRICT
from mtl_ray.sources.lidar.config import CloudObjects, LidarConfig
from mtl_ray.sources.lidar.dataset_configs import DrivingConfig
from mtl_ray.sources.object_configs import (
    Cityscapes,
    Coco,
    InstancePng,
    Labelme,
    Nuimages,
    Text,
    Via,
    Voc,
    Yolo,
)
from mtl_ray.sources.source import RawSource, Source

if TYPE_CHECKING:
    from mtl_ray.sources.image_reading import ImageRule


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Digits(RawSource):
    """Built-in dataset: scikit-learn's handwritten digits in scenes with backgrounds from its
    photographs.
    """

    type: Literal["digits"] = "digits"
    root: str = "-"
    """Not used: the dataset is generated."""
    split: str
    """"train" uses other handwriting and backgrounds than every other split; the name also seeds
    the scenes.
    """
    num: int = Field(default=3000, ge=1)
    """Number of scenes."""
    size: int = Field(default=128, ge=64, le=1024)
    """Height and width of a scene in pixels."""
    seed: int = 0
    """Another seed gives other scenes; on the command line it also seeds the order of rows."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.digits import open_digits

        return open_digits(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageFolder(RawSource):
    """One folder per class: ROOT/SPLIT/CLASS/*.jpg, also deeper."""

    type: Literal["image_folder"] = "image_folder"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The folder below ROOT."""
    classes: str | None = None
    """File with one class name per line, in order; by default the sorted folder names of all
    splits.
    """

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.image_folder import open_image_folder

        return open_image_folder(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UnannotatedImages(RawSource):
    """Images without annotations, such as a test split: with --format coco a list of images and
    categories.
    """

    annotated: ClassVar[bool] = False
    type: Literal["pictures"] = "pictures"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The folder below ROOT, also deeper; ROOT itself if the images lie directly in it."""
    classes: str
    """File with one class name per line, of the objects to detect."""

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
    """File with one class name per line; by default all that occur in the lists of ROOT, sorted;
    numbers are positions in the list.
    """
    separator: str | None = None
    """Separator of the fields of a line; by default any blanks."""
    images: str = "images"
    """Folder of the images, relative to ROOT."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.label_list import open_list

        return open_list(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Idx(RawSource):
    """IDX files (MNIST): SPLIT-images-idx3-ubyte and SPLIT-labels-idx1-ubyte, also .gz; images
    become PNGs.
    """

    type: Literal["idx"] = "idx"
    root: str
    """The folder of the files (a path or s3://...)."""
    split: str
    """Prefix of the file names; val and test also mean t10k."""
    classes: str | None = None
    """File with one class name per line; by default numbers."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.idx import open_idx

        return open_idx(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Shards(RawSource):
    """A converted split, to be written again in another format."""

    type: Literal["shards"] = "shards"
    root: str
    """The folder of the split."""
    split: str
    """The name of the new split."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SemanticPng(RawSource):
    """Images and index PNGs, paired by a list (ROOT/SPLIT.txt, lines "image label" or ids) or by
    their file names.
    """

    type: Literal["semantic_png"] = "semantic_png"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The list, or the folder below ROOT."""
    classes: str | None = None
    """File with one class name per line, from index 0; by default one class per index in the
    dataset.
    """
    ignore: tuple[int, ...] = (255,)
    """Indices in the files that mean "no class"."""
    reduce_zero_label: bool | None = None
    """ADE20K: 0 means "no class" too, and 1 is the first class."""
    values: str | None = None
    """File with lines "value name" or "red green blue name" for maps without indices; names may
    repeat, "-" means no class.
    """
    label_ids: Literal["cityscapes"] | None = None
    """The values are label ids; cityscapes: the 19 evaluated labels become classes."""
    images: str | None = None
    """Folder of the images, relative to ROOT."""
    labels: str | None = None
    """Folder of the index PNGs, relative to ROOT."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.semantic_png import open_semantic_png

        return open_semantic_png(self, rule)


_Drawn = Coco | Voc | Yolo | Text | SemanticPng | Digits | Cityscapes | Nuimages | Labelme | Via
_Listed = InstancePng | List | ImageFolder | Idx | UnannotatedImages
RawConfig = _Drawn | _Listed | LidarConfig | DrivingConfig
SourceConfig = Annotated[
    RawConfig | Shards | CloudObjects, Field(discriminator="type"), Slot("sources", ("open",))
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConvertConfig:
    """A conversion: one split of a raw dataset, and the output."""

    source: SourceConfig
    """The dataset to read."""
    to: str
    """Output (a path or s3://...): the folder of the shards and their manifest, or of the files."""
    format: Literal["arrow", "tfrecord", "coco", "yolo", "voc", "semantic_png", "kitti"] = "arrow"
    """arrow or tfrecord: shards. Others: a folder of files, which may hold other splits; for
    coco also a file, --to FILE.json.
    """
    shuffle: bool | None = None
    """Whether rows are shuffled; by default only for shards made from raw datasets."""
    seed: int = Field(default=0, ge=0)
    """Seed of the order."""
    shard_bytes: int = Field(default=128 << 20, gt=0)
    """Approximate size of a shard."""
    workers: int | None = Field(default=None, ge=1)
    """Maximum number of tasks at a time, by default two per CPU; 1 runs in this process, without
    Ray.
    """
    pictures: bool = True
    """Whether image files are written too, or only annotations (formats of files)."""
    masks: Literal["rle", "polygons", "none"] | None = None
    """Form of masks in files; default polygons for coco and yolo, rle for coco from cityscapes
    and nuimages, none for voc.
    """
    max_pixels: int | None = Field(default=None, gt=0)
    """Images with more pixels are skipped; 50 million by default."""
    allow_empty: bool = False
    """Whether a split may have no annotation at all (all images are negatives)."""
    plugins: tuple[str, ...] = ()
    """Modules of plugins, which add sources, inputs and kinds of annotation; those of installed
    packages are always loaded.
    """
