"""COCO's precision and recall (Lin et al. 2014; the protocol of cocodataset.org/#detection-eval) for boxes, masks and keypoints.

The matching is hotcoco's; the tests hold its arrays against pycocotools. Annotations are numbered anew from 1 here, because the
reference takes the number 0 for "not matched" and would count an object with the id 0 as a miss.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import hotcoco
import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.masks import from_polygons
from mtl_ray.samples import Instances
from mtl_ray.tasks.detection.decode import Detections

Kind = Literal["bbox", "segm", "keypoints"]

PERSON_SIGMAS = (0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089)
"""COCO's spread of human annotators for the 17 points of a person, relative to the root of the area."""
OTHER_SIGMA = 0.05
"""For any other set of keypoints, whose spread nobody has measured."""


class Scored(NamedTuple):
    """One image: its truth and what was found."""

    key: str
    height: int
    width: int
    truth: Instances
    found: Detections


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """What the protocol gives; -1 where there is no object to find.

    Attributes:
        precision: float64 (T, R, C, A, M): IoU thresholds 0.50 to 0.95, recall 0 to 1 in steps of 0.01, classes, areas
            (all, small, medium, large; without small for keypoints), detections an image (1, 10, 100; 20 for keypoints).
        recall: float64 (T, C, A, M).
        areas: the names of the areas.
        limits: the numbers of detections.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    areas: tuple[str, ...]
    limits: tuple[int, ...]


def curves(kind: Kind, images: Sequence[Scored], num_classes: int) -> Curves:
    """Matches what was found to the truth, image by image and class by class.

    Args:
        kind: which likeness counts: of boxes, of masks, or of keypoints (OKS).
        images: in the order that decides between equal scores.
        num_classes: classes of the vocabulary.
    """
    truth = _truth(kind, images, num_classes)
    found = truth.load_res(_boxes(images) if kind == "bbox" else _entries(kind, images))
    evaluator = hotcoco.COCOeval(truth, found, kind)
    if kind == "keypoints":
        evaluator.params.kpt_oks_sigmas = list(_sigmas(_points(images)))
    evaluator.evaluate()
    evaluator.accumulate()
    got = evaluator.eval
    assert got is not None
    shape = got["counts"]
    return Curves(
        precision=np.asarray(got["precision"], np.float64).reshape(shape),
        recall=np.asarray(got["recall"], np.float64).reshape([shape[0], *shape[2:]]),
        areas=tuple(evaluator.params.area_rng_lbl),
        limits=tuple(evaluator.params.max_dets),
    )


def _truth(kind: Kind, images: Sequence[Scored], num_classes: int) -> hotcoco.COCO:
    points = _points(images) if kind == "keypoints" else 0
    rows = [{"image_id": i, **row} for i, image in enumerate(images, 1) for row in _objects(kind, image, points)]
    return hotcoco.COCO(
        {
            "images": [{"id": i, "height": image.height, "width": image.width} for i, image in enumerate(images, 1)],
            "annotations": [{"id": number, **row} for number, row in enumerate(rows, 1)],
            "categories": [{"id": c + 1, "name": str(c)} for c in range(num_classes)],
        }
    )


def _objects(kind: Kind, image: Scored, points: int) -> Iterator[dict[str, Any]]:
    truth, boxes = image.truth, _xywh(image.truth.boxes_xyxy)
    for i in range(len(truth)):
        row: dict[str, Any] = {
            "category_id": int(truth.classes[i]) + 1,
            "bbox": boxes[i].tolist(),
            "area": float(truth.areas[i]),
            "iscrowd": int(truth.crowd[i] or truth.difficult[i]),
        }
        if kind == "segm":
            mask = truth.masks[i] if truth.masks is not None else b""
            if not mask:  # nobody drew it: what is found there shall count neither way
                mask, row["iscrowd"] = _box_mask(image, i), 1
            row["segmentation"] = {"size": [image.height, image.width], "counts": mask.decode()}
        if kind == "keypoints":
            labelled = truth.keypoints[i] if truth.keypoints is not None else np.zeros((points, 3))
            row |= {"keypoints": labelled.ravel().tolist(), "num_keypoints": int((labelled[:, 2] > 0).sum())}
        yield row


def _box_mask(image: Scored, index: int) -> bytes:
    x1, y1, x2, y2 = image.truth.boxes_xyxy[index].tolist()
    return from_polygons([[x1, y1, x2, y1, x2, y2, x1, y2]], image.height, image.width)


def _boxes(images: Sequence[Scored]) -> NDArray[np.float64]:
    columns = [
        np.column_stack([np.full(len(image.found), i), _xywh(image.found.boxes_xyxy), image.found.scores, image.found.classes + 1])
        for i, image in enumerate(images, 1)
    ]
    return np.concatenate([np.empty((0, 7)), *columns])


def _entries(kind: Kind, images: Sequence[Scored]) -> list[dict[str, Any]]:
    """Masks and keypoints as a COCO results file states them; boxes, where there are some, decide the area of a mask there too."""
    entries: list[dict[str, Any]] = []
    for i, image in enumerate(images, 1):
        found, boxes = image.found, _xywh(image.found.boxes_xyxy)
        for n in range(len(found)):
            entry: dict[str, Any] = {"image_id": i, "category_id": int(found.classes[n]) + 1, "score": float(found.scores[n])}
            if kind == "segm" and found.masks is not None:
                entry["segmentation"] = {"size": [image.height, image.width], "counts": found.masks[n].decode()}
                entry |= {} if np.isnan(boxes[n]).any() else {"bbox": boxes[n].tolist()}
            elif found.keypoints is not None:
                entry["keypoints"] = found.keypoints[n].ravel().tolist()
            entries.append(entry)
    return entries


def _points(images: Sequence[Scored]) -> int:
    return next(int(image.truth.keypoints.shape[1]) for image in images if image.truth.keypoints is not None)


def _sigmas(points: int) -> tuple[float, ...]:
    return PERSON_SIGMAS if points == len(PERSON_SIGMAS) else (OTHER_SIGMA,) * points


def _xywh(boxes_xyxy: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
