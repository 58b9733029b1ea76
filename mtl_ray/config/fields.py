"""Fits a tree to a dataclass: unknown keys are problems, and null removes entries."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mtl_ray.config.strict import DefaultType, Retired, renamed_of, retired_of
from mtl_ray.config.tree import Node, Origin, node_of, plain

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that is wrong with a key.

    Attributes:
        origin: where it was written.
        text: a sentence that names the path.
        path: of the key.
        unjudged: of a mapping whose type is unknown its path: what stands in it cannot be judged.
        meant: of an unknown key the path of the key that it probably stands for.
    """

    origin: Origin
    text: str
    path: Path
    unjudged: Path | None = None
    meant: Path | None = None

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}"


def fit(
    node: Node, kind: Any, path: Path = (), *, written: bool = False
) -> tuple[Any, list[Problem]]:
    """The values that a type is to be made of, and what is wrong with the keys.

    An entry that is null is left out where its type does not admit None, so that the default holds,
    and out of every mapping of named things, so that ``heads: {semantic: null}`` takes the
    inherited head away.

    Args:
        node: the tree.
        kind: a dataclass, or anything that can stand in a field of one.
        path: where the node stands, for the messages.
        written: the tree is what this program wrote for a run, whatever its version: retired keys
            are passed over.

    Returns:
        Nested dicts, lists and scalars; a problem for each key that is not known.
    """
    if isinstance(node.value, list):
        items = [
            fit(item, _item_kind(kind, place), (*path, str(place)), written=written)
            for place, item in enumerate(node.value)
        ]
        return [value for value, _ in items], [
            problem for _, problems in items for problem in problems
        ]
    if not isinstance(node.value, dict):
        return node.value, []
    entries = _with_type(node, kind)
    if (problem := _wrong_type(node, entries, kind, path)) is not None:
        return {}, [problem]
    target = _mapping_kind(kind, entries)
    entries = _with_new_names(entries, target)
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    known = field_kinds(target) if dataclasses.is_dataclass(target) else None
    for key, child in entries.items():
        if known is not None and key not in known:
            problems += _unknown(
                key, child, list(known), path, retired_of(target).get(key), written
            )
            continue
        child_kind = known[key] if known is not None else _value_kind(target)
        if child.value is None and not (known is not None and admits_none(child_kind)):
            continue
        values[key], found = fit(child, child_kind, (*path, key), written=written)
        problems += found
    return values, problems


def _unknown(
    key: str, child: Node, known: Sequence[str], path: Path, retired: Retired | None, written: bool
) -> list[Problem]:
    """What is to be said of a key that a class does not have; nothing if it once had it, and it
    says what was the default.
    """
    name = ".".join((*path, key))
    if retired is not None:
        harmless = written or child.value is None or plain(child) == retired.default
        return (
            []
            if harmless
            else [
                Problem(child.origin, f"{name} does nothing here: {retired.reason}", (*path, key))
            ]
        )
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = (
        f"; did you mean {'.'.join((*path, near[0]))}?"
        if near
        else f"; known here: {', '.join(known)}"
    )
    return [
        Problem(
            child.origin,
            f"unknown key {name}{hint}",
            (*path, key),
            meant=(*path, near[0]) if near else None,
        )
    ]


def _with_new_names(entries: Mapping[str, Node], target: Any) -> Mapping[str, Node]:
    """The entries with renamed keys under their new names, converted; null stays null."""
    renamed = {old: to for old, to in renamed_of(target).items() if old in entries}
    kept = {key: child for key, child in entries.items() if key not in renamed}
    for old, to in renamed.items():
        child = entries[old]
        kept.setdefault(
            to.key,
            child if child.value is None else node_of(to.convert(plain(child)), child.origin),
        )
    return kept


def _with_type(node: Node, kind: Any) -> Mapping[str, Node]:
    """The entries of a mapping, with the default ``type`` of its union where it says none."""
    assert isinstance(node.value, dict)
    default = next((found.name for found in _marks(kind) if isinstance(found, DefaultType)), None)
    if default is None or node.value.get("type", Node(None, node.origin)).value is not None:
        return node.value
    return {**node.value, "type": Node(default, node.origin)}


def _marks(kind: Any) -> tuple[Any, ...]:
    """What stands beside a type, or beside the members of a union, in ``Annotated``."""
    if get_origin(kind) is Annotated:
        return (*get_args(kind)[1:], *_marks(get_args(kind)[0]))
    if get_origin(kind) in (Union, UnionType):
        return tuple(mark for member in get_args(kind) for mark in _marks(member))
    return ()


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
    """The member of a union that a mapping is meant for: the dataclass of its ``type``, the only
    dataclass, or a dict.
    """
    found = _dataclasses(kind)
    if len(found) == 1:
        return found[0]
    if found:
        return next(member for member in found if tag(member) == entries["type"].value)
    return next((member for member in members(kind) if get_origin(member) in (dict, Mapping)), None)


def _dataclasses(kind: Any) -> list[Any]:
    return [member for member in members(kind) if dataclasses.is_dataclass(member)]


def _wrong_type(node: Node, entries: Mapping[str, Node], kind: Any, path: Path) -> Problem | None:
    """What is wrong with the ``type`` of a mapping that is one of several dataclasses; None if
    nothing is.
    """
    tags = [str(tag(member)) for member in _dataclasses(kind)]
    if len(tags) < 2:
        return None
    if "type" not in entries:
        return Problem(
            node.origin,
            f"{'.'.join(path)} needs a type: one of {', '.join(tags)}",
            path,
            unjudged=path,
        )
    given = entries["type"]
    if given.value in tags:
        return None
    shown = plain(given)
    near = difflib.get_close_matches(str(shown), tags, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(tags)}"
    return Problem(
        given.origin,
        f"{'.'.join(path)} has the unknown type {shown!r}; {hint}",
        path,
        unjudged=path,
    )


def _value_kind(target: Any) -> Any:
    return get_args(target)[1] if target is not None and get_args(target) else Any


def _item_kind(kind: Any, place: int) -> Any:
    for member in members(kind):
        arguments = get_args(member)
        if get_origin(member) in (tuple, list) and arguments:
            many = get_origin(member) is list or arguments[-1] is Ellipsis
            return arguments[0] if many else arguments[min(place, len(arguments) - 1)]
    return Any
