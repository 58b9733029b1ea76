"""The labels of Cityscapes (Cordts et al. 2016, https://www.cityscapes-dataset.com): their ids, and the classes that are evaluated."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mtl_ray.samples import IGNORE_INDEX

IDS: Mapping[str, int] = {
    name: number
    for number, name in enumerate(
        (
            *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road", "sidewalk"),
            *("parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole", "polegroup"),
            *("traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "caravan"),
            *("trailer", "train", "motorcycle", "bicycle", "license plate"),
        )
    )
} | {"license plate": -1}
"""The id of every label that an annotator could choose."""
FIRST_THING = IDS["person"]
"""From here on, objects are told apart."""

_NOT_EVALUATED = frozenset((*range(7), 9, 10, 14, 15, 16, 18, 29, 30, -1))
SEMANTIC: tuple[str, ...] = tuple(name for name, number in IDS.items() if number not in _NOT_EVALUATED)
"""The 19 classes by train id."""
THINGS: tuple[str, ...] = tuple(name for name in SEMANTIC if IDS[name] >= FIRST_THING)
"""The eight classes of objects."""
COLOURS: tuple[tuple[int, int, int], ...] = (
    *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30)),
    *((220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70)),
    *((0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
)
"""Of the 19 classes."""


def train_ids(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The train ids of label ids, ``IGNORE_INDEX`` where a label is not evaluated; of any shape."""
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[[IDS[name] for name in SEMANTIC]] = np.arange(len(SEMANTIC))
    return table[np.clip(ids, 0, 255)]


def label_ids(instances: NDArray[np.int32]) -> NDArray[np.int32]:
    """The label ids of a map of instances: 26 of a group of cars (26) as of the fourth car (26003)."""
    return np.where(instances >= 1000, instances // 1000, instances).astype(np.int32)
