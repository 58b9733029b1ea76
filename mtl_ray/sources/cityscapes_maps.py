"""Cityscapes' labels, and the instance map of one image: read from a PNG, or drawn from polygons.

Label ids and evaluated classes are those of Cordts et al. 2016, https://www.cityscapes-dataset.com.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mtl_ray import storage
from mtl_ray.geometry import masks
from mtl_ray.samples import IGNORE_INDEX, EncodedImage
from mtl_ray.sources.index_png import load_values
from mtl_ray.sources.json_values import flag, parse_json
from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.shapes import Points, check_reach, points_of
from mtl_ray.sources.source import SkippedItem, UnreadableError

IDS: Mapping[str, int] = {
    name: number
    for number, name in enumerate(
        (
            *(
                "unlabeled",
                "ego vehicle",
                "rectification border",
                "out of roi",
                "static",
                "dynamic",
                "ground",
                "road",
                "sidewalk",
            ),
            *(
                "parking",
                "rail track",
                "building",
                "wall",
                "fence",
                "guard rail",
                "bridge",
                "tunnel",
                "pole",
                "polegroup",
            ),
            *(
                "traffic light",
                "traffic sign",
                "vegetation",
                "terrain",
                "sky",
                "person",
                "rider",
                "car",
                "truck",
                "bus",
                "caravan",
            ),
            *("trailer", "train", "motorcycle", "bicycle", "license plate"),
        )
    )
} | {"license plate": -1}
"""Label ids by name."""
FIRST_THING = IDS["person"]
"""Labels from this id have instances."""

_NOT_EVALUATED = frozenset((*range(7), 9, 10, 14, 15, 16, 18, 29, 30, -1))
SEMANTIC: tuple[str, ...] = tuple(
    name for name, number in IDS.items() if number not in _NOT_EVALUATED
)
"""The 19 classes by train id."""
THINGS: tuple[str, ...] = tuple(name for name in SEMANTIC if IDS[name] >= FIRST_THING)
"""The eight classes of objects."""
COLOURS: tuple[tuple[int, int, int], ...] = (
    *(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
    ),
    *(
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
    ),
    *((0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
)
"""Colours of the 19 classes."""

_GROUP = "group"
_MOST = 1000


def read_map(uri: str, file: str, max_pixels: int) -> NDArray[np.int32]:
    """The map (height, width) in an ``instanceIds`` or ``labelIds`` PNG.

    Raises:
        UnreadableError: if it is missing, damaged, too large, or not a map.
    """
    values = load_values(uri, file, max_pixels=max_pixels)
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise UnreadableError(
            file,
            f"a map has one channel of whole numbers: it has the shape {values.shape} of "
            f"{values.dtype}",
        )
    return values.astype(np.int32)


def read_polygons(uri: str, file: str) -> dict[str, Any]:
    """The content of a ``polygons`` JSON file, which has a list of objects.

    Raises:
        UnreadableError: if it is missing or invalid.
    """
    try:
        content = parse_json(storage.read(uri))
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except OSError as error:
        raise UnreadableError(file, error.strerror or "cannot be opened") from None
    except ValueError as error:
        raise UnreadableError(file, f"not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise UnreadableError(file, "has no list of objects")
    return content


def draw_map(
    content: Mapping[str, Any], file: str, image: EncodedImage
) -> tuple[NDArray[np.int32], list[SkippedItem]]:
    """Draws the polygons of a JSON file as a map (height, width), later ones over earlier ones, as
    the authors do.

    A value is 1000 x label id + number of the object among those of its label; only the label id
    for a group of objects (``cargroup``) and for labels without objects.
    """
    canvas = Image.new("I", (image.width, image.height), IDS["unlabeled"])
    draw, counts, skipped = ImageDraw.Draw(canvas), Counter[str](), []
    for place, item in enumerate(content["objects"], start=1):
        try:
            if not (isinstance(item, dict) and flag(item.get("deleted"))):
                _draw(draw, item, counts)
        except ValueError as error:
            skipped.append(SkippedItem(file, f"object {place}", f"cannot be drawn: {error}"))
    return np.array(canvas, np.int32), skipped


def map_objects(instances: NDArray[np.int32], index: dict[int, int]) -> list[FoundObject]:
    """The objects of an instance map, by ascending value, whose label ids have a class index;
    groups are crowds.
    """
    height, width = instances.shape
    found = []
    for value in np.unique(instances[instances >= FIRST_THING]).tolist():
        label = value // 1000 if value >= 1000 else value
        if label in index:
            mask = masks.encode_rle(instances == value)
            found.append(
                FoundObject(
                    name=f"instance {value}",
                    box_xyxy=masks.mask_box(mask, height, width),
                    class_index=index[label],
                    area=float(masks.area(mask, height, width)),
                    crowd=value < 1000,
                    mask=mask,
                )
            )
    return found


THING_INDEX: dict[int, int] = {IDS[name]: number for number, name in enumerate(THINGS)}
"""Class indices of the eight object classes by label id."""


def _draw(draw: ImageDraw.ImageDraw, item: Any, counts: Counter[str]) -> None:
    label = item.get("label") if isinstance(item, dict) else None
    if not isinstance(label, str):
        raise ValueError("it has no label")
    named = label
    group = label not in IDS and label.endswith(_GROUP)
    label = label.removesuffix(_GROUP) if group else label
    if label not in IDS:
        raise ValueError(f"{named!r} is not a label of Cityscapes")
    value = IDS[label]
    points = _points(item.get("polygon"))
    if value >= FIRST_THING and not group:
        if counts[label] == _MOST:
            raise ValueError(f"there are more than {_MOST} objects of its label")
        value = value * 1000 + counts[label]
        counts[label] += 1
    if value >= 0:
        draw.polygon(points, fill=value)


def _points(given: Any) -> Points:
    if not isinstance(given, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in given
    ):
        raise ValueError("its polygon is not a list of pairs")
    points = points_of([x for x, _ in given], [y for _, y in given])
    if len(points) < 2:  # two points make a line, which the authors draw too
        raise ValueError(f"too few points: a polygon of {len(points)}")
    check_reach(points)
    return points


def train_ids(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The train ids of label ids, ``IGNORE_INDEX`` for labels that are not evaluated; any shape."""
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[[IDS[name] for name in SEMANTIC]] = np.arange(len(SEMANTIC))
    return table[np.clip(ids, 0, 255)]


def label_ids(instances: NDArray[np.int32]) -> NDArray[np.int32]:
    """Label ids of an instance map: 26 for a group of cars (26) and for the fourth car (26003)."""
    return np.where(instances >= 1000, instances // 1000, instances).astype(np.int32)
