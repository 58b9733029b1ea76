"""ObjectiveMTL's "normal" boxes: a list of ids and a text file a picture, lines "class xmin ymin xmax ymax" in pixels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.class_names import collect, find_class_names, index_of
from mtl_ray.sources.config import Text
from mtl_ray.sources.folders import find_list, pictures_by_stem, read_each, read_ids, stamps_of
from mtl_ray.sources.objects import FoundObject, to_instances
from mtl_ray.sources.picture import USUAL_RULE, ImageRule, read_picture
from mtl_ray.sources.source import Reading, Reject, Source, UnreadableError, fingerprint_of

_LISTS = ("", "meta", "splits", "ImageSets/Main")
_FIELDS = 5


@dataclass(frozen=True, slots=True)
class _Layout:
    images: str
    labels: str
    folder: str
    index: Mapping[str, int]
    separator: str | None


def open_text(config: Text, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split.

    Raises:
        FileNotFoundError: if there is no such list.
    """
    root = storage.absolute(config.root)
    images, labels = storage.join(root, config.images), storage.join(root, config.labels)
    every = {name.removesuffix(".txt"): storage.join(labels, name) for name in storage.names(labels) if name.endswith(".txt")}
    ids, rejects = read_ids(find_list(root, config.split, _LISTS), root, every)
    contents = read_each(every | {name: storage.join(labels, f"{name}.txt") for name in ids})
    names = find_class_names(root, config.classes) or collect(_classes_in(contents.values(), config.separator))
    pictures = pictures_by_stem(images)
    records = [(name, pictures.get(name)) for name in ids]
    stamps = stamps_of(images, (key for _, key in records if key is not None))
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=records,
        reader=partial(_read, _Layout(images, labels, config.labels, index_of(names), config.separator)),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([*names, *ids, *(contents.get(name, b"") for name in ids), *stamps]),
    )


def _classes_in(contents: Iterable[bytes], separator: str | None) -> set[str]:
    lines = (line for content in contents for line in content.decode(errors="replace").splitlines() if line.strip())
    return {fields[0].strip() for line in lines if len(fields := line.split(separator)) >= _FIELDS}


def _read(layout: _Layout, record: tuple[str, str | None]) -> Reading:
    name, key = record
    file = f"{layout.folder}/{name}.txt"
    if key is None:
        raise UnreadableError(name, f"there is no picture of this name in {layout.images}")
    try:
        text = storage.read(storage.join(layout.labels, f"{name}.txt")).decode("utf-8-sig")
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except UnicodeDecodeError:
        raise UnreadableError(file, "not UTF-8 text") from None
    picture = read_picture(storage.join(layout.images, key), key)
    found, rejects = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            found += [_object(line, f"line {number}", layout)] if line.strip() else []
        except ValueError as error:
            rejects.append(Reject(file, f"line {number}", str(error)))
    instances, bad = to_instances(found, file, picture.height, picture.width)
    return Sample(key=key, image=picture.data, height=picture.height, width=picture.width, instances=instances), [*rejects, *bad]


def _object(line: str, name: str, layout: _Layout) -> FoundObject:
    fields = [field.strip() for field in line.split(layout.separator)]
    if len(fields) < _FIELDS:
        raise ValueError(f"has {len(fields)} fields, not class xmin ymin xmax ymax")
    if fields[0] not in layout.index:
        raise ValueError(f"the class {fields[0]!r} is not in the list of classes")
    try:
        x1, y1, x2, y2 = map(float, fields[1:_FIELDS])
    except ValueError:
        raise ValueError(f"its box is not made of numbers: {' '.join(fields[1:_FIELDS])}") from None
    return FoundObject(name=name, box_xyxy=(x1, y1, x2, y2), class_index=layout.index[fields[0]])
