"""Config of the trunks of YOLOX and RTMDet: two backbones and a neck of CSP layers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT

if TYPE_CHECKING:
    from mtl_ray.models.trunk import Backbone, Neck

CspBlock = Literal["darknet", "cspnext"]
"""darknet: 1x1 and 3x3 convolution (YOLOX). cspnext: 3x3 and depthwise 5x5 convolution (RTMDet)."""
CspLevel = Literal["C2", "C3", "C4", "C5"]
Levels = Annotated[tuple[CspLevel, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CspDarknetBackbone:
    """CSP-Darknet of YOLOX (Ge et al. 2021) with random weights. YOLOX is published for BGR images
    of 0 to 255: ``model.mean`` 0 and ``model.std`` 1.

    (deepen_factor, widen_factor) of the published models: nano (0.33, 0.25) with ``depthwise``,
    tiny (0.33, 0.375), s (0.33, 0.5), m (0.67, 0.75), l (1, 1), x (1.33, 1.25).
    """

    type: Literal["cspdarknet"] = "cspdarknet"
    deepen_factor: float = Field(default=1.0, gt=0)
    """Factor of the number of blocks of each stage."""
    widen_factor: float = Field(default=1.0, gt=0)
    """Factor of the channels."""
    levels: Levels = ("C3", "C4", "C5")
    """The feature maps to use."""
    depthwise: bool = False
    """Depthwise and pointwise convolutions instead of 3x3 ones."""

    def build(self) -> "Backbone":
        """See ``AnyBackbone``."""
        from mtl_ray.models.csp_trunk import CspBackbone

        return CspBackbone(self, "darknet")

    def without_pretrained(self) -> Self:
        """See ``AnyBackbone``."""
        return self

    def paths(self) -> Mapping[str, str]:
        """See ``AnyBackbone``: none."""
        return {}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CspNextBackbone:
    """CSPNeXt of RTMDet (Lyu et al. 2022) with random weights.

    (deepen_factor, widen_factor) of the published models: tiny (0.167, 0.375), s (0.33, 0.5), m
    (0.67, 0.75), l (1, 1), x (1.33, 1.25).
    """

    type: Literal["cspnext"] = "cspnext"
    deepen_factor: float = Field(default=1.0, gt=0)
    """Factor of the number of blocks of each stage."""
    widen_factor: float = Field(default=1.0, gt=0)
    """Factor of the channels."""
    levels: Levels = ("C3", "C4", "C5")
    """The feature maps to use."""
    depthwise: bool = False
    """Depthwise and pointwise convolutions instead of 3x3 ones."""

    def build(self) -> "Backbone":
        """See ``AnyBackbone``."""
        from mtl_ray.models.csp_trunk import CspBackbone

        return CspBackbone(self, "cspnext")

    def without_pretrained(self) -> Self:
        """See ``AnyBackbone``."""
        return self

    def paths(self) -> Mapping[str, str]:
        """See ``AnyBackbone``: none."""
        return {}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CspPafpnNeck:
    """Path aggregation network of CSP layers, the neck of YOLOX and RTMDet: P<n> for each C<n> that
    it reads.
    """

    type: Literal["csp_pafpn"] = "csp_pafpn"
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$")] = ""
    """Prefix of the names of its features."""
    inputs: Annotated[tuple[str, ...], Field(min_length=2)] = ("C3", "C4", "C5")
    channels: int = Field(default=256, ge=1)
    """Of each output."""
    blocks: int = Field(default=3, ge=1)
    """Blocks of each CSP layer: 1 in the small published models, 2 in m, 3 in l, 4 in x."""
    block: CspBlock = "cspnext"
    """darknet: as in YOLOX, with 1x1 output convolutions. cspnext: as in RTMDet, with 3x3 ones."""
    depthwise: bool = False
    """Depthwise and pointwise convolutions instead of 3x3 ones."""

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``AnyNeck``."""
        return self.inputs

    def build(self, channels: Mapping[str, int], strides: Mapping[str, int]) -> "Neck":
        """See ``AnyNeck``."""
        from mtl_ray.models.csp_trunk import CspPafpn

        return CspPafpn(self, channels, strides)
