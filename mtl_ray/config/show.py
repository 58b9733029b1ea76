"""A config for people to read: each value and where it was written."""

import json
from collections.abc import Iterator
from typing import Any

from mtl_ray.config.tree import Node, find
from mtl_ray.config.validate import values_of


def show(tree: Node, config: Any) -> str:
    """Each value of a config on its line as ``section.key=value  # where it was written``."""
    rows = []
    for path, value in _leaves(values_of(config)):
        node, found = find(tree, path)
        rows.append((f"{'.'.join(map(str, path))}={json.dumps(value)}", str(node.origin) if found else "default"))
    width = min(max(len(text) for text, _ in rows), 72)
    return "\n".join(f"{text:<{width}}  # {origin}" for text, origin in rows)


def _leaves(values: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Path and value of everything that holds no further mapping."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(values, list) and any(isinstance(item, dict) for item in values):
        for place, item in enumerate(values):
            yield from _leaves(item, (*path, place))
    else:
        yield path, values
