"""One XML file of Pascal VOC, with the attributes and key nodes that multi-task sets add to it.

VOC's pixels count from 1 and a box holds its last pixel, so xmin ymin xmax ymax become xmin-1 ymin-1 xmax ymax. Key nodes
are taken as they are written: (-1, -1) marks a missing one, so they count from 0.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.source import Reject

_SIDES = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
NODES = ("headtop", "nose", *(side + part for part in _SIDES for side in ("left", "right")))
"""The 18 key nodes of a body."""
MIRROR = (0, 1, *(node + 1 if node % 2 == 0 else node - 1 for node in range(2, len(NODES))))
_HEAD = ((0, 1), (1, 2), (1, 3), (2, 4), (3, 5))
_TRUNK = ((6, 7), (6, 12), (7, 13), (12, 13))
_LIMBS = ((6, 8), (8, 10), (7, 9), (9, 11), (12, 14), (14, 16), (13, 15), (15, 17))
SKELETON = (*_HEAD, *_TRUNK, *_LIMBS)
ATTRIBUTES = ("property", "gender", "age")
"""Further columns: property 1 where gender or age is said, else 0; gender 1 female, else 0; age 1 child, else 0; -1 not said."""

_POINT = re.compile(r"\(?\s*([-+]?[\d.]+)\s*,\s*([-+]?[\d.]+)\s*\)?")


def class_names(content: bytes) -> set[str]:
    """The names of all objects in a file.

    Raises:
        ElementTree.ParseError: if it is not XML.
    """
    return {_text(item, "name") for item in ElementTree.fromstring(content).findall("object")} - {""}


def size_fault(tree: ElementTree.Element, height: int, width: int) -> str:
    """Why the boxes of a file cannot be those of a picture of (height, width) pixels; empty if they can. Many files say 0 x 0."""
    said = _text(tree, "size/width"), _text(tree, "size/height")
    if not all(value.isdecimal() and int(value) for value in said) or (int(said[0]), int(said[1])) == (width, height):
        return ""
    return f"its boxes are those of a {said[0]} x {said[1]} picture, the file is {width} x {height}"


def objects(
    tree: ElementTree.Element, file: str, index: Mapping[str, int], *, people: bool, last_pixel: bool = True
) -> tuple[list[FoundObject], list[Reject]]:
    """The objects of a file, and a Reject for each that is not understood.

    Args:
        tree: the file's root element.
        file: what to call it in a reject.
        index: class indices by name.
        people: whether to read attributes and key nodes too.
        last_pixel: whether the pixels xmax and ymax belong to a box, as VOC means it.
    """
    found, rejects = [], []
    for number, item in enumerate(tree.findall("object"), start=1):
        label = _text(item, "name")
        name = f"object {number} ({label})"
        try:
            if label not in index:
                raise ValueError(f"the class {label!r} is not in the list of classes")
            found.append(
                FoundObject(
                    name=name,
                    box_xyxy=_box(item, last_pixel),
                    class_index=index[label],
                    difficult=_text(item, "difficult") == "1",
                    truncated=_text(item, "truncated") == "1",
                    keypoints=_nodes(item) if people else None,
                    attributes=_attributes(item) if people else {},
                )
            )
        except ValueError as error:
            rejects.append(Reject(file, name, str(error)))
    return found, rejects


def _box(item: ElementTree.Element, last_pixel: bool) -> tuple[float, float, float, float]:
    corners = [_text(item, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = map(float, corners)
    except ValueError:
        raise ValueError(f"its box is not made of numbers: {corners}") from None
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"its box has no area: x {x1:g} to {x2:g}, y {y1:g} to {y2:g}")
    return (x1 - 1, y1 - 1, x2, y2) if last_pixel else (x1 - 1, y1 - 1, x2 - 1, y2 - 1)


def _nodes(item: ElementTree.Element) -> list[tuple[float, float, float]]:
    points = []
    for node in NODES:
        text = _text(item, f"keynode/{node}")
        match = _POINT.fullmatch(text)
        if text and match is None:
            raise ValueError(f"its key node {node} is not a point: {text!r}")
        x, y = (float(match[1]), float(match[2])) if match else (-1.0, -1.0)
        points.append((x, y, 2.0) if x >= 0 and y >= 0 else (0.0, 0.0, 0.0))
    return points


def _attributes(item: ElementTree.Element) -> dict[str, int]:
    gender, age = _text(item, "gender").lower(), _text(item, "age").lower()
    said = {"gender": int(gender == "female") if gender else -1, "age": int(age == "child") if age else -1}
    return {"property": int(bool(gender or age)), **said}


def _text(item: ElementTree.Element, path: str) -> str:
    return (item.findtext(path) or "").strip()
