"""A tree becomes a typed config, or a ValueError that says what is wrong and where it was written."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mtl_ray.config.document import dump
from mtl_ray.config.fields import fit
from mtl_ray.config.tree import Node, find

Config = TypeVar("Config")


def validate(tree: Node, cls: type[Config]) -> Config:
    """The dataclass that a tree describes.

    Raises:
        ValueError: one line for each problem: file and line, the key, and what is wrong with it; of an unknown key the nearest
            one that exists.
    """
    values, problems = fit(tree, cls)
    if problems:
        raise ValueError("\n".join(problems))
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise ValueError("\n".join(_sentence(tree, details) for details in error.errors(include_url=False))) from None


def _sentence(tree: Node, details: Mapping[str, Any]) -> str:
    node, path = _locate(tree, details["loc"])
    name = ".".join(path) or "the config"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if details["type"] == "missing":
        taken_away = path[-1:] == details["loc"][-1:]
        return f"{node.origin}: {name if taken_away else '.'.join((*path, str(details['loc'][-1])))} is missing"
    if details["type"] in ("value_error", "assertion_error"):
        return f"{node.origin}: {name}: {message}"
    shown = "" if isinstance(node.value, dict | list) else f", not {node.value!r}"
    return f"{node.origin}: {name} {message.replace('Input should', 'should', 1)}{shown}"


def _locate(tree: Node, loc: Sequence[str | int]) -> tuple[Node, tuple[str, ...]]:
    """The node that an error is about, and its path. A location of pydantic also names members of unions: these are passed over."""
    node, path = tree, []
    for part in loc:
        child, found = find(node, (part,))
        if found:
            node = child
            path.append(str(part))
    return node, tuple(path)


def values_of(config: Any) -> Any:
    """A config as nested dicts, lists and scalars, with every default filled in."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def to_yaml(config: Any) -> str:
    """YAML text from which the same config is made again."""
    return dump(values_of(config))
