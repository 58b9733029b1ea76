"""Writes Pascal VOC: Annotations/ID.xml, JPEGImages, ImageSets, and SegmentationClass for
semantic maps.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.annotations.instance_values import Instances
from mtl_ray.samples import Sample
from mtl_ray.sources.source import SkippedItem, UnreadableError
from mtl_ray.sources.writers.writer import (
    Target,
    Writing,
    needs,
    path_of,
    stem_of,
    unique,
    write_file,
    write_image,
)

_CLASSES = "classes.txt"
_MAP_CLASSES = "semantic_classes.txt"


@dataclass(frozen=True, slots=True)
class VocWriter:
    """Writes boxes in VOC's convention: pixels count from 1, and the last pixel belongs to the box.

    Crowds become difficult objects, which VOC's metric ignores. Folders in a name become part of
    the id. Masks, keypoints and attributes of objects are not written.
    """

    target: Target

    def write(self, sample: Sample) -> Writing:
        """Writes the files of a sample; the record is its id, and whether it has a map."""
        if sample.instances is None:
            raise UnreadableError(sample.key, "its objects are not annotated")
        uri, file = self.target.uri, path_of(sample).replace("/", "_")
        name = stem_of(file)
        if self.target.images:
            write_image(storage.join(uri, "JPEGImages", file), sample)
        write_file(
            storage.join(uri, "Annotations", f"{name}.xml"),
            self._xml(sample, sample.instances, file),
        )
        if sample.semantic is not None:
            write_file(storage.join(uri, "SegmentationClass", f"{name}.png"), sample.semantic)
        masks = sum(map(bool, sample.instances.masks or ()))
        skipped = (
            [SkippedItem(file, f"{masks} masks", "VOC has boxes of objects only")]
            if masks and self.target.masks != "none"
            else []
        )
        return (name, sample.semantic is not None), skipped

    def finish(self, records: Iterable[tuple[str, bool]]) -> str:
        """Writes the lists of ids and the names of the classes."""
        found = list(records)
        names = unique((name for name, _ in found), "id")
        mapped = [name for name, has_map in found if has_map]
        self._write_names(_CLASSES, self.target.vocabulary.classes["instances"])
        if mapped:
            self._write_names(_MAP_CLASSES, self.target.vocabulary.classes["semantic"])
            storage.write(
                storage.join(self.target.uri, "ImageSets/Segmentation", f"{self.target.split}.txt"),
                _lines(mapped),
            )
        uri = storage.join(self.target.uri, "ImageSets/Main", f"{self.target.split}.txt")
        storage.write(uri, _lines(names))
        return uri

    def _write_names(self, file: str, names: tuple[str, ...]) -> None:
        uri = storage.join(self.target.uri, file)
        if storage.exists(uri) and storage.read(uri) != _lines(names):
            raise ValueError(f"{uri} exists already and names other classes")
        storage.write(uri, _lines(names))

    def _xml(self, sample: Sample, found: Instances, file: str) -> bytes:
        root = ElementTree.Element("annotation")
        _add(root, "folder", "JPEGImages")
        _add(root, "filename", file)
        size = _add(root, "size")
        for name, value in (("width", sample.width), ("height", sample.height), ("depth", 3)):
            _add(size, name, str(value))
        _add(root, "segmented", str(int(sample.semantic is not None)))
        for index in range(len(found)):
            item = _add(root, "object")
            _add(
                item, "name", self.target.vocabulary.classes["instances"][int(found.classes[index])]
            )
            _add(item, "pose", "Unspecified")
            _add(item, "truncated", str(int(found.truncated[index])))
            _add(item, "difficult", str(int(found.difficult[index] or found.crowd[index])))
            box = _add(item, "bndbox")
            x1, y1, x2, y2 = found.boxes_xyxy[index].tolist()
            for name, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
                _add(box, name, str(int(value)) if value == int(value) else repr(value))
        ElementTree.indent(root)
        return bytes(ElementTree.tostring(root, encoding="utf-8"))


def open_voc_writer(target: Target) -> VocWriter:
    """A writer of Pascal VOC.

    Raises:
        ValueError: if the set has no objects, or masks are asked for.
    """
    needs(target.vocabulary, "instances", "voc")
    if target.masks in ("rle", "polygons"):
        raise ValueError("VOC has no masks of objects: --masks none")
    return VocWriter(target)


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag)
    child.text = text
    return child


def _lines(names: Iterable[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()
