"""Values of JSON files as other programs write them: numbers as texts or floats, ids of any
type, files in UTF-16.
"""

import json
import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_ray.sources.class_names import text_of

_INT64 = 1 << 63
_DEEPEST = 64
"""Annotations are nested ten deep at most; Python cannot send much deeper ones to another
process.
"""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_AT_ONCE = 1 << 18
"""Number of bytes checked at once, so that they stay in the cache."""
_HALVES = ("\\ud", "\\uD")
_YES = frozenset({"true", "yes", "t", "y"})


def parse_json(data: bytes) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: if it is not JSON, or nested too deep.
    """
    text = text_of(data)
    if _is_deep(text) and _is_deep(_STRING.sub("", text)):  # the second is exact, and slow
        raise ValueError("it is nested too deep")
    try:
        content = json.loads(text)
        return _whole_characters(content) if any(half in text for half in _HALVES) else content
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _is_deep(text: str) -> bool:
    """Whether brackets, including those in strings, are nested too deep."""
    data = np.frombuffer(text.encode(), np.uint8)
    depth = lowest = 0
    for start in range(0, len(data), _AT_ONCE):
        part = data[start : start + _AT_ONCE] & 0xDF  # { and } become [ and ]
        brackets = part[(part | 6) == ord("_")]  # and Y, _ and DEL, which do not count below
        depths = depth + np.cumsum((brackets == ord("[")).astype(np.int64) - (brackets == ord("]")))
        if len(depths):
            lows = np.minimum(np.minimum.accumulate(depths), lowest)
            if (depths - lows).max() > _DEEPEST:
                return True
            depth, lowest = int(depths[-1]), int(lows[-1])
    return False


def _whole_characters(value: Any) -> Any:
    """The same with U+FFFD for halves of characters (lone surrogates), which no file can hold."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(part) for part in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(part) for key, part in value.items()}
    return value


def shown(value: object) -> str:
    """A value for a message, cut where it is long or deep."""
    return reprlib.repr(value)


def number(value: object) -> float | None:
    """A finite number, also if written as text; None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and not (isinstance(value, str) and "_" in value) else None


def whole(value: object) -> int | None:
    """A 64-bit integer, also if written as float or text; None otherwise."""
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", value):
        found = int(value)  # not by way of a float, which would round large ids
    else:
        as_float = number(value)
        if as_float is None or as_float != int(as_float):
            return None
        found = int(as_float)
    return found if -_INT64 <= found < _INT64 else None


def identity(value: object) -> int | str | None:
    """An id in normal form: 1, 1.0 and "1" are equal; other texts stay; None if it is not an id."""
    if type(value) is int and -_INT64 <= value < _INT64:
        return value
    found = whole(value)
    return (value.strip() or None) if found is None and isinstance(value, str) else found


def flag(value: object) -> bool:
    """Whether a field such as ``iscrowd`` is set: ``1``, ``"1"``, ``true``, ``"yes"``."""
    if isinstance(value, bool):
        return value
    return bool(number(value)) or (isinstance(value, str) and value.strip().lower() in _YES)


def stated_size(
    entry: Mapping[str, Any], height: str = "height", width: str = "width"
) -> tuple[int, int] | None:
    """Height and width in pixels that an annotation states; None if one is missing or not positive.

    Args:
        entry: an object of a JSON file.
        height: key of the height.
        width: key of the width.
    """
    found = whole(entry.get(height)), whole(entry.get(width))
    return (
        (found[0], found[1])
        if found[0] is not None and found[1] is not None and min(found[0], found[1]) > 0
        else None
    )
