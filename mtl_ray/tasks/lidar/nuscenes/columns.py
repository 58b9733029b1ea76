"""Objects and detections in the form in which the nuScenes metric reads them, and which count."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

RANGES = {
    "car": 50.0,
    "truck": 50.0,
    "bus": 50.0,
    "trailer": 50.0,
    "construction_vehicle": 50.0,
    "pedestrian": 40.0,
    "motorcycle": 40.0,
    "bicycle": 40.0,
    "cyclist": 40.0,
    "traffic_cone": 30.0,
    "barrier": 30.0,
}
"""Metres from the vehicle within which objects of a class count."""
OTHER_RANGE = 50.0
MOST_BOXES = 500
"""Detections of one sample."""
RACKED = ("bicycle", "motorcycle")
"""Classes that do not count in a bicycle rack."""
FAR, EMPTY, IN_RACK = 1, 2, 3
REASONS = {
    FAR: "are beyond the range",
    EMPTY: "have no point",
    IN_RACK: "are in a bicycle rack",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Racks:
    """R bicycle racks of one sample.

    Attributes:
        centres: (R, 3).
        rotations: (R, 3, 3), from the frame of the rack, whose first axis is its length.
        sizes: (R, 3) length, width, height.
    """

    centres: NDArray[np.float64]
    rotations: NDArray[np.float64]
    sizes: NDArray[np.float64]

    def hold(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(N,) whether each of (N, 3) points is in a rack."""
        apart = points[:, None] - self.centres  # (N, R, 3)
        inside = np.abs(np.einsum("nri,rij->nrj", apart, self.rotations)) <= self.sizes / 2
        return np.asarray(inside.all(axis=2).any(axis=1))


@dataclass(frozen=True, kw_only=True, eq=False)
class NuscenesColumns:
    """N objects or detections as parallel arrays.

    Attributes:
        classes: (N,) int64 index of the class.
        centres: (N, 3) float64 metres, in a frame that is level.
        sizes: (N, 3) length, width, height, above 0.
        yaw: (N,) radians.
        velocity: (N, 2) metres per second; NaN where it is not known.
        attributes: (N,) names; "" where there is none.
        scores: (N,); 0 for objects.
        state: (N,) int64, 0 for what counts, else a key of ``REASONS``.
        frames: (N,) int64 number of the sample, ascending; 0 of one sample.
    """

    classes: NDArray[np.int64]
    centres: NDArray[np.float64]
    sizes: NDArray[np.float64]
    yaw: NDArray[np.float64]
    velocity: NDArray[np.float64]
    attributes: NDArray[np.str_]
    scores: NDArray[np.float64]
    state: NDArray[np.int64]
    frames: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> "NuscenesColumns":
        """Some of them."""
        return NuscenesColumns(
            **{each.name: getattr(self, each.name)[which] for each in fields(self)}
        )

    def judged(
        self,
        names: Sequence[str],
        vehicle: NDArray[np.float64] | None,
        racks: Racks,
        num_points: NDArray[np.int64] | None = None,
    ) -> "NuscenesColumns":
        """With the state by the rules of the metric, of one sample.

        Args:
            names: of the classes.
            vehicle: (3,) its place; None if no object is too far away from it.
            racks: of the sample.
            num_points: (N,) in each box; 0 does not count, -1 is not known.
        """
        racked = np.array([name.lower() in RACKED for name in names], np.bool_)
        state = np.zeros(len(self), np.int64)
        state[racked[self.classes] & racks.hold(self.centres)] = IN_RACK
        if num_points is not None:
            state[num_points == 0] = EMPTY
        if vehicle is not None:
            apart = self.centres[:, :2] - vehicle[:2]
            ranges = np.array([RANGES.get(name.lower(), OTHER_RANGE) for name in names])
            state[~(np.sqrt((apart**2).sum(axis=1)) < ranges[self.classes])] = FAR
        return replace(self, state=state)

    def renumbered(self, numbers: NDArray[np.int64]) -> "NuscenesColumns":
        """With ``numbers[class]`` for each class."""
        return replace(self, classes=numbers[self.classes])


@dataclass(frozen=True, kw_only=True, eq=False)
class NuscenesFrame:
    """One sample."""

    gt: NuscenesColumns
    found: NuscenesColumns


def join_nuscenes(frames: Sequence[NuscenesColumns]) -> NuscenesColumns:
    """Those of all samples, with the number of the sample."""
    if not frames:
        empty = np.zeros(0)
        return NuscenesColumns(
            classes=empty.astype(np.int64),
            centres=np.zeros((0, 3)),
            sizes=np.zeros((0, 3)),
            yaw=empty,
            velocity=np.zeros((0, 2)),
            attributes=np.zeros(0, np.str_),
            scores=empty,
            state=empty.astype(np.int64),
            frames=empty.astype(np.int64),
        )
    joined = {
        each.name: np.concatenate([getattr(frame, each.name) for frame in frames])
        for each in fields(NuscenesColumns)
    }
    counts = [len(frame) for frame in frames]
    return replace(NuscenesColumns(**joined), frames=np.repeat(np.arange(len(frames)), counts))


def nuscenes_count_line(gt: NuscenesColumns, place: int, name: str) -> str:
    """How many objects of a class count, and why the others do not."""
    mine = gt.state[gt.classes == place]
    told = [
        f"{int((mine == state).sum())} {reason}"
        for state, reason in REASONS.items()
        if (mine == state).any()
    ]
    line = f"nuScenes {name}: {int((mine == 0).sum())} of {len(mine)} objects count"
    return f"{line}; {', '.join(told)}" if told else line
