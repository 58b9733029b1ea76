"""Random truth and detections with everything that COCO's protocol treats specially."""

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.geometry.masks import encode_rle
from mtl_ray.samples import Sample, image_sample
from mtl_ray.tasks.detection.columns import ScoredImage
from mtl_ray.tasks.detection.decode import Detections

HEIGHT, WIDTH = 200, 260


def random_images(
    seed: int, count: int = 10, classes: int = 3, points: int = 17
) -> list[ScoredImage]:
    """Images with crowds, objects of all three areas, equal scores, and some without objects or
    detections.
    """
    rng = np.random.default_rng(seed)
    return [_image(rng, f"{i:03d}.jpg", classes, points) for i in range(count)]


def _image(rng: np.random.Generator, key: str, classes: int, points: int) -> ScoredImage:
    n = int(rng.integers(0, 7)) if rng.random() > 0.2 else 0
    d = int(rng.integers(0, 15)) if rng.random() > 0.2 else 0
    boxes, guesses = _boxes(rng, n), _boxes(rng, d)
    masks = [_mask(rng) for _ in range(n)]
    keypoints = np.concatenate(
        [rng.uniform(0, 200, (n, points, 2)), rng.integers(0, 3, (n, points, 1))], axis=2
    ).astype(np.float32)
    keypoints[rng.random(n) < 0.2, :, 2] = 0
    guessed_points = np.concatenate(
        [rng.uniform(0, 200, (d, points, 2)), rng.random((d, points, 1))], axis=2
    ).astype(np.float32)
    guessed_masks = [_mask(rng) for _ in range(d)]
    kinds = rng.integers(0, classes, d)
    truth_kinds = rng.integers(0, classes, n)
    for i in np.flatnonzero(rng.random(d) < 0.75) if n else ():
        near = int(rng.integers(n))
        guesses[i] = boxes[near] + rng.normal(0, 4, 4)
        guesses[i, 2:] = np.maximum(guesses[i, 2:], guesses[i, :2] + 1)
        guessed_points[i, :, :2] = keypoints[near, :, :2] + rng.normal(0, 5, (points, 2))
        guessed_masks[i] = masks[near]
        kinds[i] = truth_kinds[near]
    gt = Instances(
        boxes_xyxy=boxes,
        classes=truth_kinds,
        ids=np.arange(n),
        areas=(
            (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * rng.uniform(0.3, 1, n)
        ).astype(np.float32),
        crowd=rng.random(n) < 0.15,
        difficult=np.zeros(n, np.bool_),
        truncated=np.zeros(n, np.bool_),
        masks=tuple(masks),
        keypoints=keypoints,
    )
    found = Detections(
        boxes_xyxy=guesses,
        scores=rng.random(d).round(1).astype(np.float32),
        classes=kinds,
        masks=tuple(guessed_masks),
        keypoints=guessed_points,
    )
    return ScoredImage(key, HEIGHT, WIDTH, gt, found)


def sample_of(image: ScoredImage) -> Sample:
    return image_sample(
        key=image.key,
        image=b"",
        height=image.height,
        width=image.width,
        instances=image.ground_truth,
    )


def instances(
    boxes: list[list[float]],
    classes: list[int] | None = None,
    *,
    difficult: list[bool] | None = None,
    crowd: list[bool] | None = None,
) -> Instances:
    """Plain objects."""
    array = np.array(boxes, np.float32).reshape(-1, 4)
    n = len(array)
    return Instances(
        boxes_xyxy=array,
        classes=np.array(classes or [0] * n, np.int64),
        ids=np.arange(n),
        areas=np.prod(array[:, 2:] - array[:, :2], axis=1),
        crowd=np.array(crowd or [False] * n, np.bool_),
        difficult=np.array(difficult or [False] * n, np.bool_),
        truncated=np.zeros(n, np.bool_),
    )


def detections(
    boxes: list[list[float]], scores: list[float], classes: list[int] | None = None
) -> Detections:
    return Detections(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        classes=np.array(classes or [0] * len(scores), np.int64),
    )


def _boxes(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    corner = rng.uniform(0, [WIDTH * 0.7, HEIGHT * 0.7], (n, 2)).round(1)
    return np.concatenate(
        [corner, corner + np.exp(rng.uniform(1, 5.3, (n, 2))).round(1)], axis=1
    ).astype(np.float32)


def _mask(rng: np.random.Generator) -> bytes:
    y, x = int(rng.integers(0, HEIGHT - 8)), int(rng.integers(0, WIDTH - 8))
    h, w = int(rng.integers(3, HEIGHT - y)), int(rng.integers(3, WIDTH - x))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + h, x : x + w] = rng.random((h, w)) < 0.9
    return encode_rle(mask)
