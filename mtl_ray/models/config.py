"""The trunk's part of a config's ``model`` section: one backbone and the necks on it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.extend import Slot, union_of
from mtl_ray.config.strict import STRICT
from mtl_ray.models.csp_config import CspDarknetBackbone, CspNextBackbone, CspPafpnNeck
from mtl_ray.models.hybrid_config import HgNetV2Backbone, HybridEncoderNeck
from mtl_ray.models.lidar_config import PillarsBackbone, SecfpnNeck, SecondBackbone
from mtl_ray.models.resnet_config import ResNetBackbone

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
    frozen_stages: int = Field(default=-1, ge=-1, le=4)
    """Not trained: nothing (-1), the stem (0), or all up to the feature map C<n + 1>."""
    norm_eval: bool = False
    """Batch normalisation uses its stored statistics in training too; published detectors do so
    with pretrained weights.
    """
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
    extra_input: Literal["output", "input"] = "output"
    """What the first further level is made of: the last level of the pyramid (FCOS, ATSS), or the
    last input (RetinaNet).
    """
    relu_before_extra: bool = False
    """ReLU before the convolutions of the second and later further levels (FCOS)."""
    pool_extra: bool = False
    """Further levels are max-pooled, every second cell of the level before (Faster R-CNN)."""
    norm: bool = True
    """Batch normalisation after each convolution."""

    def __post_init__(self) -> None:
        if self.pool_extra and (self.extra_input == "input" or self.relu_before_extra):
            raise ValueError(
                "pool_extra makes levels without convolutions: extra_input and relu_before_extra "
                "have no effect with it"
            )

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
class ChannelMapperNeck:
    """Each feature map by itself at one width, as DETR and Deformable DETR read them; P<n> for each
    C<n> that it reads.
    """

    type: Literal["channel_mapper"] = "channel_mapper"
    prefix: Prefix = ""
    """Prefix of the names of its features."""
    inputs: tuple[str, ...] = ("C3", "C4", "C5")
    channels: int = Field(default=256, ge=1)
    kernel: Literal[1, 3] = 1
    extra: int = Field(default=0, ge=0, le=2)
    """Further levels: a stride-2 convolution of the last input, then of each other."""
    groups: int = Field(default=32, ge=0)
    """Of the group normalisation after each convolution; 0: none (DETR)."""
    bias: bool = False
    """Normalised convolutions have a bias too, as in the original Deformable DETR and in Hugging
    Face's; OpenMMLab's have none. Without normalisation there always is one.
    """

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``AnyNeck``."""
        return self.inputs

    def build(self, channels: Mapping[str, int], strides: Mapping[str, int]) -> "Neck":
        """See ``AnyNeck``."""
        from mtl_ray.models.necks import ChannelMapper

        return ChannelMapper(self, channels, strides)


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
    BackboneConfig = Annotated[
        union_of(
            TimmBackbone,
            ResNetBackbone,
            CspDarknetBackbone,
            CspNextBackbone,
            HgNetV2Backbone,
            PillarsBackbone,
            SecondBackbone,
            default="timm",
        ),
        Slot("backbones", ("build", "without_pretrained", "paths")),
    ]
    NeckConfig = Annotated[
        FpnNeck
        | PafpnNeck
        | CspPafpnNeck
        | ChannelMapperNeck
        | HybridEncoderNeck
        | SecfpnNeck
        | PoolNeck,
        Field(discriminator="type"),
        Slot("necks", ("reads", "build")),
    ]
