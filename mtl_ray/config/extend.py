"""Config classes with room for what plugins add: a union of types that grows when a config is
loaded.

A field that plugins may extend marks its type with a ``Slot``::

    NeckConfig = Annotated[FpnNeck | PoolNeck, Field(discriminator="type"), Slot("necks")]

``extended(ModelConfig, plugins)`` is then a subclass of ``ModelConfig`` whose field also takes the
types that the plugins give for ``necks``. Without plugins it is ``ModelConfig`` itself.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import Discriminator, Field, Tag
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo

from mtl_ray.config.fields import field_kinds, members, tag
from mtl_ray.config.strict import STRICT, DefaultType
from mtl_ray.config.tree import Node, find, plain
from mtl_ray.plugin import load_plugins

Config = TypeVar("Config")


@dataclass(frozen=True)
class Slot:
    """Beside a type in ``Annotated``: plugins may add members.

    Attributes:
        name: the field of ``Plugin`` that they come from.
        needs: what the class of a member must have.
    """

    name: str
    needs: tuple[str, ...] = ()


def extended(config_type: type[Config], plugins: Sequence[str]) -> type[Config]:
    """The class of a config with the types that plugins add.

    Args:
        config_type: a config dataclass.
        plugins: names of plugin modules.

    Returns:
        ``config_type`` itself if they add nothing to it, else a subclass.

    Raises:
        ValueError: if a plugin cannot be loaded, two members of a union have the same ``type``, or
            one lacks what its slot needs.
    """
    return cast(type[Config], _extended(cast(Any, config_type), tuple(plugins)))


def named_plugins(tree: Node, *path: str) -> tuple[str, ...]:
    """The names under ``plugins`` of a config, or of the part of it at ``path``; they are read
    before anything else is.

    Raises:
        ValueError: naming file and line, if that is no list of names.
    """
    node, there = find(tree, (*path, "plugins"))
    names = plain(node) if there else None
    if names is None:
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{node.origin}: plugins must be a list of modules, such as [my_package.plugin], not "
            f"{names!r}"
        )
    return tuple(dict.fromkeys(names))


def used_plugins(config: Any, plugins: Sequence[str]) -> tuple[str, ...]:
    """Those of some plugins that a config needs: a part of it is of a type that they list.

    Args:
        config: a config, or anything in one.
        plugins: names of plugin modules.
    """
    used = set(_types(config))
    loaded = load_plugins(plugins)
    added = {
        name: [kind for kinds in plugin.config_types().values() for kind in kinds]
        for name, plugin in loaded.items()
    }
    return tuple(
        name
        for name, kinds in added.items()
        if any(issubclass(each, kind) for kind in kinds for each in used)
    )


def _types(value: Any) -> Iterator[type[Any]]:
    """The types of the dataclasses in a config."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for field in dataclasses.fields(value):
            yield from _types(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _types(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _types(inner)


@cache
def _extended(config_type: Any, plugins: tuple[str, ...]) -> Any:
    loaded = load_plugins(plugins)
    additions: dict[str, tuple[Any, ...]] = {}
    for plugin in loaded.values():
        for name, types in plugin.config_types().items():
            additions[name] = (*additions.get(name, ()), *types)
    changed = {
        name: kind
        for name, before in field_kinds(config_type).items()
        if (kind := _grown(before, additions, plugins)) is not before
    }
    if not changed:
        return config_type
    body: dict[str, Any] = {
        "__annotations__": changed,
        "__doc__": config_type.__doc__,
        "__module__": config_type.__module__,
    }
    # a field that is annotated anew loses its default
    body |= {
        field.name: default
        for field in dataclasses.fields(config_type)
        if field.name in changed
        and (default := _default(field, plugins)) is not dataclasses.MISSING
    }
    names = [field.name for field in dataclasses.fields(config_type)]
    body["__reduce__"] = lambda config: (
        _restore,
        (config_type, plugins, {name: getattr(config, name) for name in names}),
    )
    return pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)(
        type(config_type.__name__, (config_type,), body)
    )


def _default(field: "dataclasses.Field[Any]", plugins: tuple[str, ...]) -> Any:
    """The default of a field in an extended class. A section that is left out must be of an
    extended class too: ``dataclasses.replace`` validates it again.
    """
    given = field.default
    factory = given.default_factory if isinstance(given, FieldInfo) else field.default_factory
    grown = cast(Any, _extended(factory, plugins) if dataclasses.is_dataclass(factory) else factory)
    if grown is not factory:
        description = given.description if isinstance(given, FieldInfo) else None
        return Field(default_factory=grown, description=description)
    if given is dataclasses.MISSING and factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=cast(Any, factory))
    return given


def _restore(config_type: Any, plugins: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    """The inverse of pickling: the class is made anew in the other process."""
    return _extended(config_type, plugins)(**values)


def _grown(kind: Any, additions: Mapping[str, tuple[Any, ...]], plugins: tuple[str, ...]) -> Any:
    """A type in which each slot has its additions, and each config class is extended; the same
    object if nothing changes.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        slot = next((mark for mark in arguments[1:] if isinstance(mark, Slot)), None)
        if slot is not None and additions.get(slot.name):
            named = next((mark.name for mark in arguments[1:] if isinstance(mark, DefaultType)), "")
            return _union(slot, arguments[0], additions[slot.name], plugins, named)
        inner = _grown(arguments[0], additions, plugins)
        return kind if inner is arguments[0] else Annotated[(inner, *arguments[1:])]
    if dataclasses.is_dataclass(kind):
        return _extended(cast(Any, kind), plugins)
    if not arguments or origin is None:
        return kind
    grown = tuple(_grown(each, additions, plugins) for each in arguments)
    if all(new is old for new, old in zip(grown, arguments, strict=True)):
        return kind
    return Union[grown] if origin in (Union, UnionType) else origin[grown]  # noqa: UP007


def _union(
    slot: Slot, built_in: Any, added: tuple[Any, ...], plugins: tuple[str, ...], named: str
) -> Any:
    """The built-in members of a slot and those of plugins, told apart by ``type``. A mapping
    without a ``type`` is the member of the default type ``named``, or the built-in member if there
    is only one, as it is without plugins.
    """
    for kind in added:
        _check_member(slot, kind)
    kinds = tuple(dict.fromkeys((*members(built_in), *added)))
    by_tag: dict[str, Any] = {}
    for kind in kinds:
        name = str(tag(kind))
        if name in by_tag:
            raise ValueError(
                f"two of {slot.name} have the type {name!r}: {_where(by_tag[name])} and "
                f"{_where(kind)}; rename one"
            )
        by_tag[name] = kind
    default = named or (next(iter(by_tag)) if len(members(built_in)) == 1 else None)
    return _told_apart({name: _extended(kind, plugins) for name, kind in by_tag.items()}, default)


def _check_member(slot: Slot, kind: Any) -> None:
    """Raises a ValueError if a part of a plugin is not what its slot takes."""
    listed = f"PLUGIN lists {_where(kind) if isinstance(kind, type) else repr(kind)} in {slot.name}"
    if not isinstance(kind, type) or not is_pydantic_dataclass(kind):
        raise ValueError(
            f"{listed}, which is no config class. Fix: @dataclass(frozen=True, kw_only=True, "
            "config=STRICT) of pydantic.dataclasses on the class"
        )
    if tag(kind) is None:
        raise ValueError(
            f"{listed}, which has no literal type. Fix: a field such as "
            'type: Literal["mine"] = "mine"'
        )
    if missing := [name for name in slot.needs if name not in {*dir(kind), *field_kinds(kind)}]:
        raise ValueError(
            f"{listed}, which has no {', '.join(missing)} (docs/plugins.md says what it must have)"
        )


def union_of(*kinds: Any, default: str) -> Any:
    """A union of config classes that are told apart by ``type``; without one a mapping is the class
    whose type is ``default``.
    """
    return _told_apart({str(tag(kind)): kind for kind in kinds}, default)


def _told_apart(by_tag: Mapping[str, Any], default: str | None) -> Any:
    def type_of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return value.get("type", default)
        return getattr(value, "type", default)

    parts = tuple(Annotated[kind, Tag(name)] for name, kind in by_tag.items())
    marks = (Discriminator(type_of), *((DefaultType(default),) if default is not None else ()))
    return Annotated[(Union[parts], *marks)]  # noqa: UP007


def _where(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
