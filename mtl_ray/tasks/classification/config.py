"""Config of the classification heads: ``linear`` (one class an image) and ``multilabel`` (any number)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearHead:
    """One linear layer on pooled features, softmax and cross entropy."""

    type: Literal["linear"] = "linear"
    task: ClassVar[str] = "classification"
    annotation: ClassVar[str] = "labels"
    weight: float = Field(default=1.0, ge=0)
    levels: tuple[str, ...] = ("G5",)
    """Pooled features; several are joined."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MultilabelHead:
    """One linear layer on pooled features, a sigmoid and a binary cross entropy for each class."""

    type: Literal["multilabel"] = "multilabel"
    task: ClassVar[str] = "classification"
    annotation: ClassVar[str] = "labels"
    weight: float = Field(default=1.0, ge=0)
    levels: tuple[str, ...] = ("G5",)
    dropout: float = Field(default=0.0, ge=0, lt=1)


HeadConfig = Annotated[LinearHead | MultilabelHead, Field(discriminator="type")]
