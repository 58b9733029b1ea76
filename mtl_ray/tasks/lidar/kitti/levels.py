"""Which objects count in the KITTI metric, by class and level, and why the rest does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.lidar.kitti.columns import KittiColumns

COUNTS, IGNORED, NOT_OF_CLASS = 0, 1, -1
"""An object that must be found, or a detection that is right or wrong; one that costs nothing
either way; one that is not looked at.
"""


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """A level of difficulty.

    Attributes:
        name: in keys.
        height: pixels; objects that are not higher do not count, nor detections that are lower.
        occlusion, truncation: the most of an object that counts.
    """

    name: str
    height: float
    occlusion: int
    truncation: float


LEVELS = (
    Difficulty(name="easy", height=40, occlusion=0, truncation=0.15),
    Difficulty(name="moderate", height=25, occlusion=1, truncation=0.3),
    Difficulty(name="hard", height=25, occlusion=2, truncation=0.5),
)
MODERATE = 1

OVERLAPS = ("strict", "loose")
NEIGHBOURS = {"car": "van", "pedestrian": "person_sitting"}
"""Objects of these classes may be taken for the class: they cost nothing either way."""
_LARGE = frozenset({"car", "van", "truck", "tram", "bus", "vehicle", "trailer"})

Reason = Literal["low", "occluded", "truncated"]


def least_overlaps(name: str, kind: str) -> dict[str, float]:
    """The overlap that a match must exceed, by area. KITTI has rules for Car, Pedestrian and
    Cyclist; other vehicles follow the first, all else the other two.
    """
    large = name.lower() in _LARGE
    image = 0.7 if large else 0.5
    space = image if kind == "strict" else (0.5 if large else 0.25)
    return {"2D": image, "BEV": space, "3D": space}


def wanted_names(classes: Sequence[str]) -> frozenset[str]:
    """The names, in small letters, of objects that have a part in the metric of some classes."""
    names = {name.lower() for name in classes}
    return frozenset(names | {NEIGHBOURS[name] for name in names if name in NEIGHBOURS})


def object_states(gt: KittiColumns, name: str, level: Difficulty) -> NDArray[np.int64]:
    """(G,) ``COUNTS``, ``IGNORED`` or ``NOT_OF_CLASS`` of each object."""
    lower, own = gt.lower, name.lower()
    states = np.full(len(gt), NOT_OF_CLASS, np.int64)
    if own in NEIGHBOURS:
        states[lower == NEIGHBOURS[own]] = IGNORED
    mine = lower == own
    hard = (
        (gt.occlusion > level.occlusion)
        | (gt.truncation > level.truncation)
        | (gt.heights <= level.height)
    )
    states[mine] = np.where(hard[mine], IGNORED, COUNTS)
    return states


def detection_states(found: KittiColumns, name: str, level: Difficulty) -> NDArray[np.int64]:
    """(D,) the same of each detection. A low one is ignored whatever its class: as in the original
    it may still take an object, which then is not missing.
    """
    states = np.where(found.lower == name.lower(), COUNTS, NOT_OF_CLASS)
    states[np.abs(found.heights) < level.height] = IGNORED
    return states.astype(np.int64)


def count_line(gt: KittiColumns, name: str) -> str:
    """How many objects of a class count at each level, and why the others do not at moderate."""
    mine = gt.take(gt.lower == name.lower())
    counted = [
        f"{int((object_states(mine, name, level) == COUNTS).sum())} {level.name}"
        for level in LEVELS
    ]
    level = LEVELS[MODERATE]
    low = mine.heights <= level.height
    unseen = low & (mine.heights == 0)
    occluded = ~low & (mine.occlusion > level.occlusion)
    truncated = ~low & ~occluded & (mine.truncation > level.truncation)
    reasons = {
        "have no box in the image": unseen,
        f"are not higher than {level.height:g} pixels": low & ~unseen,
        f"are more than partly occluded (above {level.occlusion})": occluded,
        f"are cut off by more than {level.truncation:g}": truncated,
    }
    told = [f"{int(which.sum())} {reason}" for reason, which in reasons.items() if which.any()]
    line = f"KITTI {name}: {', '.join(counted)} of {len(mine)} objects count"
    if told:
        line += f"; at {level.name} {', '.join(told)}"
    neighbour = NEIGHBOURS.get(name.lower(), "")
    near = int((gt.lower == neighbour).sum()) if neighbour else 0
    if near:
        line += f"; {near} of the class {neighbour} cost nothing"
    most = int((object_states(mine, name, level) == COUNTS).sum())
    if 0 < most < 41:
        line += f"; so few that AP40 is at most {(most - 1) / 0.4:.1f} (see AP40exact)"
    return line
