"""The trunk of a real-time DETR in a config's ``model`` section: the backbone ``hgnetv2`` and the
neck ``hybrid_encoder``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT

if TYPE_CHECKING:
    from mtl_ray.models.trunk import Backbone, Neck


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HgNetStage:
    """One stage of HGNetV2: blocks whose layers are all concatenated, then aggregated."""

    inner: int = Field(ge=1)
    """Channels of the layers of a block."""
    channels: int = Field(ge=1)
    """Channels of the output."""
    blocks: int = Field(default=1, ge=1)
    layers: int = Field(default=6, ge=1)
    """Layers of each block."""
    light: bool = False
    """Layers are a 1x1 and a depthwise convolution instead of a full one."""
    kernel: int = Field(default=3, ge=1)
    downsample: bool = True
    """A stride of 2 before the first block. The stem has stride 4, so that the first of four
    stages has none.
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HgNetV2Backbone:
    """HGNetV2 (Cui et al. 2021, https://github.com/PaddlePaddle/PaddleClas), the backbone of
    D-FINE; its feature maps are C2 to C5 by stride.

    Other than ``{type: timm, name: hgnetv2_b4}`` it takes stages of any size, and freezes the
    stem and the normalisation as D-FINE's recipes do. Names of parameters are timm's.
    """

    type: Literal["hgnetv2"] = "hgnetv2"
    name: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6"] = "b4"
    """The published size, where ``stem`` and ``stages`` do not define another."""
    stem: tuple[int, int] | None = None
    """Inner and output channels of the stem."""
    stages: tuple[HgNetStage, ...] | None = Field(default=None, min_length=4, max_length=4)
    affine: bool | None = None
    """A learnable scale and bias after each activation; by default as published: b0 to b3."""
    levels: tuple[str, ...] = ("C3", "C4", "C5")
    """The feature maps to use."""
    weights: str | None = None
    """Start from this file (path or URI), with timm's names."""
    frozen_stem: bool = False
    """Do not train the stem."""
    frozen_norm: bool = False
    """Batch normalisation keeps its statistics, scale and bias."""

    def build(self) -> "Backbone":
        """See ``AnyBackbone``."""
        from mtl_ray.models.hgnet import HgNetV2

        return HgNetV2(self)

    def without_pretrained(self) -> Self:
        """See ``AnyBackbone``."""
        return replace(self, weights=None)

    def paths(self) -> Mapping[str, str]:
        """See ``AnyBackbone``."""
        return {} if self.weights is None else {"weights": self.weights}

    def timm_stages(self) -> dict[str, Any]:
        """The stem and the stages as timm's class takes them.

        Raises:
            ValueError: if only one of ``stem`` and ``stages`` is given.
        """
        if (self.stem is None) != (self.stages is None):
            raise ValueError("model.backbone: stem and stages go together")
        if self.stem is None or self.stages is None:
            from timm.models.hgnet import model_cfgs

            return dict(model_cfgs[f"hgnetv2_{self.name}"])
        inputs = [self.stem[1], *(stage.channels for stage in self.stages)]
        return {"stem_type": "v2", "stem_chs": list(self.stem)} | {
            f"stage{i}": [
                before,
                stage.inner,
                stage.channels,
                stage.blocks,
                stage.downsample,
                stage.light,
                stage.kernel,
                stage.layers,
            ]
            for i, (before, stage) in enumerate(zip(inputs, self.stages, strict=False), start=1)
        }


Four = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HybridEncoderNeck:
    """The hybrid encoder of RT-DETR (Zhao et al. 2023) and D-FINE (Peng et al. 2024): a transformer
    layer on the coarsest map, then a top-down and a bottom-up pathway; P<n> for each C<n>.
    """

    type: Literal["hybrid_encoder"] = "hybrid_encoder"
    prefix: str = Field(default="", pattern=r"^[A-Za-z0-9_]*$")
    """Prefix of the names of its features."""
    inputs: tuple[str, ...] = Field(default=("C3", "C4", "C5"), min_length=1)
    channels: int = Field(default=256, ge=4, multiple_of=4)
    layers: int = Field(default=1, ge=0)
    """Transformer layers on the coarsest map."""
    heads: int = Field(default=8, ge=1)
    feedforward: int = Field(default=1024, ge=1)
    """Inner channels of the transformer layers."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    temperature: float = Field(default=10000.0, gt=0)
    """Of the sine encoding of positions."""
    fusion: Literal["elan", "csp"] = "elan"
    """How maps are fused: ``elan`` as in D-FINE, ``csp`` as in RT-DETR."""
    depth: float = Field(default=1.0, gt=0)
    """Factor of the blocks of a fusion, 3 at 1.0."""
    expansion: float = Field(default=1.0, gt=0)
    """Factor of the inner channels of a fusion."""
    activation: Literal["silu", "relu", "gelu"] = "silu"
    """Of the convolutions."""

    def __post_init__(self) -> None:
        if self.channels % self.heads:
            raise ValueError(f"heads: {self.channels} channels do not divide by {self.heads}")

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``AnyNeck``."""
        return self.inputs

    def build(self, channels: Mapping[str, int], strides: Mapping[str, int]) -> "Neck":
        """See ``AnyNeck``."""
        from mtl_ray.models.hybrid_encoder import HybridEncoder

        return HybridEncoder(self, channels, strides)
