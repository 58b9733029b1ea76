"""The ``serve`` section of a config: the served bundles and the limits of a request; read from
files and the command line.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.config.load import COMMAND_LINE, load_tree, override_tree
from mtl_ray.config.strict import STRICT
from mtl_ray.config.tree import Node, Origin, find, merge
from mtl_ray.config.validate import validate

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#]+")
"""The origin of a web page: scheme, host and port, in lower case."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""The name of a model, a version or a key."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ServedModel:
    """A model with several versions."""

    versions: dict[str, str] = Field(min_length=1)
    """Bundle URI by version: /predictions/NAME/versions/VERSION."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Share of the requests to /predictions/NAME that each version answers, by the hash of the
    request's id; any positive scale. By default the last version answers all.
    """
    engine: str | None = None
    """The engine of these bundles; by default ``serve.engine``."""
    threads: int | None = Field(default=None, ge=1)
    """By default ``serve.threads``."""
    parallel: int | None = Field(default=None, ge=1)
    """By default ``serve.parallel``."""

    @model_validator(mode="after")
    def _weights(self) -> Self:
        for version in (*self.versions, *self.weights):
            if not NAME.fullmatch(version):
                raise ValueError(
                    f"{version!r} cannot be a version: only letters, digits, dot, dash and "
                    "underscore are allowed"
                )
        if unknown := self.weights.keys() - self.versions.keys():
            raise ValueError(
                f"weights has {min(unknown)!r}, but the versions are {', '.join(self.versions)}"
            )
        if self.weights and (
            min(self.weights.values()) < 0 or not 0 < sum(self.weights.values()) < float("inf")
        ):
            raise ValueError("weights must be at least 0, and one of them above 0")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The share of the requests of every version; the sum is 1."""
        weights = self.weights or {list(self.versions)[-1]: 1.0}
        total = sum(weights.values())
        return {version: weights.get(version, 0.0) / total for version in self.versions}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelPipelineConfig:
    """A detector whose boxes a classifier labels, as one model."""

    detector: str
    """MODEL/HEAD whose boxes are kept; MODEL is of ``serve.models``, with @VERSION if it has
    several versions.
    """
    classifier: str
    """MODEL/HEAD that labels the crop of each box. The score of an object is the product of both
    scores.
    """
    min_score: float = Field(default=0.3, ge=0, le=1)
    """Boxes of the detector with a lower score are dropped."""
    pad: float = Field(default=0.0, ge=0, le=2)
    """Added to each side of a crop, as a share of the width and height of its box."""
    max_boxes: int = Field(default=50, ge=1)
    """Most boxes of one image that are labelled, the best first; the others are dropped."""

    @field_validator("detector", "classifier")
    @classmethod
    def _place(cls, place: str) -> str:
        if not all(place.partition("/")[::2]):
            raise ValueError(f"{place!r} must be MODEL/HEAD, such as bccd/boxes")
        return place


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutoscaleConfig:
    """How many replicas run, by the number of requests that they hold."""

    min: int = Field(default=1, ge=0)
    """0: without requests no replica runs; the first request waits until one has started. Not
    together with ``grpc_port``.
    """
    max: int = Field(ge=1)
    target: float = Field(default=2.0, gt=0)
    """Requests that a replica should hold on average, in work and waiting."""
    up_delay_s: float = Field(default=3.0, ge=0)
    """How long there must be more before replicas are added."""
    down_delay_s: float = Field(default=60.0, ge=0)
    """How long there must be fewer before replicas are removed."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"min is {self.min} and max is {self.max}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ServeConfig:
    """How bundles are served."""

    models: dict[str, str | ServedModel] = Field(default_factory=dict)
    """Bundle URI by model name: /predictions/NAME; or {versions, weights} of a model with several
    versions.
    """
    pipelines: dict[str, ModelPipelineConfig] = Field(default_factory=dict)
    """Models composed of two others, by name: /predictions/NAME."""
    engine: str | None = None
    """The engine of all bundles, such as openvino:int8; by default the first of each."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    grpc_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the Open Inference Protocol over gRPC, on the same ``host``; off by default. The
    replicas of a machine share it.
    """
    replicas: int = Field(default=1, ge=1)
    autoscale: AutoscaleConfig | None = None
    """Between how many replicas run; ``replicas`` has no effect then."""
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
    api_keys_env: str | None = None
    """Environment variable with several keys: JSON {NAME: {"key": KEY, "per_second": RATE, "burst":
    COUNT}}, or the path of a file with it. Requests above the rate of their key are answered with
    429 and Retry-After; a key without a rate has no limit.
    """
    request_log: str | None = None
    """File to which every replica appends one line of JSON for each request; "-" for standard
    error. It holds no bodies and no keys.
    """
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may send requests from a browser, such as https://example.org; "*"
    for all.
    """

    @property
    def most_replicas(self) -> int:
        """The most replicas that may run."""
        return self.replicas if self.autoscale is None else self.autoscale.max

    def bundles(self) -> dict[str, tuple[str, str | None]]:
        """Every bundle and its engine, by the key of its model or version."""
        found: dict[str, tuple[str, str | None]] = {}
        for name, model in self.models.items():
            if isinstance(model, str):
                found[name] = (model, self.engine)
            else:
                for version, uri in model.versions.items():
                    found[version_key(name, version)] = (uri, model.engine or self.engine)
        return found

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if both := self.models.keys() & self.pipelines.keys():
            raise ValueError(f"a model and a pipeline are called {min(both)!r}")
        if self.api_key_env is not None and self.api_keys_env is not None:
            raise ValueError("give api_key_env or api_keys_env, not both")
        if self.grpc_port == self.port:
            raise ValueError(f"port and grpc_port are both {self.port}")
        if self.grpc_port is not None and self.autoscale is not None and self.autoscale.min == 0:
            raise ValueError(
                "autoscale.min is 0, but no replica would listen on grpc_port then, so no call "
                "could start one. Fix: autoscale.min of 1, or no grpc_port"
            )
        return self

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


def version_key(model: str, version: str) -> str:
    """The key of a version among the predictors of a server; no model can have this name."""
    return f"{model}@{version}"


def absolute_models(config: ServeConfig) -> ServeConfig:
    """The same with absolute URIs, for processes that start in another folder."""
    return replace(
        config,
        models={
            name: storage.absolute(model)
            if isinstance(model, str)
            else replace(
                model,
                versions={each: storage.absolute(uri) for each, uri in model.versions.items()},
            )
            for name, model in config.models.items()
        },
    )


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
    if unfit := [name for name in (*models, *config.pipelines) if not NAME.fullmatch(name)]:
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
