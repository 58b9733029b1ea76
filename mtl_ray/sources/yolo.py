"""YOLO: one text file per image, boxes or polygons relative to its width and height."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from mtl_ray import storage
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.sources.class_names import collect, find_class_names, read_class_names, text_of
from mtl_ray.sources.folders import is_of_a_system, read_each
from mtl_ray.sources.image_reading import USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.object_configs import Yolo
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.source import Reading, SkippedItem, Source, UnreadableError, fingerprint_of
from mtl_ray.sources.yolo_description import YoloDescription, merged, read_yolo_description
from mtl_ray.sources.yolo_files import LABELS, find_labels, find_split_images
from mtl_ray.sources.yolo_lines import (
    LineRule,
    class_numbers,
    has_confidences,
    has_polygon,
    yolo_objects,
)

_NO_SIZES = "; YOLO labels state no image sizes, so images are needed"


@dataclass(frozen=True, slots=True)
class _Layout:
    root: str
    lines: LineRule
    masks: bool
    images: ImageRule


@dataclass(frozen=True, slots=True)
class _Record:
    """An image (its path in the root and its key), and its label file; None for an image without
    objects.
    """

    image: str
    key: str
    labels: str | None


def open_yolo(config: Yolo, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split.

    Raises:
        FileNotFoundError: if there is no such split, or none of its images has a label file.
        ValueError: if data.yaml cannot be read, or states keypoints.
    """
    root = storage.absolute(config.root)
    stamps = {
        uri.removeprefix(root).lstrip("/"): stamp for uri, stamp in storage.stamps(root).items()
    }
    files = [path for path in stamps if not is_of_a_system(path)]
    described = read_yolo_description(root, files)
    if described.keypoints:  # some of their lines look like polygons
        raise ValueError(
            f"{root}: {described.file} has kpt_shape: YOLO keypoints are not supported; convert "
            "the dataset to COCO"
        )
    try:
        keys, skipped = find_split_images(root, config.split, described, files)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{'' if rule.needed else _NO_SIZES}") from None
    labels, notes = find_labels(root, keys, files, config.labels)
    contents = read_each({image: storage.join(root, file) for image, file in labels.items()})
    beside = not all(f"/{config.labels or LABELS}/" in f"/{file}" for file in labels.values())
    said = _class_names(root, config, described, files, beside)
    names, classes, merges = merged(said, described.file or "class names")
    confidence = has_confidences(contents.values())
    if confidence:
        notes.append(
            SkippedItem(
                next(iter(labels.values())),
                "",
                "boxes with a confidence in a sixth column, which is not used",
                note=True,
            )
        )
    masks = any(has_polygon(content) for content in contents.values())
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=[_Record(image, key, labels.get(image)) for image, key in keys.items()],
        reader=partial(_read, _Layout(root, LineRule(classes, confidence), masks, rule)),
        skipped=(*skipped, *notes, *merges),
        fingerprint=fingerprint_of(
            [
                *said,
                *keys,
                *(contents.get(image, b"") for image in keys),
                *(stamps.get(image, "") for image in keys),
            ]
        ),
    )


def _class_names(
    root: str, config: Yolo, described: YoloDescription, files: Sequence[str], beside: bool
) -> tuple[str, ...]:
    """The names of the user, data.yaml or classes.txt; else the numbers in all label files of
    the dataset.
    """
    if config.classes:
        return read_class_names(storage.absolute(config.classes))
    if names := described.names or find_class_names(root, None):
        return names
    part = "/" if beside else f"/{config.labels or LABELS}/"
    texts = {
        path: storage.join(root, path)
        for path in files
        if path.lower().endswith(".txt") and part in f"/{path}"
    }
    return collect(
        {str(number) for content in read_each(texts).values() for number in class_numbers(content)}
    )


def _read(layout: _Layout, record: _Record) -> Reading:
    image = read_image(storage.join(layout.root, record.image), record.image, layout.images)
    file = record.labels or record.image
    try:
        text = (
            text_of(storage.read(storage.join(layout.root, record.labels))) if record.labels else ""
        )
    except ValueError as error:
        raise UnreadableError(file, str(error)) from None
    found, skipped = yolo_objects(text, file, layout.lines, image.height, image.width)
    instances, invalid = to_instances(found, file, image.height, image.width, masks=layout.masks)
    sample = image_sample(
        key=record.key,
        image=image.data,
        height=image.height,
        width=image.width,
        instances=instances,
    )
    return sample, [*skipped, *invalid]
