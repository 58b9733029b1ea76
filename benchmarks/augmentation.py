"""The time of flip, crop, colour and placement of one annotated image, beside torchvision's
transforms v2.

    python -m benchmarks.augmentation [--rounds 5]

Both get a decoded image with five boxes and a class map, and give them at the size of the canvas.
They take turns within one run, with one thread a library; what counts is CPU time.
"""

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from mtl_ray.annotations.instance_values import Objects
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.annotations.semantic import SEMANTIC
from mtl_ray.inputs.frame import place, place_map
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.augment import augmented
from mtl_ray.loading.config import Colour, Flip, RandomCrop
from mtl_ray.loading.scene import Scene

CHANGES = (Flip(), RandomCrop(), Colour())
REPEATS = 40


def main(argv: list[str] | None = None) -> int:
    """Prints the milliseconds of both and their ratio, for three sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    for height, width in ((32, 32), (128, 128), (480, 640)):
        scene = scene_of_size(height, width)
        here, there = ours(scene), torchvisions(scene)
        rounds = [(cost_ms(here), cost_ms(there)) for _ in range(options.rounds)]
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        ratio = statistics.median(theirs / own for own, theirs in rounds)
        print(
            f"{height} x {width}: {medians[0]:.2f} ms here, {medians[1]:.2f} ms with transforms "
            f"v2: {ratio:.0f} times as fast"
        )
    return 0


def scene_of_size(height: int, width: int) -> Scene:
    numbers = np.random.default_rng(0)
    corners = np.sort(numbers.random((5, 2, 2)), axis=1) * np.array([width, height])
    objects = Objects(
        boxes_xyxy=corners.reshape(5, 4).astype(np.float32),
        classes=np.arange(5),
        crowd=np.zeros(5, np.bool_),
    )
    image = numbers.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Scene(
        raw=image, parts={INSTANCES: objects, SEMANTIC: image[..., 0] // 32}, known_classes={}
    )


def ours(scene: Scene) -> Callable[[int], None]:
    rule = Canvas(kind="stretch", height=scene.hw[0], width=scene.hw[1])

    def run(seed: int) -> None:
        changed = augmented(scene, CHANGES, random.Random(seed), lambda start, stop: [], rule)
        assert changed.part("instances") is not None
        assert changed.part("semantic") is not None
        _, frame = place(changed.image, rule)
        place_map(changed.part("semantic"), frame, 255)
        frame.boxes_to_canvas(changed.part("instances").boxes_xyxy)

    return run


def torchvisions(scene: Scene) -> Callable[[int], None]:
    assert scene.part("instances") is not None
    transforms = v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomResizedCrop(scene.hw, scale=(0.3, 1.0), antialias=True),
            v2.ColorJitter(0.3, 0.3, 0.3, 0.02),
            v2.SanitizeBoundingBoxes(labels_getter=None),
        ]
    )
    inputs = {
        "image": tv_tensors.Image(torch.from_numpy(scene.image).permute(2, 0, 1).contiguous()),
        "boxes": tv_tensors.BoundingBoxes(
            torch.from_numpy(scene.part("instances").boxes_xyxy),
            format="XYXY",
            canvas_size=scene.hw,
        ),
        "mask": tv_tensors.Mask(torch.from_numpy(scene.part("semantic"))),
    }
    return lambda seed: transforms(inputs)


def cost_ms(run: Callable[[int], None]) -> float:
    before = time.process_time()
    for seed in range(REPEATS):
        run(seed)
    return (time.process_time() - before) / REPEATS * 1000


if __name__ == "__main__":
    raise SystemExit(main())
