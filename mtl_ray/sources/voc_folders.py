"""Where the annotations, pictures and lists of a Pascal VOC set are: in one folder, or in one for each year of VOCdevkit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mtl_ray import storage
from mtl_ray.sources.folders import find_list, pictures_by_stem, read_each, read_ids, stamps_of, subfolders
from mtl_ray.sources.source import Reject

_ANNOTATIONS = ("Annotations", "annotations")
_IMAGES = ("JPEGImages", "images")
_LISTS = ("ImageSets/Main", "ImageSets/Segmentation", "ImageSets", "meta", "splits")
_YEAR = r"(VOC)?\d{4}"
MAPS = "SegmentationClass"


@dataclass(frozen=True, slots=True)
class VocFolder:
    """A folder with annotations.

    Attributes:
        uri: the folder.
        name: what stands before the paths of its files in keys and rejects: "" or "VOC2007/".
        annotations, images: the folders in it.
    """

    uri: str
    name: str
    annotations: str
    images: str

    def key_of(self, picture: str) -> str:
        """The key of a picture: its path in the folder of pictures, or in VOCdevkit where that holds several years."""
        return f"{self.name}{self.images}/{picture}" if self.name else picture


@dataclass(slots=True)
class VocListing:
    """What a folder has of a split.

    Attributes:
        pictures: the path of the picture of each id, None where there is none.
        contents: the XML files of all ids of the folder, also of other splits.
        rejects: ids that are listed twice.
        stamps: what changes when a picture does.
    """

    pictures: dict[str, str | None] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    stamps: list[str] = field(default_factory=list)


def find_folders(root: str, years: Sequence[str] | None) -> list[VocFolder]:
    """The root, or the only folder with annotations up to two levels below it, or those of several years.

    Raises:
        FileNotFoundError: if there is none, or a year is missing.
        ValueError: if there are several, and not those of years.
    """
    level = [root]
    for _ in range(3):
        found = [folder for folder in level if not set(_ANNOTATIONS).isdisjoint(subfolders(folder))]
        if found:
            return _chosen(root, found, years)
        level = [storage.join(folder, name) for folder in level for name in subfolders(folder)]
    raise FileNotFoundError(f"there is no folder Annotations in {root}, nor in the folders below it")


def _chosen(root: str, found: Sequence[str], years: Sequence[str] | None) -> list[VocFolder]:
    by_name = {uri.rpartition("/")[2]: uri for uri in found}
    if years is not None:
        wanted = [next((name for name in by_name if name in (year, f"VOC{year}")), year) for year in years]
        if missing := [name for name in wanted if name not in by_name]:
            raise FileNotFoundError(f"{root} has no folder {missing[0]} with annotations; it has {', '.join(by_name)}")
        by_name = {name: by_name[name] for name in dict.fromkeys(wanted)}
    elif len(by_name) > 1 and not all(re.fullmatch(_YEAR, name) for name in by_name):
        raise ValueError(f"{root} holds several VOC sets, name one of them: {', '.join(found)}")
    several = len(by_name) > 1
    return [_folder(uri, f"{name}/" if several else "") for name, uri in sorted(by_name.items())]


def _folder(uri: str, name: str) -> VocFolder:
    present = subfolders(uri)
    annotations, images = (next((each for each in usual if each in present), usual[0]) for usual in (_ANNOTATIONS, _IMAGES))
    return VocFolder(uri, name, annotations, images)


def list_split(folder: VocFolder, split: str) -> VocListing:
    """The ids of a split, each once; all annotated ones where the set has no lists at all.

    Raises:
        FileNotFoundError: if there are lists, but none of the split.
    """
    place = storage.join(folder.uri, folder.annotations)
    annotated = [name.removesuffix(".xml") for name in storage.names(place) if name.endswith(".xml")]
    contents = read_each({name: storage.join(place, f"{name}.xml") for name in annotated})
    if any(storage.names(storage.join(folder.uri, lists)) for lists in _LISTS):
        ids, rejects = read_ids(find_list(folder.uri, split, _LISTS), folder.uri, contents)
    else:
        ids, rejects = annotated, []
    by_stem = pictures_by_stem(storage.join(folder.uri, folder.images))
    pictures = {name: by_stem.get(name) for name in ids}
    stamps = stamps_of(storage.join(folder.uri, folder.images), (found for found in pictures.values() if found is not None))
    return VocListing(pictures, contents, rejects, stamps)
