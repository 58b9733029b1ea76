"""Parses a COCO file: a record per image with its annotations, and skipped items."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_ray.sources.coco_objects import name_of
from mtl_ray.sources.folders import LISTED_AGAIN
from mtl_ray.sources.json_values import identity, parse_json, shown, stated_size
from mtl_ray.sources.source import SkippedItem

Entry = Mapping[str, Any]
_LISTS = ("images", "annotations", "categories")
REPEATED = "annotation listed again, used once"


@dataclass(frozen=True, slots=True)
class Record:
    """One image.

    Attributes:
        name: its ``file_name`` in the file.
        path: its file, relative to the folder of images.
        stated: height and width, if the file states them.
        annotations: entries of the file.
    """

    name: str
    path: str
    stated: tuple[int, int] | None
    annotations: tuple[Entry, ...]


def parse_coco(data: bytes, uri: str) -> dict[str, Any]:
    """The content of a COCO annotation file.

    Raises:
        ValueError: if it is not one.
    """
    try:
        content = parse_json(data)
    except ValueError as error:
        raise ValueError(f"{uri} is not JSON: {error}") from None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in _LISTS
    ):
        raise ValueError(
            f"{uri} is not a COCO annotation file: it needs the lists images, annotations and "
            "categories"
        )
    return content


def list_images(content: Entry, file: str) -> tuple[dict[int | str, Entry], list[SkippedItem]]:
    """The entries of images by id, each with a ``file_name``, and a SkippedItem for each other
    entry.
    """
    images: dict[int | str, Entry] = {}
    names: set[str] = set()
    skipped: list[SkippedItem] = []
    for place, entry in enumerate(content["images"]):
        image = _named(entry) if isinstance(entry, dict) else {}
        key, name = identity(image.get("id")), str(image.get("file_name", ""))
        if key is None or not name:
            skipped.append(
                SkippedItem(
                    file,
                    f"image {_shown_id(image.get('id'), place)} {name}".strip(),
                    "has no id or no file_name",
                )
            )
        elif key in images or name in names:
            same = key in images and images[key] == image
            reason = LISTED_AGAIN if same else "its id or its file_name is listed twice"
            skipped.append(SkippedItem(file, f"image {key} {name}", reason, note=same))
        else:
            images[key] = image
            names.add(name)
    return images, skipped


def _shown_id(value: object, place: int) -> str:
    return f"at images[{place}]" if value is None else shown(value)


def _named(image: Entry) -> Entry:
    """An image entry with a text as file name; LVIS has only ``coco_url``, whose folder and name
    are used.
    """
    name, address = image.get("file_name"), image.get("coco_url")
    if isinstance(name, str) and name.strip("/\\. "):
        return image
    if isinstance(name, int) and not isinstance(name, bool):
        return {**image, "file_name": str(name)}
    if isinstance(address, str) and address:
        return {**image, "file_name": "/".join(address.split("/")[-2:])}
    return {**image, "file_name": ""}


def group_annotations(
    content: Entry, images: Mapping[int | str, Entry], file: str
) -> tuple[dict[int | str, list[Entry]], list[SkippedItem]]:
    """The annotations of each image, and a SkippedItem for each of an image that is not listed.

    Ids may repeat: only an entry with identical values counts as a repeated annotation.
    """
    grouped: dict[int | str, list[Entry]] = {key: [] for key in images}
    skipped: list[SkippedItem] = []
    seen: dict[Any, list[Entry] | set[str]] = {}
    for place, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict):
            skipped.append(
                SkippedItem(file, f"annotations[{place}]", f"is not an entry: {shown(annotation)}")
            )
            continue
        owner = identity(annotation.get("image_id"))
        if owner is None or owner not in images:
            reason = f"its image is not in the list of images: {shown(annotation.get('image_id'))}"
            skipped.append(SkippedItem(file, name_of(annotation), reason))
        elif _is_again(annotation, owner, seen):
            skipped.append(
                SkippedItem(
                    file, name_of(annotation), f"{REPEATED}: all its values are the same", note=True
                )
            )
        else:
            grouped[owner].append(annotation)
    return grouped, skipped


def _is_again(annotation: Entry, owner: int | str, seen: dict[Any, list[Entry] | set[str]]) -> bool:
    """Whether an identical annotation was seen; entries are compared only if an id repeats in an
    image.
    """
    key = (owner, identity(annotation.get("id")))
    before = seen.setdefault(key, [])
    if isinstance(before, list):
        if not before:
            before.append(annotation)
            return False
        before = seen[key] = {json.dumps(before[0], sort_keys=True)}
    count = len(before)
    before.add(json.dumps(annotation, sort_keys=True))
    return len(before) == count


def to_records(
    images: Mapping[int | str, Entry],
    grouped: Mapping[int | str, Sequence[Entry]],
    paths: Mapping[str, str],
) -> tuple[list[Record], list[SkippedItem]]:
    """A record for each image, and a SkippedItem for each image whose file belongs to another
    entry.
    """
    records: list[Record] = []
    skipped: list[SkippedItem] = []
    taken: dict[str, str] = {}
    for key, image in images.items():
        name = str(image["file_name"])
        path = paths[name]
        if (other := taken.setdefault(path, name)) != name:
            skipped.append(
                SkippedItem(name, "", f"the same file as that of another image: {other}")
            )
            continue
        records.append(Record(name, path, stated_size(image), tuple(grouped[key])))
    return records, skipped
