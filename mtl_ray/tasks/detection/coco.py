"""COCO's precision and recall (Lin et al. 2014; the protocol of cocodataset.org/#detection-eval) for boxes, masks and keypoints.

The matching is hotcoco's; the tests hold its arrays against pycocotools. Annotations are numbered anew from 1 here, because the
reference takes the number 0 for "not matched" and would count an object with the id 0 as a miss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import hotcoco
import numpy as np
from numpy.typing import NDArray

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
    found = truth.load_res(_keypoints_found(images)) if kind == "keypoints" else _load(truth, kind, images)
    evaluator = hotcoco.COCOeval(truth, found, kind)
    if kind == "keypoints":
        points = next((image.truth.keypoints.shape[1] for image in images if image.truth.keypoints is not None), 17)
        evaluator.params.kpt_oks_sigmas = list(PERSON_SIGMAS) if points == 17 else [OTHER_SIGMA] * points
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
    files = [{"id": i, "height": image.height, "width": image.width} for i, image in enumerate(images, 1)]
    annotations = [{"id": 0, "image_id": i, **row} for i, image in enumerate(images, 1) for row in _truth_rows(kind, image)]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    return hotcoco.COCO(
        {"images": files, "annotations": annotations, "categories": [{"id": c + 1, "name": str(c)} for c in range(num_classes)]}
    )


def _truth_rows(kind: Kind, image: Scored) -> list[dict[str, Any]]:
    truth = image.truth
    boxes = _xywh(truth.boxes_xyxy)
    rows = [
        {
            "category_id": int(truth.classes[i]) + 1,
            "bbox": boxes[i],
            "area": float(truth.areas[i]),
            "iscrowd": int(truth.crowd[i] or truth.difficult[i]),
        }
        for i in range(len(truth))
    ]
    if kind == "segm" and truth.masks is not None:
        for row, mask in zip(rows, truth.masks, strict=True):
            row["segmentation"] = {"size": [image.height, image.width], "counts": mask.decode()}
    if kind == "keypoints" and truth.keypoints is not None:
        for row, points in zip(rows, truth.keypoints, strict=True):
            row |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
    return rows


def _load(truth: hotcoco.COCO, kind: Kind, images: Sequence[Scored]) -> hotcoco.COCO:
    columns = [
        np.column_stack([np.full(len(image.found), i), _xywh(image.found.boxes_xyxy), image.found.scores, image.found.classes + 1])
        for i, image in enumerate(images, 1)
    ]
    rows = np.concatenate([np.empty((0, 7)), *columns])
    if kind == "bbox":
        return truth.load_res(rows)
    masks = [{"size": [image.height, image.width], "counts": mask.decode()} for image in images for mask in image.found.masks or ()]
    return truth.load_res(rows, segmentation=masks)


def _keypoints_found(images: Sequence[Scored]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": i,
            "category_id": int(image.found.classes[n]) + 1,
            "keypoints": points.ravel().tolist(),
            "score": float(image.found.scores[n]),
        }
        for i, image in enumerate(images, 1)
        for n, points in enumerate(image.found.keypoints if image.found.keypoints is not None else ())
    ]


def _xywh(boxes_xyxy: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
