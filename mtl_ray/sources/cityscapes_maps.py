"""The annotation of one Cityscapes picture as a map of instances: read from a PNG, or drawn from the annotators' polygons."""

import json
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mtl_ray import storage
from mtl_ray.geometry import masks
from mtl_ray.sources.cityscapes_labels import FIRST_THING, IDS, THINGS
from mtl_ray.sources.index_png import load_values
from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.picture import Picture
from mtl_ray.sources.source import Reject, UnreadableError

_GROUP = "group"
_MOST = 1000


def read_map(uri: str, file: str, picture: Picture) -> NDArray[np.int32]:
    """The map (height, width) in an ``instanceIds`` or ``labelIds`` PNG.

    Raises:
        UnreadableError: if it is not there, damaged, or of another size than its picture.
    """
    values = load_values(uri, file)
    if values.ndim != 2 or values.shape != (picture.height, picture.width):
        raise UnreadableError(file, f"the map has the shape {values.shape}, its picture is {picture.width} x {picture.height}")
    return values.astype(np.int32)


def draw_map(uri: str, file: str, picture: Picture) -> tuple[NDArray[np.int32], list[Reject]]:
    """The map (height, width) that the polygons of a JSON file make, later ones over earlier ones, as the authors draw it.

    A value is 1000 times the label id and the number of the object among those of its label; the label id alone for a group of
    objects (``cargroup``) and for what has no objects.

    Raises:
        UnreadableError: if it is not there, no such JSON, or of another size than its picture.
    """
    content = _read(uri, file)
    if (content.get("imgHeight"), content.get("imgWidth")) != (picture.height, picture.width):
        said = f"{content.get('imgWidth')} x {content.get('imgHeight')}"
        raise UnreadableError(file, f"annotated as {said} pixels, the picture is {picture.width} x {picture.height}")
    canvas = Image.new("I", (picture.width, picture.height), IDS["unlabeled"])
    draw, counts, rejects = ImageDraw.Draw(canvas), Counter[str](), []
    for number, item in enumerate(content["objects"], start=1):
        try:
            if not (isinstance(item, dict) and item.get("deleted")):
                _draw(draw, item, counts)
        except (ValueError, KeyError, TypeError) as error:
            rejects.append(Reject(file, f"object {number}", f"cannot be drawn: {error}"))
    return np.array(canvas, np.int32), rejects


def objects(instances: NDArray[np.int32], index: dict[int, int]) -> list[FoundObject]:
    """The objects in a map of instances, by ascending value, whose label ids have a class index; groups are crowds."""
    height, width = instances.shape
    found = []
    for value in np.unique(instances[instances >= FIRST_THING]).tolist():
        label = value // 1000 if value >= 1000 else value
        if label in index:
            mask = masks.encode(instances == value)
            found.append(
                FoundObject(
                    name=f"instance {value}",
                    box_xyxy=masks.box_of(mask, height, width),
                    class_index=index[label],
                    area=float(masks.area(mask, height, width)),
                    crowd=value < 1000,
                    mask=mask,
                )
            )
    return found


THING_INDEX: dict[int, int] = {IDS[name]: number for number, name in enumerate(THINGS)}
"""The class index of each label id of the eight classes of objects."""


def _read(uri: str, file: str) -> dict[str, Any]:
    try:
        content = json.loads(storage.read(uri))
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableError(file, f"not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise UnreadableError(file, "has no list of objects")
    return content


def _draw(draw: ImageDraw.ImageDraw, item: dict[str, Any], counts: Counter[str]) -> None:
    label = str(item["label"])
    group = label not in IDS and label.endswith(_GROUP)
    label = label.removesuffix(_GROUP) if group else label
    if label not in IDS:
        raise ValueError(f"{item['label']!r} is no label of Cityscapes")
    value = IDS[label]
    if value >= FIRST_THING and not group:
        if counts[label] == _MOST:
            raise ValueError(f"there are more than {_MOST} objects of its label")
        value = value * 1000 + counts[label]
        counts[label] += 1
    if value >= 0:
        draw.polygon([(float(x), float(y)) for x, y in item["polygon"]], fill=value)
