"""Objects and detections in the form in which the KITTI metric reads them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

DONT_CARE = "DontCare"


@dataclass(frozen=True, kw_only=True, eq=False)
class KittiColumns:
    """N objects or detections as parallel arrays.

    Attributes:
        names: (N,) names of classes as the source has them.
        boxes: (N, 7) float64 in a frame whose third axis points up: x, y, z of the centre, length,
            width, height, yaw. Of KITTI this is x, z, -y of the rectified frame of camera 0.
        boxes_2d: (N, 4) float64 xyxy pixels; NaN where the data has no image.
        alpha: (N,) observation angle in radians; -10 or NaN where it is not known.
        truncation: (N,) share outside the image.
        occlusion: (N,) int64, 0 visible to 3 unknown.
        scores: (N,); 0 for objects.
        frames: (N,) int64 number of the frame, ascending; 0 of one frame.
    """

    names: NDArray[np.str_]
    boxes: NDArray[np.float64]
    boxes_2d: NDArray[np.float64]
    alpha: NDArray[np.float64]
    truncation: NDArray[np.float64]
    occlusion: NDArray[np.int64]
    scores: NDArray[np.float64]
    frames: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lower(self) -> NDArray[np.str_]:
        """The names in small letters: classes are compared so."""
        return np.char.lower(self.names)

    @property
    def heights(self) -> NDArray[np.float64]:
        """(N,) pixels; without end where there is no image, so that no rule about it applies."""
        height = self.boxes_2d[:, 3] - self.boxes_2d[:, 1]
        return np.where(np.isnan(height), np.inf, height)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> "KittiColumns":
        """Some of them."""
        return KittiColumns(**{each.name: getattr(self, each.name)[which] for each in fields(self)})


@dataclass(frozen=True, kw_only=True, eq=False)
class KittiFrame:
    """One frame: its objects, and regions ``DontCare``, and what was detected."""

    gt: KittiColumns
    found: KittiColumns


def columns(
    names: Sequence[str],
    boxes: NDArray[np.floating],
    *,
    boxes_2d: NDArray[np.floating] | None = None,
    alpha: NDArray[np.floating] | None = None,
    truncation: NDArray[np.floating] | None = None,
    occlusion: NDArray[np.integer] | None = None,
    scores: NDArray[np.floating] | None = None,
) -> KittiColumns:
    """Of one frame; what is not given is not known."""
    count = len(names)
    return KittiColumns(
        names=np.array(names, np.str_).reshape(count),
        boxes=np.asarray(boxes, np.float64).reshape(-1, 7),
        boxes_2d=np.full((count, 4), np.nan)
        if boxes_2d is None
        else np.asarray(boxes_2d, np.float64).reshape(-1, 4),
        alpha=np.full(count, np.nan) if alpha is None else np.asarray(alpha, np.float64),
        truncation=np.zeros(count) if truncation is None else np.asarray(truncation, np.float64),
        occlusion=np.zeros(count, np.int64)
        if occlusion is None
        else np.asarray(occlusion, np.int64),
        scores=np.zeros(count) if scores is None else np.asarray(scores, np.float64),
        frames=np.zeros(count, np.int64),
    )


def join_kitti(frames: Sequence[KittiColumns]) -> KittiColumns:
    """Those of all frames, with the number of the frame."""
    if not frames:
        return columns((), np.zeros((0, 7)))
    joined = {
        each.name: np.concatenate([getattr(frame, each.name) for frame in frames])
        for each in fields(KittiColumns)
    }
    counts = [len(frame) for frame in frames]
    return replace(KittiColumns(**joined), frames=np.repeat(np.arange(len(frames)), counts))


def camera_boxes(
    location: NDArray[np.floating], hwl: NDArray[np.floating], rotation_y: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(N, 7) ``KittiColumns.boxes`` of boxes as KITTI states them: bottom centre in the frame
    of a camera (x right, y down, z front), height, width, length, rotation around y.
    """
    place, sizes = np.asarray(location, np.float64), np.asarray(hwl, np.float64)
    return np.column_stack(
        [
            place[:, 0],
            place[:, 2],
            sizes[:, 0] / 2 - place[:, 1],
            sizes[:, 2],
            sizes[:, 1],
            sizes[:, 0],
            -np.asarray(rotation_y, np.float64),
        ]
    )
