"""Finds annotations, images and lists of a Pascal VOC dataset: separate folders, one folder, or
years of VOCdevkit.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mtl_ray import storage
from mtl_ray.sources import voc_xml
from mtl_ray.sources.folders import (
    LISTED_AGAIN,
    find_list,
    is_image,
    is_of_a_system,
    negatives,
    passed_over,
    read_each,
    read_ids,
    stamps_of,
    subfolders,
)
from mtl_ray.sources.paths import Tree, inside
from mtl_ray.sources.source import SkippedItem

_ANNOTATIONS = ("Annotations", "annotations")
_IMAGES = ("JPEGImages", "images")
_LISTS = ("ImageSets/Main", "ImageSets/Segmentation", "ImageSets", "meta", "splits")
_YEAR = r"(VOC)?\d{4}"
_XML = ".xml"
_ALIASES = {"val": "valid", "valid": "val"}
MAPS = "SegmentationClass"


@dataclass(frozen=True, slots=True)
class VocFolder:
    """A folder with annotations.

    Attributes:
        uri: the folder.
        name: prefix of its paths in keys and skipped items: "" or "VOC2007/".
        annotations, images: its subfolders; both "" if XML files and images are side by side.
    """

    uri: str
    name: str
    annotations: str
    images: str

    def key_of(self, image: str) -> str:
        """The key of an image: its path in the folder of images, or in VOCdevkit with several
        years.
        """
        return self.image_file(image) if self.name else image

    def image_file(self, image: str) -> str:
        """The name of an image in skipped items."""
        return f"{self.name}{self.images}/{image}" if self.images else f"{self.name}{image}"

    def annotation_file(self, path: str) -> str:
        """The name of an annotation file in skipped items."""
        return f"{self.name}{self.annotations}/{path}" if self.annotations else f"{self.name}{path}"

    def annotation_uri(self, path: str) -> str:
        """The URI of an annotation file."""
        return (
            storage.join(self.uri, self.annotations, path)
            if self.annotations
            else storage.join(self.uri, path)
        )

    @property
    def images_uri(self) -> str:
        """The URI of the folder of images."""
        return storage.join(self.uri, self.images) if self.images else self.uri


@dataclass(frozen=True, slots=True)
class VocItem:
    """One id of a split.

    Attributes:
        name: the id.
        annotation: its XML file in the folder of annotations; None if there is none.
        image: its image in the folder of images; None if there is none.
        listed: False for an unlisted image without an XML file, which has no objects.
    """

    name: str
    annotation: str | None
    image: str | None
    listed: bool = True


@dataclass(slots=True)
class VocListing:
    """The listing of a split in a folder.

    Attributes:
        items: the ids.
        contents: the XML files of all ids of the folder, also of other splits, by id.
        classes: the names in them.
        skipped: ids that are repeated or leave the folder, and notes.
        stamps: texts that change with the images.
    """

    items: list[VocItem] = field(default_factory=list)
    contents: Mapping[str, bytes] = field(default_factory=dict)
    classes: frozenset[str] = frozenset()
    skipped: list[SkippedItem] = field(default_factory=list)
    stamps: list[str] = field(default_factory=list)


def find_folders(root: str, years: Sequence[str] | None, split: str) -> list[VocFolder]:
    """The root, the only folder with annotations up to two levels below it, folders of years, or
    the folder of the split.

    If there are no folders of annotations, XML files beside images are searched: in ROOT/SPLIT,
    then in ROOT.

    Raises:
        FileNotFoundError: if there is none, or a year is missing.
        ValueError: if there are several that are not years.
    """
    level = [root]
    for _ in range(3):
        found = [folder for folder in level if not set(_ANNOTATIONS).isdisjoint(subfolders(folder))]
        if found:
            return _chosen(root, found, years, split)
        level = [
            storage.join(folder, name)
            for folder in level
            for name in subfolders(folder)
            if not is_of_a_system(f"{name}/")
        ]
    present = subfolders(root)
    for name in (split, _ALIASES.get(split, split), ""):
        uri = storage.join(root, name) if name else root
        if (name in present and any(map(_is_xml, storage.files(uri)))) or (
            not name and any(map(_is_xml, storage.names(root)))
        ):
            return [VocFolder(uri, "", "", "")]
    raise FileNotFoundError(
        f"there is no folder Annotations in {root}, nor in the folders below it, and there are no "
        f"XML files in {root}/{split}; "
        f"folders there: {', '.join(present) or 'none'}"
    )


def _chosen(
    root: str, found: Sequence[str], years: Sequence[str] | None, split: str
) -> list[VocFolder]:
    by_name = {uri.rpartition("/")[2]: uri for uri in found}
    if years is not None:
        wanted = [
            next((name for name in by_name if name in (year, f"VOC{year}")), year) for year in years
        ]
        if missing := [name for name in wanted if name not in by_name]:
            raise FileNotFoundError(
                f"{root} has no folder {missing[0]} with annotations; it has {', '.join(by_name)}"
            )
        by_name = {name: by_name[name] for name in dict.fromkeys(wanted)}
    elif len(by_name) > 1 and not all(re.fullmatch(_YEAR, name) for name in by_name):
        own = next((name for name in (split, _ALIASES.get(split, split)) if name in by_name), None)
        if own is None:
            raise ValueError(
                f"{root} holds several VOC datasets, name one of them: {', '.join(found)}"
            )
        by_name = {own: by_name[own]}
    several = len(by_name) > 1
    return [_folder(uri, f"{name}/" if several else "") for name, uri in sorted(by_name.items())]


def _folder(uri: str, name: str) -> VocFolder:
    present = subfolders(uri)
    annotations, images = (
        next((each for each in usual if each in present), usual[0])
        for usual in (_ANNOTATIONS, _IMAGES)
    )
    return VocFolder(uri, name, annotations, images)


def list_split(folder: VocFolder, split: str, *, needed: bool = True) -> VocListing:
    """The ids of a split, without duplicates; without any lists, all annotated ids and all images
    without annotations.

    Args:
        folder: of the dataset.
        split: name of the list, or of the folder of XML files if there are no lists.
        needed: False if image files may be missing.

    Raises:
        FileNotFoundError: if there are lists but none of the split, or no annotations at all.
    """
    files = {_stem(path): path for path in _below(folder.annotation_uri("")) if _is_xml(path)}
    contents = read_each({name: folder.annotation_uri(path) for name, path in files.items()})
    if not files:
        raise FileNotFoundError(f"there are no XML files in {folder.annotation_uri('')}")
    headings = dict(_headings(contents))
    beside = _below(folder.images_uri)
    finder = _ImageFinder([path for path in beside if is_image(path)], files)
    has_lists = any(storage.names(storage.join(folder.uri, lists)) for lists in _LISTS)
    ids, skipped = (
        _listed(folder, split, files) if has_lists else (_part_of(split, list(files)), [])
    )
    items = [
        VocItem(name, files.get(name), finder.find(name, headings.get(name), needed=needed))
        for name in ids
    ]
    if not has_lists:
        taken = finder.used | {_stem(path) for path in finder.used}
        left = [
            path
            for path in _part_of(split, finder.images)
            if path not in taken and _stem(path) not in taken
        ]
        items += [VocItem(_stem(path), None, path, listed=False) for path in left]
        skipped = [*skipped, *negatives(map(folder.image_file, left))]
    skipped += passed_over(beside, folder.image_file(""), (_XML,))
    stamps = stamps_of(folder.images_uri, (item.image for item in items if item.image is not None))
    classes = frozenset(name for each in headings.values() for name in each.names)
    return VocListing(items, contents, classes, skipped, stamps)


class _ImageFinder:
    """Finds the image of an id: by its name, else by the name in its XML file. No two ids get
    the same image.
    """

    def __init__(self, images: list[str], ids: Container[str]) -> None:
        self.images, self._ids = images, ids
        self.used: set[str] = set()
        self._by_stem: dict[str, list[str]] = {}
        for path in images:
            self._by_stem.setdefault(_stem(path), []).append(path)
        self._paths, self._stems = Tree("", images), Tree("", list(self._by_stem))

    def find(self, name: str, heading: voc_xml.Heading | None, *, needed: bool) -> str | None:
        """The path of an id's image; an expected path if it is missing and not needed."""
        named = heading.file if heading is not None else ""
        same = self._by_stem.get(name, [])
        last = named.replace("\\", "/").rpartition("/")[2]
        found = next(
            (path for path in same if path.rpartition("/")[2] == last), same[-1] if same else None
        )
        if found is None:
            stem = self._stems.find(name)
            options = [
                self._paths.find(named) if named else None,
                self._by_stem[stem][-1] if stem else None,
            ]
            found = next(
                (
                    path
                    for path in options
                    if path and path not in self.used and _stem(path) not in self._ids
                ),
                None,
            )
        if found is not None:
            self.used.add(found)
        elif not needed:
            found = name + (f".{last.rpartition('.')[2]}" if is_image(last) else ".jpg")
        return found


def _headings(contents: Mapping[str, bytes]) -> Iterable[tuple[str, voc_xml.Heading]]:
    for name, content in contents.items():
        try:
            yield name, voc_xml.heading(voc_xml.parse_xml(content))
        except ValueError:
            continue  # the reader skips the file


def _listed(
    folder: VocFolder, split: str, files: Mapping[str, str]
) -> tuple[list[str], list[SkippedItem]]:
    """The ids of a list, matched to annotation files, without duplicates; paths that leave the
    folder are skipped.
    """
    uri = find_list(folder.uri, split, _LISTS)
    entries, skipped = read_ids(uri, folder.uri, files)
    tree, file = Tree("", list(files)), uri.removeprefix(folder.uri).lstrip("/")
    found: Counter[str] = Counter()
    for entry in entries:
        stem = _stem(entry) if is_image(entry) or _is_xml(entry) else entry
        try:
            found[entry if entry in files else tree.find(stem) or inside(stem)] += 1
        except ValueError as error:
            skipped.append(SkippedItem(file, entry, str(error)))
    return list(found), [
        *skipped,
        *(
            SkippedItem(file, name, f"{LISTED_AGAIN}: {name}", note=True)
            for name, count in found.items()
            if count > 1
        ),
    ]


def _part_of(split: str, paths: list[str]) -> list[str]:
    """The paths in the folder of the split; all paths if there is no such folder."""
    for name in (split, _ALIASES.get(split, split)):
        if part := [path for path in paths if path.startswith(f"{name}/")]:
            return part
    return paths


def _below(uri: str) -> list[str]:
    """The files below a folder as sorted relative paths, without system files."""
    uri = uri.rstrip("/")
    names = (found.removeprefix(uri).lstrip("/") for found in storage.files(uri))
    return sorted(name for name in names if not is_of_a_system(name))


def _is_xml(path: str) -> bool:
    return path.lower().endswith(_XML) and not path.rpartition("/")[2].startswith(".")


def _stem(path: str) -> str:
    return path.rpartition(".")[0]
