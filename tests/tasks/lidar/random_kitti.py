"""Frames as they come in KITTI: objects of all kinds, and detections of a middling detector."""

import numpy as np

from mtl_ray.tasks.lidar.kitti.columns import KittiColumns, KittiFrame, camera_boxes, columns

SIZES = {
    "Car": (1.5, 1.6, 3.9),
    "Van": (2.0, 1.9, 5.0),
    "Pedestrian": (1.75, 0.6, 0.8),
    "Person_sitting": (1.3, 0.6, 0.8),
    "Cyclist": (1.7, 0.6, 1.8),
    "Truck": (3.0, 2.5, 9.0),
    "DontCare": (1.5, 1.6, 3.9),
}
FOUND = ("Car", "Pedestrian", "Cyclist")


def random_frame(rng: np.random.Generator, most: int = 12, copies: float = 1.5) -> KittiFrame:
    """One frame with up to ``most`` objects and about ``copies`` detections of each."""
    count = int(rng.integers(0, most))
    names = rng.choice(list(SIZES), count, p=[0.4, 0.1, 0.15, 0.07, 0.12, 0.06, 0.1])
    gt, image, location = _objects(rng, names)
    of_object = np.repeat(np.arange(count), rng.poisson(copies, count))
    noise = rng.choice([0.02, 0.08, 0.3], len(of_object))
    spread = noise[:, None]
    hwl = np.array([SIZES[name] for name in names[of_object]]).reshape(-1, 3)
    hwl = hwl * rng.uniform(1 - spread / 2, 1 + spread / 2)
    turn = -gt.boxes[of_object, 6] + rng.normal(0, noise)
    turn += np.pi * (rng.random(len(of_object)) < 0.2)
    place = location[of_object] + rng.normal(0, spread, (len(of_object), 3))
    guessed = [
        name if name in FOUND and rng.random() < 0.9 else str(rng.choice(FOUND))
        for name in names[of_object]
    ]
    boxes_2d = image[of_object] + rng.normal(0, 1 + 8 * spread, (len(of_object), 4))
    boxes_2d[:, :2] = np.minimum(boxes_2d[:, :2], boxes_2d[:, 2:] - 1)
    found = columns(
        guessed,
        camera_boxes(place, hwl, turn),
        boxes_2d=boxes_2d,
        alpha=turn - np.arctan2(place[:, 0], place[:, 2]),
        scores=rng.random(len(of_object)).round(2),  # equal ones occur
    )
    return KittiFrame(gt=gt, found=found)


def _objects(
    rng: np.random.Generator, names: np.ndarray
) -> tuple[KittiColumns, np.ndarray, np.ndarray]:
    count = len(names)
    hwl = np.array([SIZES[name] for name in names]).reshape(-1, 3) * rng.uniform(0.9, 1.1)
    depth = rng.uniform(5, 55, count)
    location = np.column_stack([rng.uniform(-0.5, 0.5, count) * depth, np.full(count, 1.7), depth])
    height = 720 * hwl[:, 0] / depth
    middle = np.column_stack([600 + 720 * location[:, 0] / depth, 180 + 500 / depth])
    half = np.column_stack([height * rng.uniform(0.4, 1, count), height / 2])
    image = np.concatenate([middle - half, middle + half], axis=1)
    rotation = rng.uniform(-np.pi, np.pi, count)
    gt = columns(
        list(names),
        camera_boxes(location, hwl, rotation),
        boxes_2d=image,
        alpha=rotation - np.arctan2(location[:, 0], depth),
        truncation=rng.choice([0, 0, 0.1, 0.2, 0.4, 0.7], count),
        occlusion=rng.choice([0, 0, 1, 2, 3], count),
    )
    return gt, image, location
