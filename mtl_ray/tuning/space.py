"""A search space: which values a trial tries, and the overrides that they come to."""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mtl_ray.config.document import dump
from mtl_ray.config.fields import fit
from mtl_ray.config.load import override_tree
from mtl_ray.config.tree import Node, Origin, find, merge, plain
from mtl_ray.experiment import experiment_type, read_experiment
from mtl_ray.tuning.config import Anchors, Choice, Distribution, Int, LogUniform, Uniform, in_order

Space = Mapping[str, Distribution]
Value = str | int | float
Parameters = dict[str, Value]
"""What a trial tries, by path: a number, or the name of a choice. Entries whose conditions do not hold are absent."""
Pick = Callable[[str, Distribution], Value]
MOST_POINTS = 100_000


def choose(space: Space, pick: Pick) -> Parameters:
    """The parameters of a trial: ``pick`` is asked for each entry whose conditions hold, in order."""
    chosen: Parameters = {}
    for path in in_order(space):
        if _holds(space[path], space, chosen):
            chosen[path] = pick(path, space[path])
    return chosen


def _holds(entry: Distribution, space: Space, chosen: Parameters) -> bool:
    """Whether each entry that this one depends on is there, with one of the wanted values (or names of choices)."""
    for path, wanted in entry.when.items():
        if path not in chosen:
            return False
        given = chosen[path]
        asked = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        if given not in asked and value_of(space[path], given) not in [*asked, wanted]:
            return False
    return True


def names_of(entry: Choice) -> dict[str, Any]:
    """The values of a choice by name: its own names, else the values as text (JSON where they are no plain text)."""
    if isinstance(entry.values, dict):
        return dict(entry.values)
    return {value if isinstance(value, str) else json.dumps(value): value for value in entry.values}


def value_of(entry: Distribution, given: Value) -> Any:
    """What a parameter means in the config; of anchors their number."""
    return names_of(entry)[str(given)] if isinstance(entry, Choice) else given


def override(path: str, value: Any) -> str:
    """``path=value`` as on the command line."""
    return f"{path}={json.dumps(value)}"


def overrides_of(space: Space, chosen: Parameters) -> list[str]:
    """The parameters of a trial as overrides, those of anchors (which must be fitted) left out."""
    return [override(path, value_of(space[path], given)) for path, given in chosen.items() if not isinstance(space[path], Anchors)]


def overlay(overrides: Sequence[str]) -> str:
    """Overrides as the YAML of a file that can stand in ``_base_``."""
    return dump(plain(override_tree(overrides, "trial")))


def points(entry: Distribution) -> list[Value]:
    """The values that a grid takes of an entry."""
    match entry:
        case Choice():
            return list(names_of(entry))
        case Int():
            return list(range(entry.low, entry.high + 1, entry.step))
        case Anchors():
            return list(range(entry.low, entry.high + 1))
        case Uniform():
            assert entry.points is not None
            return [entry.low + (entry.high - entry.low) * i / (entry.points - 1) for i in range(entry.points)]
        case LogUniform():
            assert entry.points is not None
            low, high = math.log(entry.low), math.log(entry.high)
            inner = [math.exp(low + (high - low) * i / (entry.points - 1)) for i in range(1, entry.points - 1)]
            return [entry.low, *inner, entry.high]


def grid(space: Space) -> list[Parameters]:
    """Every combination once; combinations that differ only in entries whose conditions do not hold are one.

    Raises:
        ValueError: if there are too many to be meant.
    """
    columns = {path: points(entry) for path, entry in space.items()}
    total = math.prod(map(len, columns.values()))
    if total > MOST_POINTS:
        raise ValueError(f"the grid has {total} points, more than {MOST_POINTS}: take fewer points, or another sampler")
    found: dict[str, Parameters] = {}
    for row in itertools.product(*columns.values()):
        given = dict(zip(columns, row, strict=True))
        chosen = choose(space, lambda path, _, given=given: given[path])  # type: ignore[misc]
        found.setdefault(json.dumps(chosen), chosen)
    return list(found.values())


def with_flat_space(tree: Node) -> Node:
    """The tree with ``tune.space.a.b.low=1`` of the command line laid upon the entry ``a.b`` of the space, where there is one."""
    space, found = find(tree, ("tune", "space"))
    if not found or not isinstance(space.value, dict):
        return tree
    flat = {path: entry for path, entry in space.value.items() if "." in path}
    for path, entry in space.value.items():
        if "." not in path:
            _lay(flat, path, entry)
    removed = Node({"tune": Node({"space": Node(None, space.origin)}, space.origin)}, space.origin)
    return merge(merge(tree, removed), Node({"tune": Node({"space": Node(flat, space.origin)}, space.origin)}, space.origin))


def _lay(flat: dict[str, Node], path: str, node: Node) -> None:
    """Lays what stands at a path of nested mappings upon the entry of that path, which begins where the space has it or says a type."""
    inner = node.value
    if path in flat:
        flat[path] = merge(flat[path], node)
    elif isinstance(inner, dict) and not ("type" in inner and not isinstance(inner["type"].value, dict)):
        for key, child in inner.items():
            _lay(flat, f"{path}.{key}", child)
    else:
        flat[path] = node


def check_space(tree: Node, space: Space) -> None:
    """Looks whether the config has the paths of a space, and takes the ends of each entry.

    Args:
        tree: of the whole config, so that messages name file and line.
        space: of its ``tune`` section.

    Raises:
        ValueError: one line for each path that is not known (with the nearest that is), and for each value that is not allowed.
    """
    problems = [problem for path, entry in space.items() for problem in _problems(tree, path, space)]
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))


def _problems(tree: Node, path: str, space: Space) -> Iterator[str]:
    entry = space[path]
    origin = find(tree, ("tune", "space", path))[0].origin
    if path.split(".")[0] in ("tune", "serve", "export"):
        yield f"{origin}: {path} cannot be searched: it says nothing about a training"
        return
    if isinstance(entry, Anchors):
        head, found = find(tree, tuple(path.split(".")[:-1]))
        if not (found and isinstance(head.value, dict) and path.endswith(".anchors") and "anchors" in head.value):
            yield f"{origin}: {path} has no anchors: type anchors is for model.heads.NAME.anchors of a head that has some"
        return
    for value in _ends(entry):
        given = _moved(override_tree([*_conditions(entry, space), override(path, value)]), origin)
        changed = merge(tree, given)
        unknown = fit(changed, experiment_type(changed))[1]
        yield from map(str, unknown)
        yield from [] if unknown else _refusals(changed, path, str(origin))


def _conditions(entry: Distribution, space: Space) -> list[str]:
    """Overrides with which an entry is tried: of each that it depends on, the first value that it asks for."""
    found = []
    for path, wanted in entry.when.items():
        first = wanted[0] if isinstance(wanted, list | tuple) and wanted else wanted
        on = space.get(path)
        named = isinstance(on, Choice) and str(first) in names_of(on)
        found.append(override(path, names_of(on)[str(first)] if isinstance(on, Choice) and named else first))
    return found


def _ends(entry: Uniform | LogUniform | Int | Choice) -> list[Any]:
    return list(names_of(entry).values()) if isinstance(entry, Choice) else [entry.low, entry.high]


def _moved(node: Node, origin: Origin) -> Node:
    """The same values, all from the place in the file where the space says them."""
    if isinstance(node.value, dict):
        return Node({key: _moved(child, origin) for key, child in node.value.items()}, origin)
    return Node([_moved(child, origin) for child in node.value] if isinstance(node.value, list) else node.value, origin)


def _refusals(tree: Node, path: str, origin: str) -> list[str]:
    """What the config says of this value alone. What it says of several together depends on the trial, which then fails with it."""
    try:
        read_experiment(tree)
    except ValueError as error:
        return [line for line in str(error).splitlines() if line.startswith((f"{origin}: {path} ", f"{origin}: {path}."))]
    return []
