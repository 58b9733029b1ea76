"""Recall of occluded and of separated objects (Zhan et al. 2022, "A Tri-Layer Plugin to Improve
Occluded Detection").

An occluded object is partly behind another one and in one piece; a separated one is cut into
pieces. Two lists name such objects. A listed object counts as found if a detection of its class
reaches the score threshold and the IoU threshold of masks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import hotcoco.mask as rle
import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.boxes import iou_matrix
from mtl_ray.tasks.detection.decode import Detections

OcclusionKind = Literal["occluded", "separated"]


@dataclass(frozen=True, kw_only=True)
class HiddenObject:
    """One object of a list.

    Attributes:
        file_name: of its image.
        name: of its class.
        box_xyxy: pixels.
        height: of its image.
        width: of its image.
        mask: COCO run-length encoding of this size.
    """

    file_name: str
    name: str
    box_xyxy: tuple[float, float, float, float]
    height: int
    width: int
    mask: bytes


OcclusionLists = Mapping[OcclusionKind, Sequence[HiddenObject]]


class OcclusionCounts:
    """The numbers of listed and of found objects; counts of different images can be merged.

    Args:
        lists: the objects.
        names: of the classes of the detections.
        score_threshold: detections with a lower score are ignored.
        iou_threshold: least IoU of masks, or of boxes if the detections have no masks.
    """

    def __init__(
        self,
        lists: OcclusionLists,
        names: Sequence[str],
        *,
        score_threshold: float = 0.3,
        iou_threshold: float = 0.75,
    ) -> None:
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.looked_for: dict[OcclusionKind, int] = dict.fromkeys(lists, 0)
        self.found: dict[OcclusionKind, int] = dict.fromkeys(lists, 0)
        self._class_of = {name: place for place, name in enumerate(names)}
        self._of_image: dict[str, list[tuple[OcclusionKind, HiddenObject]]] = {}
        for kind, objects in lists.items():
            for each in objects:
                self._of_image.setdefault(each.file_name, []).append((kind, each))

    def update(self, file_name: str, predicted: Detections) -> None:
        """Counts the objects of one image, which the lists name by its whole name or the last part
        of it.
        """
        shown = predicted.scores >= self.score_threshold
        name = file_name if file_name in self._of_image else file_name.rpartition("/")[2]
        for kind, each in self._of_image.get(name, []):
            mine = np.flatnonzero(shown & (predicted.classes == self._class_of.get(each.name, -1)))
            self.looked_for[kind] += 1
            self.found[kind] += int(
                len(mine) > 0 and (_overlap(each, predicted, mine) >= self.iou_threshold).any()
            )

    def merge(self, other: Self) -> None:
        """Adds the counts of other images."""
        for kind in self.looked_for:
            self.looked_for[kind] += other.looked_for[kind]
            self.found[kind] += other.found[kind]

    def recall(self) -> dict[OcclusionKind, float]:
        """The share of found objects, NaN without a listed object."""
        return {
            kind: self.found[kind] / count if count else float("nan")
            for kind, count in self.looked_for.items()
        }


def _overlap(
    wanted: HiddenObject, predicted: Detections, mine: NDArray[np.int64]
) -> NDArray[np.float64]:
    """IoU of some detections with the object."""
    if predicted.masks is None:
        return iou_matrix(predicted.boxes_xyxy[mine], np.array([wanted.box_xyxy], np.float64))[:, 0]
    size = [wanted.height, wanted.width]
    masks: list[dict[str, Any]] = [{"size": size, "counts": predicted.masks[i]} for i in mine]
    return np.asarray(rle.iou(masks, [{"size": size, "counts": wanted.mask}], [False]), np.float64)[
        :, 0
    ]
