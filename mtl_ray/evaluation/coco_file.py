"""A COCO annotation file as ground truth. Nothing is rejected, cleaned or rounded: metrics equal
the reference's.
"""

import codecs
import gc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mtl_ray import storage
from mtl_ray.annotations.instance_values import Instances
from mtl_ray.geometry.masks import from_polygons
from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.sources.class_names import text_of
from mtl_ray.sources.coco_masks import mask_of_counts, valid_polygons
from mtl_ray.sources.json_values import flag, identity, number, shown, whole
from mtl_ray.vocabulary import skeleton_of

ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
"""Reads and writes JSON in a half and a quarter of the time of Python's own module."""


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """The ground truth of an annotation file.

    Attributes:
        vocabulary: categories in the order of their ids.
        samples: in the order of image ids, without images; the key of each is its image id. Boxes
            and areas are float64.
        file_names: file name of each image by its key, in the order of the file.
        listed_classes: the names of the categories in the order of the file.
        supercategories: by class name, for the classes that have one.
    """

    vocabulary: Vocabulary
    samples: tuple[Sample, ...]
    file_names: Mapping[str, str]
    listed_classes: tuple[str, ...]
    supercategories: Mapping[str, str]


def read_coco_file(uri: str) -> CocoFile:
    """Reads an annotation file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no COCO annotation file, or an annotation names an unknown image or
            category.
    """
    content = read_json(uri)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), list) for part in ("images", "annotations", "categories")
    ):
        raise ValueError(
            f"{uri} is no COCO annotation file: it has no lists images, annotations and categories"
        )
    try:
        return _read(content)
    except KeyError as error:
        name = shown(error.args[0])
        raise ValueError(
            f"{uri}: an entry lacks {name}, or refers to {name}, which does not exist"
        ) from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{uri} cannot be read as a COCO annotation file: {error}") from error


def read_json(uri: str) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: if it is not JSON.
    """
    content = storage.read(uri).removeprefix(codecs.BOM_UTF8)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = text_of(content).encode()
    collecting = gc.isenabled()
    # parsed JSON has no cycles; searching a million objects for them takes half of the time
    gc.disable()
    try:
        return ANYTHING.validate_json(content)
    except ValidationError as error:
        raise ValueError(f"{uri} is not JSON: {error.errors()[0]['msg']}") from error
    finally:
        if collecting:
            gc.enable()


def _read(content: Mapping[str, Any]) -> CocoFile:
    categories = {_key(category, "id"): category for category in content["categories"]}
    categories = {key: categories[key] for key in sorted(categories, key=_in_order)}
    class_of = {key: number for number, key in enumerate(categories)}
    points: Mapping[str, Any] = next(
        (category for category in categories.values() if category.get("keypoints")), {}
    )
    vocabulary = Vocabulary(
        classes={"instances": tuple(_class_name(category) for category in categories.values())},
        keypoints=tuple(map(str, points.get("keypoints", ()))),
        skeleton=skeleton_of(points.get("skeleton"), len(points.get("keypoints", ()))),
        category_ids={"instances": tuple(key for key in categories if isinstance(key, int))}
        if _all_numbers(categories)
        else {},
    )
    images = {_key(image, "id"): image for image in content["images"]}
    by_image: dict[int | str, list[Mapping[str, Any]]] = {number: [] for number in images}
    for annotation in content["annotations"]:
        by_image[_key(annotation, "image_id")].append(annotation)
    masks = any("segmentation" in annotation for annotation in content["annotations"])
    names = {str(number): str(image.get("file_name", number)) for number, image in images.items()}
    in_order = sorted(images, key=_in_order)
    samples = tuple(
        _sample(str(key), images[key], by_image[key], class_of, masks, len(vocabulary.keypoints))
        for key in in_order
    )
    return CocoFile(
        vocabulary=vocabulary,
        samples=samples,
        file_names=names,
        listed_classes=tuple(_class_name(category) for category in content["categories"]),
        supercategories={
            _class_name(each): str(each["supercategory"])
            for each in categories.values()
            if each.get("supercategory") is not None
        },
    )


def _key(entry: Mapping[str, Any], field: str) -> int | str:
    """An id, or a reference to one; 1, 1.0 and "1" are equal."""
    value = entry[field]
    found = value if type(value) is int else identity(value)
    if found is None:
        raise ValueError(f"the {field} of an entry is {shown(value)}, not a number or a text")
    return found


def _in_order(key: int | str) -> tuple[bool, int | str]:
    return isinstance(key, str), key


def _all_numbers(keys: Iterable[int | str]) -> bool:
    return all(isinstance(key, int) for key in keys)


def _class_name(category: Mapping[str, Any]) -> str:
    return str(category.get("name", category["id"]))


def _sample(
    key: str,
    image: Mapping[str, Any],
    found: list[Mapping[str, Any]],
    class_of: Mapping[int | str, int],
    masks: bool,
    points: int,
) -> Sample:
    height, width = _side(image, "height"), _side(image, "width")
    for annotation in found:
        if not isinstance(annotation["bbox"], list) or len(annotation["bbox"]) != 4:
            raise ValueError(
                f"the bbox of annotation {annotation.get('id')} is {shown(annotation['bbox'])}, "
                "not four numbers"
            )
    xywh = np.array([annotation["bbox"] for annotation in found], np.float64).reshape(-1, 4)
    boxes: NDArray[Any] = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    areas: NDArray[Any] = np.array(
        [
            box[2] * box[3] if annotation.get("area") is None else annotation["area"]
            for annotation, box in zip(found, xywh, strict=True)
        ],
        np.float64,
    )
    instances = Instances(
        boxes_xyxy=boxes,
        classes=np.array(
            [class_of[_key(annotation, "category_id")] for annotation in found], np.int64
        ),
        ids=np.array([_number_of(annotation["id"]) for annotation in found], np.int64),
        areas=areas,
        crowd=np.array([flag(annotation.get("iscrowd")) for annotation in found], np.bool_),
        difficult=np.zeros(len(found), np.bool_),
        truncated=np.zeros(len(found), np.bool_),
        masks=tuple(
            read_mask(annotation.get("segmentation"), height, width) for annotation in found
        )
        if masks
        else None,
        keypoints=_keypoints(found, points) if points else None,
        attributes={
            "ignore": np.array([flag(annotation.get("ignore")) for annotation in found], np.int64)
        },
    )
    return image_sample(key=key, image=b"", height=height, width=width, instances=instances)


def _side(image: Mapping[str, Any], name: str) -> int:
    found = number(image.get(name, 0))
    if found is None or not 0 <= found < 1 << 31:
        raise ValueError(
            f"the {name} of image {shown(image.get('id'))} is {shown(image[name])}, not a number "
            "of pixels"
        )
    return int(found)


def _number_of(value: object) -> int:
    """The id of an annotation; -1 if it is not a number."""
    found = whole(value)
    return -1 if found is None else found


def _keypoints(found: list[Mapping[str, Any]], points: int) -> NDArray[Any]:
    missing = [0.0] * (3 * points)
    return np.array(
        [annotation.get("keypoints") or missing for annotation in found], np.float64
    ).reshape(-1, points, 3)


def read_mask(segmentation: Any, height: int, width: int) -> bytes:
    """The compressed run lengths of polygons or an encoding, for an image of (height, width); b""
    without a mask.
    """
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]
        return (
            mask_of_counts(counts, height, width)
            if isinstance(counts, list)
            else str(counts).encode()
        )
    polygons = valid_polygons(segmentation, height, width)[0] if segmentation else []
    return from_polygons(polygons, height, width) if polygons else b""
