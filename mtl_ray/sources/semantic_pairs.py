"""Which picture belongs to which index PNG: by a list of pairs, a list of ids, or the names of the files."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.sources.folders import find_list, is_picture, pictures_by_stem, read_lines
from mtl_ray.sources.source import Reject

_LISTS = ("", "splits", "meta", "ImageSets/Segmentation")
_IMAGES = ("{}", "images/{}", "img_dir/{}", "imgs/{}", "leftImg8bit/{}", "images", "img_dir", "imgs", "JPEGImages")
_PLAIN_LABELS = ("annotations", "labels", "ann_dir", "gts", "masks", "SegmentationClass")
_LABELS = ("{}annot", "annotations/{}", "labels/{}", "semantic/{}", "ann_dir/{}", "gts/{}", "masks/{}", "gtFine/{}", *_PLAIN_LABELS)


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture and its index PNG, as paths in the root; the key is the picture's path in its folder."""

    key: str
    image: str
    label: str


def find_pairs(root: str, split: str, images: str | None, labels: str | None) -> tuple[list[Pair], list[Reject]]:
    """The pairs of a split, and what is without its other half.

    Args:
        root: the data set.
        split: the list SPLIT.txt, or part of the folders' names.
        images: folder of the pictures in the root; None to look for it.
        labels: folder of the index PNGs in the root; None to look for it.

    Raises:
        FileNotFoundError: saying what was looked for.
    """
    try:
        listed = find_list(root, split, _LISTS)
    except FileNotFoundError as error:
        if not images and not any(pictures_by_stem(storage.join(root, place.format(split))) for place in _IMAGES if "{}" in place):
            raise FileNotFoundError(f"{error}; and it has no folder such as {split}, images/{split} or img_dir/{split}") from None
        ids = None
    else:
        ids = read_lines(listed)
        pairs = [line.split() for line in ids]
        if pairs and all(len(pair) > 1 and is_picture(pair[0]) for pair in pairs):
            return _listed(pairs, listed.removeprefix(root).lstrip("/"))
    return _by_name(root, images or _find(root, split, _IMAGES), labels or _find(root, split, _LABELS), ids)


def _listed(lines: Sequence[Sequence[str]], file: str) -> tuple[list[Pair], list[Reject]]:
    """Pairs of paths in the root; of absolute ones, which point into another machine, folder and name count."""
    found: dict[str, Pair] = {}
    rejects = []
    for number, (image, label, *_) in enumerate(lines, start=1):
        image, label = ("/".join(path.split("/")[-2:]) if path.startswith("/") else posixpath.normpath(path) for path in (image, label))
        if image in found:
            rejects.append(Reject(file, f"line {number}", f"{image} is listed more than once"))
        else:
            found[image] = Pair(image, image, label)
    return list(found.values()), rejects


def _by_name(root: str, images: str, labels: str, ids: Sequence[str] | None) -> tuple[list[Pair], list[Reject]]:
    pictures, maps = pictures_by_stem(storage.join(root, images)), pictures_by_stem(storage.join(root, labels))
    if not pictures.keys() & maps.keys():
        pictures, maps = _without_common_end(pictures), _without_common_end(maps)
    known = pictures.keys() | maps.keys()
    wanted = sorted(known) if ids is None else list(dict.fromkeys(line if line in known else line.split()[0] for line in ids))
    pairs, rejects = [], []
    for name in wanted:
        if name in pictures and name in maps:
            pairs.append(Pair(pictures[name], f"{images}/{pictures[name]}", f"{labels}/{maps[name]}"))
        else:
            rejects.append(Reject(name, "", f"has no index PNG in {labels}" if name in pictures else f"has no picture in {images}"))
    return pairs, rejects


def _without_common_end(names: dict[str, str]) -> dict[str, str]:
    """``00000_img, 00001_img`` -> ``00000, 00001``: what all end on, from its first underscore, says of which kind they are."""
    common = posixpath.commonprefix([name[::-1] for name in names])[::-1] if len(names) > 1 else ""
    end = common[common.find("_") :] if "_" in common else ""
    return {name.removesuffix(end): path for name, path in names.items()}


def _find(root: str, split: str, places: Sequence[str]) -> str:
    for place in places:
        if pictures_by_stem(storage.join(root, place.format(split))):
            return place.format(split)
    raise FileNotFoundError(
        f"{root} has none of the folders {', '.join(place.format(split) for place in places)}; name it with --images, --labels"
    )
