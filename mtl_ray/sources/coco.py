"""COCO: one JSON file for all pictures of a split (Lin et al. 2014, https://cocodataset.org/#format-data)."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.class_names import read_class_names
from mtl_ray.sources.coco_files import annotations_alike, find_annotations, find_images
from mtl_ray.sources.coco_objects import objects
from mtl_ray.sources.config import Coco
from mtl_ray.sources.folders import stamps_of
from mtl_ray.sources.json_values import whole
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.picture import ABSENT, USUAL_RULE, ImageRule, read_picture
from mtl_ray.sources.source import Reading, Reject, Source, fingerprint_of
from mtl_ray.sources.turned import Parsed, objects_as_shown


@dataclass(frozen=True, slots=True)
class _Layout:
    images: str
    file: str
    index: Mapping[int, int]
    names: Mapping[int, str]
    masks: bool
    keypoints: int
    rule: ImageRule


@dataclass(frozen=True, slots=True)
class _Record:
    image: Mapping[str, Any]
    annotations: tuple[Mapping[str, Any], ...]


def open_coco(config: Coco, rule: ImageRule = USUAL_RULE) -> Source:
    """Reads a split's annotation file and finds its pictures.

    Raises:
        FileNotFoundError: if there is no such annotation file, or none of its pictures is found.
        ValueError: if the file is not COCO's.
    """
    root = storage.absolute(config.root)
    uri = storage.join(root, config.annotations) if config.annotations else find_annotations(root, config.split, config.keypoints)
    text = storage.read(uri)
    content = _parse(text, uri)
    categories = _categories(content, () if config.annotations else annotations_alike(root, uri, config.split))
    wanted = (
        read_class_names(storage.absolute(config.classes))
        if config.classes
        else tuple(categories[key]["name"] for key in sorted(categories))
    )
    ids = _ids_in_order(categories, wanted, uri)
    points = _keypoints([categories[key] for key in ids])
    file = uri.removeprefix(root).lstrip("/")
    records, rejects = _records(content, file)
    listed = [record.image for record in records]
    images = storage.join(root, config.images) if config.images else find_images(root, uri, config.split, listed)
    masks = any(annotation.get("segmentation") for record in records for annotation in record.annotations)
    names = {key: str(category["name"]) for key, category in categories.items()}
    layout = _Layout(images, file, {key: number for number, key in enumerate(ids)}, names, masks, len(points.get("keypoints", ())), rule)
    return Source(
        vocabulary=_vocabulary(wanted, ids, points),
        records=records,
        reader=partial(_read, layout),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([text, images, *wanted, *stamps_of(images, (str(image["file_name"]) for image in listed))]),
    )


def _parse(text: bytes, uri: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{uri} is not JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories")):
        raise ValueError(f"{uri} is not a COCO annotation file: it needs the lists images, annotations and categories")
    return content


def _categories(content: Mapping[str, Any], others: Sequence[str]) -> dict[int, dict[str, Any]]:
    """The categories of all splits by id, so that a split that lacks one still numbers the others alike."""
    found: dict[int, dict[str, Any]] = {}
    for part in [content, *(_parse(storage.read(uri), uri) for uri in others)]:
        for category in part["categories"]:
            known = found.setdefault(int(category["id"]), category)
            if known["name"] != category["name"]:
                raise ValueError(f"category {category['id']} is {known['name']!r} in one split and {category['name']!r} in another")
    return found


def _ids_in_order(categories: Mapping[int, Mapping[str, Any]], wanted: Sequence[str], uri: str) -> tuple[int, ...]:
    by_name = {str(category["name"]): key for key, category in categories.items()}
    if len(by_name) < len(categories):
        twice = [name for name, count in Counter(str(category["name"]) for category in categories.values()).items() if count > 1]
        raise ValueError(f"{uri}: several categories are called {twice[0]!r}")
    if missing := [name for name in wanted if name not in by_name]:
        raise ValueError(f"{uri} has no category {missing[0]!r}; it has {', '.join(sorted(by_name))}")
    return tuple(by_name[name] for name in wanted)


def _keypoints(categories: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The category whose objects have keypoints, or nothing."""
    having = [category for category in categories if category.get("keypoints")]
    if len({tuple(category["keypoints"]) for category in having}) > 1:
        raise ValueError("the categories have different keypoints; convert them apart with --classes")
    return having[0] if having else {}


def _vocabulary(names: tuple[str, ...], ids: tuple[int, ...], points: Mapping[str, Any]) -> Vocabulary:
    keypoints = tuple(map(str, points.get("keypoints", ())))
    return Vocabulary(
        classes={"instances": names},
        keypoints=keypoints,
        skeleton=tuple((int(first) - 1, int(second) - 1) for first, second in points.get("skeleton") or ()),
        mirror=tuple(_mirrored(keypoints, name) for name in keypoints),
        category_ids={"instances": ids},
    )


def _mirrored(keypoints: Sequence[str], name: str) -> int:
    other = re.sub("left|right", lambda side: "right" if side[0] == "left" else "left", name)
    return keypoints.index(other if other in keypoints else name)


def _named(image: Mapping[str, Any]) -> Mapping[str, Any]:
    """An image with a file name: LVIS has only the address of COCO's file, whose folder and name count."""
    if image.get("file_name") or not isinstance(image.get("coco_url"), str):
        return image
    return {**image, "file_name": "/".join(image["coco_url"].split("/")[-2:])}


def _records(content: Mapping[str, Any], file: str) -> tuple[list[_Record], list[Reject]]:
    """A record for each picture with its annotations, and a Reject for whatever belongs to none."""
    rejects: list[Reject] = []
    images: dict[Any, Mapping[str, Any]] = {}
    names: set[str] = set()
    for image in map(_named, content["images"]):
        key, name = image.get("id"), str(image.get("file_name", ""))
        if key is None or not name or key in images or name in names:
            fault = "has no id or no file_name" if key is None or not name else "its id or its file_name is listed twice"
            rejects.append(Reject(file, f"image {key} {name}".strip(), fault))
            continue
        images[key] = image
        names.add(name)
    grouped: dict[Any, list[Mapping[str, Any]]] = {key: [] for key in images}
    seen: set[Any] = set()
    for annotation in content["annotations"]:
        number, owner = annotation.get("id"), annotation.get("image_id")
        if owner not in images:
            rejects.append(Reject(file, f"annotation {number}", f"its image {owner} is not in the list of images"))
        elif number is not None and number in seen:
            rejects.append(Reject(file, f"annotation {number}", "another annotation has the same id"))
        else:
            grouped[owner].append(annotation)
            seen.add(number)
    return [_Record(image, tuple(grouped[key])) for key, image in images.items()], rejects


def _read(layout: _Layout, record: _Record) -> Reading:
    key = str(record.image["file_name"])
    height, width = whole(record.image.get("height")) or 0, whole(record.image.get("width")) or 0
    stated = (height, width) if height > 0 and width > 0 else None
    picture = read_picture(storage.join(layout.images, key), key, layout.rule, stated)

    def parse(height: int, width: int) -> Parsed:
        return objects(record.annotations, layout.file, layout.index, layout.names, height, width, keypoints=layout.keypoints)

    found, rejects = objects_as_shown(parse, picture, stated, key)
    instances, bad = to_instances(found, layout.file, picture.height, picture.width, masks=layout.masks, keypoints=layout.keypoints)
    absent = [] if picture.data else [Reject(key, "", ABSENT, note=True)]
    sample = Sample(key=key, image=picture.data, height=picture.height, width=picture.width, instances=instances)
    return sample, [*rejects, *bad, *absent]
