"""TIDE: how much average precision each kind of error costs a detector (Bolya et al. 2020,
https://arxiv.org/abs/2008.08115).
"""

from collections.abc import Collection
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.paired import Likeness, Paired
from mtl_ray.tasks.detection.coco import coco_detections, coco_ground_truth, ground_truth_masks
from mtl_ray.tasks.detection.columns import detection_columns, object_columns

POSITIVE, BACKGROUND = 0.5, 0.1
"""IoU from which a detection has found an object, and up to which it lies on background."""
SIX = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")


def tide(paired: Paired, kind: Likeness = "bbox") -> dict[str, Any]:
    """The errors at IoU 0.5, background below 0.1: their number, and the AP50 that fixing each kind
    would add.

    Like the authors' program, with two differences. AP is the mean over the classes with objects,
    like COCO's; theirs includes a zero for each other class with a detection. A detection on a
    crowd is not an error; theirs counts it, without effect on AP.

    Returns:
        ``ap`` in [0, 1]; ``delta_ap`` of Cls (class), Loc (place), Both, Dupe (found twice), Bkg
        (background), Miss, FP and FN (all wrong
        ones, all missed ones); ``counts`` of the first six; ``shares`` of these six in the sum of
        what fixing each one adds.
    """
    objects, found = object_columns(paired.images), detection_columns(paired.images)
    masks = ground_truth_masks(paired.images) if kind == "segm" else None
    wanted = (
        ~objects.optional
        if masks is None
        else ~objects.optional & np.array([bool(mask) for mask in masks], np.bool_)
    )
    gt = coco_ground_truth(paired.images, objects, len(paired.names), masks)
    evaluator = hotcoco.COCOeval(gt, coco_detections(gt, paired.images, kind), kind)
    evaluator.evaluate()
    told = evaluator.tide_errors(pos_thr=POSITIVE, bg_thr=BACKGROUND)
    ap, delta = told["ap_base"], dict(told["delta_ap"])

    # When fixed, missed objects no longer count as objects to find. A class that then has neither
    # objects nor detections has no AP; hotcoco leaves it in the mean, with 0.
    classes = set(objects.classes[wanted].tolist())
    silent = classes - set(found.classes.tolist())
    images = np.unique(objects.image[wanted & np.isin(objects.classes, list(silent))])
    missed = silent - {
        label
        for image in images.tolist()
        for label in _mistaken(evaluator, image + 1, kind, silent)
    }
    for name, gone in (("Miss", missed), ("FN", silent)):
        left = len(classes) - len(gone)
        delta[name] = (
            ((ap + delta[name]) * len(classes) / left if left else 1.0) - ap if classes else 0.0
        )

    total = sum(delta[name] for name in SIX)
    shares = {name: delta[name] / total if total else 0.0 for name in SIX}
    return {"ap": ap, "delta_ap": delta, "counts": dict(told["counts"]), "shares": shares}


def _mistaken(
    evaluator: hotcoco.COCOeval, image: int, kind: Likeness, silent: Collection[int]
) -> set[int]:
    """Those of some classes without detections of which an object of this image has been taken
    for one of another class.
    """
    gt, found = (
        each.load_anns(each.get_ann_ids(img_ids=[image]))
        for each in (evaluator.coco_gt, evaluator.coco_dt)
    )
    wanted = [each for each in gt if not each["iscrowd"]]
    found.sort(key=lambda each: -each["score"])
    if not found:
        return set()
    shape = "bbox" if kind == "bbox" else "segmentation"
    iou = np.asarray(
        hotcoco.mask.iou(
            [each[shape] for each in found], [each[shape] for each in wanted], [0] * len(wanted)
        )
    )
    same = np.array(
        [[one["category_id"] == other["category_id"] for other in wanted] for one in found]
    )
    near, others = (iou * same).max(axis=1), iou * ~same
    wrong = (
        ~_matched(iou * same)
        & ((near < BACKGROUND) | (near > POSITIVE))
        & (others.max(axis=1) >= POSITIVE)
    )
    return {wanted[place]["category_id"] - 1 for place in others.argmax(axis=1)[wrong]} & set(
        silent
    )


def _matched(iou: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of D detections (D, N), the best first, find an object that none before them has
    found.
    """
    left, matched = iou.copy(), np.zeros(len(iou), np.bool_)
    for row in range(len(iou)):
        place = left[row].argmax()
        if left[row, place] >= POSITIVE:
            matched[row] = True
            left[:, place] = 0
    return matched
