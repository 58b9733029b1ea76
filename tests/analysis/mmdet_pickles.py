"""Result pickles as MMDetection 2.x and 3.x write them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mtl_ray.tasks.detection.columns import ScoredImage


def entries_3x(images: Sequence[ScoredImage], masks: bool = False) -> list[dict[str, Any]]:
    """A dict for each image, its number and its path on another machine."""
    return [
        {
            "img_id": number,
            "img_path": f"/data/coco/val/{image.key}",
            "ori_shape": (image.height, image.width),
            "scale_factor": (1.5, 1.5),
            "pred_instances": {
                "bboxes": torch.tensor(image.predicted.boxes_xyxy),
                "scores": torch.tensor(image.predicted.scores),
                "labels": torch.tensor(image.predicted.classes),
            }
            | (
                {"masks": [_rle(image, mask) for mask in image.predicted.masks or ()]}
                if masks
                else {}
            ),
        }
        for number, image in enumerate(images)
    ]


def entries_2x(images: Sequence[ScoredImage], classes: int, masks: bool = False) -> list[Any]:
    """Arrays (n, 5) by class, and the masks by class beside them; images in their order."""
    entries: list[Any] = []
    for image in images:
        found = image.predicted
        rows = np.concatenate([found.boxes_xyxy, found.scores[:, None]], axis=1).astype(np.float32)
        boxes = [rows[found.classes == label] for label in range(classes)]
        coded = [
            [_rle(image, (found.masks or ())[i]) for i in np.flatnonzero(found.classes == label)]
            for label in range(classes)
        ]
        entries.append((boxes, coded) if masks else boxes)
    return entries


def _rle(image: ScoredImage, mask: bytes) -> dict[str, Any]:
    return {"size": [image.height, image.width], "counts": mask}
