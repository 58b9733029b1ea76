"""The one pydantic configuration that every config dataclass of the project uses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)
"""Unknown keys are errors, and the string under a field becomes its description in the JSON Schema.

Use it as ``@dataclass(frozen=True, kw_only=True, config=STRICT)`` with
``pydantic.dataclasses.dataclass``: a standard dataclass would ignore unknown keys without a word.
"""


@dataclass(frozen=True)
class DefaultType:
    """In the annotation of a union of dataclasses: the ``type`` of a mapping that does not say
    one.
    """

    name: str


@dataclass(frozen=True)
class Retired:
    """A key that a config once had and that never did anything there.

    A class names its own in a class variable ``retired``, by key. Files that give the old default
    stay readable.

    Attributes:
        default: what it was unless somebody said otherwise.
        reason: why it did nothing, in words.
    """

    default: Any
    reason: str


def retired_of(kind: Any) -> Mapping[str, Retired]:
    """The retired keys of a config class."""
    found: Mapping[str, Retired] = getattr(kind, "retired", {})
    return found


@dataclass(frozen=True)
class Renamed:
    """Where the value of an older key stands now.

    A class names its own in a class variable ``renamed``, by old key. Old files, and whoever still
    writes the old key, are read as if they had the new one.

    Attributes:
        key: the new key; where both are written, it alone counts.
        convert: old value -> new value.
    """

    key: str
    convert: Callable[[Any], Any] = lambda value: value


def renamed_of(kind: Any) -> Mapping[str, Renamed]:
    """The renamed keys of a config class, by old key."""
    found: Mapping[str, Renamed] = getattr(kind, "renamed", {})
    return found
