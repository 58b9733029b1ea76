"""The trunk's part of a config's ``model`` section: one backbone and the necks on it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.extend import Slot
from mtl_ray.config.strict import STRICT
from mtl_ray.models.hybrid_config import HybridEncoderNeck

if TYPE_CHECKING:
    from mtl_ray.models.trunk import Backbone, Neck


class AnyBackbone(Protocol):
    """The protocol of a backbone's config class."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def type(self) -> str:
        """Its name in configs."""
        ...

    def build(self) -> "Backbone":
        """The module, with random or the configured weights.

        Raises:
            ValueError: if there is no such network, or its weights do not fit.
        """
        ...

    def without_pretrained(self) -> Self:
        """The same network with random weights: no weights are read or downloaded."""
        ...

    def paths(self) -> Mapping[str, str]:
        """The files and URIs that ``build`` reads, by the field that names them."""
        ...


class AnyNeck(Protocol):
    """The protocol of a neck's config class."""

    @property
    def type(self) -> str:
        """Its name in configs."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """The features that it reads."""
        ...

    def build(self, channels: Mapping[str, int], strides: Mapping[str, int]) -> "Neck":
        """The module, with random weights.

        Args:
            channels: of the features so far, by name.
            strides: canvas pixels per cell of each feature; 0 for a pooled one.

        Raises:
            ValueError: if the features do not fit; the message continues "neck NAME".
        """
        ...


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TimmBackbone:
    """A backbone of timm; its feature maps are called C1 (stride 2) to C5 (stride 32) by stride."""

    type: Literal["timm"] = "timm"
    name: str
    """Model name, as ``timm.list_models()`` gives it."""
    levels: tuple[str, ...] = ("C3", "C4", "C5")
    """The feature maps to use."""
    pretrained: bool = False
    """Start from timm's published weights (downloaded when the model is first built)."""
    weights: str | None = None
    """Start from this checkpoint file instead (path or URI, safetensors or a state dict)."""
    frozen: bool = False
    """Do not train the backbone."""
    stride_in_1x1: bool = False
    """Strided blocks of a ResNet have their stride in the first 1x1 convolution, as in Caffe and
    Detectron, instead of in the 3x3 one.
    """
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of ``timm.create_model``."""

    def build(self) -> "Backbone":
        """See ``AnyBackbone``."""
        from mtl_ray.models.backbone import TimmFeatures

        return TimmFeatures(self)

    def without_pretrained(self) -> Self:
        """See ``AnyBackbone``."""
        return replace(self, pretrained=False, weights=None)

    def paths(self) -> Mapping[str, str]:
        """See ``AnyBackbone``."""
        return {} if self.weights is None else {"weights": self.weights}


Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FpnNeck:
    """Feature pyramid (Lin et al. 2017): top-down pathway with lateral connections; P<n> for
    each C<n> that it reads.
    """

    type: Literal["fpn"] = "fpn"
    prefix: Prefix = ""
    """Prefix of the names of its features (``aux_``: aux_P3 instead of P3), which must be unique in
    a model.
    """
    inputs: tuple[str, ...] = ("C3", "C4", "C5")
    channels: int = Field(default=128, ge=1)
    extra: int = Field(default=0, ge=0, le=2)
    """Further levels above the last; each is a stride-2 convolution of the previous one."""
    norm: bool = True
    """Batch normalisation after each convolution."""

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``AnyNeck``."""
        return self.inputs

    def build(self, channels: Mapping[str, int], strides: Mapping[str, int]) -> "Neck":
        """See ``AnyNeck``."""
        from mtl_ray.models.necks import Fpn

        return Fpn(self, channels, strides)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PafpnNeck:
    """Path aggregation network (Liu et al. 2018): an FPN and a bottom-up pathway on it."""

    type: Literal["pafpn"] = "pafpn"
    prefix: Prefix = ""
    """Prefix of the names of its features."""
    inputs: tuple[str, ...] = ("C3", "C4", "C5")
    channels: int = Field(default=128, ge=1)
    extra: int = Field(default=0, ge=0, le=2)
    norm: bool = True

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``AnyNeck``."""
        return self.inputs

    def build(self, channels: Mapping[str, int], strides: Mapping[str, int]) -> "Neck":
        """See ``AnyNeck``."""
        from mtl_ray.models.necks import Pafpn

        return Pafpn(self, channels, strides)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PoolNeck:
    """Global pooling: (B, C, H, W) -> (B, C), called G<n> for the C<n> or P<n> that it reads."""

    type: Literal["pool"] = "pool"
    prefix: Prefix = ""
    """Prefix of the name of its feature."""
    input: str = "C5"
    kind: Literal["mean", "max"] = "mean"
    """mean: over all cells. max: the strongest cell, for small objects in large scenes
    (Oquab et al. 2015).
    """

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``AnyNeck``."""
        return (self.input,)

    def build(self, channels: Mapping[str, int], strides: Mapping[str, int]) -> "Neck":
        """See ``AnyNeck``."""
        from mtl_ray.models.necks import Pool

        return Pool(self, channels, strides)


if TYPE_CHECKING:
    BackboneConfig = AnyBackbone
    NeckConfig = AnyNeck
else:
    BackboneConfig = Annotated[TimmBackbone, Slot("backbones")]
    NeckConfig = Annotated[
        FpnNeck | PafpnNeck | PoolNeck | HybridEncoderNeck,
        Field(discriminator="type"),
        Slot("necks"),
    ]
