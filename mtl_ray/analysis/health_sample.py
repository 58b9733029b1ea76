"""Checks one sample: its image or cloud, boxes, labels and map.

Problems are reported, nothing is changed.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.health import SHAPE_OCTAVES, SIDE_OCTAVES, Health, Identity, in_octaves
from mtl_ray.analysis.health_clouds import (
    MOST_NUMBERS,
    CloudNetwork,
    encoded_cloud,
    look_at_cloud,
)
from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.annotations.boxes_3d import BOXES_3D
from mtl_ray.annotations.instance_values import Instances
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.annotations.labels import LABELS
from mtl_ray.annotations.semantic import SEMANTIC
from mtl_ray.inputs.decode import decode_image, decode_semantic
from mtl_ray.inputs.input import Input
from mtl_ray.inputs.point_cloud import EncodedPoints
from mtl_ray.inputs.points import POINTS
from mtl_ray.layout import ANNOTATIONS, Layout
from mtl_ray.samples import IGNORE_INDEX, Annotation, Sample

BEYOND_PX = 1.0
"""How far a box may reach beyond the edge of its image."""
LONGEST = 30.0
"""Aspect ratio from which a box is reported."""


def look_at(
    sample: Sample, row: int, health: Health, layout: Layout, network: CloudNetwork | None = None
) -> None:
    """Counts the sample of a row; if ``image`` is empty, the image is missing. Clouds are compared
    with a network.

    Inputs and kinds of annotation of plugins are checked by their own ``decode`` and ``check``.
    """
    health.samples += 1
    health.findings.images += 1
    health.findings.annotated += sample.annotated
    health.annotated.update(kind for kind in health.images if kind in sample.annotations)
    size = sample.image_size
    if (encoded := encoded_cloud(sample.inputs)) is not None:
        health.findings.noun = POINTS.noun
        identity = _cloud(sample, encoded, row, health, network)
    elif size:
        identity = _picture(sample, row, health)
    else:
        health.findings.noun = layout.inputs[0].noun
        identity, size = _data(sample, row, health, layout.inputs[0])
    health.identities.append(identity)
    if sample.labels is not None and LABELS.name in health.images:
        _classes(sample, sample.labels, LABELS.name, health)
    if sample.instances is not None and INSTANCES.name in health.images:
        _objects(sample, sample.instances, health)
    if sample.semantic is not None and SEMANTIC.name in health.images:
        _map(sample, sample.semantic, health)
    for kind in layout.annotations:
        if kind not in ANNOTATIONS and kind.name in sample.annotations:
            _annotation(sample, kind, size, health)


def _data(
    sample: Sample, row: int, health: Health, kind: Input[Any, Any, Any, Any]
) -> tuple[Identity, Mapping[str, int]]:
    """The input of a plugin, and the size that annotations are compared with."""
    encoded = sample.inputs.get(kind.name)
    if encoded is None:
        health.report(f"missing {kind.noun}", sample.key)
        return Identity(sample.key, row, None, None), {}
    content = hashlib.blake2b(digest_size=16)
    for value in kind.to_features(encoded).values():
        content.update(value.tobytes() if isinstance(value, np.ndarray) else b"".join(value))
    size: Mapping[str, int] = {}
    try:
        size = kind.size(kind.decode(encoded, MOST_NUMBERS))
    except ValueError as error:
        health.report(f"damaged {kind.noun}", sample.key, str(error))
    return Identity(sample.key, row, content.digest(), None), size


def _annotation(
    sample: Sample, kind: AnnotationKind[Any, Any], size: Mapping[str, int], health: Health
) -> None:
    """The annotation of a kind of a plugin."""
    value = sample.annotations[kind.name]
    try:
        kind.check(value, size)
        counts = kind.count(value)
    except ValueError as error:
        health.report(f"damaged {kind.name}", sample.key, str(error))
        return
    if len(health.images.get(kind.name, ())):
        _classes(sample, kind.classes(value), kind.name, health)
    else:
        health.findings.annotations += kind.num_annotations(value, counts)


def _cloud(
    sample: Sample,
    encoded: EncodedPoints,
    row: int,
    health: Health,
    network: CloudNetwork | None,
) -> Identity:
    value = sample.annotations.get(BOXES_3D.name)
    if value is not None and BOXES_3D.name in health.images:
        _classes(sample, value.classes, BOXES_3D.name, health)
        health.per_image[len(value.classes)] += 1
    found, content = look_at_cloud(encoded, value, sample.key, health.vocabulary, network)
    for problem in found.problems:
        health.report(*problem)
    health.clouds.merge(found)
    return Identity(sample.key, row, content, None)


def _picture(sample: Sample, row: int, health: Health) -> Identity:
    health.sizes[sample.width, sample.height] += 1
    if not sample.image:
        health.report("missing image", sample.key)
        return Identity(sample.key, row, None, None)
    content = hashlib.blake2b(sample.image, digest_size=16).digest()
    try:
        image = decode_image(sample.image)
    except ValueError as error:
        health.report("damaged image", sample.key, str(error))
        return Identity(sample.key, row, content, None)
    height, width = image.shape[:2]
    if (height, width) != (sample.height, sample.width):
        stated = f"{sample.width} x {sample.height}"
        health.report(
            "other size than stated", sample.key, f"{width} x {height} instead of {stated}"
        )
    mean, std = cv2.meanStdDev(image)
    mean, std = mean.ravel(), std.ravel()
    area = height * width
    health.colour += np.array([mean * area, (std**2 + mean**2) * area, [area] * 3])
    return Identity(sample.key, row, content, _look(image))


def _look(image: NDArray[np.uint8]) -> tuple[bytes, bytes] | None:
    """The difference hash: where the brightness increases from left to right, on grids of 8 x 8
    and 16 x 16.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found = []
    for side in (8, 16):
        small = cv2.resize(grey, (side + 1, side), interpolation=cv2.INTER_AREA).astype(np.int16)
        if np.ptp(small) < 16:
            return None
        found.append(np.packbits(np.diff(small, axis=1) > 0).tobytes())
    return found[0], found[1]


def _classes(
    sample: Sample, classes: NDArray[np.int64], kind: Annotation, health: Health
) -> NDArray[np.int64]:
    """Counts the sample for each of its classes; returns the known class indices."""
    counts = health.images[kind]
    known = classes[(classes >= 0) & (classes < len(counts))]
    for strange in np.setdiff1d(classes, known).tolist():
        health.report("unknown class", sample.key, f"class {strange} of {kind}")
    health.findings.annotations += len(classes)
    if not len(classes):
        health.empty[kind] += 1
    counts[np.unique(known)] += 1
    return known


def _objects(sample: Sample, objects: Instances, health: Health) -> None:
    known = _classes(sample, objects.classes, "instances", health)
    health.objects += np.bincount(known, minlength=len(health.objects))
    health.crowd += int(objects.crowd.sum())
    health.difficult += int(objects.difficult.sum())
    health.per_image[len(objects)] += 1
    boxes = np.asarray(objects.boxes_xyxy, np.float64)
    whole = _faults(sample, boxes, objects, health)
    sides = boxes[whole, 2:] - boxes[whole, :2]
    if len(sides):
        root = np.sqrt(sides.prod(axis=1))
        health.sides += in_octaves(root, SIDE_OCTAVES)
        health.shapes += in_octaves(sides[:, 0] / sides[:, 1], SHAPE_OCTAVES)
        health.coco_sizes += np.bincount(
            np.digitize(objects.areas[whole], (32.0**2, 96.0**2)), minlength=3
        )


def _faults(
    sample: Sample, boxes: NDArray[np.float64], objects: Instances, health: Health
) -> NDArray[np.bool_]:
    """Reports invalid boxes; True for boxes with a width and a height."""
    sides = boxes[:, 2:] - boxes[:, :2]
    finite = np.isfinite(boxes).all(axis=1)
    whole = finite & (sides > 0).all(axis=1)
    limit = np.array([sample.width, sample.height])
    outside = whole & ((boxes[:, :2] >= limit) | (boxes[:, 2:] <= 0)).any(axis=1)
    beyond = (
        whole
        & ~outside
        & ((boxes[:, :2] < -BEYOND_PX) | (boxes[:, 2:] > limit + BEYOND_PX)).any(axis=1)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = sides.max(axis=1, initial=0) / sides.min(axis=1, initial=np.inf)
    _, first = np.unique(np.column_stack([boxes, objects.classes]), axis=0, return_index=True)
    again: NDArray[np.bool_] = whole & ~np.isin(np.arange(len(boxes)), first)
    odd = {
        "box without a finite number": ~finite,
        "empty box": finite & ~whole,
        "box outside the image": outside,
        "box beyond the edge": beyond,
        "box of less than a pixel": whole & (sides < 1).any(axis=1),
        "box of an odd shape": whole & (ratio > LONGEST),
        "same box twice": again,
    }
    for kind, which in odd.items():
        for index in np.flatnonzero(which).tolist():
            health.report(kind, sample.key, _described(index, boxes[index], objects, sample))
    return np.asarray(whole, np.bool_)


def _described(index: int, box: NDArray[np.float64], objects: Instances, sample: Sample) -> str:
    name = f"annotation {objects.ids[index]}" if objects.ids[index] >= 0 else f"object {index + 1}"
    return (
        f"{name}, x1 y1 x2 y2 = {' '.join(f'{value:.6g}' for value in box)} in {sample.width} "
        "x "
        f"{sample.height}"
    )


def _map(sample: Sample, encoded: bytes, health: Health) -> None:
    try:
        classes = decode_semantic(encoded)
    except ValueError as error:
        health.report("damaged map", sample.key, str(error))
        return
    if classes.shape != (sample.height, sample.width):
        health.report(
            "map of another size",
            sample.key,
            f"{classes.shape[1]} x {classes.shape[0]} instead of {sample.width} x {sample.height}",
        )
    counts = np.bincount(classes.ravel(), minlength=256)
    health.no_class += int(counts[IGNORE_INDEX])
    health.pixels += counts[: len(health.pixels)]
    counts[IGNORE_INDEX] = 0
    _classes(sample, np.flatnonzero(counts), "semantic", health)
