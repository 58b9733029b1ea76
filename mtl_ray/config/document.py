"""YAML text to a tree and back, with the scalars of YAML 1.2 (https://yaml.org/spec/1.2.2/, section
10.3).

PyYAML follows YAML 1.1: there ``1e-4`` is a string, ``on`` a boolean, ``12:30`` the number 750,
``012`` the number 10, and of two equal keys the last one wins without a word. Here only its parser
is used, and what the text means is decided below.
"""

import re
from typing import Any

import yaml

from mtl_ray.config.tree import Node, Origin

MAX_DEPTH = 64
"""The deepest nesting. Configs are ten deep at most; Python's stack limits how deep a tree can be
merged and validated.
"""
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted word of YAML means.

    Raises:
        ValueError: for a number with leading zeros, which readers take for 8, 10 or a string.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _LEADING_ZERO.fullmatch(text):
        raise ValueError(
            f"{text} has leading zeros: write the number without them, or '{text}' in quotes for a "
            "text"
        )
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def parse(text: str, source: str) -> Node:
    """The tree of a YAML document.

    Raises:
        ValueError: naming the line, if it is not YAML, is nested too deeply, has a key twice, a
            number with leading zeros, a tag or an alias.
    """
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except RecursionError:
        raise ValueError(f"{source}: nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ValueError(
            f"{Origin(source, mark.line + 1 if mark else None)}: not valid YAML: "
            f"{error.problem or error.context}"
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not valid YAML: {error}") from None
    if root is None:
        return Node({}, Origin(source, 1))
    return _build(root, source, Origin(source, root.start_mark.line + 1), set())


def parse_bytes(data: bytes, source: str) -> Node:
    """The tree of a YAML file.

    Raises:
        ValueError: as ``parse``; also if it is not UTF-8 text, or no mapping.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{source}: a config is UTF-8 text, this is not") from None
    tree = parse(text, source)
    if not isinstance(tree.value, dict):
        raise ValueError(f"{tree.origin}: a config is a mapping of sections")
    return tree


def _build(node: yaml.Node, source: str, origin: Origin, seen: set[int], depth: int = 0) -> Node:
    if depth > MAX_DEPTH:
        raise ValueError(f"{origin}: nested too deeply")
    if id(node) in seen:
        raise ValueError(
            f"{origin}: aliases (*name) are not followed; write the value again, or put it into a "
            "_base_ file"
        )
    seen.add(id(node))
    if node.tag not in (
        yaml.BaseLoader.DEFAULT_SCALAR_TAG,
        yaml.BaseLoader.DEFAULT_SEQUENCE_TAG,
        yaml.BaseLoader.DEFAULT_MAPPING_TAG,
    ):
        raise ValueError(f"{origin}: tags such as {node.tag} are not read")
    if isinstance(node, yaml.MappingNode):
        return Node(_build_mapping(node, source, seen, depth + 1), origin)
    if isinstance(node, yaml.SequenceNode):
        return Node(
            [
                _build(item, source, Origin(source, item.start_mark.line + 1), seen, depth + 1)
                for item in node.value
            ],
            origin,
        )
    if isinstance(node, yaml.ScalarNode) and node.style is not None:
        return Node(str(node.value), origin)
    try:
        return Node(scalar(node.value), origin)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None


def _build_mapping(
    node: yaml.MappingNode, source: str, seen: set[int], depth: int
) -> dict[str, Node]:
    entries: dict[str, Node] = {}
    for key, value in node.value:
        origin = Origin(source, key.start_mark.line + 1)
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"{origin}: a key must be a word, not a list or a mapping")
        if key.value in entries:
            raise ValueError(
                f"{origin}: the key {key.value} stands here a second time (first in line "
                f"{entries[key.value].origin.line})"
            )
        entries[key.value] = _build(value, source, origin, seen, depth)
    return entries


class _Dumper(yaml.SafeDumper):
    """Quotes each text that would otherwise be read as something else; writes lists of scalars
    on one line.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _is_ambiguous(text: str) -> bool:
    try:
        return not isinstance(scalar(text), str)
    except ValueError:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="'" if _is_ambiguous(text) else None
    )


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    nested = any(isinstance(item, dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=not nested)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)


def dump(values: Any) -> str:
    """YAML text of nested dicts, lists and scalars, in their order; ``plain(parse(dump(values),
    ""))`` gives them again.
    """
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
