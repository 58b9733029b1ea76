"""What may be said of each kind of raw data set: one dataclass a kind, in a config and on the command line alike."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Digits:
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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageFolder:
    """One folder a class: ROOT/SPLIT/CLASS/*.jpg, also deeper."""

    type: Literal["image_folder"] = "image_folder"
    root: str
    """The folder of the data set (a path or s3://...)."""
    split: str
    """The folder below ROOT."""
    classes: str | None = None
    """File with one class name a line, in order; by default the names of the folders of all splits, sorted."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Voc:
    """Pascal VOC: ImageSets/Main/SPLIT.txt, Annotations/*.xml, JPEGImages, and SegmentationClass where class names for it are known."""

    type: Literal["voc"] = "voc"
    root: str
    """The folder that has Annotations/, or one above it."""
    split: str
    """The list in ImageSets/Main; all annotations where the set has no lists."""
    classes: str | None = None
    """File with one class name a line; by default all names in Annotations, sorted."""
    style: Literal["det", "mtl"] = "det"
    """mtl: also the attributes property, gender and age, and 18 key nodes of the body."""
    semantic_classes: str | None = None
    """File with one name a line for the indices in SegmentationClass/*.png, background first; without it these are not read."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SemanticPng:
    """Pictures and index PNGs, paired by a list (ROOT/SPLIT.txt, lines "image label" or ids) or by their file names."""

    type: Literal["semantic_png"] = "semantic_png"
    root: str
    """The folder of the data set (a path or s3://...)."""
    split: str
    """The list or the folder below ROOT."""
    classes: str | None = None
    """File with one class name a line, from index 0 on; by default one class for every index found in the set."""
    ignore: tuple[int, ...] = (255,)
    """Indices that mean "no class here"."""
    images: str | None = None
    """Folder of the pictures, relative to ROOT."""
    labels: str | None = None
    """Folder of the index PNGs, relative to ROOT."""


SourceConfig = Annotated[Digits | ImageFolder | Voc | SemanticPng, Field(discriminator="type")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConvertConfig:
    """One split of a raw data set and where its shards go."""

    source: SourceConfig
    """What is read."""
    to: str
    """The folder of the split (a path or s3://...): its manifest will lie there."""
    format: Literal["arrow", "tfrecord"] = "arrow"
    """Of the shards. Others read TFRecords too."""
    shuffle: bool = True
    """Whether the rows are put into random order."""
    seed: int = Field(default=0, ge=0)
    """Of that order."""
    shard_bytes: int = Field(default=128 << 20, gt=0)
    """A shard is about so large."""
    workers: int | None = Field(default=None, ge=1)
    """At most so many tasks at a time; by default two for each CPU."""
