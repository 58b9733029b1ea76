"""A name of a class or a type means one thing in the whole code."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAME = {"Floats", "Ints"}
"""Types that are the same wherever they stand."""
OF_PLUGINS = {"Arrays", "Features"}
"""Names that plugins import and that were there before this rule: they keep working."""
COPIED = "mtl_ray/export/standalone_predict.py"
"""Leaves the project as a file of its own."""


def test_a_class_or_type_has_a_name_of_its_own() -> None:
    places = defaultdict(list)
    for folder in ("mtl_ray", "jobs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            file = str(path.relative_to(ROOT))
            if file != COPIED:
                for name in types_of(path.read_text()):
                    places[name].append(file)
    several = {name: files for name, files in places.items() if len(files) > 1}
    allowed = SAME | OF_PLUGINS
    assert {name: files for name, files in several.items() if name not in allowed} == {}
    assert set(several) == allowed


def test_classes_and_types_are_found_but_not_type_variables() -> None:
    lines = ["class A: ...", "B = dict[str, int]", 'T = TypeVar("T")', "COUNT = 3", "_C = int"]
    text = "\n".join([*lines, "D: TypeAlias = int"])
    assert list(types_of(text)) == ["A", "B", "D"]


def types_of(text: str) -> Iterator[str]:
    """The public classes and types that a module defines."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            yield from named(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not variable(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    yield from named(target.id)


def named(name: str) -> Iterator[str]:
    """The name if it is one of a public type: an upper case letter first, then lower case ones."""
    if name[:1].isupper() and (len(name) == 1 or not name.isupper()):
        yield name


def variable(value: ast.expr | None) -> bool:
    """Whether a value is a type variable."""
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id in ("TypeVar", "ParamSpec")
    )
