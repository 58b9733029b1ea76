"""The ``serve`` section of a config: the served bundles and the limits of a request; read from
files and the command line.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from mtl_ray.config.load import COMMAND_LINE, load_tree, override_tree
from mtl_ray.config.strict import STRICT
from mtl_ray.config.tree import Node, Origin, find, merge
from mtl_ray.config.validate import validate

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#]+")
"""The origin of a web page: scheme, host and port, in lower case."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ServeConfig:
    """How bundles are served."""

    models: dict[str, str] = Field(default_factory=dict)
    """Bundle URI by model name: /predictions/NAME."""
    engine: str | None = None
    """The engine of all bundles, such as openvino:int8; by default the first of each."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    replicas: int = Field(default=1, ge=1)
    parallel: int | None = Field(default=None, ge=1)
    """Concurrent calls of each model in each replica; by default the machine's cores, shared by
    models and replicas.
    """
    threads: int = Field(default=1, ge=1)
    """Threads of the engine for one request: more reduce latency, fewer raise throughput."""
    max_batch: int = Field(default=1, ge=1)
    """Most requests of one call of the network; more than 1 is faster on a GPU only."""
    max_body_bytes: int = Field(default=20_000_000, gt=0)
    """Of all files of one request; base64 counts decoded."""
    max_images: int = Field(default=16, ge=1)
    """Images (or files of another input) in one request: files of a form, or instances in JSON."""
    max_pixels: int = Field(default=50_000_000, gt=0)
    """Most pixels of an image, or values of another input."""
    timeout_s: float = Field(default=30.0, gt=0)
    max_queued: int = Field(default=64, ge=1)
    """Most waiting requests; further ones are answered with 503 and Retry-After."""
    score_threshold: float = Field(default=0.3, ge=0, le=1)
    """Boxes and labels with a lower score are left out of an answer; ?score_thr= overrides it."""
    api_key_env: str | None = None
    """Environment variable with the key that requests must send as ``Authorization: Bearer``."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may send requests from a browser, such as https://example.org; "*"
    for all.
    """

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: scheme://host or scheme://host:port without a path, "
                    'or "*"'
                )
        return origins


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Section:
    """The section that is read from a config file."""

    serve: ServeConfig = Field(default_factory=ServeConfig)


def read_targets(targets: Sequence[str], overrides: Sequence[str]) -> ServeConfig:
    """The config of a server.

    Args:
        targets: bundle URIs (their last part is the name), NAME=URI, and config files (.yaml),
            whose section ``serve`` is read.
        overrides: ``serve.key=value``.

    Raises:
        ValueError: if there is no model, two models have the same name, or a file or an override is
            invalid.
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
                raise ValueError(f"two models are called {name!r}. Fix: rename one with NAME=URI")
            named[name] = uri
    config = validate(merge(tree, override_tree(overrides)), _Section).serve
    if both := config.models.keys() & named:
        raise ValueError(f"two models are called {min(both)!r}. Fix: rename one with NAME=URI")
    models = {**config.models, **named}
    if not models:
        raise ValueError(
            "there is no model to serve. Fix: name a bundle, or a config file with serve.models"
        )
    if unfit := [name for name in models if not NAME.fullmatch(name)]:
        raise ValueError(
            f"{unfit[0]!r} cannot be the name of a model: only letters, digits, dot, dash and "
            "underscore are allowed"
        )
    return replace(config, models=models)


def _name(target: str) -> tuple[str, str]:
    name, equals, uri = target.partition("=")
    if equals and NAME.fullmatch(name):
        return name, uri
    return target.rstrip("/").rsplit("/", 1)[-1], target
