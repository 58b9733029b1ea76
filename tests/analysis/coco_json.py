"""Random truth and detections as a COCO annotation file and a COCO results file whose numbers
are in no order.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_ray.tasks.detection.columns import ScoredImage

CATEGORIES = (
    (7, "dog", "animal"),
    (2, "car", "vehicle"),
    (90, "cat", "animal"),
    (31, "tram", "vehicle"),
    (4, "kite", "toy"),
)
"""Id, name, supercategory, as the annotation file lists them; the class indices of the images
are those of the rising ids.
"""
BY_ID = sorted(CATEGORIES)
NAMES = tuple(name for _, name, _ in BY_ID)


def write_coco_json(folder: Path, images: Sequence[ScoredImage], seed: int = 0) -> tuple[str, str]:
    """Truth and results; images, annotations and their ids, the smallest of which is 0, are
    shuffled.
    """
    rng = np.random.default_rng(seed)
    gt: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        size = [image.height, image.width]
        for i in range(len(image.ground_truth)):
            x1, y1, x2, y2 = image.ground_truth.boxes_xyxy[i].tolist()
            entry = {
                "image_id": number,
                "category_id": BY_ID[int(image.ground_truth.classes[i])][0],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            entry |= {
                "area": float(image.ground_truth.areas[i]),
                "iscrowd": int(image.ground_truth.crowd[i]),
            }
            gt.append(
                entry
                | {
                    "segmentation": {
                        "size": size,
                        "counts": (image.ground_truth.masks or ())[i].decode(),
                    }
                }
            )
        for i in range(len(image.predicted)):
            x1, y1, x2, y2 = image.predicted.boxes_xyxy[i].tolist()
            entry = {
                "image_id": number,
                "category_id": BY_ID[int(image.predicted.classes[i])][0],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            entry |= {"score": float(image.predicted.scores[i])}
            found.append(
                entry
                | {
                    "segmentation": {
                        "size": size,
                        "counts": (image.predicted.masks or ())[i].decode(),
                    }
                }
            )
    for place, number in enumerate(rng.permutation(len(gt)).tolist()):
        gt[place]["id"] = number
    listed = [
        {"id": n, "file_name": f"{image.key}", "height": image.height, "width": image.width}
        for n, image in enumerate(images)
    ]
    content = {
        "images": [listed[i] for i in rng.permutation(len(listed))],
        "annotations": [gt[i] for i in rng.permutation(len(gt))],
        "categories": [
            {"id": number, "name": name, "supercategory": group}
            for number, name, group in CATEGORIES
        ],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "found.json").write_text(json.dumps(found))
    return str(folder / "truth.json"), str(folder / "found.json")
