"""A COCO annotation file as truth, just as it stands: nothing is rejected, cleaned or rounded, so that figures equal the reference's."""

import codecs
import gc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mtl_ray import storage
from mtl_ray.geometry.masks import from_counts, from_polygons
from mtl_ray.samples import Instances, Sample, Vocabulary
from mtl_ray.sources.coco_masks import polygons_of
from mtl_ray.vocabulary import skeleton_of

ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
"""Reads and writes JSON, in a half and in a quarter of the time that Python's own module takes."""


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """The truth of an annotation file.

    Attributes:
        vocabulary: categories in the order of their ids.
        samples: by image id, without pictures; the key of each is its image id. Boxes and areas are float64.
        file_names: of each image by its key, in the order of the file.
        listed_classes: the names of the categories in the order of the file.
        supercategories: of the classes that have one.
    """

    vocabulary: Vocabulary
    samples: tuple[Sample, ...]
    file_names: Mapping[str, str]
    listed_classes: tuple[str, ...]
    supercategories: Mapping[str, str]


def read_coco_file(uri: str) -> CocoFile:
    """Reads an annotation file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no COCO annotation file, or an annotation names an image or a category that it does not have.
    """
    content = read_json(uri)
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in ("images", "annotations", "categories")):
        raise ValueError(f"{uri} is no COCO annotation file: that has lists of images, annotations and categories")
    try:
        return _read(content)
    except KeyError as error:
        raise ValueError(f"{uri}: an entry lacks {error}, or refers to {error}, which is not there") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{uri} cannot be read as a COCO annotation file: {error}") from error


def read_json(uri: str) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: if it is none.
    """
    content = storage.read(uri).removeprefix(codecs.BOM_UTF8)
    watched = gc.isenabled()
    gc.disable()  # what is parsed has no cycles, and looking for them in a million objects again and again takes half of the time
    try:
        return ANYTHING.validate_json(content)
    except ValidationError as error:
        raise ValueError(f"{uri} is not JSON: {error.errors()[0]['msg']}") from error
    finally:
        if watched:
            gc.enable()


def _read(content: Mapping[str, Any]) -> CocoFile:
    categories = sorted(content["categories"], key=lambda category: category["id"])
    class_of = {category["id"]: i for i, category in enumerate(categories)}
    points: Mapping[str, Any] = next((category for category in categories if category.get("keypoints")), {})
    vocabulary = Vocabulary(
        classes={"instances": tuple(_class_name(category) for category in categories)},
        keypoints=tuple(map(str, points.get("keypoints", ()))),
        skeleton=skeleton_of(points.get("skeleton"), len(points.get("keypoints", ()))),
        category_ids={"instances": tuple(class_of)},
    )
    images = {image["id"]: image for image in content["images"]}
    by_image: dict[int, list[Mapping[str, Any]]] = {number: [] for number in images}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    masks = any("segmentation" in annotation for annotation in content["annotations"])
    names = {str(number): str(image.get("file_name", number)) for number, image in images.items()}
    samples = tuple(_sample(images[number], by_image[number], class_of, masks, len(vocabulary.keypoints)) for number in sorted(images))
    return CocoFile(
        vocabulary=vocabulary,
        samples=samples,
        file_names=names,
        listed_classes=tuple(_class_name(category) for category in content["categories"]),
        supercategories={_class_name(each): str(each["supercategory"]) for each in categories if each.get("supercategory") is not None},
    )


def _class_name(category: Mapping[str, Any]) -> str:
    return str(category.get("name", category["id"]))


def _sample(image: Mapping[str, Any], found: list[Mapping[str, Any]], class_of: Mapping[int, int], masks: bool, points: int) -> Sample:
    height, width = int(image.get("height", 0)), int(image.get("width", 0))
    for annotation in found:
        if not isinstance(annotation["bbox"], list) or len(annotation["bbox"]) != 4:
            raise ValueError(f"the bbox of annotation {annotation.get('id')} is {annotation['bbox']}, not four numbers")
    xywh = np.array([annotation["bbox"] for annotation in found], np.float64).reshape(-1, 4)
    boxes: NDArray[Any] = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    areas: NDArray[Any] = np.array(
        [box[2] * box[3] if annotation.get("area") is None else annotation["area"] for annotation, box in zip(found, xywh, strict=True)],
        np.float64,
    )
    instances = Instances(
        boxes_xyxy=boxes,
        classes=np.array([class_of[annotation["category_id"]] for annotation in found], np.int64),
        ids=np.array([annotation["id"] for annotation in found], np.int64),
        areas=areas,
        crowd=np.array([bool(annotation.get("iscrowd", 0)) for annotation in found], np.bool_),
        difficult=np.zeros(len(found), np.bool_),
        truncated=np.zeros(len(found), np.bool_),
        masks=tuple(read_mask(annotation.get("segmentation"), height, width) for annotation in found) if masks else None,
        keypoints=_keypoints(found, points) if points else None,
        attributes={"ignore": np.array([bool(annotation.get("ignore", 0)) for annotation in found], np.int64)},
    )
    return Sample(key=str(image["id"]), image=b"", height=height, width=width, instances=instances)


def _keypoints(found: list[Mapping[str, Any]], points: int) -> NDArray[Any]:
    missing = [0.0] * (3 * points)
    return np.array([annotation.get("keypoints") or missing for annotation in found], np.float64).reshape(-1, points, 3)


def read_mask(segmentation: Any, height: int, width: int) -> bytes:
    """The compressed run lengths of polygons or of an encoding, for an image of (height, width); b"" where there is no mask."""
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]
        return from_counts(counts, height, width) if isinstance(counts, list) else str(counts).encode()
    polygons = polygons_of(segmentation, height, width)[0] if segmentation else []
    return from_polygons(polygons, height, width) if polygons else b""
