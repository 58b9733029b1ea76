"""The config of a ResNet, without torch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT

if TYPE_CHECKING:
    from mtl_ray.models.trunk import Backbone


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResNetBackbone:
    """A ResNet (He et al. 2016) as detectors use it. Its feature maps are called C1 (the stem) to
    C5 by stage; their strides are 2, 4, 8, 16, 32 or ``output_stride``.
    """

    type: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 50
    blocks: tuple[int, int, int, int] | None = None
    """Blocks of each stage; by default those of the depth, which also says whether they are
    bottlenecks (from 50 on).
    """
    levels: tuple[str, ...] = ("C3", "C4", "C5")
    """The feature maps to use."""
    base_channels: int = Field(default=64, ge=2)
    """Width of the stem and of the first stage; each further stage is twice as wide (and the output
    of bottlenecks four times).
    """
    stem: Literal["plain", "deep"] = "plain"
    """plain: one 7x7 convolution. deep: three of 3x3 (V1c, as of most segmentation networks)."""
    style: Literal["pytorch", "caffe"] = "pytorch"
    """Where strided bottlenecks have their stride: in the 3x3 convolution (pytorch, torchvision),
    or in the first 1x1 one (caffe, Detectron).
    """
    shortcut: Literal["conv", "pool", "presnet"] = "conv"
    """Shortcuts that halve the map: a strided 1x1 convolution (conv), or average pooling before it
    (pool, V1d; He et al. 2019). presnet: as pool, and the first block of each stage has a
    convolution there, as in RT-DETR.
    """
    output_stride: Literal[8, 16, 32] = 32
    """Stages that would go beyond it are dilated instead (Chen et al. 2017)."""
    frozen_stages: int = Field(default=-1, ge=-1, le=4)
    """Not trained: nothing (-1), the stem (0), or the stem and the first n stages."""
    norm_eval: bool = False
    """Batch normalisation uses its stored statistics in training too; published detectors do so
    with pretrained weights.
    """
    pretrained: bool | str = False
    """Start from timm's published weights: its default ones of this depth, or those of a name, such
    as resnet50.tv_in1k (downloaded when the model is first built).
    """
    weights: str | None = None
    """Start from this checkpoint file instead (path or URI, safetensors or a state dict)."""

    def build(self) -> "Backbone":
        """See ``AnyBackbone``."""
        from mtl_ray.models.resnet import ResNet

        return ResNet(self)

    def without_pretrained(self) -> Self:
        """See ``AnyBackbone``."""
        return replace(self, pretrained=False, weights=None)

    def paths(self) -> Mapping[str, str]:
        """See ``AnyBackbone``."""
        return {} if self.weights is None else {"weights": self.weights}
