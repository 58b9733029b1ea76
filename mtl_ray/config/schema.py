"""The JSON Schema of a config file."""

from typing import Any

from pydantic import TypeAdapter


def schema(cls: type[Any]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a config file, for editors: names, types, ranges and descriptions.

    Nothing is required in it, since a file may inherit the rest; what is missing in the end is found by ``validate``.
    """
    found = TypeAdapter(cls).json_schema()
    for part in [found, *found.get("$defs", {}).values()]:
        _loosen(part)
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    names = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    found["properties"]["_base_"] = {"description": "Files that this one builds upon, merged from left to right.", **names}
    return found


def _loosen(part: dict[str, Any]) -> None:
    """A part of a file may leave out anything, its ``type`` too: then it fits several members of a union."""
    part.pop("required", None)
    _widen(part.get("properties", {}))
    for entry in part.get("properties", {}).values():
        if isinstance(entry.get("additionalProperties"), dict):
            entry["additionalProperties"] = {"anyOf": [entry["additionalProperties"], {"type": "null"}]}


def _widen(entries: Any) -> None:
    for entry in entries.values() if isinstance(entries, dict) else entries:
        if isinstance(entry, dict | list):
            _widen(entry)
    if isinstance(entries, dict) and "oneOf" in entries:
        entries["anyOf"] = entries.pop("oneOf")
