"""COCO's precision and recall (Lin et al. 2014; the protocol of cocodataset.org/#detection-eval)
for boxes, masks and keypoints.

The matching is hotcoco's; the tests hold its arrays against pycocotools. Annotations are numbered
from 1 here, because id 0 means "not matched" in the reference, which would count an object with id
0 as a miss.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import hotcoco
import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.masks import from_polygons
from mtl_ray.tasks.detection.columns import (
    DetectionColumns,
    ObjectColumns,
    ScoredImage,
    detection_columns,
    object_columns,
)

CocoKind = Literal["bbox", "segm", "keypoints"]

PERSON_SIGMAS = (
    0.026,
    0.025,
    0.025,
    0.035,
    0.035,
    0.079,
    0.079,
    0.072,
    0.072,
    0.062,
    0.062,
    0.107,
    0.107,
    0.087,
    0.087,
    0.089,
    0.089,
)
"""COCO's standard deviations of human annotators for the 17 keypoints of a person, relative to the
root of the area.
"""
OTHER_SIGMA = 0.05
"""For other keypoints, whose standard deviation is unknown."""


@dataclass(frozen=True, kw_only=True)
class CocoRules:
    """Deviations from COCO's protocol.

    Attributes:
        thresholds: of IoU.
        areas: least and largest area of objects by name; the first includes all.
        limit: most detections of an image and class that count.
    """

    thresholds: tuple[float, ...]
    areas: Mapping[str, tuple[float, float]]
    limit: int = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoCurves:
    """The result of the protocol; -1 without an object to find.

    Attributes:
        precision: float64 (T, R, C, A, M): IoU thresholds 0.50 to 0.95, recall 0 to 1 in steps of
            0.01, classes, areas (all, small, medium, large; without small for keypoints),
            detections per image (1, 10, 100; 20 for keypoints).
        recall: float64 (T, C, A, M).
        areas: the names of the areas.
        limits: the numbers of detections.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    areas: tuple[str, ...]
    limits: tuple[int, ...]


def coco_curves(kind: CocoKind, images: Sequence[ScoredImage], num_classes: int) -> CocoCurves:
    """Matches predictions to the ground truth, image by image and class by class.

    Args:
        kind: the similarity: of boxes, masks or keypoints (OKS).
        images: their order decides between equal scores.
        num_classes: classes of the vocabulary.
    """
    if kind == "keypoints":
        gt = _annotations(images, num_classes)
        evaluator = hotcoco.COCOeval(gt, gt.load_res(_keypoints(images)), kind)
        evaluator.params.kpt_oks_sigmas = list(_sigmas(_points(images)))
    else:
        gt = coco_ground_truth(
            images,
            object_columns(images),
            num_classes,
            ground_truth_masks(images) if kind == "segm" else None,
        )
        evaluator = hotcoco.COCOeval(gt, coco_detections(gt, images, kind), kind)
    return accumulate(evaluator)


def accumulate(evaluator: hotcoco.COCOeval, rules: CocoRules | None = None) -> CocoCurves:
    """Runs an evaluation, by other rules than COCO's if they are given."""
    if rules is not None:
        evaluator.params.iou_thrs = list(rules.thresholds)
        evaluator.params.area_rng = [list(bounds) for bounds in rules.areas.values()]
        evaluator.params.area_rng_lbl = list(rules.areas)
        evaluator.params.max_dets = [rules.limit]
    evaluator.evaluate()
    evaluator.accumulate()
    result = evaluator.eval
    assert result is not None
    shape = result["counts"]
    return CocoCurves(
        precision=np.asarray(result["precision"], np.float64).reshape(shape),
        recall=np.asarray(result["recall"], np.float64).reshape([shape[0], *shape[2:]]),
        areas=tuple(evaluator.params.area_rng_lbl),
        limits=tuple(evaluator.params.max_dets),
    )


def coco_ground_truth(
    images: Sequence[ScoredImage],
    objects: ObjectColumns,
    num_classes: int,
    masks: Sequence[bytes] | None = None,
) -> hotcoco.COCO:
    """Objects as the protocol's ground truth; images, annotations and categories are numbered from
    1.

    Args:
        images: for their sizes.
        objects: of these images.
        num_classes: classes of the vocabulary.
        masks: of each object, if masks are compared; b"" for an object without a mask: predictions
            on its box are then ignored.
    """
    crowd = objects.optional
    segmentation: list[Any] | None = None
    if masks is not None:
        crowd = crowd | np.array([not mask for mask in masks], np.bool_)
        segmentation = [
            _encoding(images[image], mask or _box_mask(images[image], box))
            for image, mask, box in zip(
                objects.image.tolist(), masks, objects.boxes_xyxy.tolist(), strict=True
            )
        ]
    return hotcoco.COCO.from_arrays(
        _sizes(images),
        _categories(num_classes),
        objects.image + 1,
        objects.classes + 1,
        _xywh(objects.boxes_xyxy),
        area=objects.areas,
        iscrowd=crowd.astype(np.int64),
        segmentation=segmentation,
    )


def ground_truth_masks(images: Sequence[ScoredImage]) -> list[bytes]:
    """The masks of all objects, b"" for an object without a mask."""
    return [
        mask
        for image in images
        for mask in (image.ground_truth.masks or (b"",) * len(image.ground_truth))
    ]


def coco_detections(
    gt: hotcoco.COCO, images: Sequence[ScoredImage], kind: CocoKind, *, box_areas: bool = False
) -> hotcoco.COCO:
    """The detections of the images as COCO results: boxes or masks.

    Args:
        gt: of ``coco_ground_truth``.
        images: with the detections.
        kind: bbox or segm.
        box_areas: the area of a mask is that of its box, as pycocotools has it for a results file
            with both. MMDetection and Detectron2 leave the boxes out for their metric.
    """
    if kind == "segm":
        return gt.load_res(_masks(images, box_areas=box_areas))
    predicted: DetectionColumns = detection_columns(images)
    return gt.load_res(
        np.column_stack(
            [
                predicted.image + 1,
                _xywh(predicted.boxes_xyxy),
                predicted.scores,
                predicted.classes + 1,
            ]
        )
    )


def _annotations(images: Sequence[ScoredImage], num_classes: int) -> hotcoco.COCO:
    points = _points(images)
    rows = [
        {"image_id": i, **row}
        for i, image in enumerate(images, 1)
        for row in _objects(image, points)
    ]
    annotations = [{"id": number, **row} for number, row in enumerate(rows, 1)]
    return hotcoco.COCO(
        {
            "images": _sizes(images),
            "annotations": annotations,
            "categories": _categories(num_classes),
        }
    )


def _sizes(images: Sequence[ScoredImage]) -> list[dict[str, int]]:
    return [
        {"id": i, "height": image.height, "width": image.width} for i, image in enumerate(images, 1)
    ]


def _categories(num_classes: int) -> list[dict[str, Any]]:
    return [{"id": c + 1, "name": str(c)} for c in range(num_classes)]


def _objects(image: ScoredImage, points: int) -> Iterator[dict[str, Any]]:
    gt, boxes = image.ground_truth, _xywh(image.ground_truth.boxes_xyxy)
    for i in range(len(gt)):
        labelled = gt.keypoints[i] if gt.keypoints is not None else np.zeros((points, 3))
        yield {
            "category_id": int(gt.classes[i]) + 1,
            "bbox": boxes[i].tolist(),
            "area": float(gt.areas[i]),
            "iscrowd": int(gt.crowd[i] or gt.difficult[i]),
            "keypoints": labelled.ravel().tolist(),
            "num_keypoints": int((labelled[:, 2] > 0).sum()),
        }


def _encoding(image: ScoredImage, mask: bytes) -> dict[str, Any]:
    return {"size": [image.height, image.width], "counts": mask.decode()}


def _box_mask(image: ScoredImage, box_xyxy: Sequence[float]) -> bytes:
    x1, y1, x2, y2 = box_xyxy
    return from_polygons([[x1, y1, x2, y1, x2, y2, x1, y2]], image.height, image.width)


def _masks(images: Sequence[ScoredImage], *, box_areas: bool) -> list[dict[str, Any]]:
    """Masks as in a COCO results file, with the boxes if these define the areas."""
    entries: list[dict[str, Any]] = []
    for i, image in enumerate(images, 1):
        masks = image.predicted.masks or ()
        if len(masks) < len(image.predicted):
            raise ValueError(f"the detections on {image.key} have no masks, but others have some")
        rows = zip(
            image.predicted.classes.tolist(),
            image.predicted.scores.tolist(),
            _xywh(image.predicted.boxes_xyxy).tolist(),
            masks,
            strict=True,
        )
        for label, score, box, mask in rows:
            entry = {
                "image_id": i,
                "category_id": label + 1,
                "score": score,
                "segmentation": _encoding(image, mask),
            }
            known = box_areas and box[0] == box[0]
            entries.append(entry | {"bbox": box} if known else entry)
    return entries


def _keypoints(images: Sequence[ScoredImage]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": i,
            "category_id": label + 1,
            "score": score,
            "keypoints": points.ravel().tolist(),
        }
        for i, image in enumerate(images, 1)
        if image.predicted.keypoints is not None
        for label, score, points in zip(
            image.predicted.classes.tolist(),
            image.predicted.scores.tolist(),
            image.predicted.keypoints,
            strict=True,
        )
    ]


def _points(images: Sequence[ScoredImage]) -> int:
    return next(
        int(image.ground_truth.keypoints.shape[1])
        for image in images
        if image.ground_truth.keypoints is not None
    )


def _sigmas(points: int) -> tuple[float, ...]:
    return PERSON_SIGMAS if points == len(PERSON_SIGMAS) else (OTHER_SIGMA,) * points


def _xywh(boxes_xyxy: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
