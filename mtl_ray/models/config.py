"""The trunk's part of a config's ``model`` section: one backbone and the necks upon it."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.extend import Slot
from mtl_ray.config.strict import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TimmBackbone:
    """A backbone of timm; its feature maps are called C1 (stride 2) to C5 (stride 32) by stride."""

    type: Literal["timm"] = "timm"
    name: str
    """Model name, as ``timm.list_models()`` gives it."""
    levels: tuple[str, ...] = ("C3", "C4", "C5")
    """Which feature maps to take."""
    pretrained: bool = False
    """Start from timm's published weights (downloaded when the model is first built)."""
    weights: str | None = None
    """Start from this checkpoint file instead (path or URI, safetensors or a state dict)."""
    frozen: bool = False
    """Do not train the backbone."""
    stride_in_1x1: bool = False
    """The strided blocks of a ResNet halve the map in their first convolution, as those of Caffe and Detectron, not in the 3x3 one."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of ``timm.create_model``."""


BackboneConfig = Annotated[TimmBackbone, Slot("backbones")]
Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FpnNeck:
    """Feature pyramid (Lin et al. 2017): top-down pathway with lateral connections; gives P<n> for each C<n> it reads."""

    type: Literal["fpn"] = "fpn"
    prefix: Prefix = ""
    """Stands before the names of the features that it gives (``aux_`` makes aux_P3 of P3): names are unique in a model."""
    inputs: tuple[str, ...] = ("C3", "C4", "C5")
    channels: int = Field(default=128, ge=1)
    extra: int = Field(default=0, ge=0, le=2)
    """Further levels above the last, each a stride-2 convolution of the one before."""
    norm: bool = True
    """Batch normalisation after each convolution."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PafpnNeck:
    """Path aggregation network (Liu et al. 2018): an FPN and a bottom-up pathway on it."""

    type: Literal["pafpn"] = "pafpn"
    prefix: Prefix = ""
    """Stands before the names of the features that it gives."""
    inputs: tuple[str, ...] = ("C3", "C4", "C5")
    channels: int = Field(default=128, ge=1)
    extra: int = Field(default=0, ge=0, le=2)
    norm: bool = True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PoolNeck:
    """Global pooling: (B, C, H, W) -> (B, C), called G<n> for the C<n> or P<n> it reads."""

    type: Literal["pool"] = "pool"
    prefix: Prefix = ""
    """Stands before the name of the feature that it gives."""
    input: str = "C5"
    kind: Literal["mean", "max"] = "mean"
    """mean: of the whole image. max: of its strongest place, for small objects in large scenes (Oquab et al. 2015)."""


NeckConfig = Annotated[FpnNeck | PafpnNeck | PoolNeck, Field(discriminator="type"), Slot("necks")]
