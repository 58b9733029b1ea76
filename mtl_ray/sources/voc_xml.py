"""An XML file of Pascal VOC, with the attributes and keypoints that multi-task datasets add to it.

VOC's pixels count from 1 and a box includes its last pixel, so xmin ymin xmax ymax become xmin-1
ymin-1 xmax ymax. Keypoints count from 0; (-1, -1) marks a missing one.
"""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass

from mtl_ray.sources.class_names import UNREADABLE, text_of_xml
from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.source import SkippedItem, unknown_class

_SIDES = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
NODES = ("headtop", "nose", *(side + part for part in _SIDES for side in ("left", "right")))
"""The 18 keypoints of a body."""
MIRROR = (0, 1, *(node + 1 if node % 2 == 0 else node - 1 for node in range(2, len(NODES))))
_HEAD = ((0, 1), (1, 2), (1, 3), (2, 4), (3, 5))
_TRUNK = ((6, 7), (6, 12), (7, 13), (12, 13))
_LIMBS = ((6, 8), (8, 10), (7, 9), (9, 11), (12, 14), (14, 16), (13, 15), (15, 17))
SKELETON = (*_HEAD, *_TRUNK, *_LIMBS)
ATTRIBUTES = ("property", "gender", "age")
"""Further columns: property 1 if gender or age is given, else 0; gender 1 female, else 0; age 1
child, else 0; -1 unknown.
"""

_ONE_PIXEL = "an object of a single pixel, kept, but perhaps a click by mistake"
_POINT = re.compile(r"\(?\s*([-+]?[\d.]+)\s*,\s*([-+]?[\d.]+)\s*\)?")


@dataclass(frozen=True, slots=True)
class Heading:
    """The facts of a file besides its objects.

    Attributes:
        names: class names of its objects.
        file: the name of its image, "" if it has none.
        size: height and width of its image, None if missing or 0.
    """

    names: frozenset[str]
    file: str
    size: tuple[int, int] | None


def parse_xml(content: bytes) -> ElementTree.Element:
    """The root element of a file.

    Raises:
        ValueError: if it is not XML, or not an annotation.
    """
    text = text_of_xml(content)
    if "<!ENTITY" in text:
        raise ValueError(
            "it defines entities, which annotations do not need and which may grow without bound"
        )
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"not XML: {error}") from None
    if tree.tag.lower() != "annotation" and tree.find("object") is None:
        raise ValueError(f"not an annotation of Pascal VOC: its root is <{tree.tag[:40]}>")
    return tree


def heading(tree: ElementTree.Element) -> Heading:
    """The facts of a file: its image, and the class names that are valid text."""
    names = {_text(item, "name") for item in tree.findall("object")}
    return Heading(
        frozenset(name for name in names if name and UNREADABLE not in name),
        _text(tree, "filename"),
        _size(tree),
    )


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    try:
        height, width = (float(_text(tree, f"size/{side}")) for side in ("height", "width"))
    except ValueError:
        return None
    whole = all(
        math.isfinite(side) and side == int(side) and 0 < side < 1 << 31 for side in (height, width)
    )
    return (int(height), int(width)) if whole else None


def voc_objects(
    tree: ElementTree.Element,
    file: str,
    index: Mapping[str, int],
    *,
    people: bool,
    last_pixel: bool = True,
) -> tuple[list[FoundObject], list[SkippedItem]]:
    """The objects of a file, and a SkippedItem for each invalid one.

    Args:
        tree: the file's root element.
        file: name of the file, for skipped items.
        index: class indices by name.
        people: whether to read attributes and keypoints too.
        last_pixel: whether the pixels xmax and ymax belong to a box, as in VOC.
    """
    found, skipped = [], []
    for number, item in enumerate(tree.findall("object"), start=1):
        label = _text(item, "name")
        name = f"object {number} ({label})"
        try:
            if UNREADABLE in label:
                raise ValueError("its class is not text in the encoding of the file")
            if label not in index:
                raise ValueError(unknown_class(label))
            box = _box(item, last_pixel)
            if box[2] - box[0] == box[3] - box[1] == 1:
                skipped.append(
                    SkippedItem(
                        file, name, f"{_ONE_PIXEL}: x {box[0] + 1:g}, y {box[1] + 1:g}", note=True
                    )
                )
            found.append(
                FoundObject(
                    name=name,
                    box_xyxy=box,
                    class_index=index[label],
                    difficult=_is_true(item, "difficult"),
                    truncated=_is_true(item, "truncated"),
                    keypoints=_nodes(item) if people else None,
                    attributes=_attributes(item) if people else {},
                )
            )
        except ValueError as error:
            skipped.append(SkippedItem(file, name, str(error)))
    return found, skipped


def _box(item: ElementTree.Element, last_pixel: bool) -> tuple[float, float, float, float]:
    """The box in pixels from 0, end exclusive. A box of one pixel (xmin = xmax) keeps it, also
    without its last pixel.
    """
    corners = [_text(item, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
    if not any(corners):
        raise ValueError("it has no bndbox")
    try:
        x1, y1, x2, y2 = map(float, corners)
    except ValueError:
        raise ValueError(
            f"its box has something else than numbers: {' '.join(corners)[:80]}"
        ) from None
    if x2 <= x1 - 1 or y2 <= y1 - 1:
        raise ValueError(f"its box has no area: x {x1:g} to {x2:g}, y {y1:g} to {y2:g}")
    (x1, x2), (y1, y2) = _span(x1, x2, last_pixel), _span(y1, y2, last_pixel)
    return x1, y1, x2, y2


def _span(first: float, last: float, last_pixel: bool) -> tuple[float, float]:
    """Pixels first to last (from 1) as a range from 0; pixel 0, of files that count from 0,
    becomes the first pixel.
    """
    if last <= 0 <= first:
        return 0.0, 1.0
    if last_pixel or last - first < 1:
        return first - 1, last
    return first - 1, last - 1


def _nodes(item: ElementTree.Element) -> list[tuple[float, float, float]]:
    points = []
    for node in NODES:
        text = _text(item, f"keynode/{node}")
        match = _POINT.fullmatch(text)
        if text and match is None:
            raise ValueError(f"a key node is not a point: {node} {text[:40]!r}")
        try:
            x, y = (float(match[1]), float(match[2])) if match else (-1.0, -1.0)
        except ValueError:
            raise ValueError(f"a key node is not a point: {node} {text[:40]!r}") from None
        points.append((x, y, 2.0) if x >= 0 and y >= 0 else (0.0, 0.0, 0.0))
    return points


def _attributes(item: ElementTree.Element) -> dict[str, int]:
    gender, age = _text(item, "gender").lower(), _text(item, "age").lower()
    said = {
        "gender": int(gender == "female") if gender else -1,
        "age": int(age == "child") if age else -1,
    }
    return {"property": int(bool(gender or age)), **said}


def _is_true(item: ElementTree.Element, path: str) -> bool:
    return _text(item, path).lower() in ("1", "1.0", "true", "yes")


def _text(item: ElementTree.Element, path: str) -> str:
    return (item.findtext(path) or "").strip()
