"""ObjectiveMTL's image labels: one list per split, lines "id label height width", images in
images/.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from mtl_ray import storage
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.sources.class_names import USUAL_FILES, collect, find_class, find_class_names, index_of
from mtl_ray.sources.config import List
from mtl_ray.sources.folders import find_list, images_by_stem, is_image, read_lines, stamps_of
from mtl_ray.sources.image_reading import ABSENT, USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.paths import Tree, inside
from mtl_ray.sources.source import Reading, SkippedItem, Source, fingerprint_of, unknown_class

_LISTS = ("", "meta", "splits")
_DIGITS = 9


@dataclass(frozen=True, slots=True)
class _Layout:
    images: str
    rule: ImageRule


@dataclass(frozen=True, slots=True)
class _Record:
    """An image: its path in the folder of images, its class, and the height and width in the
    list.
    """

    key: str
    label: int
    stated: tuple[int, int] | None


def open_list(config: List, rule: ImageRule = USUAL_RULE) -> Source:
    """Reads a split's list. Its heights and widths are used only for missing images; otherwise the
    image files state them.

    Raises:
        FileNotFoundError: if there is no such list.
    """
    root = storage.absolute(config.root)
    images, uri = storage.join(root, config.images), find_list(root, config.split, _LISTS)
    lines = read_lines(uri)
    names = find_class_names(root, config.classes) or collect(_labels_beside(uri, config.separator))
    finder, index = _Finder(images_by_stem(images), needed=rule.needed), index_of(names)
    records: dict[str, _Record] = {}
    skipped = []
    for number, line in enumerate(lines, start=1):
        try:
            record = _record(_fields(line, config.separator), finder, index)
            if record.key in records:
                raise ValueError(f"listed more than once: {record.key}")
            records[record.key] = record
        except ValueError as error:
            skipped.append(
                SkippedItem(uri.removeprefix(root).lstrip("/"), f"line {number}", str(error))
            )
    return Source(
        vocabulary=Vocabulary(classes={"labels": names}, exclusive_labels=True),
        records=list(records.values()),
        reader=partial(_read, _Layout(images, rule)),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of([*names, *lines, *stamps_of(images, records)]),
    )


class _Finder:
    """Finds images by path or id."""

    def __init__(self, by_stem: Mapping[str, str], *, needed: bool) -> None:
        self._by_stem, self._needed = by_stem, needed
        self._paths, self._stems = Tree("", list(by_stem.values())), Tree("", list(by_stem))

    def find(self, name: str) -> str:
        """The path of an image.

        Raises:
            ValueError: if it is missing.
        """
        found = (
            self._paths.find(name)
            if is_image(name)
            else self._by_stem.get(self._stems.find(name) or "")
        )
        if found is not None:
            return found
        safe = inside(name)
        if self._needed:
            raise ValueError(f"listed but not there: {name}")
        return safe if is_image(safe) else f"{safe}.jpg"


def _record(fields: list[str], finder: _Finder, index: Mapping[str, int]) -> _Record:
    name, label, *sizes = (*fields, "")
    if not label:
        raise ValueError("has no label")
    class_index = find_class(index, label)
    if class_index is None:
        raise ValueError(unknown_class(label[:80]))
    stated = [int(size) for size in sizes[:2] if size.isdecimal() and len(size) < _DIGITS]
    return _Record(
        finder.find(name),
        class_index,
        (stated[0], stated[1]) if len(stated) == 2 and min(stated) > 0 else None,
    )


def _labels_beside(uri: str, separator: str | None) -> Iterable[str]:
    """The labels in this list and in those of other splits in the same folder."""
    folder = uri.rpartition("/")[0]
    for name in storage.names(folder):
        if name.endswith(".txt") and name not in USUAL_FILES:
            yield from (
                fields[1]
                for line in read_lines(storage.join(folder, name))
                if len(fields := _fields(line, separator)) > 1
            )


def _fields(line: str, separator: str | None) -> list[str]:
    return [field.strip() for field in line.split(separator)]


def _read(layout: _Layout, record: _Record) -> Reading:
    key = record.key
    image = read_image(storage.join(layout.images, key), key, layout.rule, record.stated)
    labels = np.array([record.label], np.int64)
    sample = image_sample(
        key=key, image=image.data, height=image.height, width=image.width, labels=labels
    )
    return sample, [] if image.data else [SkippedItem(key, "", ABSENT, note=True)]
