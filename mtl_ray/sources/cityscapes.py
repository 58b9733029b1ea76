"""Cityscapes: eight classes of objects and the semantic map of the 19 evaluated classes (Cordts et al. 2016)."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.cityscapes_labels import COLOURS, IDS, SEMANTIC, THINGS, label_ids, train_ids
from mtl_ray.sources.cityscapes_maps import THING_INDEX, draw_map, objects, read_map
from mtl_ray.sources.config import Cityscapes
from mtl_ray.sources.folders import pictures_in, stamps_of, subfolders
from mtl_ray.sources.index_png import encode_index_png
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.picture import USUAL_RULE, ImageRule, read_picture
from mtl_ray.sources.source import Reading, Reject, Source, fingerprint_of

_ENDS: Mapping[Literal["instance_ids", "polygons", "label_ids"], str] = {
    "instance_ids": "instanceIds.png",
    "polygons": "polygons.json",
    "label_ids": "labelIds.png",
}
"""Kinds of annotation and the ends of their files' names, the first that is there being taken."""


@dataclass(frozen=True, slots=True)
class _Record:
    """A picture's key, its file and its annotation as paths in the root, and the kind of this; empty for none."""

    key: str
    image: str
    annotation: str
    kind: str


def open_cityscapes(config: Cityscapes, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split: IMAGES/SPLIT/CITY/NAME_leftImg8bit.png and LABELS/SPLIT/CITY/NAME_gtFine_*; or all in the two folders.

    Raises:
        FileNotFoundError: if there are no pictures.
    """
    root = storage.absolute(config.root)
    images, labels = (_folder_of(root, place, config.split) for place in (config.images, config.labels))
    end, word = f"_{posixpath.basename(config.images)}", f"_{posixpath.basename(config.labels)}_"
    present = {uri.removeprefix(root).lstrip("/") for uri in storage.files(storage.join(root, labels))}
    kinds = {config.annotations: _ENDS[config.annotations]} if config.annotations else _ENDS
    records, rejects = [], []
    for key in pictures_in(storage.join(root, images)):
        stem = key.rpartition(".")[0]
        if not stem.endswith(end):
            rejects.append(Reject(key, "", f"its name does not end on {end}"))
            continue
        start = f"{labels}/{stem.removesuffix(end)}{word}"
        kind, file = next(((kind, start + ending) for kind, ending in kinds.items() if start + ending in present), ("", ""))
        records.append(_Record(key, f"{images}/{key}", file, kind))
    if not records:
        raise FileNotFoundError(
            f"there are no pictures *{end}.png in {root}/{images}; splits there: {', '.join(subfolders(root)) or 'none'}"
        )
    files = [*(record.image for record in records), *(record.annotation for record in records if record.annotation)]
    return Source(
        vocabulary=Vocabulary(
            classes={"instances": THINGS, "semantic": SEMANTIC},
            colours={"semantic": COLOURS},
            category_ids={"instances": tuple(IDS[name] for name in THINGS)},
        ),
        records=records,
        reader=partial(_read, root),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([*files, *stamps_of(root, files)]),
    )


def _folder_of(root: str, place: str, split: str) -> str:
    return f"{place}/{split}" if split in subfolders(storage.join(root, place)) else place


def _read(root: str, record: _Record) -> Reading:
    picture = read_picture(storage.join(root, record.image), record.key)
    plain = partial(Sample, key=record.key, image=picture.data, height=picture.height, width=picture.width)
    if not record.annotation:
        return plain(), []
    uri, rejects = storage.join(root, record.annotation), list[Reject]()
    if record.kind == "polygons":
        values, rejects = draw_map(uri, record.annotation, picture)
    else:
        values = read_map(uri, record.annotation, picture)
    semantic = encode_index_png(train_ids(label_ids(values)))
    if record.kind == "label_ids":
        return plain(semantic=semantic), rejects
    instances, bad = to_instances(objects(values, THING_INDEX), record.annotation, picture.height, picture.width, masks=True)
    return plain(instances=instances, semantic=semantic), [*rejects, *bad]
