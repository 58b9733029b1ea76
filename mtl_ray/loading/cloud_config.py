"""Config of the changes that are made to point clouds for training.

The published order (SECOND, PointPillars, CenterPoint) is: paste_objects, move_objects, flip_cloud,
move_cloud, shuffle_points. There is no filter of the range: the canvas drops points outside its
grid, and objects whose centre is outside it along x or y.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.inputs.points import POINTS, PointsInput

_Std = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=0)]


def check_range(name: str, values: tuple[float, float], above: float | None = None) -> None:
    """Refuses a range that is not (least, greatest).

    Raises:
        ValueError: saying what to write.
    """
    if values[0] > values[1]:
        raise ValueError(f"{name}: {values[0]:g} is more than {values[1]:g}; the least comes first")
    if above is not None and values[0] <= above:
        raise ValueError(f"{name}: {values[0]:g} must be above {above:g}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FlipCloud:
    """Mirrors the cloud; for both axes give it twice."""

    input: ClassVar[PointsInput] = POINTS
    type: Literal["flip_cloud"] = "flip_cloud"
    p: float = Field(default=0.5, ge=0, le=1)
    """Probability."""
    axis: Literal["x", "y"] = "y"
    """The coordinate that changes its sign: y exchanges left and right, x front and back."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MoveCloud:
    """Turns the cloud about the sensor, scales it, and shifts it, in this order."""

    input: ClassVar[PointsInput] = POINTS
    type: Literal["move_cloud"] = "move_cloud"
    p: float = Field(default=1.0, ge=0, le=1)
    rotation: tuple[float, float] = (-0.78539816, 0.78539816)
    """Least and greatest angle in radians, counter-clockwise."""
    scale: tuple[float, float] = (0.95, 1.05)
    translation: tuple[_Std, _Std, _Std] = (0.0, 0.0, 0.0)
    """Standard deviation in metres along x, y, z."""

    def __post_init__(self) -> None:
        check_range("rotation", self.rotation)
        check_range("scale", self.scale, above=0.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MoveObjects:
    """Shifts and turns each object with its points, so that no two overlap as seen from above (Yan
    et al. 2018, SECOND, section 3.2.3). An object for which no try succeeds stays.
    """

    input: ClassVar[PointsInput] = POINTS
    type: Literal["move_objects"] = "move_objects"
    p: float = Field(default=1.0, ge=0, le=1)
    tries: int = Field(default=100, ge=1, le=1000)
    """Most tries for each object."""
    translation: tuple[_Std, _Std, _Std] = (1.0, 1.0, 0.5)
    """Standard deviation in metres along x, y, z."""
    rotation: tuple[float, float] = (-0.78539816, 0.78539816)
    """Least and greatest angle in radians about the object's centre."""

    def __post_init__(self) -> None:
        check_range("rotation", self.rotation)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PasteObjects:
    """Adds objects of other clouds where they were seen there, so that no two overlap as seen from
    above (ground-truth sampling; Yan et al. 2018, SECOND, section 3.2.1). What the cloud has inside
    an added box is removed. ``data.close_mosaic`` switches it off for the last part of the run.
    """

    input: ClassVar[PointsInput] = POINTS
    type: Literal["paste_objects"] = "paste_objects"
    p: float = Field(default=1.0, ge=0, le=1)
    database: str
    """URI of a split of single objects, as ``jobs.convert objects`` makes it of the split that is
    trained on."""
    counts: Mapping[str, _Count]
    """For each class, how many objects a cloud has afterwards at most: objects are added to those
    that it has, and none is taken away."""
    min_points: int | Mapping[str, _Count] = 5
    """Objects with fewer points are not added; one number or one for each class."""
    ground_plane: bool = False
    """Puts added objects on the ground of the cloud where that is known; else they keep their
    height."""

    def __post_init__(self) -> None:
        if not self.counts:
            raise ValueError("counts is empty; name a class and a number, such as {Car: 15}")
        if isinstance(self.min_points, Mapping) and (
            strange := sorted(self.min_points.keys() - self.counts.keys())
        ):
            raise ValueError(f"min_points names {', '.join(strange)}, which counts does not")

    def least(self, name: str) -> int:
        """The fewest points of an added object of a class."""
        if isinstance(self.min_points, int):
            return self.min_points
        return self.min_points.get(name, 0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropPoints:
    """Removes a random share of the points."""

    input: ClassVar[PointsInput] = POINTS
    type: Literal["drop_points"] = "drop_points"
    p: float = Field(default=1.0, ge=0, le=1)
    share: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (
        0.0,
        0.3,
    )
    """Least and greatest share that is removed."""

    def __post_init__(self) -> None:
        check_range("share", self.share)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ShufflePoints:
    """Puts the points in a random order: which of them a full voxel keeps, and which voxels a full
    canvas keeps, is then left to chance.
    """

    input: ClassVar[PointsInput] = POINTS
    type: Literal["shuffle_points"] = "shuffle_points"
    p: float = Field(default=1.0, ge=0, le=1)


CloudTransform = FlipCloud | MoveCloud | MoveObjects | PasteObjects | DropPoints | ShufflePoints
