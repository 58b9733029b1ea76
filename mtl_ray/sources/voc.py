"""Pascal VOC: lists of ids, one XML file per image, and index PNGs (Everingham et al. 2010,
https://host.robots.ox.ac.uk/pascal/VOC).
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mtl_ray import storage
from mtl_ray.samples import Annotation, EncodedImage, Vocabulary, image_sample
from mtl_ray.sources import voc_xml
from mtl_ray.sources.class_names import find_class_names, read_class_names
from mtl_ray.sources.folders import ORPHAN
from mtl_ray.sources.image_reading import ABSENT, USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.index_png import check_meaning, meaning_of, palette_of, read_index_png
from mtl_ray.sources.object_configs import Voc
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.orientation import Parsed, objects_as_shown
from mtl_ray.sources.source import Reading, SkippedItem, Source, UnreadableError, fingerprint_of
from mtl_ray.sources.voc_folders import (
    MAPS,
    VocFolder,
    VocItem,
    VocListing,
    find_folders,
    list_split,
)


@dataclass(frozen=True, slots=True)
class _Layout:
    folders: tuple[VocFolder, ...]
    index: Mapping[str, int]
    people: bool
    semantic_classes: int
    compat: bool
    rule: ImageRule


def open_voc(config: Voc, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split of a VOC folder, or of those of several years.

    Raises:
        FileNotFoundError: if there are no annotations, or no such split.
    """
    folders = find_folders(storage.absolute(config.root), config.years, config.split)
    listings, skipped = _list_all(folders, config.split, needed=rule.needed)
    given = find_class_names(
        folders[0].uri if len(folders) == 1 else storage.absolute(config.root), config.classes
    )
    names = given or tuple(
        sorted(frozenset[str]().union(*(listing.classes for listing in listings)))
    )
    semantic = (
        read_class_names(storage.absolute(config.semantic_classes))
        if config.semantic_classes
        else ()
    )
    if semantic:
        maps = [uri for folder in folders for uri in storage.files(storage.join(folder.uri, MAPS))]
        check_meaning(maps, meaning_of(len(semantic)), rule.max_pixels, binary=False)
    people = config.style == "mtl"
    records = [(number, item) for number, listing in enumerate(listings) for item in listing.items]
    known = (listings[number].contents.get(item.name, b"") for number, item in records)
    index = {name: number for number, name in enumerate(names)}
    layout = _Layout(tuple(folders), index, people, len(semantic), bool(config.compat), rule)
    stamps = (stamp for listing in listings for stamp in listing.stamps)
    return Source(
        vocabulary=_vocabulary(folders, names, semantic, people),
        records=records,
        reader=partial(_read, layout),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of(
            [*names, *semantic, *(item.name for _, item in records), *known, *stamps]
        ),
    )


def _list_all(
    folders: Sequence[VocFolder], split: str, *, needed: bool
) -> tuple[list[VocListing], list[SkippedItem]]:
    """The listing of each folder; a year without the split is skipped, unless all years lack it."""
    listings: list[VocListing] = []
    skipped: list[SkippedItem] = []
    missing: list[FileNotFoundError] = []
    for folder in folders:
        try:
            listings.append(list_split(folder, split, needed=needed))
        except FileNotFoundError as error:
            missing.append(error)
            listings.append(VocListing())
            skipped.append(
                SkippedItem(
                    folder.name.rstrip("/"),
                    "",
                    f"has no list {split}.txt: its images are not in the split",
                )
            )
    if len(missing) == len(folders):
        raise missing[0]
    return listings, [*skipped, *(item for listing in listings for item in listing.skipped)]


def _vocabulary(
    folders: Sequence[VocFolder], names: tuple[str, ...], semantic: tuple[str, ...], people: bool
) -> Vocabulary:
    classes: dict[Annotation, tuple[str, ...]] = (
        {"instances": names, "semantic": semantic} if semantic else {"instances": names}
    )
    maps = (
        (uri for folder in folders for uri in storage.files(storage.join(folder.uri, MAPS)))
        if semantic
        else ()
    )
    colours = next(filter(None, (palette_of(uri, len(semantic)) for uri in maps)), ())
    return Vocabulary(
        classes=classes,
        keypoints=voc_xml.NODES if people else (),
        skeleton=voc_xml.SKELETON if people else (),
        mirror=voc_xml.MIRROR if people else (),
        colours={"semantic": colours} if colours else {},
    )


def _read(layout: _Layout, record: tuple[int, VocItem]) -> Reading:
    number, item = record
    folder = layout.folders[number]
    file = folder.annotation_file(item.annotation or f"{item.name}.xml")
    if item.image is None:
        raise UnreadableError(file, f"{ORPHAN}: {item.name} in {folder.images or folder.uri}")
    tree = _tree(folder, item, file)
    stated = voc_xml.heading(tree).size
    image = read_image(
        storage.join(folder.images_uri, item.image),
        folder.image_file(item.image),
        layout.rule,
        stated,
    )

    def parse(_height: int, _width: int) -> Parsed:
        return voc_xml.voc_objects(
            tree, file, layout.index, people=layout.people, last_pixel=not layout.compat
        )

    found, skipped = objects_as_shown(parse, image, stated, file)
    columns = voc_xml.ATTRIBUTES if layout.people else ()
    points = len(voc_xml.NODES) if layout.people else 0
    instances, invalid = to_instances(
        found, file, image.height, image.width, keypoints=points, attributes=columns
    )
    semantic, unnamed = _map(folder, item.name, image, layout.semantic_classes)
    key = folder.key_of(item.image)
    sample = image_sample(
        key=key,
        image=image.data,
        height=image.height,
        width=image.width,
        instances=instances,
        semantic=semantic,
    )
    absent = [] if image.data else [SkippedItem(key, "", ABSENT, note=True)]
    return sample, [*skipped, *invalid, *unnamed, *absent]


def _tree(folder: VocFolder, item: VocItem, file: str) -> ElementTree.Element:
    """The annotation of an item; an empty one if it has none."""
    if not item.listed:
        return ElementTree.Element("annotation")
    try:
        return voc_xml.parse_xml(
            storage.read(folder.annotation_uri(item.annotation or f"{item.name}.xml"))
        )
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except ValueError as error:
        raise UnreadableError(file, str(error)) from None


def _map(
    folder: VocFolder, name: str, image: EncodedImage, num_classes: int
) -> tuple[bytes | None, list[SkippedItem]]:
    """The semantic map of an image; None if it has none or no classes are given."""
    uri = storage.join(folder.uri, MAPS, f"{name}.png")
    if not num_classes or not storage.exists(uri):
        return None, []
    return read_index_png(uri, f"{folder.name}{MAPS}/{name}.png", image, meaning_of(num_classes))
