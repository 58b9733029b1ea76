"""Pascal VOC: lists of ids, an XML file a picture, and index PNGs (Everingham et al. 2010, https://host.robots.ox.ac.uk/pascal/VOC)."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mtl_ray import storage
from mtl_ray.samples import Annotation, Sample, Vocabulary
from mtl_ray.sources import voc_xml
from mtl_ray.sources.class_names import find_class_names, read_class_names
from mtl_ray.sources.config import Voc
from mtl_ray.sources.index_png import meaning_of, palette_of, read_index_png
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.picture import USUAL_RULE, ImageRule, Picture, read_picture
from mtl_ray.sources.source import Reading, Reject, Source, UnreadableError, fingerprint_of
from mtl_ray.sources.voc_folders import MAPS, VocFolder, VocListing, find_folders, list_split


@dataclass(frozen=True, slots=True)
class _Layout:
    folders: tuple[VocFolder, ...]
    index: Mapping[str, int]
    people: bool
    semantic_classes: int
    compat: bool


def open_voc(config: Voc, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split of a VOC folder, or of those of several years.

    Raises:
        FileNotFoundError: if there are no annotations, or no such split.
    """
    folders = find_folders(storage.absolute(config.root), config.years)
    listings, rejects = _list_all(folders, config.split)
    contents = [content for listing in listings for content in listing.contents.values()]
    given = find_class_names(folders[0].uri if len(folders) == 1 else storage.absolute(config.root), config.classes)
    names = given or tuple(sorted(_names_in(contents)))
    semantic = read_class_names(storage.absolute(config.semantic_classes)) if config.semantic_classes else ()
    people = config.style == "mtl"
    records = [(number, *pair) for number, listing in enumerate(listings) for pair in listing.pictures.items()]
    known = (listings[number].contents.get(name, b"") for number, name, _ in records)
    index = {name: number for number, name in enumerate(names)}
    layout = _Layout(tuple(folders), index, people, len(semantic), bool(config.compat))
    stamps = (stamp for listing in listings for stamp in listing.stamps)
    return Source(
        vocabulary=_vocabulary(folders, names, semantic, people),
        records=records,
        reader=partial(_read, layout),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([*names, *semantic, *(name for _, name, _ in records), *known, *stamps]),
    )


def _list_all(folders: Sequence[VocFolder], split: str) -> tuple[list[VocListing], list[Reject]]:
    """The listing of each folder; a year that lacks the split is a reject, unless all do."""
    listings: list[VocListing] = []
    rejects: list[Reject] = []
    missing: list[FileNotFoundError] = []
    for folder in folders:
        try:
            listings.append(list_split(folder, split))
        except FileNotFoundError as error:
            missing.append(error)
            listings.append(VocListing())
            rejects.append(Reject(folder.name.rstrip("/"), "", f"has no list {split}.txt: none of its pictures are in the split"))
    if len(missing) == len(folders):
        raise missing[0]
    return listings, [*rejects, *(reject for listing in listings for reject in listing.rejects)]


def _vocabulary(folders: Sequence[VocFolder], names: tuple[str, ...], semantic: tuple[str, ...], people: bool) -> Vocabulary:
    classes: dict[Annotation, tuple[str, ...]] = {"instances": names, "semantic": semantic} if semantic else {"instances": names}
    maps = (uri for folder in folders for uri in storage.files(storage.join(folder.uri, MAPS))) if semantic else ()
    colours = next(filter(None, (palette_of(uri, len(semantic)) for uri in maps)), ())
    return Vocabulary(
        classes=classes,
        keypoints=voc_xml.NODES if people else (),
        skeleton=voc_xml.SKELETON if people else (),
        mirror=voc_xml.MIRROR if people else (),
        colours={"semantic": colours} if colours else {},
    )


def _names_in(contents: Iterable[bytes]) -> set[str]:
    names: set[str] = set()
    for content in contents:
        try:
            names |= voc_xml.class_names(content)
        except ElementTree.ParseError:
            continue  # the reader rejects the file
    return names


def _read(layout: _Layout, record: tuple[int, str, str | None]) -> Reading:
    number, name, found_picture = record
    folder = layout.folders[number]
    file = f"{folder.name}{folder.annotations}/{name}.xml"
    if found_picture is None:
        raise UnreadableError(folder.name + name, f"there is no picture of this name in {folder.images}")
    try:
        tree = ElementTree.fromstring(storage.read(storage.join(folder.uri, folder.annotations, f"{name}.xml")))
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except ElementTree.ParseError as error:
        raise UnreadableError(file, f"not XML: {error}") from None
    picture = read_picture(storage.join(folder.uri, folder.images, found_picture), f"{folder.name}{folder.images}/{found_picture}")
    if fault := voc_xml.size_fault(tree, picture.height, picture.width):
        raise UnreadableError(file, fault)
    found, rejects = voc_xml.objects(tree, file, layout.index, people=layout.people, last_pixel=not layout.compat)
    columns = voc_xml.ATTRIBUTES if layout.people else ()
    points = len(voc_xml.NODES) if layout.people else 0
    instances, bad = to_instances(found, file, picture.height, picture.width, keypoints=points, attributes=columns)
    semantic, unnamed = _map(folder, name, picture, layout.semantic_classes)
    key = folder.key_of(found_picture)
    sample = Sample(key=key, image=picture.data, height=picture.height, width=picture.width, instances=instances, semantic=semantic)
    return sample, [*rejects, *bad, *unnamed]


def _map(folder: VocFolder, name: str, picture: Picture, num_classes: int) -> tuple[bytes | None, list[Reject]]:
    """The semantic map of a picture, where it has one and classes were named."""
    uri = storage.join(folder.uri, MAPS, f"{name}.png")
    if not num_classes or not storage.exists(uri):
        return None, []
    return read_index_png(uri, f"{folder.name}{MAPS}/{name}.png", picture, meaning_of(num_classes))
