"""Cityscapes: eight classes of objects and the semantic map of the 19 evaluated classes (Cordts
et al. 2016).
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mtl_ray import storage
from mtl_ray.annotations.instance_values import Instances
from mtl_ray.samples import EncodedImage, Sample, Vocabulary, image_sample
from mtl_ray.sources.cityscapes_maps import (
    COLOURS,
    IDS,
    SEMANTIC,
    THING_INDEX,
    THINGS,
    draw_map,
    label_ids,
    map_objects,
    read_map,
    read_polygons,
    train_ids,
)
from mtl_ray.sources.folders import (
    is_image,
    is_of_a_system,
    orphans,
    passed_over,
    stamps_of,
    subfolders,
)
from mtl_ray.sources.image_reading import ABSENT, USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.index_png import encode_index_png
from mtl_ray.sources.json_values import stated_size
from mtl_ray.sources.object_configs import Cityscapes
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.orientation import OTHER_SIZE
from mtl_ray.sources.source import Reading, SkippedItem, Source, UnreadableError, fingerprint_of

_ENDS: Mapping[Literal["instance_ids", "polygons", "label_ids"], str] = {
    "instance_ids": "instanceIds.png",
    "polygons": "polygons.json",
    "label_ids": "labelIds.png",
}
"""Kinds of annotation and the suffixes of their files; the first that exists is used."""
_NO_ANNOTATION = "image without an annotation file, used without annotations"


@dataclass(frozen=True, slots=True)
class _Record:
    """An image: its key, its file and its annotation file (relative to the root), and the kind
    of annotation; empty if none.
    """

    key: str
    image: str
    annotation: str
    kind: str


def open_cityscapes(config: Cityscapes, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split: IMAGES/SPLIT/CITY/NAME_leftImg8bit.png and LABELS/SPLIT/CITY/NAME_gtFine_*; or
    all in the two folders.

    Raises:
        FileNotFoundError: if there are no images.
    """
    root = storage.absolute(config.root)
    images, labels = (
        _folder_of(root, place, config.split) for place in (config.images, config.labels)
    )
    end, word = f"_{posixpath.basename(config.images)}", f"_{posixpath.basename(config.labels)}_"
    kinds = {config.annotations: _ENDS[config.annotations]} if config.annotations else _ENDS
    ends = {kind: word + ending for kind, ending in kinds.items()}
    present = frozenset(_files_in(root, labels))
    names, skipped = _names(_files_in(root, images), end)
    left = sorted(
        {
            path.removesuffix(last)
            for last in ends.values()
            for path in present
            if path.endswith(last)
        }
        - set(names.values())
    )
    if rule.needed:
        skipped += orphans(f"{labels}/{name}{word}*" for name in left)
    else:
        names |= {f"{name}{end}.png": name for name in left}
    records = []
    for key, name in sorted(names.items()):
        kind, file = next(
            ((kind, name + last) for kind, last in ends.items() if name + last in present), ("", "")
        )
        records.append(_Record(key, f"{images}/{key}", file and f"{labels}/{file}", kind))
    skipped += [
        SkippedItem(record.key, "", _NO_ANNOTATION, note=True)
        for record in records
        if not record.annotation
    ]
    if not records:
        raise FileNotFoundError(
            f"there are no images *{end}.png in {root}/{images}; splits there: "
            f"{', '.join(subfolders(root)) or 'none'}"
        )
    files = [
        *(record.image for record in records),
        *(record.annotation for record in records if record.annotation),
    ]
    return Source(
        vocabulary=Vocabulary(
            classes={"instances": THINGS, "semantic": SEMANTIC},
            colours={"semantic": COLOURS},
            category_ids={"instances": tuple(IDS[name] for name in THINGS)},
        ),
        records=records,
        reader=partial(_read, root, rule),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of([*files, *stamps_of(root, files)]),
    )


def _folder_of(root: str, place: str, split: str) -> str:
    return f"{place}/{split}" if split in subfolders(storage.join(root, place)) else place


def _files_in(root: str, place: str) -> list[str]:
    folder = storage.join(root, place)
    paths = (uri.removeprefix(folder).lstrip("/") for uri in storage.files(folder))
    return [path for path in paths if not is_of_a_system(path)]


def _names(paths: Sequence[str], end: str) -> tuple[dict[str, str], list[SkippedItem]]:
    """The name of each image without its suffix, and notes on the other files."""
    stems = {path: path.rpartition(".")[0] for path in paths if is_image(path)}
    others = [
        SkippedItem(path, "", f"its name does not end with {end}")
        for path, stem in stems.items()
        if not stem.endswith(end)
    ]
    return {path: stem.removesuffix(end) for path, stem in stems.items() if stem.endswith(end)}, [
        *passed_over(paths),
        *others,
    ]


def _read(root: str, rule: ImageRule, record: _Record) -> Reading:
    uri, image_uri = storage.join(root, record.annotation), storage.join(root, record.image)
    if not record.annotation:
        return _sample(record, read_image(image_uri, record.key, rule)), []
    if record.kind == "polygons":
        content = read_polygons(uri, record.annotation)
        image = _image(image_uri, record, rule, stated_size(content, "imgHeight", "imgWidth"))
        values, skipped = draw_map(content, record.annotation, image)
    else:
        values, skipped = read_map(uri, record.annotation, rule.max_pixels), []
        image = _image(image_uri, record, rule, (values.shape[0], values.shape[1]))
    absent = [] if image.data else [SkippedItem(record.key, "", ABSENT, note=True)]
    semantic = encode_index_png(train_ids(label_ids(values)))
    if record.kind == "label_ids":
        return _sample(record, image, semantic=semantic), [*skipped, *absent]
    instances, invalid = to_instances(
        map_objects(values, THING_INDEX), record.annotation, image.height, image.width, masks=True
    )
    return _sample(record, image, instances=instances, semantic=semantic), [
        *skipped,
        *invalid,
        *absent,
    ]


def _sample(
    record: _Record,
    image: EncodedImage,
    *,
    instances: Instances | None = None,
    semantic: bytes | None = None,
) -> Sample:
    return image_sample(
        key=record.key,
        image=image.data,
        height=image.height,
        width=image.width,
        instances=instances,
        semantic=semantic,
    )


def _image(
    uri: str, record: _Record, rule: ImageRule, stated: tuple[int, int] | None
) -> EncodedImage:
    """Reads the image, which must have the size of its annotation.

    Raises:
        UnreadableError: if the sizes differ, or the image cannot be read.
    """
    image = read_image(uri, record.key, rule, stated)
    if stated != (image.height, image.width):
        said = "no size" if stated is None else f"{stated[1]} x {stated[0]} pixels"
        raise UnreadableError(
            record.annotation, f"{OTHER_SIZE}: {said}, its image is {image.width} x {image.height}"
        )
    return image
