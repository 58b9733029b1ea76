"""Several scenes as one: mosaic, mixup and copy-paste. Random numbers come from the caller."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import Region
from mtl_ray.inputs.frame import resized
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.config import CopyPaste, Mixup, Mosaic
from mtl_ray.loading.moves import beside, random_integer, span
from mtl_ray.loading.scene import AnyKind, Scene


def mosaic(scenes: Sequence[Scene], transform: Mosaic, rng: random.Random, rule: Canvas) -> Scene:
    """An image of the canvas's size whose quarters, around a random point, hold a corner of each of
    four scenes.

    Bochkovskiy et al. 2020, YOLOv4, figure 3. Each kind of annotation says what becomes of an image
    that is not annotated (``AnnotationKind.join``). A class counts as known if all four datasets
    know it.
    """
    image = np.full((rule.height, rule.width, 3), rule.pad, np.uint8)
    centre_y, centre_x = (
        round(rule.height * rng.uniform(*transform.centre)),
        round(rule.width * rng.uniform(*transform.centre)),
    )
    regions: list[tuple[Region, tuple[int, int]]] = []
    for quarter, scene in enumerate(scenes):
        above, before = quarter < 2, quarter % 2 == 0
        scale = rng.uniform(*transform.scale) * min(
            rule.height / scene.hw[0], rule.width / scene.hw[1]
        )
        rows, scale_y = _rows(
            scene.hw[0], centre_y if above else rule.height - centre_y, scale, from_end=above
        )
        columns, scale_x = _rows(
            scene.hw[1], centre_x if before else rule.width - centre_x, scale, from_end=before
        )
        height, width = (
            round((rows.stop - rows.start) * scale_y),
            round((columns.stop - columns.start) * scale_x),
        )
        top, left = (
            centre_y - height if above else centre_y,
            centre_x - width if before else centre_x,
        )
        region = Region(
            rows=rows,
            columns=columns,
            scale_y=scale_y,
            scale_x=scale_x,
            height=height,
            width=width,
            min_visible=transform.min_visible,
        )
        regions.append((region, (top, left)))
        if height and width:
            image[top : top + height, left : left + width] = resized(
                scene.image[rows, columns], height, width
            )
    kinds = dict.fromkeys(kind for scene in scenes for kind in scene.parts)
    joined = {kind: _joined(kind, scenes, regions, rule) for kind in kinds}
    parts = {kind: part for kind, part in joined.items() if part is not None}
    return replace(scenes[0], raw=image, parts=parts, known_classes=_known(scenes), valid_hw=None)


def _joined(
    kind: AnyKind,
    scenes: Sequence[Scene],
    regions: Sequence[tuple[Region, tuple[int, int]]],
    rule: Canvas,
) -> object:
    parts = [
        (scene.parts.get(kind), region, corner)
        for scene, (region, corner) in zip(scenes, regions, strict=True)
    ]
    return kind.join(parts, rule.height, rule.width)


def _rows(length: int, room: int, scale: float, *, from_end: bool) -> tuple[slice, float]:
    """Which pixels of a side of ``length`` are shown in ``room`` pixels of the mosaic, and
    mosaic pixels per pixel.
    """
    shown, size = span(length, room, scale)
    return (slice(length - shown, length) if from_end else slice(0, shown)), size / shown


def _known(scenes: Sequence[Scene]) -> dict[str, NDArray[np.bool_]]:
    """The classes that the datasets of all scenes know."""
    return {
        name: np.logical_and.reduce([scene.known_classes[name] for scene in scenes])
        for name in scenes[0].known_classes
    }


def mixup(
    scene: Scene, partner: Scene, transform: Mixup, rng: random.Random, rule: Canvas
) -> Scene:
    """The scene with another one shining through it; its annotations are those of both.

    Each kind of annotation says what becomes of it (``AnnotationKind.blend``). If the partner lacks
    an annotation that the scene has, the scene stays as it is: its objects would be background.
    """
    if not scene.parts.keys() <= partner.parts.keys():
        return scene
    other = beside(
        partner,
        scene.hw,
        rng,
        scales=transform.scale,
        flip_p=transform.flip,
        min_visible=transform.min_visible,
        grey=rule.pad,
    )
    image = cv2.addWeighted(scene.image, transform.share, other.image, 1 - transform.share, 0)
    return replace(
        scene,
        raw=np.asarray(image, np.uint8),
        parts=_annotated(
            {kind: kind.blend(part, other.parts[kind]) for kind, part in scene.parts.items()}
        ),
        known_classes=_known((scene, other)),
        valid_hw=None,
    )


def copy_paste(
    scene: Scene, partner: Scene, transform: CopyPaste, rng: random.Random, rule: Canvas
) -> Scene:
    """The scene with some objects of another one pasted onto it by their masks.

    The kind of annotation that has the objects cuts them out (``AnnotationKind.cut_out``); each
    kind says what becomes of it (``paste``). The scene stays as it is if there are none, or if its
    own objects are not annotated.
    """
    other = beside(
        partner,
        scene.hw,
        rng,
        scales=transform.scale,
        flip_p=transform.flip,
        min_visible=transform.min_visible,
        grey=rule.pad,
    )

    def choose(count: int) -> NDArray[np.int64]:
        order = np.argsort([rng.random() for _ in range(count)], kind="stable")
        return order[: 1 + random_integer(rng, min(count, transform.max_objects) - 1)]

    for cutter, part in other.parts.items():
        found = cutter.cut_out(part, *scene.hw, choose) if cutter in scene.parts else None
        if found is not None:
            objects, shape = found
            pasted = {**other.parts, cutter: objects}
            break
    else:
        return scene
    image = np.where(shape[..., None] > 0, other.image, scene.image)
    parts = {
        kind: kind.paste(own, pasted.get(kind), shape, transform.min_visible)
        for kind, own in scene.parts.items()
    }
    return replace(
        scene,
        raw=image,
        parts=_annotated(parts),
        known_classes=_known((scene, other)),
        valid_hw=None,
    )


def _annotated(parts: Mapping[AnyKind, object]) -> dict[AnyKind, object]:
    """Without the kinds that count as not annotated now."""
    return {kind: part for kind, part in parts.items() if part is not None}
