"""A tree laid upon the dataclass that it is meant for: unknown keys are named, and null takes entries away."""

import dataclasses
import difflib
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mtl_ray.config.tree import Node


def fit(node: Node, kind: Any, path: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    """The values that a type is to be made of, and what is wrong with the keys.

    An entry that is null is left out where its type does not admit None, so that the default holds, and out of every mapping of
    named things, so that ``heads: {semantic: null}`` takes the inherited head away.

    Args:
        node: the tree.
        kind: a dataclass, or anything that can stand in a field of one.
        path: where the node stands, for the messages.

    Returns:
        Nested dicts, lists and scalars; one sentence for each key that is not known.
    """
    if isinstance(node.value, list):
        items = [fit(item, _item_kind(kind, place), (*path, str(place))) for place, item in enumerate(node.value)]
        return [value for value, _ in items], [problem for _, problems in items for problem in problems]
    if not isinstance(node.value, dict):
        return node.value, []
    if (problem := _wrong_type(node, kind, path)) is not None:
        return {}, [problem]
    target = _mapping_kind(kind, node.value)
    values: dict[str, Any] = {}
    problems: list[str] = []
    known = field_kinds(target) if dataclasses.is_dataclass(target) else None
    for key, child in node.value.items():
        if known is not None and key not in known:
            problems.append(f"{child.origin}: unknown key {'.'.join((*path, key))}{_nearest(key, known, path)}")
            continue
        child_kind = known[key] if known is not None else _value_kind(target)
        if child.value is None and not (known is not None and admits_none(child_kind)):
            continue
        values[key], found = fit(child, child_kind, (*path, key))
        problems += found
    return values, problems


def field_kinds(target: Any) -> dict[str, Any]:
    """The types of a dataclass's fields by name."""
    hints = get_type_hints(target, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(target)}


def admits_none(kind: Any) -> bool:
    """True if None is a value of the type."""
    return kind is Any or NoneType in members(kind)


def members(kind: Any) -> tuple[Any, ...]:
    """What a type may be: the members of a union, without annotations."""
    if get_origin(kind) is Annotated:
        return members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return tuple(inner for member in get_args(kind) for inner in members(member))
    return (kind,)


def tag(target: Any) -> str | None:
    """What ``type`` says of a dataclass, None if it has no such field."""
    kind = field_kinds(target).get("type") if dataclasses.is_dataclass(target) else None
    return str(get_args(kind)[0]) if get_origin(kind) is Literal else None


def _mapping_kind(kind: Any, entries: Mapping[str, Node]) -> Any:
    """The member of a union that a mapping is meant for: the dataclass of its ``type``, the only dataclass, or a dict."""
    found = _dataclasses(kind)
    if len(found) == 1:
        return found[0]
    if found:
        return next(member for member in found if tag(member) == entries["type"].value)
    return next((member for member in members(kind) if get_origin(member) in (dict, Mapping)), None)


def _dataclasses(kind: Any) -> list[Any]:
    return [member for member in members(kind) if dataclasses.is_dataclass(member)]


def _wrong_type(node: Node, kind: Any, path: tuple[str, ...]) -> str | None:
    """What is wrong with the ``type`` of a mapping that is one of several dataclasses; None if nothing is."""
    tags = [str(tag(member)) for member in _dataclasses(kind)]
    assert isinstance(node.value, dict)
    if len(tags) < 2:
        return None
    if "type" not in node.value:
        return f"{node.origin}: {'.'.join(path)} needs a type: one of {', '.join(tags)}"
    if node.value["type"].value in tags:
        return None
    given = node.value["type"]
    near = difflib.get_close_matches(str(given.value), tags, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(tags)}"
    return f"{given.origin}: {'.'.join(path)} has the unknown type {given.value!r}; {hint}"


def _value_kind(target: Any) -> Any:
    return get_args(target)[1] if target is not None and get_args(target) else Any


def _item_kind(kind: Any, place: int) -> Any:
    for member in members(kind):
        arguments = get_args(member)
        if get_origin(member) in (tuple, list) and arguments:
            many = get_origin(member) is list or arguments[-1] is Ellipsis
            return arguments[0] if many else arguments[min(place, len(arguments) - 1)]
    return Any


def _nearest(key: str, known: Mapping[str, Any], path: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {'.'.join((*path, near[0]))}?"
    return f"; known here: {', '.join(known)}"
