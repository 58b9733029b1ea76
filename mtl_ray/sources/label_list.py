"""ObjectiveMTL's image labels: one list a split, lines "id label height width", pictures in images/."""

from collections.abc import Iterable
from functools import partial

import numpy as np

from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.class_names import USUAL_FILES, collect, find_class_names, index_of
from mtl_ray.sources.config import List
from mtl_ray.sources.folders import find_list, is_picture, pictures_by_stem, read_lines, stamps_of
from mtl_ray.sources.picture import USUAL_RULE, ImageRule, read_picture
from mtl_ray.sources.source import Reading, Reject, Source, fingerprint_of

_LISTS = ("", "meta", "splits")


def open_list(config: List, rule: ImageRule = USUAL_RULE) -> Source:
    """Reads a split's list. The heights and widths in it are not used: the files say how large they are.

    Raises:
        FileNotFoundError: if there is no such list.
    """
    root = storage.absolute(config.root)
    images, uri = storage.join(root, config.images), find_list(root, config.split, _LISTS)
    lines = read_lines(uri)
    names = find_class_names(root, config.classes) or collect(_labels_beside(uri, config.separator))
    index, pictures = index_of(names), pictures_by_stem(images)
    labels: dict[str, int] = {}
    rejects = []
    for number, line in enumerate(lines, start=1):
        name, label = (*_fields(line, config.separator), "")[:2]
        key = name if is_picture(name) else pictures.get(name, "")
        if label not in index:
            fault = f"the class {label!r} is not in the list of classes" if label else "has no label"
        else:
            fault = (
                ""
                if key and key not in labels
                else f"{name} is listed more than once"
                if key
                else f"there is no picture {name} in {config.images}"
            )
        if fault:
            rejects.append(Reject(uri.removeprefix(root).lstrip("/"), f"line {number}", fault))
        else:
            labels[key] = index[label]
    return Source(
        vocabulary=Vocabulary(classes={"labels": names}, exclusive_labels=True),
        records=list(labels.items()),
        reader=partial(_read, images),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([*names, *lines, *stamps_of(images, labels)]),
    )


def _labels_beside(uri: str, separator: str | None) -> Iterable[str]:
    """The labels in this list and in those of the other splits, which lie in the same folder."""
    folder = uri.rpartition("/")[0]
    for name in storage.names(folder):
        if name.endswith(".txt") and name not in USUAL_FILES:
            yield from (fields[1] for line in read_lines(storage.join(folder, name)) if len(fields := _fields(line, separator)) > 1)


def _fields(line: str, separator: str | None) -> list[str]:
    return [field.strip() for field in line.split(separator)]


def _read(images: str, record: tuple[str, int]) -> Reading:
    key, label = record
    picture = read_picture(storage.join(images, key), key)
    return Sample(key=key, image=picture.data, height=picture.height, width=picture.width, labels=np.array([label], np.int64)), []
