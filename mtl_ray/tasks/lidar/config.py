"""Config of the heads of the task detection_3d, which read a map seen from above: ``anchor_3d`` and
``center_point``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.geometry.boxes_3d import nearest_axis_aligned
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.tasks.difference import Fields
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.select import (
    AnchorSelection,
    CentreSelection,
    select_anchors,
    select_centres,
)
from mtl_ray.tasks.lidar.task import DETECTION_3D, Detection3dTask
from mtl_ray.tasks.task import AnyHead, HeadOptions

if TYPE_CHECKING:
    from mtl_ray.models.head import Head

Metres = Annotated[float, Field(gt=0)]
OneLevel = Annotated[tuple[str, ...], Field(min_length=1, max_length=1)]

NUSCENES_GROUPS = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)
"""The published groups of classes of CenterPoint."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Anchor3d:
    """A box that stands on every cell, in each of the directions of its head."""

    classes: tuple[str, ...] = ()
    """Classes of the objects that it can be matched with; by default of all."""
    size: tuple[Metres, Metres, Metres]
    """Length, width, height in metres."""
    bottom: float
    """z of its lower side in metres."""
    positive: float = Field(default=0.6, gt=0, le=1)
    """IoU (from above, both turned to the nearer axis) to an object from which it is an example of
    it.
    """
    negative: float = Field(default=0.45, gt=0, le=1)
    """IoU below which it is background. The best anchors of an object are examples from this IoU
    on.
    """

    def __post_init__(self) -> None:
        if self.negative > self.positive:
            raise ValueError(f"negative ({self.negative:g}) is above positive ({self.positive:g})")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Anchor3dHead(HeadOptions):
    """The head of SECOND (Yan et al. 2018) and PointPillars (Lang et al. 2019): boxes as offsets
    from anchors, a focal loss, and the direction as a class.
    """

    type: Literal["anchor_3d"] = "anchor_3d"
    task: ClassVar[Detection3dTask] = DETECTION_3D
    annotation: ClassVar[Annotation] = "boxes_3d"
    levels: OneLevel = ("BEV",)
    anchors: Annotated[tuple[Anchor3d, ...], Field(min_length=1)]
    """Sizes, in the order of the channels of the published network."""
    rotations: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0, 1.57)
    """Yaw of the anchors of each size, radians; published networks have 1.57, not pi / 2."""
    centres: Literal["cell", "range"] = "cell"
    """cell: anchors stand in the middle of their cells (PointPillars). range: the first and the
    last ones stand on the ends of the grid, and the others evenly between (SECOND).
    """
    extent: tuple[float, float, float, float] | None = None
    """Least x, y and greatest x, y in metres between which anchors are laid out; by default the
    grid. PointPillars of MMDetection3D 0.x has [0, -39.68, 70.4, 39.68].
    """
    direction_offset: float = -math.pi / 2
    """The two classes of directions are yaws from here on, and from half a turn later on."""
    box_weight: float = Field(default=2.0, ge=0)
    """Weight of the box loss (smooth L1) among this head's losses."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the class loss (focal)."""
    direction_weight: float = Field(default=0.2, ge=0)
    """Weight of the loss of the direction (cross-entropy)."""
    select: AnchorSelection = Field(default_factory=AnchorSelection)

    def best_overlaps(
        self, boxes: NDArray[np.floating], names: Sequence[str]
    ) -> NDArray[np.float64]:
        """(N,) IoU of the best anchor that can be matched with each of (N, 7) boxes if it stands in
        the centre of the box; both turned to the nearer axis. NaN of a class without anchors.
        """
        sides = nearest_axis_aligned(boxes)
        sides = sides[:, 2:] - sides[:, :2]
        best = np.full(len(boxes), np.nan)
        for anchor in self.anchors:
            here = np.array([not anchor.classes or name in anchor.classes for name in names])
            for rotation in self.rotations:
                turned = nearest_axis_aligned(np.array([[0, 0, 0, *anchor.size, rotation]]))[0]
                own = turned[2:] - turned[:2]
                common = np.minimum(sides, own).prod(axis=1)
                overlap = common / (sides.prod(axis=1) + own.prod() - common)
                best = np.where(here, np.fmax(best, overlap), best)
        return best

    def least_overlaps(self, names: Sequence[str]) -> NDArray[np.float64]:
        """(N,) the IoU below which no anchor learns an object of each class; NaN without one."""
        found = [
            [each.negative for each in self.anchors if not each.classes or name in each.classes]
            for name in names
        ]
        return np.array([min(each, default=math.nan) for each in found])

    def detections(self, arrays: Fields) -> Detections3d:
        """See ``decode.BoxHead3d``."""
        return select_anchors(arrays, self.select)

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.lidar.anchor_3d import AnchorDetector

        return AnchorDetector(self, channels, vocabulary.classes[self.annotation])


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CenterPointHead(HeadOptions):
    """CenterPoint (Yin et al. 2021): the centres of objects are the peaks of heat maps, and their
    cells have the rest of the box.
    """

    type: Literal["center_point"] = "center_point"
    task: ClassVar[Detection3dTask] = DETECTION_3D
    annotation: ClassVar[Annotation] = "boxes_3d"
    levels: OneLevel = ("BEV",)
    groups: tuple[tuple[str, ...], ...] | None = None
    """Classes that share the layers of a branch and suppress each other. By default the published
    six groups if the classes are the ten of nuScenes, else each class by itself, in the order of
    their names.
    """
    velocity: bool = True
    """Learn and predict velocities."""
    shared_channels: int = Field(default=64, ge=1)
    """Of the convolution before the branches."""
    branch_channels: int = Field(default=64, ge=1)
    """Of the branches."""
    overlap: float = Field(default=0.1, gt=0, lt=1)
    """The radius of a peak is such that a box whose corners are moved by it has about this IoU to
    the object (published for CornerNet).
    """
    least_radius: int = Field(default=2, ge=0)
    """Cells."""
    heat_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss of the heat maps (focal) among this head's losses."""
    box_weight: float = Field(default=0.25, ge=0)
    """Weight of the box loss (L1)."""
    velocity_weight: float = Field(default=0.2, ge=0)
    """Weight of the two velocities within the box loss; the other eight numbers have 1."""
    select: CentreSelection = Field(default_factory=CentreSelection)

    def __post_init__(self) -> None:
        if self.groups is None:
            return
        names = [name for group in self.groups for name in group]
        if not names or not all(self.groups) or len(set(names)) < len(names):
            raise ValueError("groups must name each class once, and at least one in each group")
        radii = len(self.select.radii)
        if self.select.suppression == "circle" and radii not in (1, len(self.groups)):
            raise ValueError(
                f"select.radii has {radii} numbers for {len(self.groups)} groups. Fix: one for "
                "each group, or one for all"
            )

    def grouped(self, classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """The groups of a head that learns ``classes``."""
        if self.groups is not None:
            return self.groups
        if set(classes) == {name for group in NUSCENES_GROUPS for name in group}:
            return NUSCENES_GROUPS
        return tuple((name,) for name in sorted(classes))

    def detections(self, arrays: Fields) -> Detections3d:
        """See ``decode.BoxHead3d``."""
        return select_centres(arrays, self.select)

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.lidar.center_point import CenterPoint

        return CenterPoint(self, channels, strides, vocabulary.classes[self.annotation])


def check_learnt(head_type: str, option: str, named: Sequence[str], classes: Sequence[str]) -> None:
    """Raises a ValueError before the first loss if the options of a head do not name its classes.
    A network without data, whose classes are numbers, can still be built and filled.

    Args:
        head_type: of the head.
        option: that names classes.
        named: the names there.
        classes: that the head learns.
    """
    unknown = [name for name in named if name not in classes]
    missing = [name for name in classes if name not in named]
    if unknown or missing:
        said = [f"{', '.join(unknown)} is no class of the data"] if unknown else []
        said += [f"{', '.join(missing)} is not named"] if missing else []
        raise ValueError(
            f"{option} of head type {head_type!r} must name the classes that it learns "
            f"({', '.join(classes)}): {' and '.join(said)}. Fix: {option}, or classes of the head"
        )


def anchors_in_space(head: AnyHead) -> Anchor3dHead | None:
    """The head itself if it has anchors in space, else None."""
    return head if isinstance(head, Anchor3dHead) else None


HEADS: tuple[type[AnyHead], ...] = (Anchor3dHead, CenterPointHead)
