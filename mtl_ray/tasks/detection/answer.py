"""Detections as they go over the wire: the shape of TorchServe's answers for OpenMMLab detectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.config import HeadConfig
from mtl_ray.tasks.detection.decode import Detections


def answer(prediction: Detections, vocabulary: Vocabulary, score_threshold: float) -> list[dict[str, Any]]:
    """``[{"class_label": 2, "class_name": "Platelets", "bbox": [x1, y1, x2, y2], "score": 0.9}, ...]``, best first.

    Boxes are in pixels of the image that was sent; those with a score below ``score_threshold`` are left out. Masks follow as
    COCO run-length encodings under ``mask`` and keypoints as ``[[x, y, score], ...]`` where there are any.
    """
    names = vocabulary.classes["instances"]
    found = []
    for i in np.flatnonzero(prediction.scores >= score_threshold):
        label = int(prediction.classes[i])
        item = {
            "class_label": label,
            "class_name": names[label],
            "bbox": prediction.boxes_xyxy[i].tolist(),
            "score": float(prediction.scores[i]),
        }
        if prediction.masks is not None:
            item["mask"] = prediction.masks[i].decode()
        if prediction.keypoints is not None:
            item["keypoints"] = prediction.keypoints[i].tolist()
        found.append(item)
    return found


def read_answer(items: Sequence[Any], vocabulary: Vocabulary, head: HeadConfig) -> Detections:
    """The way back: what was answered with a score of at least the threshold that was asked for."""
    masks = tuple(item["mask"].encode() for item in items if "mask" in item)
    keypoints = [item["keypoints"] for item in items if "keypoints" in item]
    return Detections(
        boxes_xyxy=np.array([item["bbox"] for item in items], np.float32).reshape(-1, 4),
        scores=np.array([item["score"] for item in items], np.float32),
        classes=np.array([item["class_label"] for item in items], np.int64),
        masks=masks or None,
        keypoints=np.array(keypoints, np.float32) if keypoints else None,
    )
