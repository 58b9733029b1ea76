"""Which columns the shards of a split have: those of its inputs and of the kinds of annotation.

The manifest lists the columns, so a split with another kind of annotation, or another field of one,
is no new format.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.annotations.boxes_3d import BOXES_3D
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.annotations.labels import LABELS
from mtl_ray.annotations.semantic import SEMANTIC
from mtl_ray.columns import ColumnType
from mtl_ray.config.fields import members
from mtl_ray.inputs.config import CanvasConfig
from mtl_ray.inputs.image import IMAGE
from mtl_ray.inputs.input import Input
from mtl_ray.inputs.points import POINTS
from mtl_ray.plugin import load_plugins

ANNOTATIONS: tuple[AnnotationKind[Any, Any], ...] = (LABELS, INSTANCES, SEMANTIC, BOXES_3D)
"""The built-in kinds of annotation."""
INPUTS: tuple[Input[Any, Any, Any, Any], ...] = tuple(
    canvas.input for canvas in members(CanvasConfig)
)
"""The built-in inputs: those of the canvases that a config may have."""
KEY = "key"
MAX_COLUMNS = 500


def annotation_kinds(plugins: Sequence[str] = ()) -> Mapping[str, AnnotationKind[Any, Any]]:
    """The kinds of annotation by name, built in and of plugins.

    Raises:
        ValueError: if a plugin cannot be loaded, lists something else, or two kinds have the same
            name or column.
    """
    return _kinds(tuple(plugins))


@cache
def _kinds(plugins: tuple[str, ...]) -> Mapping[str, AnnotationKind[Any, Any]]:
    added = [kind for plugin in load_plugins(plugins).values() for kind in plugin.annotations]
    for kind in added:
        _check_kind(kind)
    return _by_name("kinds of annotation", (*ANNOTATIONS, *added))


def _check_kind(kind: Any) -> None:
    """Raises a ValueError if it is no kind of annotation that shards could hold."""
    if not isinstance(kind, AnnotationKind):
        raise ValueError(
            f"PLUGIN lists {kind!r} in annotations, which is no kind of annotation. Fix: an object "
            "of a class on AnnotationKind"
        )
    where = f"{type(kind).__module__}.{type(kind).__qualname__}"
    if missing := [name for name in ("name", "columns") if name not in dir(kind)]:
        raise ValueError(f"the kind of annotation {where} has no {' and no '.join(missing)}")
    for column, stored in kind.columns.items():
        if stored not in get_args(ColumnType):
            raise ValueError(
                f"the column {column!r} of {where} is of the type {stored!r}; a column is one of "
                f"{', '.join(get_args(ColumnType))}"
            )


def input_kinds(plugins: Sequence[str] = ()) -> Mapping[str, Input[Any, Any, Any, Any]]:
    """The inputs by name, built in and of plugins.

    Raises:
        ValueError: as ``annotation_kinds``.
    """
    return _inputs(tuple(plugins))


@cache
def _inputs(plugins: tuple[str, ...]) -> Mapping[str, Input[Any, Any, Any, Any]]:
    added = (canvas.input for plugin in load_plugins(plugins).values() for canvas in plugin.inputs)
    return _by_name("inputs", (*INPUTS, *added))


def _by_name(what: str, items: Iterable[Any]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    owners: dict[str, str] = {KEY: "every sample"}
    for item in dict.fromkeys(items):
        if item.name in found:
            modules = " and ".join(type(each).__module__ for each in (found[item.name], item))
            raise ValueError(f"two {what} have the name {item.name!r}, in {modules}; rename one")
        found[item.name] = item
        for column in item.columns:
            if column in owners:
                raise ValueError(
                    f"the column {column!r} of {item.name!r} exists already, in {owners[column]}; "
                    "rename it"
                )
            owners[column] = item.name
    return found


@dataclass(frozen=True)
class Layout:
    """What the samples of a split consist of.

    Attributes:
        inputs: in the order of their columns.
        annotations: the kinds that its shards have columns for.
        plugins: names of the plugins that give some of them.
    """

    inputs: tuple[Input[Any, Any, Any, Any], ...]
    annotations: tuple[AnnotationKind[Any, Any], ...]
    plugins: tuple[str, ...] = ()

    @property
    def columns(self) -> Mapping[str, ColumnType]:
        """All columns by name. The large one of each input comes last: who reads annotations
        alone touches no page of it.
        """
        small = {
            name: kind for each in self.inputs for name, kind in list(each.columns.items())[:-1]
        }
        large = {
            name: kind for each in self.inputs for name, kind in list(each.columns.items())[-1:]
        }
        kinds = {name: kind for each in self.annotations for name, kind in each.columns.items()}
        return {KEY: "string", **small, **kinds, **large}

    @property
    def noun(self) -> str:
        """What a sample is called in messages."""
        return self.inputs[0].noun

    @property
    def required(self) -> frozenset[str]:
        """The columns that are never null."""
        return frozenset((KEY, *(name for each in self.inputs for name in each.columns)))

    def named(self, plugins: Sequence[str]) -> "Layout":
        """The same layout with the names of those of ``plugins`` that give some of it."""
        items = {*self.inputs, *self.annotations}
        needed = [
            name
            for name, plugin in load_plugins(plugins).items()
            if items & {*plugin.annotations, *(canvas.input for canvas in plugin.inputs)}
        ]
        return replace(self, plugins=tuple(needed))

    def owner(self, column: str) -> AnnotationKind[Any, Any]:
        """The kind of annotation that a column belongs to."""
        return next(kind for kind in self.annotations if column in kind.columns)

    @staticmethod
    def of_columns(columns: Mapping[str, str], plugins: Sequence[str]) -> "Layout":
        """The layout of a split that lists its columns.

        Raises:
            ValueError: if a column belongs to nothing that is known here, or is stored as another
                type.
        """
        if len(columns) > MAX_COLUMNS:
            raise ValueError(f"it has {len(columns)} columns, more than {MAX_COLUMNS}")
        inputs = tuple(_found(input_kinds(plugins).values(), columns))
        kinds = tuple(_found(annotation_kinds(plugins).values(), columns))
        layout = Layout(inputs, kinds, tuple(plugins))
        known = layout.columns
        for name, kind in columns.items():
            if name not in known:
                raise ValueError(
                    f"its column {name!r} belongs to no kind of annotation or input that is known "
                    f"here ({_names(plugins)})"
                )
            if known[name] != kind:
                raise ValueError(
                    f"its column {name!r} is stored as {kind!r}, this version reads {known[name]!r}"
                )
        if list(columns) != list(known):
            raise ValueError("its columns are not in the order in which they are written")
        return layout


DEFAULT = Layout((IMAGE,), (LABELS, INSTANCES, SEMANTIC))
"""Images with what lies on them: the columns of every split that does not list them."""
CLOUDS = Layout((POINTS,), (BOXES_3D,))
"""Point clouds with boxes in space."""


def _found(items: Iterable[Any], columns: Mapping[str, str]) -> Iterator[Any]:
    """The items of which the columns are there, in the order in which they are there."""
    order = list(columns)
    present = [item for item in items if set(item.columns) <= columns.keys()]
    yield from sorted(present, key=lambda item: order.index(next(iter(item.columns))))


def _names(plugins: Sequence[str]) -> str:
    return f"plugins: {', '.join(plugins)}" if plugins else "it names no plugin"
