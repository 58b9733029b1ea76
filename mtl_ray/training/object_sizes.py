"""The sizes of the objects of a training split on the network's canvas, compared with the anchors
of its heads.
"""

import logging
import time

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.inputs.frame import sides_on_canvas
from mtl_ray.inputs.image import Canvas
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.detection.options import FITTING_STRIDES, AnchoredHead, anchored_head, stride_of

MOST_BLOCKS, MOST_REMOTE_BLOCKS = 16, 1
"""Blocks that are read of each split, drawn by the seed; fewer in a bucket, where each must be
downloaded."""
MOST_SECONDS = 2.0
FAR = 2.0
"""A head reaches objects of four times its anchors, and learns those of up to twice easily."""
_log = logging.getLogger(__name__)


def log_object_sizes(config: ExperimentConfig) -> None:
    """Logs a line for each detection head; an unreadable split does not end the training here."""
    heads = {
        name: head
        for name, each in config.model.heads.items()
        if (head := anchored_head(each)) is not None
    }
    canvas = config.data.canvas
    if not heads or not isinstance(canvas, Canvas):
        return
    try:
        sizes = object_sizes(config, canvas)
    except Exception as error:  # the loader reports what is wrong with a split
        _log.warning("the sizes of objects could not be read: %s", error)
        return
    for name, head in heads.items():
        if len(sizes):
            _log.warning("%s", note(name, head, sizes, canvas))


def object_sizes(config: ExperimentConfig, rule: Canvas) -> NDArray[np.float64]:
    """Square roots of the areas of some objects of the training split on the canvas, in pixels; no
    image is read, crowds are left out.
    """
    uri = config.data.train.uri
    until = time.monotonic() + MOST_SECONDS
    found: list[NDArray[np.float64]] = [np.zeros(0)]
    for each in (uri,) if isinstance(uri, str) else uri:
        split = open_split(each)
        most = MOST_REMOTE_BLOCKS if storage.is_remote(each) else MOST_BLOCKS
        order = np.random.default_rng(config.runtime.seed).permutation(len(split.block_rows))[:most]
        for sizes, counts, boxes_xyxy, crowd in split.scan_boxes(sorted(order.tolist())):
            image = np.repeat(np.arange(len(sizes)), counts)[~crowd]
            sides = sides_on_canvas(boxes_xyxy[~crowd].astype(np.float64), image, sizes, rule)
            found.append(np.sqrt(sides[(sides > 0).all(axis=1)].prod(axis=1)))
            if time.monotonic() > until:
                break
    return np.concatenate(found)


def note(name: str, head: AnchoredHead, sizes: NDArray[np.float64], canvas: Canvas) -> str:
    """The line of a head: sizes of objects and anchors, and what to try where they do not match."""
    low, median, high = np.percentile(sizes, [10, 50, 90])
    smallest, largest = head.anchor_sides()
    finest = min(head.levels, key=stride_of)
    summary = (
        f"{name}: the median object has {median:.0f} px on this canvas of "
        f"{canvas.width}x{canvas.height}"
        f" (80 % have {low:.0f} to {high:.0f}), the anchors have {smallest:.0f} to {largest:.0f}"
    )
    fit = head.anchor_advice(name)
    if median < FITTING_STRIDES[0] * stride_of(finest):
        return (
            f"{summary}: below {FITTING_STRIDES[0]:g} cells of {finest}, the finest level; try "
            f"a larger data.canvas, a finer level, {fit}"
        )
    if median < smallest:
        return f"{summary}: below the smallest anchor; try {fit}, a larger data.canvas"
    if median > FAR * largest:
        return (
            f"{summary}: more than {FAR:g} times the largest anchor; try "
            f"{fit.replace('smaller', 'larger')}, a smaller data.canvas"
        )
    return summary
