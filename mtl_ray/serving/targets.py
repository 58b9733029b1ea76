"""What the command line names becomes the config of a server."""

import re
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.load import COMMAND_LINE, load_tree, override_tree
from mtl_ray.config.strict import STRICT
from mtl_ray.config.tree import Node, Origin, find, merge
from mtl_ray.config.validate import validate
from mtl_ray.serving.config import ServeConfig

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Section:
    """What is read of a config file."""

    serve: ServeConfig = Field(default_factory=ServeConfig)


def read_targets(targets: Sequence[str], overrides: Sequence[str]) -> ServeConfig:
    """The config of a server.

    Args:
        targets: bundle URIs (their last part is the name), NAME=URI, and config files (.yaml), whose section ``serve`` is taken.
        overrides: ``serve.key=value``.

    Raises:
        ValueError: if nothing is to be served, two models have one name, or a file or an override is wrong.
    """
    tree = Node({}, Origin(COMMAND_LINE))
    named: dict[str, str] = {}
    for target in targets:
        if target.endswith((".yaml", ".yml")):
            file = load_tree(target)
            section, there = find(file, ("serve",))
            tree = merge(tree, Node({"serve": section} if there else {}, file.origin))
        else:
            name, uri = _name(target)
            if name in named:
                raise ValueError(f"two models are called {name!r}; give one another name, as NAME=URI")
            named[name] = uri
    config = validate(merge(tree, override_tree(overrides)), _Section).serve
    if both := config.models.keys() & named:
        raise ValueError(f"two models are called {min(both)!r}; give one another name, as NAME=URI")
    models = {**config.models, **named}
    if not models:
        raise ValueError("nothing is to be served: name a bundle, or a config file with serve.models")
    if unfit := [name for name in models if not NAME.fullmatch(name)]:
        raise ValueError(f"{unfit[0]!r} cannot be the name of a model: letters, digits, dot, dash and underscore can")
    return replace(config, models=models)


def _name(target: str) -> tuple[str, str]:
    name, equals, uri = target.partition("=")
    if equals and NAME.fullmatch(name):
        return name, uri
    return target.rstrip("/").rsplit("/", 1)[-1], target
