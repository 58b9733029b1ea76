"""Writes YOLO: images/SPLIT, labels/SPLIT with one text file per image, and data.yaml."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import yaml

from mtl_ray import storage
from mtl_ray.annotations.instance_values import Instances
from mtl_ray.geometry import masks
from mtl_ray.geometry.outlines import ring_of
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

_DESCRIPTION = "data.yaml"


@dataclass(frozen=True, slots=True)
class YoloWriter:
    """Writes "class cx cy w h", or "class x1 y1 x2 y2 ..." for all objects of an image with masks,
    relative to its size.

    A mask with several parts or holes is one polygon that goes from part to part and back along the
    same line. Crowds are skipped; the flags difficult and truncated, and keypoints, are not
    written.
    """

    target: Target

    def write(self, sample: Sample) -> Writing:
        """Writes image and label file; the record is the image's path."""
        found = sample.instances
        if found is None:
            raise UnreadableError(sample.key, "its objects are not annotated")
        path, target = path_of(sample), self.target
        drawn = found.masks is not None and target.masks != "none" and any(found.masks)
        kept = [index for index in range(len(found)) if not found.crowd[index]]
        lines = [_line(sample, found, index, drawn) for index in kept]
        if target.images:
            write_image(storage.join(target.uri, "images", target.split, path), sample)
        write_file(
            storage.join(target.uri, "labels", target.split, f"{stem_of(path)}.txt"),
            "".join(lines).encode(),
        )
        crowds = len(found) - len(kept)
        return path, [
            SkippedItem(
                path, f"{crowds} objects", "regions of many objects, which YOLO cannot express"
            )
        ] if crowds else []

    def finish(self, records: Iterable[str]) -> str:
        """Adds the split to data.yaml."""
        unique((stem_of(path) for path in records), "label file")
        uri = storage.join(self.target.uri, _DESCRIPTION)
        names = list(self.target.vocabulary.classes["instances"])
        try:
            content = yaml.safe_load(storage.read(uri)) if storage.exists(uri) else {}
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
            raise ValueError(f"{uri} exists already and is not YAML") from None
        if not isinstance(content, dict) or content.get("names", names) != names:
            raise ValueError(f"{uri} exists already and names other classes")
        content |= {
            self.target.split: f"images/{self.target.split}",
            "nc": len(names),
            "names": names,
        }
        storage.write(uri, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
        return uri


def open_yolo_writer(target: Target) -> YoloWriter:
    """A writer of YOLO.

    Raises:
        ValueError: if the dataset has no objects, or run lengths are requested.
    """
    needs(target.vocabulary, "instances", "yolo")
    if target.masks == "rle":
        raise ValueError("YOLO has no run lengths; use --masks polygons or --masks none")
    return YoloWriter(target)


def _line(sample: Sample, found: Instances, index: int, drawn: bool) -> str:
    """One object. If the image has masks, a box is a polygon too, since readers expect one type
    per file.
    """
    x1, y1, x2, y2 = found.boxes_xyxy[index].tolist()
    if not drawn:
        box = (
            (x1 + x2) / 2 / sample.width,
            (y1 + y2) / 2 / sample.height,
            (x2 - x1) / sample.width,
            (y2 - y1) / sample.height,
        )
        return _joined(found.classes[index], box)
    mask = found.masks[index] if found.masks is not None else b""
    corners = ring_of(masks.decode_rle(mask, sample.height, sample.width)) if mask else []
    corners = corners or [x1, y1, x2, y1, x2, y2, x1, y2]
    return _joined(
        found.classes[index],
        [value / (sample.height if at % 2 else sample.width) for at, value in enumerate(corners)],
    )


def _joined(class_index: int, values: Sequence[float]) -> str:
    return (
        " ".join(
            [str(int(class_index)), *(f"{value:.8f}".rstrip("0").rstrip(".") for value in values)]
        )
        + "\n"
    )
