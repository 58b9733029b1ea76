"""Splits a COCO annotation file into several; ids and all other content stay."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.sources.coco_objects import name_of
from mtl_ray.sources.coco_records import parse_coco
from mtl_ray.sources.json_values import identity

_USUAL = ("instances", "person_keypoints")
"""Prefixes of COCO's own files, before the name of the split."""


def load_coco(uri: str) -> dict[str, Any]:
    """The content of a COCO annotation file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not one.
    """
    content = parse_coco(storage.read(uri), uri)
    for part in ("images", "annotations", "categories"):
        if strange := [
            place for place, entry in enumerate(content[part]) if not isinstance(entry, dict)
        ]:
            raise ValueError(f"{uri}: {part}[{strange[0]}] is not an entry")
    images, categories = (
        [identity(entry.get("id")) for entry in content[part]] for part in ("images", "categories")
    )
    if None in images or None in categories:
        raise ValueError(f"{uri}: an image or a category has no id")
    if len(set(images)) < len(images):
        raise ValueError(f"{uri}: several images have the same id")
    known, classes = set(images), set(categories)
    for each in content["annotations"]:
        if (
            identity(each.get("image_id")) not in known
            or identity(each.get("category_id")) not in classes
        ):
            raise ValueError(
                f"{uri}: {name_of(each)} is of an image or a category that is not listed"
            )
    return content


def image_names(content: Mapping[str, Any], field: str | None) -> list[str]:
    """The file name of each image, or another of its fields.

    Raises:
        ValueError: if an image has none.
    """
    field = field or "file_name"
    if missing := [image["id"] for image in content["images"] if field not in image]:
        raise ValueError(f"image {missing[0]} has no {field}")
    return [str(image[field]) for image in content["images"]]


def class_table(content: Mapping[str, Any]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names of the C classes, and (N, C) how many annotations of each class an image has."""
    names = {
        identity(category["id"]): str(category.get("name", category["id"]))
        for category in content["categories"]
    }
    ids = sorted(names, key=lambda key: (isinstance(key, str), key))
    column = {key: number for number, key in enumerate(ids)}
    row = {identity(image["id"]): number for number, image in enumerate(content["images"])}
    counts = np.zeros((len(row), len(column)), np.int64)
    for each in content["annotations"]:
        counts[row[identity(each["image_id"])], column[identity(each["category_id"])]] += 1
    return tuple(names[key] for key in ids), counts


def name_of_part(data: str, part: str) -> str:
    """The file name of a part: ``instances_all.json`` becomes ``instances_train.json``, any
    other ``NAME_train.json``.
    """
    stem = data.rpartition("/")[2].removesuffix(".json")
    start = next((usual for usual in _USUAL if stem.startswith(f"{usual}_")), stem)
    return f"{start}_{part}.json"


def write_parts(content: Mapping[str, Any], parts: NDArray[np.int64], uris: Sequence[str]) -> None:
    """Writes a file for each part: its images, their annotations, and all other sections."""
    part_of = {
        identity(image["id"]): int(part)
        for image, part in zip(content["images"], parts, strict=True)
    }
    for number, uri in enumerate(uris):
        images = [image for image in content["images"] if part_of[identity(image["id"])] == number]
        annotations = [
            each for each in content["annotations"] if part_of[identity(each["image_id"])] == number
        ]
        storage.write(
            uri, json.dumps({**content, "images": images, "annotations": annotations}).encode()
        )
