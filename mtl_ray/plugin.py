"""What a package adds to mtl_ray: a ``Plugin`` is a value that lists it, and is found by the name
of its module.

A config names the modules (``plugins: [their.module]``); an installed package may name its own in
the entry-point group ``mtl_ray``. Each module has a variable ``PLUGIN``. Nothing is registered by
importing, and there is no table: whoever needs what is registered asks ``load_plugins`` with the
names. Checkpoints, bundles and splits carry the names of the plugins that they need.
"""

import importlib
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl_ray.annotations.annotation import AnnotationKind

GROUP = "mtl_ray"
"""The entry-point group of installed packages."""
VARIABLE = "PLUGIN"
MAX_PLUGINS = 64
_NAME = re.compile(r"[A-Za-z_]\w{0,99}(?:\.[A-Za-z_]\w{0,99}){0,9}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What one package adds. All but ``annotations`` are config classes: pydantic dataclasses with
    a literal ``type``.

    Attributes:
        annotations: kinds of annotation (``annotations/annotation.py``).
        inputs: config classes of ``data.canvas`` (``inputs/input.py``).
        sources: config classes of raw datasets (``sources/source.py``).
        backbones: config classes of ``model.backbone`` (``models/config.py``).
        necks: config classes of an entry of ``model.necks``.
        heads: config classes of an entry of ``model.heads``, which name their task
            (``tasks/task.py``).
        methods: config classes of ``method`` (``methods/method.py``).
        engines: config classes of ``export.engine`` (``backends/backend.py``).
    """

    annotations: "tuple[AnnotationKind[Any, Any], ...]" = ()
    inputs: tuple[type[Any], ...] = ()
    sources: tuple[type[Any], ...] = ()
    backbones: tuple[type[Any], ...] = ()
    necks: tuple[type[Any], ...] = ()
    heads: tuple[type[Any], ...] = ()
    methods: tuple[type[Any], ...] = ()
    engines: tuple[type[Any], ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            if not isinstance(getattr(self, field.name), tuple):
                raise TypeError(
                    f"{field.name} of Plugin must be a tuple, such as ({field.name}=(Mine,))"
                )

    def config_types(self) -> Mapping[str, tuple[type[Any], ...]]:
        """What it adds to each slot of the config."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "annotations"
        }


def load_plugins(names: Sequence[str]) -> Mapping[str, Plugin]:
    """The plugins of some modules, by name.

    Raises:
        ValueError: in one sentence, if a name is not that of a module, the module cannot be
            imported here, has an error in it, or has no ``PLUGIN``.
    """
    if len(names) > MAX_PLUGINS:
        raise ValueError(f"{len(names)} plugins are named; at most {MAX_PLUGINS} are loaded")
    return {name: _load(name) for name in names}


@cache
def _load(name: str) -> Plugin:
    try:
        return _checked(name)
    except ValueError as error:
        packages = [point.dist.name for point in _entry_points(name) if point.dist is not None]
        if not packages:
            raise
        raise ValueError(
            f"{error} (the installed package {packages[0]} names it in the group {GROUP})"
        ) from error


def _checked(name: str) -> Plugin:
    if not _NAME.fullmatch(name) or name.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(f"{name!r} is not the name of a plugin module, such as my_package.plugin")
    try:
        if name not in sys.modules:
            _refuse_other_module(name)
        module = importlib.import_module(name)
    except _OtherModuleError as error:
        raise ValueError(str(error)) from None
    except ModuleNotFoundError as error:
        package = (
            "its package"
            if error.name is None or f"{name}.".startswith(f"{error.name}.")
            else f"{error.name.partition('.')[0]}, which it imports"
        )
        raise ValueError(
            f"the plugin {name!r} is needed and cannot be imported here ({error}); "
            f"Fix: install {package}, or run in the folder that holds it"
        ) from error
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"the plugin {name!r} has an error in it{_place(error, name)}: "
            f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
        ) from error
    plugin = vars(module).get(VARIABLE)
    if not isinstance(plugin, Plugin):
        raise ValueError(
            f"the module {name!r} is no plugin: it has no variable {VARIABLE} of the type "
            "mtl_ray.plugin.Plugin"
        )
    return plugin


class _OtherModuleError(Exception):
    """A module that is no plugin."""


def _refuse_other_module(name: str) -> None:
    """Refuses a module whose source does not name ``PLUGIN``, before it or the packages above it
    are run.

    Names come from bundles and servers of strangers too: they must not make a program run any
    script that lies here.

    Raises:
        ModuleNotFoundError: if there is no such module.
        _OtherModuleError: if it is no plugin.
    """
    origin = _find(name).origin
    if origin is None or (
        origin.endswith(".py") and VARIABLE.encode() not in Path(origin).read_bytes()
    ):
        raise _OtherModuleError(
            f"the module {name!r} is no plugin: it has no variable {VARIABLE} of the type "
            "mtl_ray.plugin.Plugin"
        )


def _find(name: str) -> ModuleSpec:
    """Where a module lies. ``importlib.util.find_spec`` would import the packages above it.

    Raises:
        ModuleNotFoundError: if there is no such module.
    """
    package, _, last = name.rpartition(".")
    folders = list(_find(package).submodule_search_locations or ()) if package else None
    try:
        found = (finder.find_spec(name, folders) for finder in sys.meta_path)
        spec = next((each for each in found if each is not None), None)
    except KeyError:  # a folder without __init__.py; Python wants the package above imported
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(Path(each, last)) for each in folders or ()]
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return spec


def _place(error: BaseException, name: str) -> str:
    """The line of a plugin that an error comes from, for a message; empty if it is not known."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    folder = Path(_find(name).origin or "").parent
    lines = [
        f" ({frame.filename}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(folder)
    ]
    return lines[-1] if lines else ""


def installed_plugins() -> tuple[str, ...]:
    """The plugin modules of installed packages, by the entry-point group ``mtl_ray``; sorted."""
    return tuple(sorted({_module(point) for point in entry_points(group=GROUP)}))


def _entry_points(name: str) -> list[EntryPoint]:
    """The entry points of installed packages that name a plugin module."""
    return [point for point in entry_points(group=GROUP) if _module(point) == name]


def _module(point: EntryPoint) -> str:
    """The module of an entry point: ``my_package``, or ``my_package:PLUGIN``."""
    return point.value.removesuffix(f":{VARIABLE}")
