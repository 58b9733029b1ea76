"""A config file, what it inherits by ``_base_``, and the overrides of the command line become
one tree.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from mtl_ray.config.document import MAX_DEPTH, parse, parse_bytes
from mtl_ray.config.tree import Node, Origin, merge

COMMAND_LINE = "command line"


def load_tree(path: str | Path, overrides: Sequence[str] = ()) -> Node:
    """The tree of a config file: its ``_base_`` files merged left to right, then the file itself,
    then the overrides.

    A mapping within the file may have a ``_base_`` of its own. Names of files are relative to the
    file they stand in.

    Args:
        path: a YAML file.
        overrides: each ``section.key=value``; the value is YAML, a number among the keys is a place
            in a list.

    Raises:
        FileNotFoundError: if the file or one that it inherits is not there.
        ValueError: naming file and line, if one of them cannot be read.
    """
    tree = _load_file(Path(path), ())
    if overrides:
        tree = merge(tree, override_tree(overrides))
    return tree


def override_tree(overrides: Sequence[str], source: str = COMMAND_LINE) -> Node:
    """``["a.b=1", "a.c=[x]"]`` as the tree of ``{a: {b: 1, c: [x]}}``; the order of different keys
    does not matter.

    Raises:
        ValueError: if one is not of the form ``section.key=value`` or its value is not YAML.
    """
    origin = Origin(source)
    tree = Node({}, origin)
    for text in overrides:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not value.strip() or not all(keys):
            raise ValueError(
                f"{source}: {text!r} is not of the form section.key=value (null takes an entry "
                "away)"
            )
        if len(keys) > MAX_DEPTH:
            raise ValueError(f"{source}: {path.strip()[:60]}... has {len(keys)} keys")
        node = _with_origin(parse(value, f"{source}, {path.strip()}"), origin)
        for key in reversed(keys):
            node = Node({key: node}, origin)
        tree = merge(tree, node)
    return tree


def _with_origin(node: Node, origin: Origin) -> Node:
    """The same values, all from one origin: an override has no lines."""
    if isinstance(node.value, dict):
        return Node({key: _with_origin(child, origin) for key, child in node.value.items()}, origin)
    if isinstance(node.value, list):
        return Node([_with_origin(child, origin) for child in node.value], origin)
    return Node(node.value, origin)


def _load_file(path: Path, below: tuple[Path, ...], wanted_by: Origin | None = None) -> Node:
    resolved = path.resolve()
    if resolved in below:
        raise ValueError(
            f"{wanted_by}: _base_ goes in a circle: {_shown(path)} inherits from itself"
        )
    try:
        data = resolved.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        asked = f" (the _base_ of {wanted_by})" if wanted_by else ""
        raise FileNotFoundError(f"there is no config file {_shown(path)}{asked}") from None
    return _inherit(parse_bytes(data, _shown(path)), path, (*below, resolved))


def _inherit(node: Node, path: Path, below: tuple[Path, ...]) -> Node:
    """The node with what each mapping in it inherits by its ``_base_``."""
    if isinstance(node.value, list):
        return Node([_inherit(item, path, below) for item in node.value], node.origin)
    if not isinstance(node.value, dict):
        return node
    tree = Node({}, node.origin)
    for name in _base_names(node.value.get("_base_")):
        tree = merge(tree, _load_file(path.parent / str(name.value), below, name.origin))
    return merge(
        tree,
        Node(
            {
                key: _inherit(child, path, below)
                for key, child in node.value.items()
                if key != "_base_"
            },
            node.origin,
        ),
    )


def _base_names(base: Node | None) -> list[Node]:
    if base is None or base.value is None:
        return []
    names = base.value if isinstance(base.value, list) else [base]
    for name in names:
        if not isinstance(name.value, str):
            raise ValueError(f"{name.origin}: _base_ names a file, or a list of files")
    return names


def _shown(path: Path) -> str:
    """The path as it is shortest: relative to the working directory where it lies below it."""
    resolved = path.resolve()
    return os.path.relpath(resolved) if resolved.is_relative_to(Path.cwd()) else str(resolved)
