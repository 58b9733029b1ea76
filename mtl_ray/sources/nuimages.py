"""nuImages: objects with masks on photographs from a car (Caesar et al. 2020,
https://www.nuscenes.org/nuimages).

Ten classes, some of which combine several of nuImages' categories, in the usual order; the area of
an object is that of its box. The semantic map is that of the development kit: annotations in the
order of their tokens, drawn over the surfaces.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.geometry import masks
from mtl_ray.samples import EncodedImage, Vocabulary, image_sample
from mtl_ray.sources.folders import LISTED_AGAIN, stamps_of, subfolders
from mtl_ray.sources.image_reading import ABSENT, USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.index_png import encode_index_png
from mtl_ray.sources.json_values import flag, number, parse_json, shown, stated_size, whole
from mtl_ray.sources.object_configs import Nuimages
from mtl_ray.sources.objects import FoundObject, to_instances
from mtl_ray.sources.orientation import OTHER_MASK_SIZE, OTHER_SIZE
from mtl_ray.sources.paths import inside
from mtl_ray.sources.source import (
    Reading,
    SkippedItem,
    Source,
    UnreadableError,
    fingerprint_of,
    unknown_class,
)

CLASSES = (
    "car",
    "truck",
    "trailer",
    "bus",
    "construction_vehicle",
    "bicycle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "barrier",
)
_CLASS_OF: Mapping[str, str] = {
    **dict.fromkeys(
        (
            f"human.pedestrian.{who}"
            for who in ("adult", "child", "construction_worker", "police_officer")
        ),
        "pedestrian",
    ),
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
    """A key frame: its file, stated height and width, and annotations of surfaces and of
    objects, sorted by token.
    """

    file: str
    stated: tuple[int, int] | None
    surfaces: tuple[Mapping[str, Any], ...]
    objects: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    root: str
    names: Mapping[str, str]
    numbers: Mapping[str, int]
    rule: ImageRule


def open_nuimages(config: Nuimages, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists the key frames of a version (``v1.0-train``, or ``train`` for short).

    Raises:
        FileNotFoundError: if there is no such version.
        ValueError: if a table is invalid.
    """
    root = storage.absolute(config.root)
    version = _version(root, config.split)
    texts = {name: storage.read(storage.join(root, version, f"{name}.json")) for name in _TABLES}
    tables = {name: _parse(text, f"{version}/{name}.json") for name, text in texts.items()}
    names = _categories(tables["category"], f"{version}/category.json")
    numbers = semantic_numbers(names.values())
    records, skipped = _records(tables, version)
    by_number = {number: name for name, number in numbers.items()} | {0: "background"}
    semantic = tuple(
        by_number.get(number, f"unused {number}") for number in range(max(by_number) + 1)
    )
    return Source(
        vocabulary=Vocabulary(classes={"instances": CLASSES, "semantic": semantic}),
        records=records,
        reader=partial(_read, _Layout(root, names, numbers, rule)),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of(
            [*texts.values(), *stamps_of(root, (record.file for record in records))]
        ),
    )


def semantic_numbers(names: Any) -> dict[str, int]:
    """Values of the categories in the semantic map: 1, 2, ... in alphabetical order; driveable
    surface 24, ego vehicle 31.
    """
    others = sorted(set(names) - set(_FIXED))
    if len(others) >= _FIXED[_GROUND]:
        raise ValueError(
            f"nuImages has at most 23 categories besides {_GROUND} and {_OWN_CAR}; there are "
            f"{len(others)}"
        )
    return {name: number for number, name in enumerate(others, start=1)} | {
        name: _FIXED[name] for name in set(names) & set(_FIXED)
    }


def _version(root: str, split: str) -> str:
    found = [
        name
        for name in subfolders(root)
        if "object_ann.json" in storage.names(storage.join(root, name))
    ]
    fits = [name for name in found if split in (name, name.rpartition("-")[2])]
    if len(fits) != 1:
        raise FileNotFoundError(
            f"{root} has {'no' if not fits else 'several'} versions {split!r}; it has "
            f"{', '.join(found) or 'none'}"
        )
    return fits[0]


def _parse(text: bytes, file: str) -> list[Any]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, list):
        raise ValueError(f"{file} is not a table of nuImages: a list of rows with tokens")
    return content


def _categories(rows: Sequence[Any], file: str) -> dict[str, str]:
    """The name of each category by its token."""
    for place, row in enumerate(rows, start=1):
        if not _has_texts(row, "token", "name"):
            raise ValueError(
                f"{file} is not a table of nuImages: row {place} has no token or no name"
            )
    return {row["token"]: row["name"] for row in rows}


def _has_texts(row: Any, *names: str) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(name), str) and row[name] for name in names
    )


def _records(
    tables: Mapping[str, Sequence[Any]], version: str
) -> tuple[list[_Record], list[SkippedItem]]:
    """A record for each key frame, and a SkippedItem for each row without one."""
    file = f"{version}/sample_data.json"
    frames: dict[str, tuple[str, Mapping[str, Any]]] = {}
    others: set[str] = set()
    skipped: list[SkippedItem] = []
    for place, row in enumerate(tables["sample_data"], start=1):
        if not _has_texts(row, "token", "filename"):
            skipped.append(SkippedItem(file, f"row {place}", "a row without a token or a filename"))
            continue
        try:
            path = inside(row["filename"])
        except ValueError as error:
            skipped.append(SkippedItem(file, f"row {place}", str(error)))
            others.add(row["token"])
            continue
        if not flag(row.get("is_key_frame")):
            others.add(row["token"])
        elif path in frames:
            skipped.append(
                SkippedItem(file, path, LISTED_AGAIN, note=row["token"] == frames[path][0])
            )
        else:
            frames[path] = (row["token"], row)
    known = {token for token, _ in frames.values()} | others
    grouped = []
    for table in ("surface_ann", "object_ann"):
        found, invalid = _by_frame(tables[table], f"{version}/{table}.json", known)
        grouped.append(found)
        skipped += invalid
    surfaces, objects = grouped
    records = [
        _Record(
            path, stated_size(row), tuple(surfaces.get(token, ())), tuple(objects.get(token, ()))
        )
        for path, (token, row) in sorted(frames.items())
    ]
    return records, skipped


def _by_frame(
    rows: Sequence[Any], file: str, known: frozenset[str] | set[str]
) -> tuple[dict[str, list[Mapping[str, Any]]], list[SkippedItem]]:
    """The used fields of the annotations of each frame, by token of the frame."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    skipped = []
    whole_rows = []
    for place, row in enumerate(rows, start=1):
        if not _has_texts(row, "token", "sample_data_token"):
            skipped.append(SkippedItem(file, f"row {place}", "a row without a token or a frame"))
        elif row["sample_data_token"] not in known:
            skipped.append(
                SkippedItem(
                    file, f"row {place}", f"its frame is not listed: {row['sample_data_token']}"
                )
            )
        else:
            whole_rows.append(row)
    kept = ("token", "category_token", "bbox", "mask")
    for row in sorted(whole_rows, key=lambda row: str(row["token"])):
        found.setdefault(row["sample_data_token"], []).append(
            {name: row[name] for name in kept if name in row}
        )
    return found, skipped


def _read(layout: _Layout, record: _Record) -> Reading:
    image = read_image(
        storage.join(layout.root, record.file), record.file, layout.rule, record.stated
    )
    if record.stated is not None and record.stated != (image.height, image.width):
        sizes = (
            f"{record.stated[1]} x {record.stated[0]} pixels, the file is {image.width} x "
            f"{image.height}"
        )
        raise UnreadableError(record.file, f"{OTHER_SIZE}: {sizes}")
    semantic = np.zeros((image.height, image.width), np.uint8)
    found, skipped = list[FoundObject](), list[SkippedItem]()
    for place, row in enumerate((*record.surfaces, *record.objects)):
        name = f"annotation {row['token']}"
        try:
            made = _object(layout, row, name, image, semantic, surface=place < len(record.surfaces))
        except ValueError as error:
            skipped.append(SkippedItem(record.file, name, str(error)))
            continue
        found += [made] if made is not None else []
    instances, invalid = to_instances(found, record.file, image.height, image.width, masks=True)
    absent = [] if image.data else [SkippedItem(record.file, "", ABSENT, note=True)]
    encoded = encode_index_png(semantic)
    sample = image_sample(
        key=record.file,
        image=image.data,
        height=image.height,
        width=image.width,
        instances=instances,
        semantic=encoded,
    )
    return sample, [*skipped, *invalid, *absent]


def _object(
    layout: _Layout,
    row: Mapping[str, Any],
    name: str,
    image: EncodedImage,
    semantic: NDArray[np.uint8],
    *,
    surface: bool,
) -> FoundObject | None:
    """Draws an annotation on the map and returns its object; None for surfaces and unused
    categories.
    """
    if not row.get("mask"):
        if surface:
            return None
        raise ValueError("it has no mask")
    token = row.get("category_token")
    category = layout.names.get(token) if isinstance(token, str) else None
    if category is None:
        raise ValueError(unknown_class(shown(token)))
    height, width = image.height, image.width
    mask = _mask(row["mask"], height, width)
    semantic[masks.decode_rle(mask, height, width) == 1] = layout.numbers[category]
    if surface or category not in _CLASS_OF:
        return None
    x1, y1, x2, y2 = box = _box(row.get("bbox"))
    area = min((x2 - x1) * (y2 - y1), height * width)  # boxes may reach far beyond the image
    return FoundObject(
        name=name,
        box_xyxy=box,
        class_index=CLASSES.index(_CLASS_OF[category]),
        area=area,
        mask=mask,
    )


def _mask(given: Any, height: int, width: int) -> bytes:
    """The checked RLE of a mask; nuImages stores it in base64."""
    size, counts = (
        (given.get("size"), given.get("counts")) if isinstance(given, dict) else (None, None)
    )
    if not isinstance(size, list) or not isinstance(counts, str):
        raise ValueError("its mask has no size or no run lengths")
    if list(map(whole, size)) != [height, width]:
        raise ValueError(
            f"{OTHER_MASK_SIZE}: height and width {shown(size)}, the image's are {[height, width]}"
        )
    return masks.from_compressed(base64.b64decode(counts, validate=True), height, width)


def _box(given: Any) -> tuple[float, float, float, float]:
    corners = [number(value) for value in given] if isinstance(given, list) else []
    known = [value for value in corners if value is not None]
    if len(corners) != 4 or len(known) != 4:
        raise ValueError(f"its box is not four numbers: {shown(given)}")
    return known[0], known[1], known[2], known[3]
