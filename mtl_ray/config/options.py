"""The entries of a config as options of a command line."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_ray.config.tree import Node, Origin, node_of


def add_options(parser: argparse.ArgumentParser, schema: Mapping[str, Any], positional: str, leave_out: Sequence[str]) -> None:
    """An option for each entry of a config by its name; one that is not given is None, so that the config's default stands.

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
        options: dict[str, Any] = {"help": entry["description"]}
        if name == positional:
            parser.add_argument(name, metavar=name.upper(), nargs=None if needed else "?", **options)
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
