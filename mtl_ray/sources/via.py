"""VIA, the VGG Image Annotator: one JSON file with the regions of many images
(https://www.robots.ox.ac.uk/~vgg/software/via).
"""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mtl_ray import storage
from mtl_ray.samples import EncodedImage, Vocabulary, image_sample
from mtl_ray.sources.class_names import find_class_names
from mtl_ray.sources.folders import is_image, is_of_a_system, not_used, passed_over, stamps_of
from mtl_ray.sources.image_reading import ABSENT, USUAL_RULE, ImageRule, absent_image, read_image
from mtl_ray.sources.json_values import parse_json, shown, stated_size
from mtl_ray.sources.object_configs import Via
from mtl_ray.sources.objects import FoundObject, to_instances
from mtl_ray.sources.orientation import Parsed, objects_as_shown
from mtl_ray.sources.paths import Tree, inside
from mtl_ray.sources.shapes import object_of_polygons
from mtl_ray.sources.source import (
    Reading,
    SkippedItem,
    Source,
    UnreadableError,
    fingerprint_of,
    unknown_class,
)
from mtl_ray.sources.via_regions import ViaRegion, class_of, find_attribute, polygon_of, shape_of

_ONLY_CLASS = "object"
_TRIED = 20
"""Number of listed images that are searched in each candidate folder."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of a file: the name of an image, its regions, and its stated height and width."""

    name: str
    regions: tuple[ViaRegion, ...]
    stated: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class _Record:
    """An image: its key, whether its file exists, else the error of its path, and label and
    shape of each region.
    """

    key: str
    present: bool
    error: str
    stated: tuple[int, int] | None
    regions: tuple[tuple[str, ViaRegion | None], ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    images: str
    file: str
    index: Mapping[str, int]
    rule: ImageRule


def open_via(config: Via, rule: ImageRule = USUAL_RULE) -> Source:
    """Reads a split's file, an export (``via_region_data.json``) or a project of VIA 1 or 2, and
    finds its images.

    Raises:
        FileNotFoundError: if there is no such file, or none of its images exists.
        ValueError: if several files match, or the file is not VIA's.
    """
    root = storage.absolute(config.root)
    named = config.annotations
    uri = storage.join(root, named) if named else _find_file(root, config.split)
    data = storage.read(uri)
    given = _content(data)
    if given is None:
        raise ValueError(
            f"{uri} is not a JSON file of VIA: it needs a filename and regions for each image"
        )
    file = uri.removeprefix(root).lstrip("/")
    entries, skipped = _entries(given, file)
    regions = [region for entry in entries for region in entry.regions]
    attribute = config.attribute or find_attribute(regions)
    labels = {class_of(region, attribute) for region in regions} - {""}
    names = find_class_names(root, config.classes) or tuple(sorted(labels)) or (_ONLY_CLASS,)
    only = "" if attribute or len(names) > 1 else names[0]
    paths = [
        path
        for each in storage.files(root)
        if not is_of_a_system(path := each.removeprefix(root).lstrip("/"))
    ]
    folder = (
        config.images.strip("/")
        if config.images
        else _folder_of(root, file, config.split, paths, entries, needed=rule.needed)
    )
    start = f"{folder}/" if folder else ""
    inner = [path.removeprefix(start) for path in paths if path.startswith(start)]
    records, more = _records(entries, inner, attribute, only, file)
    own = folder == posixpath.dirname(file) or config.split in folder.split("/")
    others = _others(folder, inner, records) if own else []
    images = storage.join(root, folder) if folder else root
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=records,
        reader=partial(
            _read, _Layout(images, file, {name: place for place, name in enumerate(names)}, rule)
        ),
        skipped=(*skipped, *more, *others),
        fingerprint=fingerprint_of(
            [
                data,
                images,
                attribute,
                *names,
                *stamps_of(images, (record.key for record in records)),
            ]
        ),
    )


def _find_file(root: str, split: str) -> str:
    """The only file of VIA in ROOT/SPLIT, else the only one in ROOT with the split in its name,
    else the only one in ROOT.
    """
    here, below = (
        [storage.join(folder, name) for name in _json_files(folder)]
        for folder in (root, storage.join(root, split))
    )
    for candidates in (below, [uri for uri in here if split in uri.rpartition("/")[2]], here):
        found = [uri for uri in candidates if _content(storage.read(uri)) is not None]
        if len(found) > 1:
            raise ValueError(
                f"several files could be the annotations of {split!r}, name one with "
                f"--annotations: {', '.join(found)}"
            )
        if found:
            return found[0]
    raise FileNotFoundError(
        f"there is no JSON file of VIA in {root}/{split} or {root}; name it with --annotations"
    )


def _json_files(folder: str) -> list[str]:
    return [
        name
        for name in storage.names(folder)
        if name.lower().endswith(".json") and not is_of_a_system(name)
    ]


def _content(data: bytes) -> list[Any] | None:
    """The entries of a file, unchecked; None if it is not VIA's."""
    try:
        content = parse_json(data)
    except ValueError:
        return None
    content = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    entries = list(content.values()) if isinstance(content, dict) else []
    return entries if any(map(_is_entry, entries)) else None


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("filename"), str)
        and bool(entry["filename"])
        and "regions" in entry
    )


def _entries(given: Iterable[Any], file: str) -> tuple[list[_Entry], list[SkippedItem]]:
    entries: list[_Entry] = []
    skipped = []
    for place, entry in enumerate(given, start=1):
        if not _is_entry(entry):
            skipped.append(
                SkippedItem(file, f"entry {place}", "an entry without a filename and regions")
            )
            continue
        regions = entry["regions"]
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        if isinstance(regions, list):
            entries.append(_Entry(entry["filename"], tuple(regions), _stated(entry)))
        else:
            skipped.append(
                SkippedItem(
                    file, entry["filename"], f"its regions are not a list: {shown(regions)}"
                )
            )
    return entries, skipped


def _stated(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of an image, which some users store as attributes of the file."""
    for place in (entry, entry.get("file_attributes")):
        if isinstance(place, dict) and (size := stated_size(place)):
            return size
    return None


def _folder_of(
    root: str,
    file: str,
    split: str,
    paths: Sequence[str],
    entries: Sequence[_Entry],
    *,
    needed: bool,
) -> str:
    """The folder that holds the first listed images; if no name matches exactly, the folder with
    the most matches.

    Raises:
        FileNotFoundError: if there is none, and images are needed.
    """
    images = set(filter(is_image, paths))
    above = {
        "/".join(path.split("/")[:depth]) for path in images for depth in range(path.count("/") + 1)
    }
    likely = [posixpath.dirname(file), f"images/{split}", split, "images", ""]
    folders = [folder for folder in dict.fromkeys([*likely, *sorted(above)]) if folder in above]
    names = [entry.name for entry in entries[:_TRIED]]
    for folder in folders:
        if any(posixpath.join(folder, name.replace("\\", "/")) in images for name in names):
            return folder
    inner = {
        folder: [
            path.removeprefix(f"{folder}/")
            for path in images
            if not folder or path.startswith(f"{folder}/")
        ]
        for folder in folders
    }
    trees = {folder: Tree("", found) for folder, found in inner.items()}
    counts = {
        folder: sum(tree.find(name) is not None for name in names) for folder, tree in trees.items()
    }
    best = max(counts, key=lambda folder: counts[folder], default="")
    if needed and not counts.get(best):
        looked_for = names[0] if names else "nothing"
        raise FileNotFoundError(
            f"the images that {file} lists are in no folder of {root} (such as {looked_for}); name "
            "it with --images"
        )
    return best


def _records(
    entries: Sequence[_Entry], paths: Sequence[str], attribute: str, only: str, file: str
) -> tuple[list[_Record], list[SkippedItem]]:
    """A record for each image; exact names take precedence over similar names."""
    images = [path for path in paths if is_image(path)]
    tree, certain = Tree("", images), {entry.name.replace("\\", "/") for entry in entries}
    records: dict[str, _Record] = {}
    skipped = []
    for entry in entries:
        name = entry.name.replace("\\", "/")
        found = name if name in tree else tree.find(entry.name)
        present = found is not None and (found == name or found not in certain)
        key, error = (found, "") if found is not None and present else _key_of(name)
        if key in records:
            skipped.append(SkippedItem(file, entry.name, f"an image that is already listed: {key}"))
            continue
        regions = tuple(
            (class_of(each, attribute) if attribute else only, shape_of(each))
            for each in entry.regions
        )
        records[key] = _Record(key, present, error, entry.stated, regions)
    return list(records.values()), skipped


def _key_of(name: str) -> tuple[str, str]:
    """The key of a missing image, and the error of its path."""
    try:
        return inside(name), ""
    except ValueError as error:
        return name, str(error)


def _others(folder: str, paths: Sequence[str], records: Iterable[_Record]) -> list[SkippedItem]:
    """Notes on images that the file does not list, and on other files beside them."""
    taken, prefix = {record.key for record in records}, f"{folder}/" if folder else ""
    free = [prefix + path for path in paths if is_image(path) and path not in taken]
    return [*not_used(free), *passed_over(paths, prefix, (".json", ".txt", ".csv"))]


def _read(layout: _Layout, record: _Record) -> Reading:
    image = _image(layout, record)
    found, skipped = objects_as_shown(
        partial(_objects, layout, record), image, record.stated, record.key
    )
    instances, invalid = to_instances(found, layout.file, image.height, image.width, masks=True)
    absent = [] if image.data else [SkippedItem(record.key, "", ABSENT, note=True)]
    sample = image_sample(
        key=record.key,
        image=image.data,
        height=image.height,
        width=image.width,
        instances=instances,
    )
    return sample, [*skipped, *invalid, *absent]


def _image(layout: _Layout, record: _Record) -> EncodedImage:
    if record.present:
        return read_image(
            storage.join(layout.images, record.key), record.key, layout.rule, record.stated
        )
    if record.error:
        raise UnreadableError(record.key, record.error)
    if not layout.rule.needed and record.stated is None:
        raise UnreadableError(record.key, "image file not there, and VIA states no size")
    return absent_image(record.key, layout.rule, record.stated)


def _objects(layout: _Layout, record: _Record, height: int, width: int) -> Parsed:
    found, skipped = list[FoundObject](), []
    for place, (label, shape) in enumerate(record.regions, start=1):
        name = f"{record.key}, region {place}"
        try:
            if label not in layout.index:
                raise ValueError(unknown_class(label) if label else "a region without a class")
            found.append(
                object_of_polygons(name, layout.index[label], [polygon_of(shape)], height, width)
            )
        except ValueError as error:
            skipped.append(SkippedItem(layout.file, name, str(error)))
    return found, skipped
