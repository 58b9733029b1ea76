"""A search space: the parameters of a trial, and the config overrides that set them."""

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
ParameterValue = str | int | float
TrialParameters = dict[str, ParameterValue]
"""The parameters of a trial by path: a number, or the name of a choice. Entries whose conditions do
not hold are absent."""
Pick = Callable[[str, Distribution], ParameterValue]
MOST_POINTS = 100_000


def choose_parameters(space: Space, pick: Pick) -> TrialParameters:
    """The parameters of a trial: calls ``pick`` for each entry whose conditions hold, in order."""
    chosen: TrialParameters = {}
    for path in in_order(space):
        if _holds(space[path], space, chosen):
            chosen[path] = pick(path, space[path])
    return chosen


def _holds(entry: Distribution, space: Space, chosen: TrialParameters) -> bool:
    """Whether each entry that this one depends on is present, with one of the wanted values (or
    names of choices).
    """
    for path, wanted in entry.when.items():
        if path not in chosen:
            return False
        given = chosen[path]
        asked = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        if given not in asked and value_of(space[path], given) not in [*asked, wanted]:
            return False
    return True


def choice_names(entry: Choice) -> dict[str, Any]:
    """The values of a choice by name: its own names, else the values as text (JSON if they are
    not strings).
    """
    if isinstance(entry.values, dict):
        return dict(entry.values)
    return {value if isinstance(value, str) else json.dumps(value): value for value in entry.values}


def value_of(entry: Distribution, given: ParameterValue) -> Any:
    """The value of a parameter in the config; for anchors their number."""
    return choice_names(entry)[str(given)] if isinstance(entry, Choice) else given


def override(path: str, value: Any) -> str:
    """``path=value`` as on the command line."""
    return f"{path}={json.dumps(value)}"


def overrides_of(space: Space, chosen: TrialParameters) -> list[str]:
    """The parameters of a trial as overrides, without those of anchors, which must be fitted
    first.
    """
    return [
        override(path, value_of(space[path], given))
        for path, given in chosen.items()
        if not isinstance(space[path], Anchors)
    ]


def trial_overlay(overrides: Sequence[str]) -> str:
    """Overrides as the YAML of a file that ``_base_`` can name."""
    return dump(plain(override_tree(overrides, "trial")))


def grid_values(entry: Distribution) -> list[ParameterValue]:
    """The values of an entry in a grid."""
    match entry:
        case Choice():
            return list(choice_names(entry))
        case Int():
            return list(range(entry.low, entry.high + 1, entry.step))
        case Anchors():
            return list(range(entry.low, entry.high + 1))
        case Uniform():
            assert entry.points is not None
            return [
                entry.low + (entry.high - entry.low) * i / (entry.points - 1)
                for i in range(entry.points)
            ]
        case LogUniform():
            assert entry.points is not None
            low, high = math.log(entry.low), math.log(entry.high)
            inner = [
                math.exp(low + (high - low) * i / (entry.points - 1))
                for i in range(1, entry.points - 1)
            ]
            return [entry.low, *inner, entry.high]


def grid_parameters(space: Space) -> list[TrialParameters]:
    """All combinations. Those that differ only in entries whose conditions do not hold count once.

    Raises:
        ValueError: if there are more than ``MOST_POINTS``.
    """
    columns = {path: grid_values(entry) for path, entry in space.items()}
    total = math.prod(map(len, columns.values()))
    if total > MOST_POINTS:
        raise ValueError(
            f"the grid has {total} points, more than {MOST_POINTS}: take fewer points, or another "
            "sampler"
        )
    found: dict[str, TrialParameters] = {}
    for row in itertools.product(*columns.values()):
        given = dict(zip(columns, row, strict=True))
        chosen = choose_parameters(space, lambda path, _, given=given: given[path])  # type: ignore[misc]
        found.setdefault(json.dumps(chosen), chosen)
    return list(found.values())


def with_flat_space(tree: Node) -> Node:
    """The tree in which ``tune.space.a.b.low=1`` of the command line overrides the entry ``a.b``
    of the space, if there is one.
    """
    space, found = find(tree, ("tune", "space"))
    if not found or not isinstance(space.value, dict):
        return tree
    flat = {path: entry for path, entry in space.value.items() if "." in path}
    for path, entry in space.value.items():
        if "." not in path:
            _merge_entry(flat, path, entry)
    removed = Node({"tune": Node({"space": Node(None, space.origin)}, space.origin)}, space.origin)
    return merge(
        merge(tree, removed),
        Node({"tune": Node({"space": Node(flat, space.origin)}, space.origin)}, space.origin),
    )


def _merge_entry(flat: dict[str, Node], path: str, node: Node) -> None:
    """Merges a value at a path of nested mappings into the entry of that path.

    An entry starts where the space has it, or at a type.
    """
    inner = node.value
    if path in flat:
        flat[path] = merge(flat[path], node)
    elif isinstance(inner, dict) and not (
        "type" in inner and not isinstance(inner["type"].value, dict)
    ):
        for key, child in inner.items():
            _merge_entry(flat, f"{path}.{key}", child)
    else:
        flat[path] = node


def check_space(tree: Node, space: Space) -> None:
    """Checks that the config has the paths of a space, and accepts the ends of each entry.

    Args:
        tree: of the whole config; messages name its files and lines.
        space: of its ``tune`` section.

    Raises:
        ValueError: one line for each unknown path (with the nearest known one), and for each value
            that is not allowed.
    """
    problems = [
        problem for path, entry in space.items() for problem in _problems(tree, path, space)
    ]
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))


def _problems(tree: Node, path: str, space: Space) -> Iterator[str]:
    entry = space[path]
    origin = find(tree, ("tune", "space", path))[0].origin
    if path.split(".")[0] in ("tune", "serve", "export"):
        yield f"{origin}: {path} cannot be searched: it does not affect a training"
        return
    if isinstance(entry, Anchors):
        head, found = find(tree, tuple(path.split(".")[:-1]))
        if not (
            found
            and isinstance(head.value, dict)
            and path.endswith(".anchors")
            and "anchors" in head.value
        ):
            yield (
                f"{origin}: {path} has no anchors: the type anchors is for "
                "model.heads.NAME.anchors of a head with anchors"
            )
        return
    for value in _ends(entry):
        given = _moved(override_tree([*_conditions(entry, space), override(path, value)]), origin)
        changed = merge(tree, given)
        unknown = fit(changed, experiment_type(changed))[1]
        yield from map(str, unknown)
        yield from [] if unknown else _refusals(changed, path, str(origin))


def _conditions(entry: Distribution, space: Space) -> list[str]:
    """Overrides with which an entry is checked: for each entry that it depends on, the first
    value that it requires.
    """
    found = []
    for path, wanted in entry.when.items():
        first = wanted[0] if isinstance(wanted, list | tuple) and wanted else wanted
        on = space.get(path)
        named = isinstance(on, Choice) and str(first) in choice_names(on)
        found.append(
            override(
                path, choice_names(on)[str(first)] if isinstance(on, Choice) and named else first
            )
        )
    return found


def _ends(entry: Uniform | LogUniform | Int | Choice) -> list[Any]:
    return (
        list(choice_names(entry).values()) if isinstance(entry, Choice) else [entry.low, entry.high]
    )


def _moved(node: Node, origin: Origin) -> Node:
    """The same values, all with the place of the space's entry in the file as their origin."""
    if isinstance(node.value, dict):
        return Node({key: _moved(child, origin) for key, child in node.value.items()}, origin)
    return Node(
        [_moved(child, origin) for child in node.value]
        if isinstance(node.value, list)
        else node.value,
        origin,
    )


def _refusals(tree: Node, path: str, origin: str) -> list[str]:
    """The errors of the config about this value alone.

    An error about several values depends on the trial, which then fails.
    """
    try:
        read_experiment(tree)
    except ValueError as error:
        return [
            line
            for line in str(error).splitlines()
            if line.startswith((f"{origin}: {path} ", f"{origin}: {path}."))
        ]
    return []
