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
    entries: list[dict[str, Any]] = []
    for i, box in enumerate(prediction.boxes_xyxy.tolist()):
        category = category_ids[int(prediction.classes[i])]
        entry: dict[str, Any] = {"image_id": image_id, "category_id": category, "score": float(prediction.scores[i])}
        if not np.isnan(box).any():  # a file of masks or keypoints alone has no boxes
            entry["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        if prediction.masks is not None:
            entry["segmentation"] = {"size": [height, width], "counts": prediction.masks[i].decode()}
        if prediction.keypoints is not None:
            entry["keypoints"] = prediction.keypoints[i].ravel().tolist()
        entries.append(entry)
    return entries
