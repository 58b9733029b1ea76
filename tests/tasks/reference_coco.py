"""The same question put to pycocotools."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mtl_ray.tasks.detection.columns import ScoredImage


def reference(
    kind: str,
    images: Sequence[ScoredImage],
    classes: int,
    sigmas: Sequence[float] | None = None,
    *,
    use_cats: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision (T, R, C, A, M) and recall (T, C, A, M) as pycocotools has them; C is 1 without
    ``use_cats``.
    """
    found = [entry for i, image in enumerate(images, 1) for entry in _found(kind, i, image)]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = _dataset(images, classes)
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(found), kind)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.params.useCats = int(use_cats)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _dataset(images: Sequence[ScoredImage], classes: int) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for i, image in enumerate(images, 1):
        gt = image.ground_truth
        for n in range(len(gt)):
            assert gt.masks is not None
            assert gt.keypoints is not None
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": int(gt.classes[n]) + 1,
                    "bbox": _xywh(gt.boxes_xyxy[n]),
                    "area": float(gt.areas[n]),
                    "iscrowd": int(gt.crowd[n]),
                    "segmentation": {
                        "size": [image.height, image.width],
                        "counts": gt.masks[n].decode(),
                    },
                    "keypoints": gt.keypoints[n].ravel().tolist(),
                    "num_keypoints": int((gt.keypoints[n, :, 2] > 0).sum()),
                }
            )
    return {
        "images": [
            {"id": i, "height": image.height, "width": image.width}
            for i, image in enumerate(images, 1)
        ],
        "annotations": annotations,
        "categories": [{"id": c + 1, "name": str(c)} for c in range(classes)],
    }


def _found(kind: str, number: int, image: ScoredImage) -> list[dict[str, Any]]:
    found = image.predicted
    entries: list[dict[str, Any]] = []
    for n in range(len(found)):
        entry: dict[str, Any] = {
            "image_id": number,
            "category_id": int(found.classes[n]) + 1,
            "score": float(found.scores[n]),
        }
        if kind == "bbox" and not np.isnan(found.boxes_xyxy[n]).any():
            entry["bbox"] = _xywh(found.boxes_xyxy[n])
        if kind == "segm":
            assert found.masks is not None
            entry["segmentation"] = {
                "size": [image.height, image.width],
                "counts": found.masks[n].decode(),
            }
        if kind == "keypoints":
            assert found.keypoints is not None
            entry["keypoints"] = found.keypoints[n].ravel().tolist()
        entries.append(entry)
    return entries


def _xywh(box: NDArray[np.float32]) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]
