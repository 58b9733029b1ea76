"""A tree becomes a typed config, and a small JSON file of this program a typed value; or a
ValueError says what is wrong and where it was written.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mtl_ray.config.document import dump
from mtl_ray.config.fields import Path, Problem, fit
from mtl_ray.config.tree import Node, find, plain, without

Config = TypeVar("Config")
Record = TypeVar("Record")
Located = tuple[Node, Path, Mapping[str, Any]]
"""An error of pydantic: the node that it is about, its path, the details."""
_SCALARS = ("int_type", "float_type", "string_type", "bool_type")
_MAPPINGS = ("dataclass_type", "dict_type", "tuple_type", "list_type")


def validate(tree: Node, cls: type[Config], *, written: bool = False) -> Config:
    """The dataclass that a tree describes.

    Args:
        tree: what was read.
        cls: the dataclass.
        written: see ``fields.fit``.

    Raises:
        ValueError: one line for each problem of keys and of values: file and line, the key, and
            what is wrong with it; of an unknown key the nearest one that exists.
    """
    values, problems = fit(tree, cls, written=written)
    found = list(map(str, problems))
    try:
        config = TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        located = _meant(
            [
                (*_locate(tree, details["loc"]), details)
                for details in error.errors(include_url=False)
            ]
        )
        found += [
            _sentence(node, path, details)
            for node, path, details in located
            if not _is_told(path, details, problems)
        ]
    if found:
        raise ValueError("\n".join(dict.fromkeys(found))) from None
    return config


def readable(tree: Node, cls: type[Any], sections: Sequence[str]) -> tuple[Node, dict[str, Any]]:
    """What of a written config this version can read: an entry of ``sections`` that it cannot read
    is left out.

    Args:
        tree: what this program wrote, in whatever version.
        cls: the dataclass of the whole config.
        sections: the sections that may lose entries.

    Returns:
        The tree without those entries, and their values by path (``runtime.keep``). A fault of
        another section stays for ``validate``.
    """
    left_out: dict[str, Any] = {}
    while True:
        values, problems = fit(tree, cls, written=True)
        paths = [problem.path for problem in problems]
        try:
            TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            located = [
                _locate(tree, details["loc"])
                for details in error.errors(include_url=False)
                if details["type"] != "missing"
            ]
            paths += [path for _, path in located]
        smaller = tree
        for path in _below(tree, paths, sections):
            left_out.setdefault(".".join(path), plain(find(tree, path)[0]))
            smaller = without(smaller, path)
        if smaller == tree:
            return tree, left_out
        tree = smaller


def read_record(data: bytes, kind: type[Record], name: str) -> Record:
    """The value in a JSON file that this program wrote.

    Args:
        data: the file.
        kind: a dataclass, or another type that pydantic knows.
        name: of the file, for the message.

    Raises:
        ValueError: in one sentence that names the file, if it is no JSON or none of ``kind``.
    """
    try:
        return TypeAdapter(kind).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(f"{name} is damaged: {place}{first['msg']}") from None


def _below(tree: Node, paths: Sequence[Path], sections: Sequence[str]) -> Iterator[Path]:
    """Those of ``paths`` that lie below a section; for a section itself (its entries do not fit
    together) all of its entries.
    """
    for path in paths:
        if path[:1] and path[0] in sections:
            section = find(tree, path[:1])[0].value
            if len(path) > 1:
                yield path
            elif isinstance(section, dict):
                yield from ((path[0], key) for key in section)


def _meant(located: Sequence[Located]) -> list[Located]:
    """Of a value that fits no member of a union only what the members of its own form say: a
    mapping is no number that is wrong.
    """
    kept = []
    for node, path, details in located:
        strange = details["type"] in (
            _SCALARS if isinstance(node.value, dict | list) else _MAPPINGS
        )
        others = [
            each for each in located if each[2] is not details and each[1][: len(path)] == path
        ]
        if not (strange and others):
            kept.append((node, path, details))
    return kept


def _is_told(path: Path, details: Mapping[str, Any], problems: Sequence[Problem]) -> bool:
    """True of what stands in a mapping of unknown type, and of a missing key that is there
    misspelt.
    """
    missing = details["type"] == "missing" and any(
        each.meant == (*path, str(details["loc"][-1])) for each in problems
    )
    return missing or any(
        each.unjudged is not None and path[: len(each.unjudged)] == each.unjudged
        for each in problems
    )


def _sentence(node: Node, path: Path, details: Mapping[str, Any]) -> str:
    name = ".".join(path) or "the config"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if details["type"] == "missing":
        taken_away = path[-1:] == details["loc"][-1:]
        return (
            f"{node.origin}: "
            f"{name if taken_away else '.'.join((*path, str(details['loc'][-1])))} is missing"
        )
    if details["type"] in ("value_error", "assertion_error"):
        return f"{node.origin}: {name}: {message}"
    shown = "" if isinstance(node.value, dict | list) else f", not {node.value!r}"
    return f"{node.origin}: {name} {message.replace('Input should', 'should', 1)}{shown}"


def _locate(tree: Node, loc: Sequence[str | int]) -> tuple[Node, Path]:
    """The node that an error is about, and its path. A location of pydantic also names members
    of unions: these are passed over.
    """
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
