"""Finds the images of a YOLO split and the label file of each."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import unquote

from mtl_ray import storage
from mtl_ray.sources.class_names import USUAL_FILES
from mtl_ray.sources.folders import (
    LISTED_AGAIN,
    find_list,
    is_image,
    negatives,
    orphans,
    passed_over,
    read_ids,
    subfolders,
)
from mtl_ray.sources.paths import Tree, inside
from mtl_ray.sources.source import SkippedItem
from mtl_ray.sources.yolo_description import YoloDescription, aliases

LABELS = "labels"
"""Replaces "images" in the path of a label file."""
_IMAGES = "images"
_LISTS = ("", "meta", "splits")
_NO_LABELS = (
    *USUAL_FILES,
    "train.txt",
    "val.txt",
    "valid.txt",
    "test.txt",
    "obj.names",
    "predefined_classes.txt",
)
_SPLITS = frozenset({"train", "val", "valid", "test"})
_SHOWN = 3


def find_split_images(
    root: str, split: str, described: YoloDescription, files: Sequence[str]
) -> tuple[dict[str, str], list[SkippedItem]]:
    """The keys of a split's images by path in the root, from folders or lists.

    Args:
        root: the dataset.
        split: a name in data.yaml, a folder, or a list of images or ids.
        described: the content of data.yaml.
        files: all files of the root.

    Raises:
        FileNotFoundError: if there is no such split.
    """
    images = list(filter(is_image, files))
    places = list(_places(split, described, files, images))
    lists, folders = (
        list(filter(_is_text, places)),
        [place for place in places if not _is_text(place)],
    )
    if len(folders) > 1 or (lists and folders):
        keys, skipped = _listed(root, lists, images)
        return keys | {path: path for folder in folders for path in _below(folder, images)}, [
            *skipped,
            *_others(folders, files),
        ]
    if lists:
        return _listed(root, lists, images)
    if usual := next(
        (folder for folder in [*folders, *_usual(split)] if _below(folder, images)), None
    ):
        return _of_folder(usual, images), _others([usual], files)
    flat = next(
        (
            place
            for place in (_IMAGES, "")
            if any(path.rpartition("/")[0] == place for path in images)
        ),
        None,
    )
    if (
        flat is not None
        and not described.splits.keys() & _SPLITS
        and not _lists(split, files, images, flat)
    ):
        return _of_folder(flat, images), _others([flat], files)
    try:
        return _listed(
            root, [find_list(root, split, _LISTS).removeprefix(root).lstrip("/")], images
        )
    except FileNotFoundError as error:
        looked, present = ", ".join(_usual(split)), ", ".join(subfolders(root)) or "none"
        raise FileNotFoundError(
            f"{error}; no folder {looked} has images; folders there: {present}"
        ) from None


def _places(
    split: str, described: YoloDescription, files: Sequence[str], images: Sequence[str]
) -> Iterator[str]:
    """The paths in the root that data.yaml refers to, often relative to another folder or
    machine.
    """
    texts = Tree("", [path for path in files if _is_text(path)])
    folders = Tree(
        "",
        sorted({path[:at] for path in images for at, letter in enumerate(path) if letter == "/"}),
    )
    for named in described.places(split):
        found = texts.find(named) if _is_text(named) else folders.find(named)
        parts = named.replace("\\", "/").rstrip("/").split("/")
        # valid/images is not images
        if found is not None and (
            "/" in found or parts[-2:-1] == [] or parts[-2] not in aliases(split)
        ):
            yield found


def _usual(split: str) -> list[str]:
    return [
        place
        for name in aliases(split)
        for place in (f"{_IMAGES}/{name}", f"{name}/{_IMAGES}", name)
    ]


def _of_folder(place: str, images: Sequence[str]) -> dict[str, str]:
    return {path: path.removeprefix(f"{place}/") for path in _below(place, images)}


def _below(place: str, images: Sequence[str]) -> list[str]:
    return [path for path in images if not place or path.startswith(f"{place}/")]


def _others(places: Sequence[str], files: Sequence[str]) -> list[SkippedItem]:
    """Notes on files in folders of images that are neither images nor label files."""
    inner = [
        path for path in files if any(not place or path.startswith(f"{place}/") for place in places)
    ]
    return passed_over(
        [path for path in inner if not _is_text(path) or is_image(path[: -len(".txt")])]
    )


def _listed(
    root: str, lists: Sequence[str], images: Sequence[str]
) -> tuple[dict[str, str], list[SkippedItem]]:
    """The images of lists: paths, also of another machine, or ids of images in images/."""
    by_id: dict[str, str] = {}
    for path in sorted(images, key=lambda path: path.startswith(f"{_IMAGES}/")):
        by_id[path.removeprefix(f"{_IMAGES}/").rpartition(".")[0]] = path
    paths, ids = Tree("", images), Tree("", list(by_id))
    keys: dict[str, str] = {}
    skipped: list[SkippedItem] = []
    for file in lists:
        entries, twice = read_ids(storage.join(root, file), root, by_id)
        skipped += twice
        for entry in entries:
            by_name = paths.find(entry) if is_image(entry) else by_id.get(ids.find(entry) or "")
            image = by_id.get(entry) or by_name
            if image is None:
                skipped.append(SkippedItem(file, entry, _why_not(entry)))
            elif image in keys:
                skipped.append(SkippedItem(file, entry, f"{LISTED_AGAIN}: {image}", note=True))
            else:
                keys[image] = image.removeprefix(f"{_IMAGES}/")
    return keys, skipped


def _why_not(entry: str) -> str:
    try:
        inside(entry)
    except ValueError as error:
        return str(error)
    return "listed but not there"


def find_labels(
    root: str, keys: Iterable[str], files: Sequence[str], word: str | None
) -> tuple[dict[str, str], list[SkippedItem]]:
    """The label file of each image, and notes on images without label files and label files without
    images.

    Args:
        root: the dataset.
        keys: the images of the split, relative to the root.
        files: all files of the root.
        word: replaces "images" in the path of a label file; None for "labels", and for label files
            beside the images.

    Raises:
        FileNotFoundError: if no image has a label file.
    """
    texts = [path for path in files if _is_text(path)]
    exact, alike = set(texts), {_plain(path): path for path in texts}
    images = list(keys)
    labels: dict[str, str] = {}
    for image in images:
        places = _label_places(image, word)
        if found := next(
            (
                path
                for place in places
                if (path := place if place in exact else alike.get(_plain(place)))
            ),
            None,
        ):
            labels[image] = found
    if images and not labels:
        raise FileNotFoundError(_no_labels(root, images, texts, word))
    without = [image for image in images if image not in labels]
    return labels, [*negatives(without), *orphans(_left(labels, files, texts, word))]


def _label_places(image: str, word: str | None) -> list[str]:
    """Possible label files: the last folder "images" replaced by labels, then beside the image."""
    stem = image.rpartition(".")[0]
    parts = stem.split("/")
    at = next((at for at in range(len(parts) - 2, -1, -1) if parts[at].lower() == _IMAGES), None)
    if at is None:
        return [f"{stem}.txt"]
    there = "/".join([*parts[:at], word or LABELS, *parts[at + 1 :]]) + ".txt"
    return [there] if word else [there, f"{stem}.txt"]


def _left(
    labels: Mapping[str, str], files: Sequence[str], texts: Sequence[str], word: str | None
) -> list[str]:
    """Label files without an image, in folders of other label files."""
    folders = {path.rpartition("/")[0] for path in labels.values()}
    owned = {
        _plain(place) for path in files if is_image(path) for place in _label_places(path, word)
    } | set(map(_plain, labels.values()))
    inner = (
        path
        for path in texts
        if path.rpartition("/")[0] in folders and path.rpartition("/")[2].lower() not in _NO_LABELS
    )
    return [path for path in inner if _plain(path) not in owned]


def _no_labels(root: str, images: Sequence[str], texts: Sequence[str], word: str | None) -> str:
    """The error if no label file is found: the searched paths, and a folder with text files of
    these names.
    """
    looked = ", ".join(place for image in images[:_SHOWN] for place in _label_places(image, word))
    names = {_plain(f"{image.rpartition('/')[2].rpartition('.')[0]}.txt") for image in images}
    elsewhere = sorted(
        {
            path.partition("/")[0]
            for path in texts
            if "/" in path and _plain(path.rpartition("/")[2]) in names
        }
    )
    fix = (
        f"--labels {elsewhere[0]}"
        if elsewhere
        else "name the folder that stands for images with --labels"
    )
    more = f" and {len(images) - _SHOWN:,} more" if len(images) > _SHOWN else ""
    return (
        f"no label file was found for the {len(images):,} images of {root}: looked for "
        f"{looked}{more}; Fix: {fix}"
    )


def _plain(path: str) -> str:
    """A path in normal form: percent-decoded, Unicode NFC, lower case of folders and suffix."""
    folder, _, name = unicodedata.normalize("NFC", unquote(path)).rpartition("/")
    stem, _, suffix = name.rpartition(".")
    return f"{folder.lower()}/{stem}.{suffix.lower()}"


def _is_text(path: str) -> bool:
    return path.lower().endswith(".txt")


def _lists(split: str, files: Sequence[str], images: Sequence[str], flat: str) -> list[str]:
    """Text files in folders of lists that are neither lists of classes nor label files of images
    in ``flat``.
    """
    texts = [
        path
        for path in files
        if _is_text(path)
        and path.rpartition("/")[0] in _LISTS
        and path.rpartition("/")[2] not in USUAL_FILES
    ]
    stems = {image.rpartition(".")[0] for image in images}
    named = {f"{name}.txt" for name in (split, *_SPLITS)}
    return [
        path
        for path in texts
        if path[: -len(".txt")] not in stems and (path.rpartition("/")[0] != flat or path in named)
    ]
