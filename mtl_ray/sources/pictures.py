"""Folders of images without annotations, such as those of a test."""

from dataclasses import dataclass
from functools import partial

from mtl_ray import storage
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.sources.class_names import read_class_names
from mtl_ray.sources.config import UnannotatedImages
from mtl_ray.sources.folders import is_image, images_in, stamps_of, subfolders
from mtl_ray.sources.notes import passed_over
from mtl_ray.sources.image_reading import USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.source import Reading, Source, fingerprint_of


@dataclass(frozen=True, slots=True)
class _Layout:
    folder: str
    rule: ImageRule


def open_unannotated(config: UnannotatedImages, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists ROOT/SPLIT/**, or ROOT/** where there is no such folder but images in ROOT.

    Raises:
        FileNotFoundError: if there are no images.
    """
    root, names = storage.absolute(config.root), read_class_names(storage.absolute(config.classes))
    folders = subfolders(root)
    here = config.split not in folders and any(map(is_image, storage.names(root)))
    folder = root if here else storage.join(root, config.split)
    found = images_in(folder)
    if not found:
        raise FileNotFoundError(f"there are no images in {folder}; folders in {root}: {', '.join(folders) or 'none'}")
    return Source(
        vocabulary=Vocabulary(classes={"instances": names}),
        records=found,
        reader=partial(_read, _Layout(folder, rule)),
        skipped=tuple(passed_over(uri.removeprefix(folder).lstrip("/") for uri in storage.files(folder))),
        fingerprint=fingerprint_of([*names, *found, *stamps_of(folder, found)]),
    )


def _read(layout: _Layout, key: str) -> Reading:
    image = read_image(storage.join(layout.folder, key), key, layout.rule)
    return image_sample(key=key, image=image.data, height=image.height, width=image.width), []
