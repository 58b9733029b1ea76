"""Recall of occluded and of separated objects, from stored predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.analysis.executor import Executor
from mtl_ray.analysis.paired import PICKLES, Likeness, Paired
from mtl_ray.annotations.instance_values import Instances
from mtl_ray.evaluation.metrics import hidden_objects, read_list, write_list
from mtl_ray.geometry.masks import decode_rle
from mtl_ray.tasks.detection.columns import ScoredImage
from mtl_ray.tasks.detection.occlusion import (
    HiddenObject,
    OcclusionCounts,
    OcclusionKind,
    OcclusionLists,
)

IMAGES_OF_A_TASK = 200
KINDS: tuple[OcclusionKind, OcclusionKind] = ("occluded", "separated")


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """The recall of the two lists.

    Attributes:
        recall: percent by list; NaN for a list without objects.
        found: found objects by list.
        looked_for: objects in the images of the data by list.
        elsewhere: objects in images that the data lacks; they do not count.
    """

    recall: Mapping[OcclusionKind, float]
    found: Mapping[OcclusionKind, int]
    looked_for: Mapping[OcclusionKind, int]
    elsewhere: int

    def to_json(self) -> dict[str, float | None]:
        """``occluded_recall`` and ``separated_recall`` in percent.

        None for a list without objects.
        """
        return {
            f"{kind}_recall": self.recall[kind] if self.looked_for[kind] else None for kind in KINDS
        }


def occlusion(
    paired: Paired,
    lists: OcclusionLists,
    *,
    kind: Likeness = "segm",
    score: float = 0.3,
    iou: float = 0.75,
) -> Occlusion:
    """Computes the recall of the objects of the lists.

    Args:
        paired: predictions and their images; in an image without detections nothing was found.
        lists: the occluded and the separated objects.
        kind: whether masks or boxes must overlap.
        score: detections with a lower score are ignored.
        iou: least overlap.
    """
    if kind == "bbox":
        paired = paired.without_masks()
    counts = OcclusionCounts(lists, paired.names, score_threshold=score, iou_threshold=iou)
    for image in paired.images:
        counts.update(paired.file_names[image.key], image.predicted)
    return Occlusion(
        recall={name: 100 * value for name, value in counts.recall().items()},
        found=counts.found,
        looked_for=counts.looked_for,
        elsewhere=sum(len(objects) for objects in lists.values()) - sum(counts.looked_for.values()),
    )


def read_hidden(uri: str) -> list[HiddenObject]:
    """A list of hidden objects: a pickle such as ``occluded_coco.pkl``, or JSON.

    Raises:
        FileNotFoundError, ValueError: if it cannot be read.
    """
    if not uri.endswith(PICKLES):
        return read_list(uri)
    from mtl_ray.pickles.unpickle import load_pickle

    return hidden_objects(uri, load_pickle(storage.read(uri)))


def lists_of(
    paired: Paired, occluded: str | None, separated: str | None, executor: Executor
) -> OcclusionLists:
    """The lists at two URIs; if none are given, they are derived from the annotated masks.

    Raises:
        FileNotFoundError, ValueError: if a list cannot be read, only one is given, or the data has
            no masks.
    """
    if occluded is not None and separated is not None:
        return {"occluded": read_hidden(occluded), "separated": read_hidden(separated)}
    if occluded is not None or separated is not None:
        raise ValueError("--occluded and --separated go together")
    return derive(paired, executor)


def derive(paired: Paired, executor: Executor) -> OcclusionLists:
    """The occluded and the separated objects among the annotated ones (see ``hidden_in``).

    Raises:
        ValueError: if the data has no masks.
    """
    if all(image.ground_truth.masks is None for image in paired.images):
        raise ValueError(
            "the data has no masks, by which occluded objects are told; give the lists with "
            "--occluded and --separated"
        )
    starts = range(0, len(paired.images), IMAGES_OF_A_TASK)
    parts = executor(
        partial(_hidden, paired.images, paired.file_names, paired.names),
        [(start, min(start + IMAGES_OF_A_TASK, len(paired.images))) for start in starts],
        "occlusion",
    )
    return {
        kind: [each for part in parts for found, each in part if found == kind] for kind in KINDS
    }


def _hidden(
    images: Sequence[ScoredImage],
    file_names: Mapping[str, str],
    names: Sequence[str],
    rows: tuple[int, int],
) -> list[tuple[OcclusionKind, HiddenObject]]:
    found: list[tuple[OcclusionKind, HiddenObject]] = []
    for image in images[slice(*rows)]:
        for place, kind in hidden_in(image.ground_truth, image.height, image.width).items():
            assert image.ground_truth.masks is not None
            x1, y1, x2, y2 = image.ground_truth.boxes_xyxy[place].tolist()
            each = HiddenObject(
                file_name=file_names[image.key],
                name=names[int(image.ground_truth.classes[place])],
                box_xyxy=(x1, y1, x2, y2),
                height=image.height,
                width=image.width,
                mask=image.ground_truth.masks[place],
            )
            found.append((kind, each))
    return found


def write_lists(folder: str, lists: OcclusionLists) -> list[str]:
    """Writes occluded.json and separated.json, for ``evaluate.occlusion`` of a config and for
    this tool; returns their URIs.
    """
    uris = [storage.join(folder, f"{kind}.json") for kind in KINDS]
    for kind, uri in zip(KINDS, uris, strict=True):
        write_list(uri, lists[kind])
    return uris


PIECE = 0.05
"""A part of a mask is a piece if it has at least this share of its pixels; less is a speck of the
annotation."""
COVERED = 0.05
"""An object is behind another one that covers at least this share of its convex hull."""
NEAR_PX = 3
"""Masks that are no farther apart touch: drawn outlines leave gaps."""


def hidden_in(gt: Instances, height: int, width: int) -> dict[int, OcclusionKind]:
    """Of the objects of one image those that are separated or occluded, by their place.

    An object is behind another one that touches it if that one covers more of its convex hull than
    it covers of the other's (the order that Zhan et al. 2020, "Self-Supervised Scene De-occlusion",
    compare with), and at least 5 %. It is separated if what is in front of it lies between two or
    more pieces of its mask, each of at least 5 % of it; occluded if its mask is one piece. Crowds
    and objects without a mask are neither.

    Args:
        gt: the objects; without masks none is hidden.
        height: of the image.
        width: the same.
    """
    if gt.masks is None or len(gt) < 2:
        return {}
    known = [i for i in range(len(gt)) if gt.masks[i] and not gt.crowd[i]]
    masks = {i: decode_rle(gt.masks[i], height, width) for i in known}
    hulls = {i: _hull(mask) for i, mask in masks.items() if mask.any()}
    found: dict[int, OcclusionKind] = {}
    for i in hulls:
        fronts = [j for j in hulls if j != i and _is_behind(masks[i], hulls[i], masks[j], hulls[j])]
        if not fronts:
            continue
        pieces = _pieces(masks[i])
        if len(pieces) < 2:
            found[i] = "occluded"
        elif any(
            sum(bool((piece & _grown(masks[j])).any()) for piece in pieces) > 1 for j in fronts
        ):
            found[i] = "separated"
    return found


def _is_behind(
    mask: NDArray[np.uint8],
    hull: NDArray[np.uint8],
    other: NDArray[np.uint8],
    other_hull: NDArray[np.uint8],
) -> bool:
    covered = int(np.count_nonzero(hull & other))
    if covered < COVERED * np.count_nonzero(hull) or covered <= np.count_nonzero(other_hull & mask):
        return False
    return bool((_grown(mask) & other).any())


def _hull(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The convex hull of a mask, filled."""
    filled = np.zeros_like(mask)
    cv2.fillConvexPoly(filled, cv2.convexHull(cv2.findNonZero(mask)), 1)
    return filled


def _grown(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = 2 * NEAR_PX + 1
    return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), np.uint8)


def _pieces(mask: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
    count, regions, sizes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    least = PIECE * np.count_nonzero(mask)
    return [
        regions == piece for piece in range(1, count) if sizes[piece, cv2.CC_STAT_AREA] >= least
    ]
