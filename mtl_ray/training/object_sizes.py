"""The sizes of the objects of a training split on the network's canvas, compared with the anchors
of its heads.
"""

import logging
import time
from collections.abc import Mapping

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
LEAST = 0.7
"""A box whose sides are less than 0.7 of an anchor's covers less than half of it."""
FEWEST, MOST_NAMED = 5, 4
"""Fewest objects of a class whose median is compared, and most classes that the line names."""
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
        own = {
            each: found
            for each, found in sizes.items()
            if head.classes is None or each in head.classes
        }
        if any(map(len, own.values())):
            _log.warning("%s", note(name, head, own, canvas))


def object_sizes(config: ExperimentConfig, rule: Canvas) -> dict[str, NDArray[np.float64]]:
    """Square roots of the areas of some objects of the training split on the canvas, in pixels, by
    class; no image is read, crowds are left out.
    """
    uri = config.data.train.uri
    until = time.monotonic() + MOST_SECONDS
    found: dict[str, list[NDArray[np.float64]]] = {}
    for each in (uri,) if isinstance(uri, str) else uri:
        split = open_split(each)
        most = MOST_REMOTE_BLOCKS if storage.is_remote(each) else MOST_BLOCKS
        order = np.random.default_rng(config.runtime.seed).permutation(len(split.block_rows))[:most]
        if (names := split.vocabulary.classes.get("instances")) is None:
            continue
        for block in split.scan_boxes(sorted(order.tolist())):
            image = np.repeat(np.arange(len(block.sizes)), block.counts)
            boxes = block.boxes_xyxy.astype(np.float64)
            sides = sides_on_canvas(boxes, image, block.sizes, rule)  # (N, 2) canvas px
            counted = ~block.crowd & (sides > 0).all(axis=1)
            for index in np.unique(block.classes[counted]):
                of_class = sides[counted & (block.classes == index)]
                found.setdefault(names[index], []).append(np.sqrt(of_class.prod(axis=1)))
            if time.monotonic() > until:
                break
    return {each: np.concatenate(parts) for each, parts in found.items()}


def note(
    name: str, head: AnchoredHead, sizes: Mapping[str, NDArray[np.float64]], canvas: Canvas
) -> str:
    """The line of a head: sizes of objects (by class, canvas pixels) and anchors, and what to try
    where they do not match.
    """
    low, median, high = np.percentile(np.concatenate(list(sizes.values())), [10, 50, 90])
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
    medians = {
        each: float(np.median(found)) for each, found in sizes.items() if len(found) >= FEWEST
    }
    small = sorted((size, each) for each, size in medians.items() if size < LEAST * smallest)
    if not small:
        return summary
    words = [f"{each} (median {size:.0f} px)" for size, each in small[:MOST_NAMED]]
    more = f" and {len(small) - MOST_NAMED} more classes" * (len(small) > MOST_NAMED)
    return (
        f"{summary}; far below the smallest anchor: {', '.join(words)}{more}; try {fit}, a larger "
        "data.canvas"
    )
