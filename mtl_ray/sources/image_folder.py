"""Folders of images: for classification, where the folder's name is the class, and without
annotations.
"""

import unicodedata
from dataclasses import dataclass
from functools import partial

import numpy as np

from mtl_ray import storage
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.sources.class_names import find_class_names, read_class_names
from mtl_ray.sources.config import ImageFolder, UnannotatedImages
from mtl_ray.sources.folders import (
    images_in,
    is_image,
    is_of_a_system,
    passed_over,
    stamps_of,
    subfolders,
)
from mtl_ray.sources.image_reading import USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.source import Reading, SkippedItem, Source, fingerprint_of, unknown_class


@dataclass(frozen=True, slots=True)
class _Layout:
    folder: str
    rule: ImageRule


def open_image_folder(config: ImageFolder, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists ROOT/SPLIT/CLASS/**; a class of any split of ROOT is a class of every split.

    Raises:
        FileNotFoundError: if there is no such split.
    """
    root = storage.absolute(config.root)
    folder = storage.join(root, config.split)
    splits = [name for name in subfolders(root) if not is_of_a_system(f"{name}/")]
    if config.split not in splits:
        raise FileNotFoundError(
            f"{root} has no folder {config.split!r}; it has {', '.join(splits) or 'no folders'}"
        )
    collected = sorted(
        {_composed(name) for split in splits for name in subfolders(storage.join(root, split))}
    )
    names = find_class_names(root, config.classes) or tuple(collected)
    index = {_composed(name): number for number, name in enumerate(names)}
    found = {
        uri.removeprefix(folder).lstrip("/"): stamp for uri, stamp in storage.stamps(folder).items()
    }
    records, skipped = [], passed_over(found)
    for key in filter(is_image, found):
        owner = _composed(key.partition("/")[0])
        if "/" not in key:
            skipped.append(SkippedItem(key, "", "is not in the folder of a class"))
        elif owner not in index:
            skipped.append(SkippedItem(key, "", unknown_class(owner)))
        elif not is_of_a_system(key):
            records.append((key, index[owner]))
    return Source(
        vocabulary=Vocabulary(classes={"labels": names}, exclusive_labels=True),
        records=records,
        reader=partial(_read, _Layout(folder, rule)),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of([*names, *(f"{key}\t{found[key]}" for key, _ in records)]),
    )


def _composed(name: str) -> str:
    """A name in Unicode NFC; macOS decomposes accents."""
    return unicodedata.normalize("NFC", name)


def _read(layout: _Layout, record: tuple[str, int]) -> Reading:
    key, label = record
    image = read_image(storage.join(layout.folder, key), key, layout.rule)
    labels = np.array([label], np.int64)
    return image_sample(
        key=key, image=image.data, height=image.height, width=image.width, labels=labels
    ), []


def open_unannotated(config: UnannotatedImages, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists the images in ROOT/SPLIT, also deeper; those in ROOT if ROOT has images but no folder
    SPLIT.

    Raises:
        FileNotFoundError: if there are no images.
    """
    root, names = storage.absolute(config.root), read_class_names(storage.absolute(config.classes))
    folders = subfolders(root)
    here = config.split not in folders and any(map(is_image, storage.names(root)))
    folder = root if here else storage.join(root, config.split)
    found = images_in(folder)
    if not found:
        raise FileNotFoundError(
            f"there are no images in {folder}; folders in {root}: {', '.join(folders) or 'none'}"
        )
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=found,
        reader=partial(_read_unannotated, _Layout(folder, rule)),
        skipped=tuple(
            passed_over(uri.removeprefix(folder).lstrip("/") for uri in storage.files(folder))
        ),
        fingerprint=fingerprint_of([*names, *found, *stamps_of(folder, found)]),
    )


def _read_unannotated(layout: _Layout, key: str) -> Reading:
    image = read_image(storage.join(layout.folder, key), key, layout.rule)
    return image_sample(key=key, image=image.data, height=image.height, width=image.width), []
