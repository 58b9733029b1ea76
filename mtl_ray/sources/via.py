"""VIA, the VGG Image Annotator: one JSON file with the regions of many pictures (https://www.robots.ox.ac.uk/~vgg/software/via)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.class_names import find_class_names
from mtl_ray.sources.coco_files import find_images
from mtl_ray.sources.config import Via
from mtl_ray.sources.folders import stamps_of
from mtl_ray.sources.objects import FoundObject, to_instances
from mtl_ray.sources.picture import USUAL_RULE, ImageRule, read_picture
from mtl_ray.sources.shapes import Points, drawn, ellipse, points_of, rectangle
from mtl_ray.sources.source import Reading, Reject, Source, fingerprint_of

_NAMES_OF_A_CLASS = ("class", "name", "label", "type", "category")
_ONLY_CLASS = "object"

Region = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Record:
    key: str
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    images: str
    file: str
    attribute: str
    index: Mapping[str, int]


def open_via(config: Via, rule: ImageRule = USUAL_RULE) -> Source:
    """Reads a split's file, an export (``via_region_data.json``) or a project of VIA 1 or 2, and finds its pictures.

    Raises:
        FileNotFoundError: if there is no such file, or none of its pictures is found.
        ValueError: if several could be meant, or it is not VIA's.
    """
    root = storage.absolute(config.root)
    uri = storage.join(root, config.annotations) if config.annotations else _find_file(root, config.split)
    text = storage.read(uri)
    entries = _entries(text)
    if entries is None:
        raise ValueError(f"{uri} is no JSON file of VIA: it needs a filename and regions for each picture")
    file = uri.removeprefix(root).lstrip("/")
    records, rejects = _records(entries, file)
    attribute = config.attribute or _attribute(records)
    names = find_class_names(root, config.classes) or tuple(sorted(_classes(records, attribute))) or (_ONLY_CLASS,)
    listed = [{"file_name": record.key} for record in records]
    images = storage.join(root, config.images) if config.images else find_images(root, uri, config.split, listed)
    layout = _Layout(images, file, attribute, {name: number for number, name in enumerate(names)})
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=records,
        reader=partial(_read, layout),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([text, images, attribute, *names, *stamps_of(images, (record.key for record in records))]),
    )


def _find_file(root: str, split: str) -> str:
    """The only file of VIA in ROOT/SPLIT, else the only one in ROOT with the split in its name, else the only one in ROOT."""
    here = [storage.join(root, name) for name in storage.names(root) if name.endswith(".json")]
    below = [storage.join(root, split, name) for name in storage.names(storage.join(root, split)) if name.endswith(".json")]
    for candidates in (below, [uri for uri in here if split in uri.rpartition("/")[2]], here):
        found = [uri for uri in candidates if _entries(storage.read(uri)) is not None]
        if len(found) > 1:
            raise ValueError(f"several files could be the annotations of {split!r}, name one with --annotations: {', '.join(found)}")
        if found:
            return found[0]
    raise FileNotFoundError(f"there is no JSON file of VIA in {root}/{split} or {root}; name it with --annotations")


def _entries(text: bytes) -> list[Mapping[str, Any]] | None:
    """The pictures of a file; None if it is not VIA's."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    content = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    entries = list(content.values()) if isinstance(content, dict) else []
    fits = all(isinstance(entry, dict) and isinstance(entry.get("filename"), str) and "regions" in entry for entry in entries)
    return entries if entries and fits else None


def _records(entries: Iterable[Mapping[str, Any]], file: str) -> tuple[list[_Record], list[Reject]]:
    records: dict[str, _Record] = {}
    rejects = []
    for entry in entries:
        key = entry["filename"].replace("\\", "/")
        given = entry["regions"]
        regions = list(given.values()) if isinstance(given, dict) else given if isinstance(given, list) else None
        if key in records or regions is None:
            rejects.append(Reject(file, key, "is listed twice" if key in records else "its regions are no list"))
        else:
            records[key] = _Record(key, tuple(regions))
    return list(records.values()), rejects


def _attributes_of(region: Region) -> Mapping[str, Any]:
    found = region.get("region_attributes") if isinstance(region, dict) else None
    return found if isinstance(found, dict) else {}


def _attribute(records: Sequence[_Record]) -> str:
    """The attribute that names the class: the only one there is, or one with a usual name; "" where there are none.

    Raises:
        ValueError: if it is not plain which.
    """
    known = {name for record in records for region in record.regions for name in _attributes_of(region)}
    usual = [name for name in _NAMES_OF_A_CLASS if name in {each.lower() for each in known}]
    if len(known) > 1 and not usual:
        raise ValueError(f"regions have the attributes {', '.join(sorted(known))}: say with --attribute which is the class")
    return next((each for each in sorted(known) if len(known) == 1 or each.lower() == usual[0]), "")


def _class_of(region: Region, attribute: str) -> str:
    """The class of a region: a text, or of a list of boxes to tick the only one that is ticked."""
    value = _attributes_of(region).get(attribute, "")
    if isinstance(value, dict):
        ticked = [name for name, chosen in value.items() if chosen]
        value = ticked[0] if len(ticked) == 1 else ""
    return str(value).strip()


def _classes(records: Sequence[_Record], attribute: str) -> set[str]:
    return {_class_of(region, attribute) for record in records for region in record.regions} - {""}


def _read(layout: _Layout, record: _Record) -> Reading:
    picture = read_picture(storage.join(layout.images, record.key), record.key)
    found, rejects = list[FoundObject](), []
    for number, region in enumerate(record.regions, start=1):
        name = f"{record.key}, region {number}"
        try:
            label = _class_of(region, layout.attribute) if layout.attribute else next(iter(layout.index))
            if label not in layout.index:
                raise ValueError(f"the class {label!r} is not in the list of classes")
            found.append(drawn(name, layout.index[label], [_polygon(region)], picture.height, picture.width))
        except ValueError as error:
            rejects.append(Reject(layout.file, name, str(error)))
    instances, bad = to_instances(found, layout.file, picture.height, picture.width, masks=True)
    sample = Sample(key=record.key, image=picture.data, height=picture.height, width=picture.width, instances=instances)
    return sample, [*rejects, *bad]


def _polygon(region: Region) -> Points:
    """The corners of a region.

    Raises:
        ValueError: if it has no area, or lacks a number.
    """
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict):
        raise ValueError("it has no shape")
    kind = shape.get("name")
    try:
        match kind:
            case "polygon":
                return points_of(shape["all_points_x"], shape["all_points_y"])
            case "rect":
                x, y, width, height = (float(shape[name]) for name in ("x", "y", "width", "height"))
                return rectangle(*points_of([x, x + width], [y, y + height]))
            case "circle":
                (centre,) = points_of([shape["cx"]], [shape["cy"]])
                return ellipse(centre, float(shape["r"]), float(shape["r"]))
            case "ellipse":
                (centre,) = points_of([shape["cx"]], [shape["cy"]])
                return ellipse(centre, float(shape["rx"]), float(shape["ry"]), float(shape.get("theta", 0)))
    except KeyError as error:
        raise ValueError(f"a {kind} without {error}") from None
    except TypeError:
        raise ValueError(f"a {kind} with something else than numbers") from None
    raise ValueError(f"a {kind} has no area")
