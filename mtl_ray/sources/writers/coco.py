"""Writes COCO: one JSON file per split (https://cocodataset.org/#format-data); ids count from 1."""

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.annotations.instance_values import Instances
from mtl_ray.geometry import masks
from mtl_ray.geometry.outlines import polygons_of
from mtl_ray.samples import Sample
from mtl_ray.sources.source import SkippedItem
from mtl_ray.sources.writers.writer import (
    Target,
    Writing,
    WrittenMasks,
    needs,
    path_of,
    stem_of,
    write_file,
    write_image,
)

COCO_FILE = ".json"
_MAPS = "semantic_masks"
_MAP_CLASSES = "semantic_classes.txt"


@dataclass(frozen=True, slots=True)
class CocoWriter:
    """Writes ``annotations/instances_SPLIT.json`` and images in ``SPLIT/``, or only a JSON file if
    the target is one.

    Category ids are the source's own where it has them (COCO's, Cityscapes'). VOC's difficult
    objects become crowds, which COCO's metric ignores, and keep ``"difficult": 1``. Masks are
    polygons along pixel edges, which give exactly the same pixels, or compressed run lengths; those
    of crowds are always run lengths. Semantic maps go to ``annotations/semantic_masks/NAME.png``,
    where detectors with a semantic head look for them, and the names of their classes to
    ``annotations/semantic_classes.txt``; they are not written if the target is a JSON file.
    """

    target: Target
    category_ids: tuple[int, ...]

    def write(self, sample: Sample) -> Writing:
        """Writes the image; the record is the image's entry and those of its objects, without
        ids.
        """
        path = path_of(sample)
        if self.target.images:
            write_image(storage.join(self.target.uri, self.target.split, path), sample)
        if sample.semantic is not None and not self._alone:
            write_file(
                storage.join(self.target.uri, "annotations", _MAPS, f"{stem_of(path)}.png"),
                sample.semantic,
            )
        image = {"file_name": path, "height": sample.height, "width": sample.width}
        if sample.instances is None:
            item = SkippedItem(
                path, "", "not annotated, which COCO cannot express: it is listed without objects"
            )
            return {"image": image, "annotations": []}, [item] if self.target.annotated else []
        found = [
            self._annotation(sample, sample.instances, index)
            for index in range(len(sample.instances))
        ]
        return {"image": image, "annotations": found}, []

    def finish(self, records: Iterable[Any]) -> str:
        """Numbers images and annotations from 1 and writes the file; only one image's
        annotations are in memory at a time.
        """
        uri = annotation_file(self.target)
        if (semantic := self.target.vocabulary.classes.get("semantic")) and not self._alone:
            storage.write(
                storage.join(self.target.uri, "annotations", _MAP_CLASSES),
                "".join(f"{name}\n" for name in semantic).encode(),
            )
        names: set[str] = set()
        images = annotations = 0
        with (
            storage.writing(uri) as path,
            open(path, "w") as file,
            tempfile.TemporaryFile("w+") as later,
        ):
            file.write(
                f'{{"info": {json.dumps({"description": self.target.split})}, "licenses": '
                '[],\n"images": ['
            )
            for images, record in enumerate(records, start=1):
                if (name := record["image"]["file_name"]) in names:
                    raise ValueError(f"two images would have the same name, {name}")
                names.add(name)
                file.write(
                    ("\n" if images == 1 else ",\n") + json.dumps({"id": images, **record["image"]})
                )
                for found in record["annotations"]:
                    annotations += 1
                    later.write(
                        ("\n" if annotations == 1 else ",\n")
                        + json.dumps({"id": annotations, "image_id": images, **found})
                    )
            file.write('],\n"annotations": [')
            later.seek(0)
            while block := later.read(1 << 20):
                file.write(block)
            file.write(f'],\n"categories": {json.dumps(self._categories())}}}\n')
        return uri

    @property
    def _alone(self) -> bool:
        return self.target.uri.endswith(COCO_FILE)

    def _categories(self) -> list[dict[str, Any]]:
        vocabulary = self.target.vocabulary
        points: dict[str, Any] = {}
        if vocabulary.keypoints:
            points = {
                "keypoints": list(vocabulary.keypoints),
                "skeleton": [[a + 1, b + 1] for a, b in vocabulary.skeleton],
            }
        pairs = zip(self.category_ids, vocabulary.classes["instances"], strict=True)
        return [
            {"id": number, "name": name, "supercategory": name, **points} for number, name in pairs
        ]

    def _annotation(self, sample: Sample, found: Instances, index: int) -> dict[str, Any]:
        x1, y1, x2, y2 = map(_short, found.boxes_xyxy[index])
        crowd, difficult = bool(found.crowd[index]), bool(found.difficult[index])
        entry: dict[str, Any] = {
            "category_id": self.category_ids[int(found.classes[index])],
            "bbox": [x1, y1, round(x2 - x1, 6), round(y2 - y1, 6)],
            "area": _short(found.areas[index]),
            "iscrowd": int(crowd or difficult),
        }
        entry |= {name: 1 for name in ("difficult", "truncated") if getattr(found, name)[index]}
        if found.masks is not None and self.target.masks != "none":
            form = "rle" if crowd else self.target.masks or "polygons"
            entry["segmentation"] = segmentation(
                found.masks[index], sample.height, sample.width, form
            )
        if found.keypoints is not None:
            points: NDArray[np.float32] = found.keypoints[index]
            entry["keypoints"] = [_short(value) for value in points.ravel()]
            entry["num_keypoints"] = int((points[:, 2] > 0).sum())
        if known := {
            name: int(column[index])
            for name, column in found.attributes.items()
            if column[index] >= 0
        }:
            entry["attributes"] = known
        return entry


def open_coco_writer(target: Target) -> CocoWriter:
    """A writer of COCO.

    Raises:
        ValueError: if the dataset has no objects.
    """
    names = needs(target.vocabulary, "instances", "coco")
    ids = target.vocabulary.category_ids.get("instances", ())
    return CocoWriter(target, _from_one(ids, len(names)))


def annotation_file(target: Target) -> str:
    """URI of the annotation file of a split."""
    return (
        target.uri
        if target.uri.endswith(COCO_FILE)
        else storage.join(target.uri, "annotations", f"instances_{target.split}.json")
    )


def segmentation(mask: bytes, height: int, width: int, form: WrittenMasks) -> Any:
    """A mask as COCO stores it; ``[]`` if the object has none."""
    if not mask:
        return []
    if form == "polygons":
        return polygons_of(masks.decode_rle(mask, height, width))
    return {"size": [height, width], "counts": mask.decode()}


def _from_one(ids: Sequence[int], count: int) -> tuple[int, ...]:
    """The source's own category ids; 1, 2, ... if it has none or one of them is 0, which COCO's
    metric treats as no match.
    """
    return (
        tuple(ids) if len(ids) == count and min(ids, default=1) > 0 else tuple(range(1, count + 1))
    )


def _short(value: np.float32) -> float:
    """A float32 in its shortest decimal form: 192.34, not 192.33999633789062."""
    return float(str(value))
