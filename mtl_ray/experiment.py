"""A resolved config becomes data, model and method: the one file that lists the heads, and with
them the tasks.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, Union, cast

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from mtl_ray.config.document import parse
from mtl_ray.config.extend import Slot, extended, named_plugins, used_plugins
from mtl_ray.config.load import load_tree
from mtl_ray.config.strict import STRICT
from mtl_ray.config.tree import Node
from mtl_ray.config.validate import validate
from mtl_ray.evaluation.config import EvaluateConfig
from mtl_ray.export.config import ExportConfig
from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.loading.config import DataConfig
from mtl_ray.methods.config import MethodConfig, SupervisedConfig
from mtl_ray.models.config import BackboneConfig, NeckConfig
from mtl_ray.plugin import installed_plugins, load_plugins
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.serving.config import ServeConfig
from mtl_ray.tasks.classification import config as classification
from mtl_ray.tasks.detection import config as detection
from mtl_ray.tasks.head_classes import HeadClasses
from mtl_ray.tasks.lidar import config as lidar
from mtl_ray.tasks.segmentation import config as segmentation
from mtl_ray.tasks.task import AnyHead, HeadKind, Task
from mtl_ray.training.config import RuntimeConfig, ScheduleConfig
from mtl_ray.tuning.config import TuneConfig

if TYPE_CHECKING:
    from mtl_ray.models.model import Model

_HEADS: tuple[type[AnyHead], ...] = (
    *detection.HEADS,
    *segmentation.HEADS,
    *classification.HEADS,
    *lidar.HEADS,
)
"""The config of every built-in head, folder by folder."""

if TYPE_CHECKING:
    HeadConfig = AnyHead
else:
    HeadConfig = Annotated[
        Union[_HEADS],  # noqa: UP007
        Field(discriminator="type"),
        Slot("heads", ("task", "annotation", "levels", "build")),
    ]
    """A head's config, told apart by ``type``."""


_PART_NAME = re.compile(r"[^./\\\x00-\x1f]+")


@cache
def head_types(plugins: tuple[str, ...] = ()) -> tuple[type[AnyHead], ...]:
    """The config class of every head: the built-in ones and those of plugins.

    Raises:
        ValueError: if a plugin cannot be loaded.
    """
    return (*_HEADS, *(head for plugin in load_plugins(plugins).values() for head in plugin.heads))


def tasks(plugins: tuple[str, ...] = ()) -> tuple[Task[Any, Any], ...]:
    """The tasks of ``head_types``, each once."""
    return tuple(dict.fromkeys(cast(HeadKind, head).task for head in head_types(plugins)))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """One trunk and one or more heads."""

    backbone: BackboneConfig
    necks: dict[str, NeckConfig] = Field(default_factory=dict)
    """What is built on the backbone, in this order; each adds features."""
    heads: dict[str, HeadConfig]
    """By name; metrics and responses use these names. Empty only for a method that
    learns without heads.
    """
    mean: tuple[float, ...] = Field(default=(123.675, 116.28, 103.53), min_length=1)
    """Of each channel (of images RGB, 0 to 255), subtracted in the first layer. Inputs that are
    not bytes enter as they are.
    """
    std: tuple[float, ...] = Field(default=(58.395, 57.12, 57.375), min_length=1)

    @model_validator(mode="after")
    def _names(self) -> Self:
        for what, names in (("neck", self.necks), ("head", self.heads)):
            for name in names:
                if not _PART_NAME.fullmatch(name):
                    raise ValueError(
                        f"a {what} cannot be called {name!r}: a name may not be empty or have a "
                        "dot or a slash, since metrics are called HEAD/METRIC and options "
                        "model.heads.HEAD.OPTION"
                    )
        return self

    @model_validator(mode="after")
    def _channels(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean is of {len(self.mean)} channels and std of {len(self.std)}: both need one "
                "number for each channel"
            )
        return self

    def without_pretrained(self) -> Self:
        """The same network with random weights, which come from elsewhere: nothing is read or
        downloaded.
        """
        return replace(self, backbone=self.backbone.without_pretrained())


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExperimentConfig:
    """Everything about a run."""

    plugins: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    """Modules that add inputs, heads and other parts (``plugin.py``)."""
    model: ModelConfig
    data: DataConfig
    method: MethodConfig = Field(default_factory=SupervisedConfig)
    """What is optimised."""
    schedule: ScheduleConfig
    runtime: RuntimeConfig
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)
    serve: ServeConfig = Field(default_factory=ServeConfig)
    tune: TuneConfig | None = None
    """Of ``jobs.tune``; a training ignores it."""

    def __post_init__(self) -> None:
        if self.method.needs_heads and not self.model.heads:
            raise ValueError(
                f"model.heads is empty, and the method {self.method.type!r} learns from heads. "
                "Fix: give at least one"
            )


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The config of a file and the overrides of the command line (``section.key=value``).

    Raises:
        FileNotFoundError: if the file or one that it inherits is not there.
        ValueError: naming file and line of each mistake, or the plugin that is missing.
    """
    return read_experiment(load_tree(path, overrides))


def parse_experiment(text: str, source: str) -> ExperimentConfig:
    """The config that ``to_yaml`` of ``config.validate`` wrote into a run, checkpoint or bundle,
    in this version or an older one.
    """
    return read_experiment(parse(text, source), written=True)


def experiment_type(tree: Node) -> type[ExperimentConfig]:
    """The class of a config: with what the plugins that it names and the installed ones add.

    Raises:
        ValueError: if a plugin cannot be loaded.
    """
    return extended(
        ExperimentConfig, tuple(dict.fromkeys((*named_plugins(tree), *installed_plugins())))
    )


def read_experiment(tree: Node, *, written: bool = False) -> ExperimentConfig:
    """The config that a tree describes. Its ``plugins`` are those that it names, and the installed
    ones that it uses.

    Args:
        tree: what was read.
        written: see ``config.fields.fit``.

    Raises:
        ValueError: naming file and line of each mistake, or the plugin that is missing.
    """
    return with_used_plugins(validate(tree, experiment_type(tree), written=written))


def with_used_plugins(config: ExperimentConfig) -> ExperimentConfig:
    """A config whose ``plugins`` are those that it names, and the installed ones that it uses."""
    used = used_plugins(
        config, [name for name in installed_plugins() if name not in config.plugins]
    )
    return replace(config, plugins=(*config.plugins, *used)) if used else config


def predicting_heads(heads: Mapping[str, AnyHead]) -> dict[str, AnyHead]:
    """The heads that are evaluated and exported: all but the auxiliary ones."""
    return {name: head for name, head in heads.items() if not head.train_only}


def batch_fields(heads: Mapping[str, AnyHead]) -> dict[Annotation, frozenset[str]]:
    """By kind of annotation, the further arrays of a batch that some head reads."""
    found: dict[Annotation, frozenset[str]] = {}
    for head in heads.values():
        found[head.annotation] = found.get(head.annotation, frozenset()) | head.fields
    return found


def drawing_task(annotation: Annotation, plugins: tuple[str, ...] = ()) -> Task[Any, Any] | None:
    """The first task whose ground truth is of a kind of annotation; None if there is none, as of a
    kind that only a method reads.
    """
    return next((task for task in tasks(plugins) if task.kind.name == annotation), None)


def build_model(
    config: ModelConfig, vocabulary: Vocabulary, canvas: AnyCanvas | None = None
) -> "Model":
    """The network of a config, with random or the configured weights.

    Args:
        config: of the network.
        vocabulary: the classes.
        canvas: ``data.canvas``; networks of images do not need it.

    Raises:
        ValueError: if a head reads an annotation or a class that the vocabulary does not have, or a
            feature that the trunk does not give.
    """
    from mtl_ray.models.head import NarrowTargets
    from mtl_ray.models.model import Model
    from mtl_ray.models.trunk import build_trunk

    trunk = build_trunk(config.backbone, config.necks)
    heads, narrow = {}, {}
    for name, head in config.heads.items():
        if head.annotation not in vocabulary.classes:
            known = ", ".join(vocabulary.classes) or "none"
            raise ValueError(
                f"head {name!r} ({head.type}) learns from {head.annotation!r}, which the dataset "
                f"does not annotate (it has: {known})"
            )
        missing = [level for level in head.levels if level not in trunk.channels]
        if missing:
            raise ValueError(
                f"head {name!r} reads {', '.join(missing)}, but the trunk gives "
                f"{', '.join(trunk.channels)}"
            )
        classes = HeadClasses.of(head, vocabulary, name)
        heads[name] = head.build(classes.vocabulary, trunk.channels, trunk.strides)
        if classes.mapper is not None:
            narrow[name] = NarrowTargets(classes.kind, classes.mapper, classes.of_head)
    return Model(trunk, heads, mean=config.mean, std=config.std, narrow=narrow, canvas=canvas)
