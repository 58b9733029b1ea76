"""Config of the classification heads: ``linear`` (one class per image) and ``multilabel`` (any
number).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.tasks.classification.task import CLASSIFICATION, ClassificationTask
from mtl_ray.tasks.task import AnyHead, HeadOptions

if TYPE_CHECKING:
    from mtl_ray.models.head import Head


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearHead(HeadOptions):
    """One linear layer on pooled features, softmax and cross entropy."""

    type: Literal["linear"] = "linear"
    task: ClassVar[ClassificationTask] = CLASSIFICATION
    annotation: ClassVar[Annotation] = "labels"
    exclusive: ClassVar[bool] = True
    levels: tuple[str, ...] = ("G5",)
    """Pooled features; several are concatenated."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing."""

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.classification.heads import Linear

        _check_pooled(self.type, self.levels, strides)
        if not vocabulary.exclusive_labels:
            raise ValueError(
                "head type 'linear' learns one label for each image, but images of this dataset "
                "may have several. Fix: type 'multilabel'"
            )
        return Linear(self, channels, len(vocabulary.classes[self.annotation]))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MultilabelHead(HeadOptions):
    """One linear layer on pooled features, a sigmoid and a binary cross entropy for each class."""

    type: Literal["multilabel"] = "multilabel"
    task: ClassVar[ClassificationTask] = CLASSIFICATION
    annotation: ClassVar[Annotation] = "labels"
    levels: tuple[str, ...] = ("G5",)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.classification.heads import Multilabel

        _check_pooled(self.type, self.levels, strides)
        return Multilabel(self, channels, len(vocabulary.classes[self.annotation]))


def _check_pooled(head_type: str, levels: tuple[str, ...], strides: Mapping[str, int]) -> None:
    """Raises a ValueError if a level is a map."""
    maps = [level for level in levels if strides[level] != 0]
    if maps:
        raise ValueError(
            f"head {head_type!r} reads pooled features such as G5 (neck type pool), not "
            f"{', '.join(maps)}"
        )


HEADS: tuple[type[AnyHead], ...] = (LinearHead, MultilabelHead)
