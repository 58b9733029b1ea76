"""Pascal VOC: lists of ids, an XML file a picture, and index PNGs (Everingham et al. 2010, https://host.robots.ox.ac.uk/pascal/VOC)."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from mtl_ray import storage
from mtl_ray.samples import Annotation, Sample, Vocabulary
from mtl_ray.sources import voc_xml
from mtl_ray.sources.class_names import find_class_names, read_class_names
from mtl_ray.sources.config import Voc
from mtl_ray.sources.folders import find_list, pictures_by_stem, read_each, read_ids, stamps_of, subfolders
from mtl_ray.sources.index_png import palette_of, read_index_png
from mtl_ray.sources.objects import to_instances
from mtl_ray.sources.picture import read_picture
from mtl_ray.sources.source import Reading, Reject, Source, UnreadableError, fingerprint_of

_ANNOTATIONS = ("Annotations", "annotations")
_IMAGES = ("JPEGImages", "images")
_MAPS = "SegmentationClass"
_LISTS = ("ImageSets/Main", "ImageSets/Segmentation", "ImageSets", "meta", "splits")


@dataclass(frozen=True, slots=True)
class _Layout:
    folder: str
    annotations: str
    images: str
    index: Mapping[str, int]
    people: bool
    semantic_classes: int


def open_voc(config: Voc) -> Source:
    """Lists a split of a VOC folder.

    Raises:
        FileNotFoundError: if there are no annotations, or no such split.
    """
    folder = _find_folder(storage.absolute(config.root))
    present = subfolders(folder)
    annotations, images = (next((name for name in usual if name in present), usual[0]) for usual in (_ANNOTATIONS, _IMAGES))
    annotated = [name.removesuffix(".xml") for name in storage.names(storage.join(folder, annotations)) if name.endswith(".xml")]
    ids, rejects = _list_split(folder, config.split, annotated)
    contents = read_each({name: storage.join(folder, annotations, f"{name}.xml") for name in annotated})
    names = find_class_names(folder, config.classes) or tuple(sorted(_names_in(contents.values())))
    semantic = read_class_names(storage.absolute(config.semantic_classes)) if config.semantic_classes else ()
    pictures = pictures_by_stem(storage.join(folder, images))
    people = config.style == "mtl"
    layout = _Layout(folder, annotations, images, {name: number for number, name in enumerate(names)}, people, len(semantic))
    colours = (
        next(filter(None, (palette_of(uri, len(semantic)) for uri in storage.files(storage.join(folder, _MAPS)))), ()) if semantic else ()
    )
    classes: dict[Annotation, tuple[str, ...]] = {"instances": names, "semantic": semantic} if semantic else {"instances": names}
    records = [(name, pictures.get(name)) for name in ids]
    stamps = stamps_of(storage.join(folder, images), (key for _, key in records if key is not None))
    return Source(
        vocabulary=Vocabulary(
            classes=classes,
            keypoints=voc_xml.NODES if people else (),
            skeleton=voc_xml.SKELETON if people else (),
            mirror=voc_xml.MIRROR if people else (),
            colours={"semantic": colours} if colours else {},
        ),
        records=records,
        reader=partial(_read, layout),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([*names, *semantic, *ids, *(contents.get(name, b"") for name in ids), *stamps]),
    )


def _find_folder(root: str) -> str:
    """The folder with Annotations: the root, or the only one up to two levels below it."""
    level = [root]
    for _ in range(3):
        found = [folder for folder in level if not set(_ANNOTATIONS).isdisjoint(subfolders(folder))]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{root} holds several VOC sets, name one of them: {', '.join(found)}")
        level = [storage.join(folder, name) for folder in level for name in subfolders(folder)]
    raise FileNotFoundError(f"there is no folder Annotations in {root}, nor in the folders below it")


def _list_split(folder: str, split: str, annotated: list[str]) -> tuple[list[str], list[Reject]]:
    """The ids of a split, each once; all annotated ones where the set has no lists at all."""
    if not any(storage.names(storage.join(folder, place)) for place in _LISTS):
        return annotated, []
    return read_ids(find_list(folder, split, _LISTS), folder)


def _names_in(contents: Iterable[bytes]) -> set[str]:
    names: set[str] = set()
    for content in contents:
        try:
            names |= voc_xml.class_names(content)
        except ElementTree.ParseError:
            continue  # the reader rejects the file
    return names


def _read(layout: _Layout, record: tuple[str, str | None]) -> Reading:
    name, key = record
    file = f"{layout.annotations}/{name}.xml"
    if key is None:
        raise UnreadableError(name, f"there is no picture of this name in {layout.images}")
    try:
        tree = ElementTree.fromstring(storage.read(storage.join(layout.folder, file)))
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except ElementTree.ParseError as error:
        raise UnreadableError(file, f"not XML: {error}") from None
    picture = read_picture(storage.join(layout.folder, layout.images, key), f"{layout.images}/{key}")
    if fault := voc_xml.size_fault(tree, picture.height, picture.width):
        raise UnreadableError(file, fault)
    found, rejects = voc_xml.objects(tree, file, layout.index, people=layout.people)
    columns = voc_xml.ATTRIBUTES if layout.people else ()
    points = len(voc_xml.NODES) if layout.people else 0
    instances, bad = to_instances(found, file, picture.height, picture.width, keypoints=points, attributes=columns)
    semantic: bytes | None = None
    unnamed: list[Reject] = []
    map_file = f"{_MAPS}/{name}.png"
    if layout.semantic_classes and storage.exists(storage.join(layout.folder, map_file)):
        semantic, unnamed = read_index_png(storage.join(layout.folder, map_file), map_file, picture, layout.semantic_classes, (255,))
    sample = Sample(key=key, image=picture.data, height=picture.height, width=picture.width, instances=instances, semantic=semantic)
    return sample, [*rejects, *bad, *unnamed]
