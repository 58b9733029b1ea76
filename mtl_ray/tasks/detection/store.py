"""Detections in the predictions file, and in COCO's results format."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mtl_ray.tasks.detection.decode import Detections

TYPE = pa.struct(
    [
        ("boxes_xyxy", pa.list_(pa.float32())),
        ("scores", pa.list_(pa.float32())),
        ("classes", pa.list_(pa.int64())),
        ("masks", pa.list_(pa.binary())),
        ("keypoints", pa.list_(pa.list_(pa.float32()))),
    ]
)
"""The Arrow type of one image's detections: boxes are 4 N numbers, keypoints 3 K each; masks and keypoints null where there are none."""


def to_row(prediction: Detections) -> dict[str, Any]:
    """A value of ``TYPE``."""
    return {
        "boxes_xyxy": prediction.boxes_xyxy.ravel(),
        "scores": prediction.scores,
        "classes": prediction.classes,
        "masks": None if prediction.masks is None else list(prediction.masks),
        "keypoints": None if prediction.keypoints is None else [points.ravel() for points in prediction.keypoints],
    }


def from_row(row: Mapping[str, Any]) -> Detections:
    """The way back of ``to_row``."""
    points = row["keypoints"]
    return Detections(
        boxes_xyxy=np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4),
        scores=np.array(row["scores"], np.float32),
        classes=np.array(row["classes"], np.int64),
        masks=None if row["masks"] is None else tuple(row["masks"]),
        keypoints=None if points is None else np.array(points, np.float32).reshape(len(points), len(points[0]) // 3 if points else 0, 3),
    )


def to_coco(prediction: Detections, image_id: int, height: int, width: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Entries of a COCO results file: bbox as x, y, width, height; ``category_ids`` by class index."""
    boxes = prediction.boxes_xyxy.tolist()
    rows = zip(boxes, prediction.scores.tolist(), prediction.classes.tolist(), strict=True)
    entries: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[label], "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for (x1, y1, x2, y2), score, label in rows
    ]
    for i in np.flatnonzero(np.isnan(prediction.boxes_xyxy).any(axis=1)).tolist():
        del entries[i]["bbox"]  # a file of masks or keypoints alone has no boxes
    if prediction.masks is not None:
        for entry, mask in zip(entries, prediction.masks, strict=True):
            entry["segmentation"] = {"size": [height, width], "counts": mask.decode()}
    if prediction.keypoints is not None:
        for entry, points in zip(entries, prediction.keypoints, strict=True):
            entry["keypoints"] = points.ravel().tolist()
    return entries
