"""Config of the trunks of point clouds: the backbones ``pillars`` and ``second``, and the neck
``secfpn``. Strides are counted in cells of the voxel grid.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT

if TYPE_CHECKING:
    from mtl_ray.models.trunk import Backbone, Neck

Positive = Annotated[int, Field(ge=1)]
Stages = Annotated[tuple[Positive, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PillarsBackbone:
    """PointPillars (Lang et al. 2019): a small network on the points of each pillar, whose outputs
    become an image seen from above, and convolutions on it. Its feature maps are called B1, B2, ...
    by stage.
    """

    type: Literal["pillars"] = "pillars"
    point_features: int = Field(default=4, ge=3)
    """Numbers of a point: as many as ``data.canvas.features``."""
    point_channels: Stages = (64,)
    """Width of each layer of the network on points; the last is that of a pillar."""
    legacy: bool = False
    """The offsets of a point from the centre of its pillar take the place of its x, y, z, as in the
    published networks of KITTI and Waymo. CenterPoint keeps both.
    """
    z_offset: bool = True
    """Points have their offset from the centre of the pillar along z, too. OpenMMLab has it from
    version 1.0 on.
    """
    layers: Stages = (3, 5, 5)
    """Convolutions of each stage after its first, which has the stride."""
    strides: Stages = (2, 2, 2)
    channels: Stages = (64, 128, 256)

    def __post_init__(self) -> None:
        check_stages(self.layers, self.strides, self.channels)
        if any(width % 2 for width in self.point_channels[:-1]):
            raise ValueError("point_channels: all but the last must be even numbers")

    def build(self) -> "Backbone":
        """See ``AnyBackbone``."""
        from mtl_ray.models.pillars import Pillars

        return Pillars(self)

    def without_pretrained(self) -> Self:
        """See ``AnyBackbone``."""
        return self

    def paths(self) -> Mapping[str, str]:
        """See ``AnyBackbone``: none."""
        return {}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SecondBackbone:
    """SECOND (Yan et al. 2018): the mean of the points of each voxel, sparse convolutions in space
    that shrink the grid by 8 along x and y, and convolutions on the map seen from above. Its
    feature maps are called B1, B2, ... by stage.

    It cannot be exported: which cells its sparse convolutions visit depends on the data.
    """

    type: Literal["second"] = "second"
    point_features: int = Field(default=4, ge=3)
    """Numbers of a point: as many as ``data.canvas.features``."""
    height: int = Field(default=40, ge=17)
    """Cells of the grid along z."""
    sparse_channels: Annotated[tuple[Stages, ...], Field(min_length=4, max_length=4)] = (
        (16,),
        (32, 32, 32),
        (64, 64, 64),
        (64, 64, 64),
    )
    """Of each sparse convolution by stage; all stages but the first begin with a strided one."""
    sparse_output: int = Field(default=128, ge=1)
    """Channels of the last sparse convolution, for each of the cells that are left along z."""
    layers: Stages = (5, 5)
    """Convolutions of each stage of the map after its first, which has the stride."""
    strides: Stages = (1, 2)
    channels: Stages = (128, 256)

    def __post_init__(self) -> None:
        check_stages(self.layers, self.strides, self.channels)

    def build(self) -> "Backbone":
        """See ``AnyBackbone``."""
        from mtl_ray.models.second import Second

        return Second(self)

    def without_pretrained(self) -> Self:
        """See ``AnyBackbone``."""
        return self

    def paths(self) -> Mapping[str, str]:
        """See ``AnyBackbone``: none."""
        return {}


def check_stages(
    layers: tuple[int, ...], strides: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    """Raises a ValueError if the stages of a backbone are not described by equally long lists."""
    if not len(layers) == len(strides) == len(channels):
        raise ValueError(
            f"layers, strides and channels have {len(layers)}, {len(strides)} and {len(channels)} "
            "numbers: each needs one for each stage"
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SecfpnNeck:
    """The neck of SECOND and PointPillars: all maps at one size, side by side. Its feature is
    called BEV.
    """

    type: Literal["secfpn"] = "secfpn"
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$")] = ""
    """Prefix of the name of its feature, which must be unique in a model."""
    inputs: Annotated[tuple[str, ...], Field(min_length=1)] = ("B1", "B2", "B3")
    upsample: tuple[float, ...] = (1, 2, 4)
    """Factor by which each map is enlarged: a whole number, or 1 divided by one to shrink it."""
    channels: Stages = (128, 128, 128)
    """Of each map in the feature."""
    plain_equal: bool = False
    """Maps that keep their size pass a plain 1x1 convolution instead of a transposed one, as in
    CenterPoint; the weights of the two are laid out differently.
    """

    def __post_init__(self) -> None:
        if not len(self.inputs) == len(self.upsample) == len(self.channels):
            raise ValueError(
                f"inputs, upsample and channels have {len(self.inputs)}, {len(self.upsample)} and "
                f"{len(self.channels)} entries: each needs one for each map"
            )
        wrong = [
            factor
            for factor in self.upsample
            if factor <= 0 or abs((each := max(factor, 1 / factor)) - round(each)) > 1e-6
        ]
        if wrong:
            raise ValueError(
                f"upsample: {wrong[0]:g} is neither a whole number nor 1 divided by one"
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``AnyNeck``."""
        return self.inputs

    def build(self, channels: Mapping[str, int], strides: Mapping[str, int]) -> "Neck":
        """See ``AnyNeck``."""
        from mtl_ray.models.birds_eye import SecFpn

        return SecFpn(self, channels, strides)
