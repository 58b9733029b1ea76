"""Values of JSON files as other programs write them: numbers as texts or floats, ids of any kind, files with a mark or in UTF-16."""

import json
import math
import re
import reprlib
from typing import Any

from mtl_ray.sources.texts import text_of

_INT64 = 1 << 63
_TOO_DEEP = re.compile(r"(?:[\[{]\s*+){64}")
_ESCAPES = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL)
"""Escapes in JSON; the group is half of a character of which the other half is missing."""
_YES = frozenset({"true", "yes", "t", "y"})


def parse_json(data: bytes) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: if it is none, or nested deeper than annotations ever are.
    """
    text = text_of(data)
    if _TOO_DEEP.search(text):
        raise ValueError("it is nested too deep")
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPES.sub(lambda escape: "\\ufffd" if escape[1] else escape[0], text)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def shown(value: object) -> str:
    """A value for a message, cut where it is long or deep."""
    return reprlib.repr(value)


def number(value: object) -> float | None:
    """A finite number, be it written as a text; None if it is something else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and not (isinstance(value, str) and "_" in value) else None


def whole(value: object) -> int | None:
    """A whole number of 64 bits, be it written as a float or a text; None if it is something else."""
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
    """What an id means: 1, 1.0 and "1" are the same; a text that is no number stands for itself; None if it is no id."""
    found = whole(value)
    return (value.strip() or None) if found is None and isinstance(value, str) else found


def flag(value: object) -> bool:
    """Whether a field such as ``iscrowd`` is set: ``1``, ``"1"``, ``true``, ``"yes"``."""
    if isinstance(value, bool):
        return value
    return bool(number(value)) or (isinstance(value, str) and value.strip().lower() in _YES)
