"""A tree becomes a typed config, or a ValueError that says what is wrong and where it was written."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from mtl_ray.config.document import dump
from mtl_ray.config.fields import fit, leaves
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


def _sentence(tree: Node, details: ErrorDetails) -> str:
    node, path = _locate(tree, details["loc"])
    name = ".".join(path) or "the config"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    match details["type"]:
        case "missing":
            missing = ".".join((*path, str(details["loc"][-1])))
            return f"{node.origin}: {missing} is missing"
        case "union_tag_not_found":
            return f"{node.origin}: {name} needs a type: one of {_tags(details)}"
        case "union_tag_invalid":
            return f"{node.origin}: {name} has the unknown type {details['ctx']['tag']!r}; known: {_tags(details)}"
        case "value_error" | "assertion_error":
            return f"{node.origin}: {name}: {message}"
    shown = "" if isinstance(node.value, dict | list) else f", not {node.value!r}"
    return f"{node.origin}: {name} {message.replace('Input should', 'should', 1)}{shown}"


def _tags(details: ErrorDetails) -> str:
    expected = details.get("ctx", {}).get("expected_tags")
    return str(expected).replace("'", "") if expected else "those in the schema (python -m jobs.config schema)"


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


def show(tree: Node, config: Any) -> str:
    """Each value of a config on its line as ``section.key=value  # where it was written``."""
    rows = []
    for path, value in leaves(values_of(config)):
        node, found = find(tree, path)
        rows.append((f"{'.'.join(map(str, path))}={json.dumps(value)}", str(node.origin) if found else "default"))
    width = min(max(len(text) for text, _ in rows), 72)
    return "\n".join(f"{text:<{width}}  # {origin}" for text, origin in rows)


def schema(cls: type[Any]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a config file, for editors: names, types, ranges and descriptions.

    Nothing but ``type`` is required in it, since a file may inherit the rest; what is missing in the end is found by ``validate``.
    """
    found = TypeAdapter(cls).json_schema()
    for part in [found, *found.get("$defs", {}).values()]:
        _loosen(part)
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    names = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    found["properties"]["_base_"] = {"description": "Files that this one builds upon, merged from left to right.", **names}
    return found


def _loosen(part: dict[str, Any]) -> None:
    part.pop("required", None)
    if "const" in part.get("properties", {}).get("type", {}):
        part["required"] = ["type"]
    for entry in part.get("properties", {}).values():
        if isinstance(entry.get("additionalProperties"), dict):
            entry["additionalProperties"] = {"anyOf": [entry["additionalProperties"], {"type": "null"}]}
