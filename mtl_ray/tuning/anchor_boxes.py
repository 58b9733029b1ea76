"""The boxes of datasets as shapes on a canvas.

Only annotations are read, a block of them at a time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.evaluation.coco_file import read_json
from mtl_ray.inputs.frame import sides_on_canvas
from mtl_ray.inputs.image import Canvas
from mtl_ray.shards.split import open_split
from mtl_ray.sources.json_values import flag, identity, number, whole
from mtl_ray.tuning.anchor_points import Shapes


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The boxes of some images.

    Attributes:
        sizes: (I, 2) int64 height and width of each image in pixels.
        image: (N,) int64, the row in ``sizes`` that each box belongs to.
        boxes_xyxy: (N, 4) float64 image pixels.
        crowd: (N,) bool.
        valid: (N,) bool, False for boxes that the documented rule leaves out (see
            ``documented_shapes``).
    """

    sizes: NDArray[np.int64]
    image: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    valid: NDArray[np.bool_]


def boxes_of(uri: str) -> Iterator[Boxes]:
    """The boxes of a split, or of a COCO annotation file if the URI ends in .json.

    Yields one block after another.

    Raises:
        ValueError, FileNotFoundError: if there is neither a split nor such a file.
    """
    if uri.endswith(".json"):
        yield _of_coco(uri)
        return
    for found in open_split(uri).scan_boxes():
        image = np.repeat(np.arange(len(found.sizes)), found.counts)
        boxes = found.boxes_xyxy.astype(np.float64)
        yield Boxes(
            sizes=found.sizes,
            image=image,
            boxes_xyxy=boxes,
            crowd=found.crowd,
            valid=_documented(boxes, found.sizes[image]),
        )


def shapes_of(uris: Iterable[str], rule: Canvas) -> Shapes:
    """Width and height of the boxes on the canvas, without crowds and without the parts outside the
    canvas. No image is read.

    Raises:
        ValueError: if there is no box.
    """
    return _joined(list(uris), lambda boxes: _on_canvas(boxes, rule))


def documented_shapes(uris: Iterable[str], width: int, height: int) -> Shapes:
    """Shapes by the rule of MMDetection's optimize_anchors: each side times that of the canvas over
    the longer side of the image.

    Crowds are included, and boxes are not clipped to the image. Annotations that its COCO reader
    skips are left out: ignored ones, those without an area, those narrower or lower than one pixel,
    and those outside the image.

    Raises:
        ValueError: if there is no box.
    """
    return _joined(list(uris), lambda boxes: _documented_shapes(boxes, width, height))


def _joined(uris: list[str], shapes: Any) -> Shapes:
    found = np.concatenate(
        [np.zeros((0, 2)), *(shapes(boxes) for uri in uris for boxes in boxes_of(uri))]
    )
    found = found[(found > 0).all(axis=1)]
    if not len(found):
        raise ValueError(f"{', '.join(uris)}: there are no boxes to fit anchors to")
    return found


def _on_canvas(boxes: Boxes, rule: Canvas) -> Shapes:
    return sides_on_canvas(
        boxes.boxes_xyxy[~boxes.crowd], boxes.image[~boxes.crowd], boxes.sizes, rule
    )


def _documented_shapes(boxes: Boxes, width: int, height: int) -> Shapes:
    corners = boxes.boxes_xyxy[boxes.valid]
    longer = boxes.sizes.max(axis=1)[boxes.image[boxes.valid]]
    return np.asarray(
        (corners[:, 2:] - corners[:, :2]) * np.array([width, height]) / longer[:, None]
    )


def _documented(boxes_xyxy: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    within = np.minimum(boxes_xyxy[:, 2:], sizes[:, ::-1]) - np.maximum(boxes_xyxy[:, :2], 0)
    return np.asarray((sides >= 1).all(axis=1) & (within > 0).all(axis=1))


def _of_coco(uri: str) -> Boxes:
    content = read_json(uri)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), list) for part in ("images", "annotations")
    ):
        raise ValueError(
            f"{uri} is not a COCO annotation file, which has lists of images and annotations"
        )
    try:
        return _of_lists(content["images"], content["annotations"])
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(
            f"{uri}: an image needs an id, width and height, an annotation image_id and bbox (x, "
            f"y, w, h): {error!r}"
        ) from error


def _of_lists(images: list[Mapping[str, Any]], annotations: list[Mapping[str, Any]]) -> Boxes:
    sizes = np.array([_size_of(image) for image in images], np.int64).reshape(-1, 2)
    boxed = [annotation for annotation in annotations if annotation.get("bbox")]
    if any(len(annotation["bbox"]) != 4 for annotation in boxed):
        raise ValueError("a bbox does not have four numbers")
    image = np.array(_rows_of(images, boxed), np.int64)
    xywh = np.fromiter(
        chain.from_iterable(annotation["bbox"] for annotation in boxed), np.float64, 4 * len(boxed)
    ).reshape(-1, 4)
    if not np.isfinite(xywh).all():
        raise ValueError("a bbox is not finite")
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    crowd = np.fromiter(
        (flag(annotation.get("iscrowd")) for annotation in boxed), np.bool_, len(boxed)
    )
    wanted = np.fromiter(
        (not flag(annotation.get("ignore")) and _has_area(annotation) for annotation in boxed),
        np.bool_,
        len(boxed),
    )
    return Boxes(
        sizes=sizes,
        image=image,
        boxes_xyxy=xyxy,
        crowd=crowd,
        valid=wanted & _documented(xyxy, sizes[image]),
    )


def _size_of(image: Mapping[str, Any]) -> tuple[int, int]:
    height, width = whole(image.get("height")), whole(image.get("width"))
    if height is None or width is None or min(height, width) < 1:
        raise ValueError("an image has no height or width")
    return height, width


def _rows_of(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> list[int]:
    """The index of each annotation's image in the list of images.

    Ids may be numbers in one list and strings in the other.
    """
    row = {identity(image["id"]): place for place, image in enumerate(images)}
    return [row[identity(annotation["image_id"])] for annotation in annotations]


def _has_area(annotation: Mapping[str, Any]) -> bool:
    area = number(annotation.get("area"))
    return area is None or area > 0
