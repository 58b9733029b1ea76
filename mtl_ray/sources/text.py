"""ObjectiveMTL's boxes: a list of ids and one text file per image, lines "class xmin ymin xmax
ymax" in pixels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from mtl_ray import storage
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.sources.class_names import collect, find_class, find_class_names, index_of, text_of
from mtl_ray.sources.folders import (
    find_list,
    images_by_stem,
    is_image,
    is_of_a_system,
    read_each,
    read_ids,
    stamps_of,
)
from mtl_ray.sources.image_reading import USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.object_configs import Text
from mtl_ray.sources.objects import FoundObject, to_instances
from mtl_ray.sources.paths import Tree, inside
from mtl_ray.sources.source import (
    Reading,
    SkippedItem,
    Source,
    UnreadableError,
    fingerprint_of,
    unknown_class,
)

_LISTS = ("", "meta", "splits", "ImageSets/Main")
_FIELDS = 5


@dataclass(frozen=True, slots=True)
class _Layout:
    images: str
    labels: str
    folder: str
    index: Mapping[str, int]
    separator: str | None
    rule: ImageRule


@dataclass(frozen=True, slots=True)
class _Record:
    """An id, and the relative paths of its label file and its image; None for a missing image."""

    name: str
    file: str
    image: str | None


def open_text(config: Text, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split.

    Raises:
        FileNotFoundError: if there is no such list.
    """
    root = storage.absolute(config.root)
    images, labels = storage.join(root, config.images), storage.join(root, config.labels)
    files = {path.rpartition(".")[0]: path for path in _texts_in(labels)}
    by_stem = images_by_stem(images)
    ids, skipped = _listed(root, find_list(root, config.split, _LISTS), files, by_stem)
    contents = read_each({name: storage.join(labels, path) for name, path in files.items()})
    names = find_class_names(root, config.classes) or collect(
        _classes_in(contents.values(), config.separator)
    )
    stems = Tree("", list(by_stem))
    records = [
        _Record(name, files.get(name, f"{name}.txt"), by_stem.get(stems.find(name) or ""))
        for name in ids
    ]
    stamps = stamps_of(images, (record.image for record in records if record.image is not None))
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=records,
        reader=partial(
            _read, _Layout(images, labels, config.labels, index_of(names), config.separator, rule)
        ),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of(
            [*names, *ids, *(contents.get(name, b"") for name in ids), *stamps]
        ),
    )


def _texts_in(uri: str) -> list[str]:
    names = (found.removeprefix(uri).lstrip("/") for found in storage.files(uri))
    return sorted(
        name for name in names if name.lower().endswith(".txt") and not is_of_a_system(name)
    )


def _listed(root: str, uri: str, *known: Mapping[str, str]) -> tuple[list[str], list[SkippedItem]]:
    """The ids of a list, matched to label files or images; paths that leave the folder are
    skipped.
    """
    ids = {name: name for each in reversed(known) for name in each}
    entries, skipped = read_ids(uri, root, ids)
    tree, file = Tree("", list(ids)), uri.removeprefix(root).lstrip("/")
    found: dict[str, None] = {}
    for entry in entries:
        stem = entry.rpartition(".")[0] if is_image(entry) else entry
        try:
            found.setdefault(ids.get(entry) or tree.find(stem) or inside(stem))
        except ValueError as error:
            skipped.append(SkippedItem(file, entry, str(error)))
    return list(found), skipped


def _classes_in(contents: Iterable[bytes], separator: str | None) -> set[str]:
    lines = (line for content in contents for line in _lines_of(content) if line.strip())
    return {fields[0].strip() for line in lines if len(fields := line.split(separator)) >= _FIELDS}


def _lines_of(content: bytes) -> list[str]:
    try:
        return text_of(content).splitlines()
    except ValueError:
        return []  # the reader skips the file


def _read(layout: _Layout, record: _Record) -> Reading:
    file = f"{layout.folder}/{record.file}"
    if record.image is None:
        raise UnreadableError(record.name, f"there is no image of this name in {layout.images}")
    try:
        text = text_of(storage.read(storage.join(layout.labels, record.file)))
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except ValueError as error:
        raise UnreadableError(file, str(error)) from None
    key = record.image
    image = read_image(storage.join(layout.images, key), key, layout.rule)
    found, skipped = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            found += [_object(line, f"line {number}", layout)] if line.strip() else []
        except ValueError as error:
            skipped.append(SkippedItem(file, f"line {number}", str(error)))
    instances, invalid = to_instances(found, file, image.height, image.width)
    return image_sample(
        key=key, image=image.data, height=image.height, width=image.width, instances=instances
    ), [*skipped, *invalid]


def _object(line: str, name: str, layout: _Layout) -> FoundObject:
    fields = [field.strip() for field in line.split(layout.separator)]
    if len(fields) < _FIELDS:
        raise ValueError(f"is not class xmin ymin xmax ymax: it has {len(fields)} fields")
    class_index = find_class(layout.index, fields[0])
    if class_index is None:
        raise ValueError(unknown_class(fields[0][:80]))
    try:
        x1, y1, x2, y2 = map(float, fields[1:_FIELDS])
    except ValueError:
        raise ValueError(
            f"its box has something else than numbers: {' '.join(fields[1:_FIELDS])[:80]}"
        ) from None
    return FoundObject(name=name, box_xyxy=(x1, y1, x2, y2), class_index=class_index)
