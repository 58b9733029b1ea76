"""What a package adds to mtl_ray: a ``Plugin`` is a value that lists it, and is found by the name
of its module.

A config names the modules (``plugins: [their.module]``); an installed package may name its own in
the entry-point group ``mtl_ray``. Each module has a variable ``PLUGIN``. Nothing is registered by
importing, and there is no table: whoever needs what is registered asks ``load_plugins`` with the
names. Checkpoints, bundles and splits carry the names of the plugins that they need.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import entry_points
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
            imported here, or has no ``PLUGIN``.
    """
    if len(names) > MAX_PLUGINS:
        raise ValueError(f"{len(names)} plugins are named; at most {MAX_PLUGINS} are loaded")
    return {name: _load(name) for name in names}


@cache
def _load(name: str) -> Plugin:
    if not _NAME.fullmatch(name) or name.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(f"{name!r} is not the name of a plugin module, such as my_package.plugin")
    try:
        if name not in sys.modules:
            _refuse_other_module(name)
        module = importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"the plugin {name!r} is needed and cannot be imported here ({error}); "
            "Fix: install its package, or run in the folder that holds it"
        ) from error
    plugin = vars(module).get(VARIABLE)
    if not isinstance(plugin, Plugin):
        raise ValueError(
            f"the module {name!r} is no plugin: it has no variable {VARIABLE} of the type "
            "mtl_ray.plugin.Plugin"
        )
    return plugin


def _refuse_other_module(name: str) -> None:
    """Refuses a module whose source does not name ``PLUGIN``, before it is run.

    Names come from bundles and servers of strangers too: they must not make a program run any
    script that lies here.

    Raises:
        ImportError: if there is no such module.
        ValueError: if it is no plugin.
    """
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}")
    if spec.origin is None or (
        spec.origin.endswith(".py") and VARIABLE.encode() not in Path(spec.origin).read_bytes()
    ):
        raise ValueError(
            f"the module {name!r} is no plugin: it has no variable {VARIABLE} of the type "
            "mtl_ray.plugin.Plugin"
        )


def installed_plugins() -> tuple[str, ...]:
    """The plugin modules of installed packages, by the entry-point group ``mtl_ray``; sorted."""
    return tuple(sorted({point.value for point in entry_points(group=GROUP)}))
