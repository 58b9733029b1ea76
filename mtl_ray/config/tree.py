"""A config as it was written: nested values, each with the file and line it came from; and how
two of them are merged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Origin:
    """Where a value was written."""

    source: str
    """A file, or what else gave the value (the command line)."""
    line: int | None = None
    """Counted from 1; None where the source has no lines."""

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


TreeValue: TypeAlias = "str | int | float | bool | dict[str, Node] | list[Node] | None"


@dataclass(frozen=True)
class Node:
    """One value of the tree: a scalar, a mapping or a list of further nodes."""

    value: TreeValue
    origin: Origin


def merge(below: Node, above: Node) -> Node:
    """What ``above`` makes of ``below``.

    Mappings merge key by key, unless both have a ``type`` and it differs: then the upper one
    replaces the whole. Lists and scalars replace what was there; null as well, which takes an
    inherited entry away (see ``fields.fit``). A mapping whose keys are whole numbers, merged
    onto a list, changes the items at these places.

    Raises:
        ValueError: if it changes an item that the list does not have.
    """
    if not isinstance(above.value, dict):
        return above
    if (
        isinstance(below.value, list)
        and above.value
        and all(key.isdecimal() for key in above.value)
    ):
        return Node(_merge_items(below.value, above.value), below.origin)
    if not isinstance(below.value, dict) or _types_differ(below.value, above.value):
        return above
    merged = dict(below.value)
    for key, node in above.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(merged, below.origin)


def _merge_items(items: list[Node], changes: dict[str, Node]) -> list[Node]:
    merged = list(items)
    for key, node in changes.items():
        if int(key) >= len(items):
            raise ValueError(
                f"{node.origin}: item {key} is changed, but the list has {len(items)} (counted "
                "from 0)"
            )
        merged[int(key)] = merge(merged[int(key)], node)
    return merged


def _types_differ(below: dict[str, Node], above: dict[str, Node]) -> bool:
    return "type" in below and "type" in above and below["type"].value != above["type"].value


def plain(node: Node) -> Any:
    """The values alone, as nested dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def node_of(value: Any, origin: Origin) -> Node:
    """Nested dicts, lists and scalars as a tree whose nodes all have one origin; inverse of
    ``plain``.
    """
    if isinstance(value, dict):
        return Node({key: node_of(child, origin) for key, child in value.items()}, origin)
    if isinstance(value, list | tuple):
        return Node([node_of(child, origin) for child in value], origin)
    return Node(value, origin)


def without(node: Node, path: Sequence[str]) -> Node:
    """The tree without the entry at a path of keys and places; an item of a list cannot be taken
    away alone, so its list is.
    """
    if not isinstance(node.value, dict) or path[0] not in node.value:
        return node
    child = node.value[path[0]]
    if len(path) > 1 and isinstance(child.value, dict):
        return Node({**node.value, path[0]: without(child, path[1:])}, node.origin)
    return Node({key: each for key, each in node.value.items() if key != path[0]}, node.origin)


def find(node: Node, path: Sequence[str | int]) -> tuple[Node, bool]:
    """The node at a path, or the deepest one on the way to it, and whether the path was followed
    to its end.
    """
    for part in path:
        value = node.value
        if isinstance(value, dict) and str(part) in value:
            node = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            node = value[part]
        else:
            return node, False
    return node, True
