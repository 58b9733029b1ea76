"""A resolved config becomes data, model and method: the one file that lists the heads, and with them the tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, cast

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.document import parse
from mtl_ray.config.extend import Slot
from mtl_ray.config.load import load_tree
from mtl_ray.config.strict import STRICT
from mtl_ray.config.validate import validate
from mtl_ray.evaluation.config import EvaluateConfig
from mtl_ray.export.config import ExportConfig
from mtl_ray.loading.config import DataConfig
from mtl_ray.methods.config import MethodConfig, SupervisedConfig
from mtl_ray.models.config import BackboneConfig, NeckConfig
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.serving.config import ServeConfig
from mtl_ray.tasks.classification import config as classification
from mtl_ray.tasks.detection import config as detection
from mtl_ray.tasks.head_classes import HeadClasses
from mtl_ray.tasks.segmentation import config as segmentation
from mtl_ray.tasks.task import AnyHead, HeadKind, Task
from mtl_ray.training.config import RuntimeConfig, ScheduleConfig
from mtl_ray.tuning.config import TuneConfig

if TYPE_CHECKING:
    from mtl_ray.models.model import Model

HEADS: tuple[type[AnyHead], ...] = (*detection.HEADS, *segmentation.HEADS, *classification.HEADS)
"""The config of every head, folder by folder."""
TASKS: tuple[Task[Any, Any], ...] = tuple(dict.fromkeys(cast(HeadKind, head).task for head in HEADS))
"""Their tasks, each once."""

if TYPE_CHECKING:
    HeadConfig = AnyHead
else:
    HeadConfig = Annotated[Union[HEADS], Field(discriminator="type"), Slot("heads")]  # noqa: UP007 - the members are values
    """One of ``HEADS``, told apart by ``type``."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """One trunk and one or more heads."""

    backbone: BackboneConfig
    necks: dict[str, NeckConfig] = Field(default_factory=dict)
    """What is built upon the backbone, in this order; each adds features."""
    heads: dict[str, HeadConfig]
    """By name; metrics and answers are found under these names. Empty only for a method that learns without heads."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Of each channel (RGB, 0 to 255), subtracted in the first layer."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExperimentConfig:
    """Everything about a run."""

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
    """Of ``jobs.tune``; a training takes no notice of it."""

    def __post_init__(self) -> None:
        if self.method.needs_heads and not self.model.heads:
            raise ValueError(f"model.heads is empty, and the method {self.method.type!r} learns from heads. Fix: give at least one")


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The config of a file and the overrides of the command line (``section.key=value``).

    Raises:
        FileNotFoundError: if the file or one that it inherits is not there.
        ValueError: naming file and line of each mistake.
    """
    return validate(load_tree(path, overrides), ExperimentConfig)


def parse_experiment(text: str, source: str) -> ExperimentConfig:
    """The config that ``to_yaml`` of ``config.validate`` wrote into a run, checkpoint or bundle, in this version or an older one."""
    return validate(parse(text, source), ExperimentConfig, written=True)


def predicting_heads(heads: Mapping[str, AnyHead]) -> dict[str, AnyHead]:
    """The heads that are evaluated and exported: all but the auxiliary ones."""
    return {name: head for name, head in heads.items() if not head.train_only}


def batch_fields(heads: Mapping[str, AnyHead]) -> dict[Annotation, frozenset[str]]:
    """By kind of annotation, the further arrays of a batch that some head reads."""
    found: dict[Annotation, frozenset[str]] = {}
    for head in heads.values():
        found[head.annotation] = found.get(head.annotation, frozenset()) | head.fields
    return found


def drawing_task(annotation: Annotation) -> Task[Any, Any]:
    """The first task whose ground truth is of a kind of annotation."""
    return next(task for task in TASKS if task.kind.name == annotation)


def build_model(config: ModelConfig, vocabulary: Vocabulary) -> "Model":
    """The network of a config, with random or the configured weights.

    Raises:
        ValueError: if a head reads an annotation or a class that the vocabulary does not have, or a feature that the trunk does not give.
    """
    from mtl_ray.models.head import NarrowTargets
    from mtl_ray.models.model import Model, build_trunk

    trunk = build_trunk(config.backbone, config.necks)
    heads, narrow = {}, {}
    for name, head in config.heads.items():
        if head.annotation not in vocabulary.classes:
            known = ", ".join(vocabulary.classes) or "none"
            raise ValueError(
                f"head {name!r} ({head.type}) learns from {head.annotation!r}, which the data set does not annotate (it has: {known})"
            )
        missing = [level for level in head.levels if level not in trunk.channels]
        if missing:
            raise ValueError(f"head {name!r} reads {', '.join(missing)}, but the trunk gives {', '.join(trunk.channels)}")
        classes = HeadClasses.of(head, vocabulary, name)
        heads[name] = head.build(classes.vocabulary, trunk.channels, trunk.strides)
        if classes.mapper is not None:
            narrow[name] = NarrowTargets(classes.kind, classes.mapper, classes.of_head)
    return Model(trunk, heads, mean=config.mean, std=config.std, narrow=narrow)
