"""Configs for people and programs: what each value is and where it was written, the JSON Schema,
command-line options.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from mtl_ray.config.tree import Node, Origin, find, node_of
from mtl_ray.config.validate import values_of


def show(tree: Node, config: Any) -> str:
    """Each value of a config on its line as ``section.key=value  # where it was written``."""
    rows = []
    for path, value in _leaves(values_of(config)):
        node, found = find(tree, path)
        rows.append(
            (
                f"{'.'.join(map(str, path))}={json.dumps(value)}",
                str(node.origin) if found else "default",
            )
        )
    width = min(max(len(text) for text, _ in rows), 72)
    return "\n".join(f"{text:<{width}}  # {origin}" for text, origin in rows)


def _leaves(
    values: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Path and value of everything that holds no further mapping."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(values, list) and any(isinstance(item, dict) for item in values):
        for place, item in enumerate(values):
            yield from _leaves(item, (*path, place))
    else:
        yield path, values


# The JSON Schema of a config file.


def schema(cls: type[Any]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a config file, for editors: names, types, ranges and
    descriptions.

    Nothing is required in it, since a file may inherit the rest; what is missing in the end is
    found by ``validate``.
    """
    found = schema_of(cls)
    for part in [found, *found.get("$defs", {}).values()]:
        _loosen(part)
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    names = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    found["properties"]["_base_"] = {
        "description": "Files that this one inherits, merged from left to right.",
        **names,
    }
    return found


def schema_of(cls: Any) -> dict[str, Any]:
    """The JSON Schema of a config class; unlike in ``schema``, what is required is marked."""
    return TypeAdapter(cls).json_schema(schema_generator=_InheritingSchema)


class _InheritingSchema(GenerateJsonSchema):
    """A JSON Schema in which inherited fields keep their descriptions. pydantic takes a description
    from the class itself alone, not from its bases.
    """

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().dataclass_schema(schema)
        for name, entry in found.get("properties", {}).items():
            if "description" not in entry and (text := _description(schema["cls"], name)):
                entry["description"] = text
        return found


def _description(cls: type[Any], name: str) -> str | None:
    fields = (vars(base).get("__pydantic_fields__", {}).get(name) for base in cls.__mro__)
    return next((field.description for field in fields if field and field.description), None)


def _loosen(part: dict[str, Any]) -> None:
    """A part of a file may leave out anything, its ``type`` too: then it fits several members of
    a union.
    """
    part.pop("required", None)
    _widen(part.get("properties", {}))
    for entry in part.get("properties", {}).values():
        if isinstance(entry.get("additionalProperties"), dict):
            entry["additionalProperties"] = {
                "anyOf": [entry["additionalProperties"], {"type": "null"}]
            }


def _widen(entries: Any) -> None:
    for entry in entries.values() if isinstance(entries, dict) else entries:
        if isinstance(entry, dict | list):
            _widen(entry)
    if isinstance(entries, dict) and "oneOf" in entries:
        entries["anyOf"] = entries.pop("oneOf")


# The entries of a config as options of a command line.


def add_options(
    parser: argparse.ArgumentParser,
    schema: Mapping[str, Any],
    positional: str,
    leave_out: Sequence[str],
) -> None:
    """An option for each entry of a config by its name; one that is not given is None, so that the
    config's default stands.

    Args:
        parser: gets the options.
        schema: JSON Schema of the config.
        positional: the entry that is said by its place instead.
        leave_out: entries that get none.
    """
    for name, entry in schema["properties"].items():
        if name in leave_out:
            continue
        needed, kinds = name in schema.get("required", ()), [entry, *entry.get("anyOf", ())]
        options: dict[str, Any] = {"help": entry.get("description")}
        if name == positional:
            parser.add_argument(
                name, metavar=name.upper(), nargs=None if needed else "?", **options
            )
            continue
        if any(kind.get("type") == "boolean" for kind in kinds):
            options["action"] = argparse.BooleanOptionalAction
        elif any(kind.get("type") == "array" for kind in kinds):
            options["action"] = "append"
        else:
            options["choices"] = next((kind["enum"] for kind in kinds if "enum" in kind), None)
        parser.add_argument(f"--{name.replace('_', '-')}", required=needed, **options)


def given_node(value: Any) -> Node:
    """What was given on the command line as the tree that ``validate`` takes."""
    return node_of(value, Origin("command line"))
