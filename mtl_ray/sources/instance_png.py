"""Images and index PNGs of objects: one value an object, as in Penn-Fudan (Wang et al. 2007), or a
class number and the number of an object, as in Cityscapes and MOTS.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mtl_ray import storage
from mtl_ray.geometry.masks import encode_part
from mtl_ray.samples import EncodedImage, Vocabulary, image_sample
from mtl_ray.sources.class_names import read_class_names
from mtl_ray.sources.folders import images_by_stem, read_lines, stamps_of
from mtl_ray.sources.image_reading import ABSENT, USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.index_png import load_values
from mtl_ray.sources.object_configs import InstancePng
from mtl_ray.sources.objects import FoundObject, to_instances
from mtl_ray.sources.orientation import OTHER_SIZE
from mtl_ray.sources.semantic_pairs import NO_CLASS, Pair, find_pairs
from mtl_ray.sources.source import (
    Reading,
    SkippedItem,
    Source,
    UnreadableError,
    fingerprint_of,
    unknown_class,
)

MOST_OBJECTS = 2000
"""A map with more values than this is a photograph or a map of depths, not of objects."""
_IMAGES = ("PNGImages", "PNGImages/{}")
_LABELS = ("instances/{}", "{}_instances", "PedMasks", "SegmentationObject", "instances")
_TABLE = 1 << 20
_GREY = "map of three equal channels, read as one"
_LINE = re.compile(r"(\d+)(?:\s*-\s*(\d+))?\s+(.+)")


class ValueRange(NamedTuple):
    """The class index of the values from ``first`` to ``last``; None if they are no object."""

    first: int
    last: int
    class_index: int | None


@dataclass(frozen=True, slots=True)
class _Layout:
    root: str
    rule: ImageRule
    ranges: tuple[ValueRange, ...] | None
    divisor: int | None
    background: tuple[int, ...]


def open_instance_png(config: InstancePng, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists the pairs of a split.

    Raises:
        FileNotFoundError: if neither a list nor folders of the split are found.
        ValueError: if options exclude each other, or a file of values or classes is invalid.
    """
    root = storage.absolute(config.root)
    names, ranges = _classes(config)
    pairs, skipped = find_pairs(
        root,
        config.split,
        config.images or _folder(root, config.split, _IMAGES),
        config.labels or _folder(root, config.split, _LABELS),
        needed=rule.needed,
    )
    stamps = [
        *stamps_of(root, (pair.image for pair in pairs)),
        *stamps_of(root, (pair.label for pair in pairs)),
    ]
    said = f"{ranges} {config.divisor} {config.background}"
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=pairs,
        reader=partial(_read, _Layout(root, rule, ranges, config.divisor, config.background)),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of(
            [*names, said, *(f"{pair.image}\t{pair.label}" for pair in pairs), *stamps]
        ),
    )


def _folder(root: str, split: str, places: Sequence[str]) -> str | None:
    """The first of some folders that has images; None leaves the search to ``find_pairs``."""
    named = [place.format(split) for place in places]
    return next((each for each in named if images_by_stem(storage.join(root, each))), None)


def _classes(config: InstancePng) -> tuple[tuple[str, ...], tuple[ValueRange, ...] | None]:
    """The class names, and the values of each; None if all values are of one class."""
    if sum(each is not None for each in (config.class_name, config.values, config.classes)) > 1:
        raise ValueError("class_name, values and classes exclude each other; give one of them")
    if config.values is not None:
        return read_ranges(storage.absolute(config.values))
    if config.classes is not None:
        names = read_class_names(storage.absolute(config.classes))
        if config.divisor is not None:
            return names, tuple(
                ValueRange(number, number, number - 1) for number in range(1, len(names) + 1)
            )
        if len(names) == 1:
            return names, None
        raise ValueError(
            f"{config.classes} has {len(names)} classes, and nothing says which values are of "
            "which. Fix: --divisor, or --values FILE with lines 'FIRST-LAST NAME'"
        )
    return (config.class_name or "object",), None


def read_ranges(uri: str) -> tuple[tuple[str, ...], tuple[ValueRange, ...]]:
    """Reads lines "VALUE NAME" or "FIRST-LAST NAME"; names may repeat, "-" means no object.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is invalid, or a value is repeated.
    """
    if not storage.exists(uri):
        raise FileNotFoundError(f"there is no file of values {uri}")
    names: dict[str, int] = {}
    ranges: list[ValueRange] = []
    for line in read_lines(uri):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{uri}: {line!r} is neither 'VALUE NAME' nor 'FIRST-LAST NAME'")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or any(each.first <= last and first <= each.last for each in ranges):
            raise ValueError(f"{uri}: the values of {line!r} are repeated or go down")
        index = None if match[3] == NO_CLASS else names.setdefault(match[3], len(names))
        ranges.append(ValueRange(first, last, index))
    if not names:
        raise ValueError(f"{uri} names no class")
    return tuple(names), tuple(ranges)


def _read(layout: _Layout, pair: Pair) -> Reading:
    values, notes = read_objects_map(
        storage.join(layout.root, pair.label), pair.label, layout.rule.max_pixels
    )
    stated = (values.shape[0], values.shape[1])
    image = read_image(storage.join(layout.root, pair.image), pair.image, layout.rule, stated)
    _check_size(stated, image, pair.label)
    found, unknown = objects_in(
        values, pair.label, layout.ranges, layout.divisor, layout.background
    )
    instances, invalid = to_instances(found, pair.label, image.height, image.width, masks=True)
    absent = [] if image.data else [SkippedItem(pair.key, "", ABSENT, note=True)]
    sample = image_sample(
        key=pair.key, image=image.data, height=image.height, width=image.width, instances=instances
    )
    return sample, [*notes, *unknown, *invalid, *absent]


def read_objects_map(
    uri: str, file: str, max_pixels: int
) -> tuple[NDArray[np.int64], list[SkippedItem]]:
    """The values (H, W) of an index PNG of 1, 8 or 16 bits or with a palette, and notes.

    Raises:
        UnreadableError: if it is missing, damaged, too large, in colour, or no map of objects.
    """
    values, notes = load_values(uri, file, max_pixels=max_pixels), list[SkippedItem]()
    if values.ndim == 3 and (values[..., :1] == values[..., 1:3]).all():
        values = values[..., 0]
        notes.append(SkippedItem(file, "", _GREY, note=True))
    if values.ndim != 2 or values.dtype.kind not in "biu":
        what = f"{values.shape[2]} channels" if values.ndim == 3 else f"values of {values.dtype}"
        raise UnreadableError(
            file, f"a map of objects has one channel of whole numbers: it has {what}"
        )
    return values.astype(np.int64), notes


def _check_size(stated: tuple[int, int], image: EncodedImage, file: str) -> None:
    if stated != (image.height, image.width):
        raise UnreadableError(
            file,
            f"{OTHER_SIZE}: {stated[1]} x {stated[0]} pixels, its image is {image.width} x "
            f"{image.height}",
        )


def objects_in(
    values: NDArray[np.int64],
    file: str,
    ranges: Sequence[ValueRange] | None,
    divisor: int | None,
    background: Sequence[int],
) -> tuple[list[FoundObject], list[SkippedItem]]:
    """The objects of a map by ascending value, and a SkippedItem for each value of no class.

    Args:
        values: (H, W), not negative.
        file: name of the map.
        ranges: the classes of values, or of class numbers with a divisor; None for one class.
        divisor: see ``InstancePng``.
        background: values that are no object.

    Raises:
        UnreadableError: if it has too many values for a map of objects.
    """
    present, numbered = _numbered(values)
    if len(present) > MOST_OBJECTS:
        raise UnreadableError(
            file,
            f"too many values for a map of objects: {len(present)} different ones, at most "
            f"{MOST_OBJECTS} are read",
        )
    found: list[FoundObject] = []
    unknown = Counter[int]()
    for place, (value, where) in enumerate(
        zip(present.tolist(), ndimage.find_objects(numbered), strict=True), start=1
    ):
        if value in background:
            continue
        number = value if divisor is None or value < divisor else value // divisor
        named, index = _class_of(number, ranges)
        if not named:
            unknown[number] += 1
        elif index is not None:
            crowd = divisor is not None and value < divisor
            part = numbered[where] == place
            found.append(_object(value, index, part, where, values.shape, crowd=crowd))
    return found, list(_unknown(unknown, file))


def _numbered(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values that occur, ascending, and each pixel's place among them, from 1."""
    if values.min() >= 0 and values.max() < _TABLE:  # twenty times as fast as sorting the pixels
        present = np.flatnonzero(np.bincount(values.ravel()))
        table = np.zeros(present[-1] + 1, np.int64)
        table[present] = np.arange(1, len(present) + 1)
        return present, table[values]
    present, places = np.unique(values, return_inverse=True)
    return present, places.reshape(values.shape) + 1


def _unknown(counts: Counter[int], file: str) -> Iterator[SkippedItem]:
    for number, count in sorted(counts.items()):
        yield SkippedItem(
            file, f"{count} objects" if count > 1 else "1 object", unknown_class(number)
        )


def _class_of(number: int, ranges: Sequence[ValueRange] | None) -> tuple[bool, int | None]:
    """Whether the meaning of a number is known, and its class index."""
    if ranges is None:
        return True, 0
    for each in ranges:
        if each.first <= number <= each.last:
            return True, each.class_index
    return False, None


def _object(
    value: int,
    class_index: int,
    part: NDArray[np.bool_],
    where: tuple[slice, ...],
    shape: tuple[int, ...],
    *,
    crowd: bool,
) -> FoundObject:
    """The object of a mask that fills the part ``where`` of its map."""
    rows, columns = where
    return FoundObject(
        name=f"value {value}",
        box_xyxy=(columns.start, rows.start, columns.stop, rows.stop),
        class_index=class_index,
        area=float(part.sum()),
        crowd=crowd,
        mask=encode_part(part, rows.start, columns.start, shape[0], shape[1]),
    )
