"""Pairs images with index PNGs, by a list of pairs, a list of ids, or file names; reads files of
map values.
"""

import posixpath
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.samples import IGNORE_INDEX
from mtl_ray.sources.folders import (
    LISTED_AGAIN,
    SUFFIXES,
    find_list,
    images_by_stem,
    images_in,
    is_image,
    passed_over,
    read_lines,
)
from mtl_ray.sources.paths import Tree, inside
from mtl_ray.sources.source import SkippedItem

_LISTS = ("", "splits", "meta", "ImageSets/Segmentation")
_IMAGES = (
    "{}",
    "images/{}",
    "img_dir/{}",
    "imgs/{}",
    "leftImg8bit/{}",
    "images",
    "img_dir",
    "imgs",
    "JPEGImages",
)
_PLAIN_LABELS = ("annotations", "labels", "ann_dir", "gts", "masks", "SegmentationClass")
_LABELS = (
    "{}annot",
    "annotations/{}",
    "labels/{}",
    "semantic/{}",
    "ann_dir/{}",
    "gts/{}",
    "masks/{}",
    "gtFine/{}",
    *_PLAIN_LABELS,
)
_NAME = rf"(.+?(?:{'|'.join(map(re.escape, SUFFIXES))}))"
_PAIR = re.compile(rf"{_NAME}[\s,;]+{_NAME}(?:\s.*)?$", re.IGNORECASE)
"""A line of a list of pairs; names may contain blanks."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its index PNG, relative to the root; the key is the image's path in its
    folder.
    """

    key: str
    image: str
    label: str


def find_pairs(
    root: str, split: str, images: str | None, labels: str | None, *, needed: bool = True
) -> tuple[list[Pair], list[SkippedItem]]:
    """The pairs of a split, and skipped items for unpaired files.

    Args:
        root: the dataset.
        split: name of the list SPLIT.txt, or part of the folder names.
        images: folder of the images in the root; None to search it.
        labels: folder of the index PNGs in the root; None to search it.
        needed: False if image files may be missing.

    Raises:
        FileNotFoundError: with the searched names.
    """
    places = _IMAGES if needed else (*_IMAGES, *_LABELS)
    try:
        listed = find_list(root, split, _LISTS)
    except FileNotFoundError as error:
        if not images and not any(
            images_by_stem(storage.join(root, place.format(split)))
            for place in places
            if "{}" in place
        ):
            raise FileNotFoundError(
                f"{error}; and it has no folder such as {split}, images/{split} or img_dir/{split}"
            ) from None
        ids = None
    else:
        ids = read_lines(listed)
        pairs = [(match[1], match[2]) for line in ids if (match := _PAIR.match(line))]
        if pairs and len(pairs) == len(ids):
            return _listed(root, pairs, listed.removeprefix(root).lstrip("/"))
    found = images or _find(root, split, _IMAGES, default=None if needed else f"images/{split}")
    return _by_name(root, found, labels or _find(root, split, _LABELS), ids, needed=needed)


def _listed(
    root: str, lines: Sequence[tuple[str, str]], file: str
) -> tuple[list[Pair], list[SkippedItem]]:
    """Pairs of a list; paths of another folder or machine are matched by their ends."""
    tree = Tree("", images_in(root))
    found: dict[str, Pair] = {}
    skipped = []
    for number, line in enumerate(lines, start=1):
        try:
            image, label = (tree.find(path) or inside(path) for path in line)
        except ValueError as error:
            skipped.append(SkippedItem(file, f"line {number}", str(error)))
            continue
        if image in found:
            same = found[image].label == label
            reason = (
                f"{LISTED_AGAIN}: {image}" if same else f"listed before with another map: {image}"
            )
            skipped.append(SkippedItem(file, f"line {number}", reason, note=same))
        else:
            found[image] = Pair(image, image, label)
    return list(found.values()), skipped


def _by_name(
    root: str, images: str, labels: str, ids: Sequence[str] | None, *, needed: bool
) -> tuple[list[Pair], list[SkippedItem]]:
    found, maps = (
        images_by_stem(storage.join(root, images)),
        images_by_stem(storage.join(root, labels)),
    )
    if not found.keys() & maps.keys():
        found, maps = _without_common_end(found), _without_common_end(maps)
    known = found.keys() | maps.keys()
    tree = Tree("", sorted(known))
    wanted = (
        sorted(known)
        if ids is None
        else list(dict.fromkeys(_known(line, known, tree) for line in ids))
    )
    pairs, skipped = [], []
    for name in wanted:
        image = found.get(name) or (None if needed else maps.get(name))
        if image is not None and name in maps:
            pairs.append(Pair(image, f"{images}/{image}", f"{labels}/{maps[name]}"))
        else:
            reason = (
                f"has no index PNG in {labels}" if name in found else f"has no image in {images}"
            )
            skipped.append(SkippedItem(name, "", reason))
    folder = storage.join(root, images)
    others = passed_over(
        (uri.removeprefix(folder).lstrip("/") for uri in storage.files(folder)), f"{images}/"
    )
    return pairs, [*skipped, *others]


def _known(line: str, known: Container[str], tree: Tree) -> str:
    """The image or map name of a line."""
    word = line if is_image(line) else line.split()[0]
    stem = word.rpartition(".")[0] if is_image(word) else word
    return line if line in known else tree.find(stem) or word


def _without_common_end(names: dict[str, str]) -> dict[str, str]:
    """``00000_img, 00001_img`` -> ``00000, 00001``: the common suffix from its first underscore
    is removed.
    """
    common = posixpath.commonprefix([name[::-1] for name in names])[::-1] if len(names) > 1 else ""
    end = common[common.find("_") :] if "_" in common else ""
    return {name.removesuffix(end): path for name, path in names.items()}


def _find(root: str, split: str, places: Sequence[str], default: str | None = None) -> str:
    for place in places:
        if images_by_stem(storage.join(root, place.format(split))):
            return place.format(split)
    if default is not None:
        return default
    raise FileNotFoundError(
        f"{root} has none of the folders {', '.join(place.format(split) for place in places)}; "
        "name it with --images, --labels"
    )


# Semantic maps with other values than class indices, or with colours.


NO_CLASS = "-"
"""The name of values without a class."""
_COLOUR = 3


@dataclass(frozen=True, slots=True)
class MapValues:
    """The content of a file of values.

    Attributes:
        names: of the classes, in order of first occurrence.
        classes: the class index of each value or colour (red, green, blue), ``IGNORE_INDEX`` for
            none.
        colours: the first colour of each class; empty for values.
    """

    names: tuple[str, ...]
    classes: Mapping[tuple[int, ...], int]
    colours: tuple[tuple[int, int, int], ...]

    @property
    def in_colour(self) -> bool:
        """True if classes are colours."""
        return bool(self.colours)


def read_map_values(uri: str) -> MapValues:
    """Reads lines "value name" or "red green blue name"; names may repeat and contain blanks.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is invalid, or a value is repeated.
    """
    if not storage.exists(uri):
        raise FileNotFoundError(f"there is no file of values {uri}")
    lines = [line.split() for line in read_lines(uri)]
    width = (
        _COLOUR
        if lines
        and all(len(line) > _COLOUR and all(map(_is_byte, line[:_COLOUR])) for line in lines)
        else 1
    )
    names: dict[str, int] = {}
    classes: dict[tuple[int, ...], int] = {}
    colours: list[tuple[int, int, int]] = []
    for line in lines:
        if len(line) <= width or not all(map(_is_byte, line[:width])):
            raise ValueError(
                f"{uri}: {' '.join(line)!r} is neither 'value name' nor 'red green blue name', "
                "from 0 to 255, as all lines must be"
            )
        key, name = tuple(map(int, line[:width])), " ".join(line[width:])
        if key in classes:
            raise ValueError(f"{uri}: {' '.join(line[:width])} is repeated")
        if width == _COLOUR and name != NO_CLASS and name not in names:
            colours.append((key[0], key[1], key[2]))
        classes[key] = IGNORE_INDEX if name == NO_CLASS else names.setdefault(name, len(names))
    if not names or len(names) >= IGNORE_INDEX:
        raise ValueError(
            f"{uri} names {len(names)} classes; it must name from 1 to {IGNORE_INDEX - 1}"
        )
    return MapValues(tuple(names), classes, tuple(colours))


def _is_byte(word: str) -> bool:
    return word.isdecimal() and int(word) <= 255
