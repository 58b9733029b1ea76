"""nuImages: objects with masks on photographs from a car (Caesar et al. 2020, https://www.nuscenes.org/nuimages).

Classes, their order, the area of an object (of its box) and the numbers of the semantic map are those that detectors are usually
trained with: ten classes of which some unite several of nuImages' own, and the map of its development kit, in which later
annotations (by their tokens) lie over earlier ones and all of them over the surfaces.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.geometry import masks
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.config import Nuimages
from mtl_ray.sources.folders import stamps_of, subfolders
from mtl_ray.sources.index_png import encode_index_png
from mtl_ray.sources.objects import FoundObject, to_instances
from mtl_ray.sources.picture import USUAL_RULE, ImageRule, Picture, read_picture
from mtl_ray.sources.source import Reading, Reject, Source, fingerprint_of

CLASSES = ("car", "truck", "trailer", "bus", "construction_vehicle", "bicycle", "motorcycle", "pedestrian", "traffic_cone", "barrier")
_CLASS_OF: Mapping[str, str] = {
    **dict.fromkeys((f"human.pedestrian.{who}" for who in ("adult", "child", "construction_worker", "police_officer")), "pedestrian"),
    **dict.fromkeys(("vehicle.bus.bendy", "vehicle.bus.rigid"), "bus"),
    **{f"vehicle.{name}": name for name in ("bicycle", "car", "motorcycle", "trailer", "truck")},
    "vehicle.construction": "construction_vehicle",
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
}
_GROUND, _OWN_CAR = "flat.driveable_surface", "vehicle.ego"
_FIXED: Mapping[str, int] = {_GROUND: 24, _OWN_CAR: 31}
_TABLES = ("category", "sample_data", "object_ann", "surface_ann")


@dataclass(frozen=True, slots=True)
class _Record:
    """A key frame and its annotations, those of surfaces and those of objects, each by token."""

    file: str
    surfaces: tuple[Mapping[str, Any], ...]
    objects: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    root: str
    names: Mapping[str, str]
    numbers: Mapping[str, int]


def open_nuimages(config: Nuimages, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists the key frames of a version (``v1.0-train``, or ``train`` for short).

    Raises:
        FileNotFoundError: if there is no such version.
        ValueError: if a table is not nuImages'.
    """
    root = storage.absolute(config.root)
    version = _version(root, config.split)
    texts = {name: storage.read(storage.join(root, version, f"{name}.json")) for name in _TABLES}
    tables = {name: _parse(text, f"{version}/{name}.json") for name, text in texts.items()}
    names = {row["token"]: str(row["name"]) for row in tables["category"]}
    numbers = semantic_numbers(names.values())
    frames = sorted((row for row in tables["sample_data"] if row.get("is_key_frame")), key=lambda row: str(row["filename"]))
    surfaces, objects = (_by_frame(tables[name]) for name in ("surface_ann", "object_ann"))
    records = [_Record(str(row["filename"]), tuple(surfaces.get(row["token"], ())), tuple(objects.get(row["token"], ()))) for row in frames]
    by_number = {number: name for name, number in numbers.items()} | {0: "background"}
    semantic = tuple(by_number.get(number, f"unused {number}") for number in range(max(by_number) + 1))
    return Source(
        vocabulary=Vocabulary(classes={"instances": CLASSES, "semantic": semantic}),
        records=records,
        reader=partial(_read, _Layout(root, names, numbers)),
        fingerprint=fingerprint_of([*texts.values(), *stamps_of(root, (record.file for record in records))]),
    )


def semantic_numbers(names: Any) -> dict[str, int]:
    """The number of each category in the semantic map: 1, 2, ... by the alphabet; the ground is 24, the own car 31, 0 is the rest."""
    others = sorted(set(names) - set(_FIXED))
    if len(others) >= _FIXED[_GROUND]:
        raise ValueError(f"nuImages has at most 23 categories besides {_GROUND} and {_OWN_CAR}; there are {len(others)}")
    return {name: number for number, name in enumerate(others, start=1)} | {name: _FIXED[name] for name in set(names) & set(_FIXED)}


def _version(root: str, split: str) -> str:
    found = [name for name in subfolders(root) if "object_ann.json" in storage.names(storage.join(root, name))]
    fits = [name for name in found if split in (name, name.rpartition("-")[2])]
    if len(fits) != 1:
        raise FileNotFoundError(f"{root} has {'no' if not fits else 'several'} versions {split!r}; it has {', '.join(found) or 'none'}")
    return fits[0]


def _parse(text: bytes, file: str) -> list[Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, list) or not all(isinstance(row, dict) and "token" in row for row in content):
        raise ValueError(f"{file} is no table of nuImages: a list of rows with tokens")
    return content


def _by_frame(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """What is needed of the annotations of each frame, by token."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    kept = ("token", "category_token", "bbox", "mask")
    for row in sorted(rows, key=lambda row: str(row["token"])):
        found.setdefault(str(row["sample_data_token"]), []).append({name: row[name] for name in kept if name in row})
    return found


def _read(layout: _Layout, record: _Record) -> Reading:
    picture = read_picture(storage.join(layout.root, record.file), record.file)
    semantic = np.zeros((picture.height, picture.width), np.uint8)
    found, rejects = list[FoundObject](), list[Reject]()
    for number, row in enumerate((*record.surfaces, *record.objects)):
        name = f"annotation {row['token']}"
        try:
            made = _object(layout, row, name, picture, semantic, surface=number < len(record.surfaces))
        except (ValueError, KeyError, TypeError) as error:
            rejects.append(Reject(record.file, name, str(error)))
            continue
        found += [made] if made is not None else []
    instances, bad = to_instances(found, record.file, picture.height, picture.width, masks=True)
    encoded = encode_index_png(semantic)
    sample = Sample(key=record.file, image=picture.data, height=picture.height, width=picture.width, instances=instances, semantic=encoded)
    return sample, [*rejects, *bad]


def _object(
    layout: _Layout, row: Mapping[str, Any], name: str, picture: Picture, semantic: NDArray[np.uint8], *, surface: bool
) -> FoundObject | None:
    """Draws an annotation on the map; the object that it is, or None for one without mask or of no class."""
    if not row.get("mask"):
        if surface:
            return None
        raise ValueError("it has no mask")
    category = layout.names[row["category_token"]]
    height, width = picture.height, picture.width
    if list(row["mask"]["size"]) != [height, width]:
        raise ValueError(f"its mask is of height and width {row['mask']['size']}, the picture's are {[height, width]}")
    mask = masks.from_compressed(base64.b64decode(row["mask"]["counts"], validate=True), height, width)
    semantic[masks.decode(mask, height, width) == 1] = layout.numbers[category]
    if surface or category not in _CLASS_OF:
        return None
    x1, y1, x2, y2 = map(float, row["bbox"])
    return FoundObject(
        name=name, box_xyxy=(x1, y1, x2, y2), class_index=CLASSES.index(_CLASS_OF[category]), area=(x2 - x1) * (y2 - y1), mask=mask
    )
