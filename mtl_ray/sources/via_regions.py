"""The class of a VIA region, and its shape as a polygon."""

from collections.abc import Iterable, Mapping
from typing import Any

from mtl_ray.sources.json_values import number, shown
from mtl_ray.sources.shapes import Points, ellipse, points_of, rectangle

_NAMES_OF_A_CLASS = ("class", "name", "label", "type", "category")
_NUMBERS = (
    "name",
    "all_points_x",
    "all_points_y",
    "x",
    "y",
    "width",
    "height",
    "cx",
    "cy",
    "r",
    "rx",
    "ry",
    "theta",
)

ViaRegion = Mapping[str, Any]


def _attributes_of(region: ViaRegion) -> Mapping[str, Any]:
    found = region.get("region_attributes") if isinstance(region, dict) else None
    return found if isinstance(found, dict) else {}


def find_attribute(regions: Iterable[ViaRegion]) -> str:
    """The attribute that holds the class: the only one, or one with a usual name; "" if there are
    none.

    Raises:
        ValueError: if several attributes are possible.
    """
    known = {name for region in regions for name in _attributes_of(region)}
    usual = [name for name in _NAMES_OF_A_CLASS if name in {each.lower() for each in known}]
    if len(known) > 1 and not usual:
        raise ValueError(
            f"regions have the attributes {', '.join(map(shown, sorted(known)))}: name the class "
            "attribute with --attribute"
        )
    return next((each for each in sorted(known) if len(known) == 1 or each.lower() == usual[0]), "")


def class_of(region: ViaRegion, attribute: str) -> str:
    """The class of a region: a text, or the only ticked checkbox; empty if it has none."""
    value = _attributes_of(region).get(attribute, "")
    if isinstance(value, dict):
        ticked = [name for name, chosen in value.items() if chosen]
        value = ticked[0] if len(ticked) == 1 else ""
    return (
        str(value).strip()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
        else ""
    )


def shape_of(region: ViaRegion) -> ViaRegion | None:
    """The used fields of a region's shape."""
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    return (
        {name: _plain(shape[name]) for name in _NUMBERS if name in shape}
        if isinstance(shape, dict)
        else None
    )


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [each if isinstance(each, str | int | float) else None for each in value]
    return value if isinstance(value, str | int | float) else None


def polygon_of(shape: ViaRegion | None) -> Points:
    """The corners of a region.

    Raises:
        ValueError: if it has no area, or a number is missing.
    """
    if shape is None:
        raise ValueError("a region without a shape")
    kind = shape.get("name")
    match kind:
        case "polygon":
            return points_of(shape.get("all_points_x"), shape.get("all_points_y"))
        case "rect":
            x, y, width, height = (_number(shape, name) for name in ("x", "y", "width", "height"))
            return rectangle([(x, y), (x + width, y + height)])
        case "circle":
            radius = _number(shape, "r")
            return ellipse((_number(shape, "cx"), _number(shape, "cy")), radius, radius)
        case "ellipse":
            centre, radii = (
                (_number(shape, "cx"), _number(shape, "cy")),
                (_number(shape, "rx"), _number(shape, "ry")),
            )
            return ellipse(centre, *radii, _number(shape, "theta") if "theta" in shape else 0.0)
        case "point" | "polyline" | "line":
            raise ValueError(f"a shape without area: {kind}")
    raise ValueError(f"an unknown kind of shape: {shown(kind)}")


def _number(shape: ViaRegion, name: str) -> float:
    if name not in shape:
        raise ValueError(f"a {shape['name']} without {name!r}")
    found = number(shape[name])
    if found is None:
        raise ValueError(
            f"a {shape['name']} with something else than numbers: {name} {shown(shape[name])}"
        )
    return found
