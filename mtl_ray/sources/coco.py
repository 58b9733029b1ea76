"""COCO: one JSON file for all images of a split (Lin et al. 2014,
https://cocodataset.org/#format-data).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mtl_ray import storage
from mtl_ray.samples import EncodedImage, image_sample
from mtl_ray.sources.class_names import read_class_names
from mtl_ray.sources.coco_categories import Key, read_categories
from mtl_ray.sources.coco_files import (
    annotations_alike,
    find_annotations,
    find_each,
    find_image_folder,
    leads_out,
)
from mtl_ray.sources.coco_objects import coco_objects
from mtl_ray.sources.coco_records import (
    Record,
    group_annotations,
    list_images,
    parse_coco,
    to_records,
)
from mtl_ray.sources.image_reading import ABSENT, USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.object_configs import Coco
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.orientation import Parsed, objects_as_shown
from mtl_ray.sources.paths import LEAVES
from mtl_ray.sources.source import Reading, SkippedItem, Source, UnreadableError, fingerprint_of

OTHER_FILE = "passed over: not the COCO file of another split"


@dataclass(frozen=True, slots=True)
class _Layout:
    images: str
    file: str
    index: Mapping[Key, int]
    names: Mapping[Key, str]
    masks: bool
    keypoints: int
    rule: ImageRule


def open_coco(config: Coco, rule: ImageRule = USUAL_RULE) -> Source:
    """Reads a split's annotation file and finds its images.

    Raises:
        FileNotFoundError: if there is no such annotation file, or none of its images is found.
        ValueError: if the file is not COCO's.
    """
    root = storage.absolute(config.root)
    uri = (
        storage.join(root, config.annotations)
        if config.annotations
        else find_annotations(root, config.split, config.keypoints)
    )
    text = storage.read(uri)
    file = uri.removeprefix(root).lstrip("/")
    own = parse_coco(text, uri)
    others, unread = ([], []) if config.annotations else _other_splits(root, uri, config.split)
    wanted = read_class_names(storage.absolute(config.classes)) if config.classes else None
    categories = read_categories([(uri, own), *others], wanted, file)
    entries, skipped = list_images(own, file)
    if skipped and not entries:
        raise ValueError(
            f"{uri}: none of its {len(skipped)} images can be used; the first: {skipped[0].object} "
            f"{skipped[0].reason}"
        )
    grouped, strays = group_annotations(own, entries, file)
    listed = list(entries.values())
    images = (
        storage.join(root, config.images)
        if config.images
        else find_image_folder(root, uri, config.split, listed, needed=rule.needed)
    )
    paths, stamps = find_each(images, [str(image["file_name"]) for image in listed])
    records, doubles = to_records(entries, grouped, paths)
    vocabulary = categories.vocabulary
    masks = any(
        annotation.get("segmentation") for record in records for annotation in record.annotations
    )
    layout = _Layout(
        images, file, categories.index, categories.names, masks, len(vocabulary.keypoints), rule
    )
    return Source(
        vocabulary=vocabulary,
        records=records,
        reader=partial(_read, layout),
        skipped=(*unread, *categories.notes, *skipped, *strays, *doubles),
        fingerprint=fingerprint_of(
            [
                text,
                images,
                *vocabulary.classes["instances"],
                *(stamps.get(record.path, "") for record in records),
            ]
        ),
    )


def _other_splits(
    root: str, uri: str, split: str
) -> tuple[list[tuple[str, dict[str, Any]]], list[SkippedItem]]:
    """URI and content of the files of other splits, and a note on each that cannot be read."""
    found, notes = [], []
    for other in annotations_alike(root, uri, split):
        try:
            found.append((other, parse_coco(storage.read(other), other)))
        except ValueError:
            notes.append(
                SkippedItem(other.removeprefix(root).lstrip("/"), "", OTHER_FILE, note=True)
            )
    return found, notes


def _read(layout: _Layout, record: Record) -> Reading:
    key = record.path
    image = _image(layout, record)

    def parse(height: int, width: int) -> Parsed:
        return coco_objects(
            record.annotations,
            layout.file,
            layout.index,
            layout.names,
            height,
            width,
            keypoints=layout.keypoints,
        )

    found, skipped = objects_as_shown(parse, image, record.stated, key)
    instances, invalid = to_instances(
        found,
        layout.file,
        image.height,
        image.width,
        masks=layout.masks,
        keypoints=layout.keypoints,
    )
    absent = [] if image.data else [SkippedItem(key, "", ABSENT, note=True)]
    sample = image_sample(
        key=key, image=image.data, height=image.height, width=image.width, instances=instances
    )
    return sample, [*skipped, *invalid, *absent]


def _image(layout: _Layout, record: Record) -> EncodedImage:
    """Reads the image of a record; the error says if its name leaves the folder of images."""
    try:
        return read_image(
            storage.join(layout.images, record.path), record.path, layout.rule, record.stated
        )
    except UnreadableError:
        if leads_out(record.name) and not storage.exists(storage.join(layout.images, record.path)):
            raise UnreadableError(record.path, f"{LEAVES}: {record.name!r}") from None
        raise
