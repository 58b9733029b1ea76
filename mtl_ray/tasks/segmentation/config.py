"""Config of the semantic segmentation head ``fcn``."""

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FcnHead:
    """Fully convolutional head (Long et al. 2015) on one or several levels, which are brought to the finest and added up."""

    type: Literal["fcn"] = "fcn"
    task: ClassVar[str] = "segmentation"
    annotation: ClassVar[str] = "semantic"
    weight: float = Field(default=1.0, ge=0)
    levels: tuple[str, ...] = ("P3",)
    channels: int = Field(default=128, ge=1)
    convs: int = Field(default=2, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    train_only: bool = False
    """An auxiliary head: trained, never evaluated or exported."""


HeadConfig = FcnHead
