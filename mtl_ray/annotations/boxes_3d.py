"""Boxes in space: the objects of a point cloud.

Frame of the lidar: x front, y left, z up; metres; yaw in radians, counter-clockwise from +x. A box
is x, y, z of its centre (in all three axes), length (along its heading), width, height, yaw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import UNKNOWN, AnnotationKind, ClassMapper
from mtl_ray.columns import ColumnType
from mtl_ray.geometry.motion import Motion

if TYPE_CHECKING:
    from torch import Tensor

    from mtl_ray.inputs.points import PointCanvas


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Boxes3d:
    """The objects of one cloud, N of them, as parallel arrays.

    The first K have a class. The others are there for metrics only: objects of classes that are
    not in the vocabulary (KITTI's Van next to a Car), and regions to ignore (DontCare).

    Attributes:
        boxes: (N, 7) float32; NaN for a region without a box in space.
        classes: (K,) int64, indices into ``Vocabulary.classes["boxes_3d"]``.
        names: N names of classes as the source has them.
        ids: N ids of the source, such as tokens; "" where it has none.
        num_points: (N,) int64, points in each box; -1 where it is not known.
        velocity: (N, 2) float32, metres per second along x and y; NaN where it is not known.
        attributes: N names such as ``vehicle.parked``; "" where there is none.
        truncation: (N,) float32, share of the object outside the camera's image; -1 unknown.
        occlusion: (N,) int64: 0 visible, 1 partly, 2 largely occluded, 3 unknown; -1 not stated.
        alpha: (N,) float32, observation angle in radians; NaN where it is not known.
        boxes_2d: (N, 4) float32 xyxy pixels of the camera's image; NaN where there is none.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    names: tuple[str, ...]
    ids: tuple[str, ...]
    num_points: NDArray[np.int64]
    velocity: NDArray[np.float32]
    attributes: tuple[str, ...]
    truncation: NDArray[np.float32]
    occlusion: NDArray[np.int64]
    alpha: NDArray[np.float32]
    boxes_2d: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.names)

    @staticmethod
    def of(
        boxes: NDArray[np.floating],
        names: Sequence[str],
        vocabulary: Sequence[str],
        **columns: Any,
    ) -> "Boxes3d":
        """Objects in any order; those with a class are put first, in their order.

        Args:
            boxes: (N, 7).
            names: N names; a name in ``vocabulary`` is a class.
            vocabulary: names of the classes.
            columns: further fields; by default unknown.
        """
        count = len(names)
        index = {name: place for place, name in enumerate(vocabulary)}
        found = np.array([index.get(name, UNKNOWN) for name in names], np.int64)
        unknown: dict[str, Any] = {
            "ids": ("",) * count,
            "num_points": np.full(count, -1, np.int64),
            "velocity": np.full((count, 2), np.nan, np.float32),
            "attributes": ("",) * count,
            "truncation": np.full(count, -1, np.float32),
            "occlusion": np.full(count, -1, np.int64),
            "alpha": np.full(count, np.nan, np.float32),
            "boxes_2d": np.full((count, 4), np.nan, np.float32),
        }
        value = Boxes3d(
            boxes=np.asarray(boxes, np.float32).reshape(-1, 7),
            classes=np.zeros(0, np.int64),
            names=tuple(names),
            **{**unknown, **columns},
        )
        return value.take(np.argsort(found < 0, kind="stable"), found[found >= 0])

    def take(self, which: NDArray[np.int64], classes: NDArray[np.int64]) -> "Boxes3d":
        """Some objects in some order; ``classes`` (K,) of the first of them."""
        columns: dict[str, Any] = {}
        for each in (field for field in fields(self) if field.name != "classes"):
            value = getattr(self, each.name)
            columns[each.name] = (
                tuple(value[i] for i in which) if isinstance(value, tuple) else value[which]
            )
        columns["classes"] = classes
        return Boxes3d(**columns)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LidarObjects:
    """What transforms change and a batch takes: N objects as parallel arrays.

    Attributes:
        boxes: (N, 7) float32.
        classes: (N,) int64.
        velocity: (N, 2) float32; NaN where it is not known.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    velocity: NDArray[np.float32]

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "LidarObjects":
        """Some of them."""
        return LidarObjects(
            boxes=self.boxes[which], classes=self.classes[which], velocity=self.velocity[which]
        )

    def joined(self, other: "LidarObjects") -> "LidarObjects":
        """These and the others."""
        return LidarObjects(
            boxes=np.concatenate([self.boxes, other.boxes]),
            classes=np.concatenate([self.classes, other.classes]),
            velocity=np.concatenate([self.velocity, other.velocity]),
        )


class Boxes3dKind(AnnotationKind[Boxes3d, LidarObjects]):
    """See ``AnnotationKind``.

    A batch has, with M the most objects of any sample, at least 1: ``boxes`` float32 (B, M, 7),
    ``classes`` int64 (B, M), ``velocity`` float32 (B, M, 2), ``has_velocity`` bool (B, M),
    ``present`` bool (B, M) (False is padding). Objects whose centre is outside the grid along x or
    y are left out.
    """

    name = "boxes_3d"
    columns: ClassVar[Mapping[str, ColumnType]] = {
        "boxes_3d": "list<float32>",
        "boxes_3d_classes": "list<int64>",
        "boxes_3d_names": "list<binary>",
        "boxes_3d_ids": "list<binary>",
        "boxes_3d_num_points": "list<int64>",
        "boxes_3d_velocity": "list<float32>",
        "boxes_3d_attributes": "list<binary>",
        "boxes_3d_truncation": "list<float32>",
        "boxes_3d_occlusion": "list<int64>",
        "boxes_3d_alpha": "list<float32>",
        "boxes_3d_boxes_2d": "list<float32>",
    }
    class_column = "boxes_3d_classes"
    unit = "boxes"
    balance_order = 0

    def to_row(self, value: Boxes3d) -> Mapping[str, Any]:
        """See ``AnnotationKind``."""
        row: dict[str, Any] = {}
        for each in fields(value):
            column = getattr(value, each.name)
            row["boxes_3d" if each.name == "boxes" else f"boxes_3d_{each.name}"] = (
                tuple(text.encode() for text in column)
                if isinstance(column, tuple)
                else column.ravel()
            )
        return row

    def from_row(self, row: Mapping[str, Any]) -> Boxes3d | None:
        """See ``AnnotationKind``."""
        if row["boxes_3d"] is None:
            return None
        shapes = {"boxes": (-1, 7), "velocity": (-1, 2), "boxes_2d": (-1, 4)}
        columns: dict[str, Any] = {}
        for each in fields(Boxes3d):
            value = row["boxes_3d" if each.name == "boxes" else f"boxes_3d_{each.name}"]
            columns[each.name] = (
                value.reshape(shapes.get(each.name, (-1,)))
                if isinstance(value, np.ndarray)
                else tuple(bytes(text).decode() for text in value)
            )
        return Boxes3d(**columns)

    def classes(self, value: Boxes3d) -> NDArray[np.int64]:
        """Of the objects that have one."""
        return value.classes

    def num_annotations(self, value: Boxes3d, counts: Mapping[int, int]) -> int:
        """One for each object with a class."""
        return len(value.classes)

    def check(self, value: Boxes3d, size: Mapping[str, int]) -> None:
        """See ``AnnotationKind``."""
        boxes = value.boxes[: len(value.classes)]
        if not np.isfinite(boxes).all() or (boxes[:, 3:6] <= 0).any():
            raise ValueError("a box has a size that is not positive or a number that is not finite")

    def with_classes(self, value: Boxes3d, mapper: ClassMapper) -> Boxes3d:
        """See ``AnnotationKind``; objects of unknown classes stay, without a class."""
        mapped = mapper.indices[value.classes]
        found = np.concatenate(
            [mapped, np.full(len(value) - len(value.classes), UNKNOWN, np.int64)]
        )
        return value.take(np.argsort(found == UNKNOWN, kind="stable"), found[found != UNKNOWN])

    def load(
        self, value: Boxes3d, mapper: ClassMapper, raw: Any, limit: int, fields: frozenset[str]
    ) -> LidarObjects:
        """See ``AnnotationKind``. Objects without a point are left out: nothing shows them."""
        known = self.with_classes(value, mapper)
        count = len(known.classes)
        return LidarObjects(
            boxes=known.boxes[:count], classes=known.classes, velocity=known.velocity[:count]
        ).select(known.num_points[:count] != 0)

    def move(self, part: LidarObjects, motion: Motion) -> LidarObjects:
        """See ``AnnotationKind``."""
        return replace(
            part, boxes=motion.boxes(part.boxes), velocity=motion.velocities(part.velocity)
        )

    def collate(
        self,
        parts: Sequence[LidarObjects | None],
        classes: Sequence[str],
        rule: "PointCanvas",
        fields: frozenset[str],
    ) -> dict[str, NDArray[Any]]:
        """See the class."""
        inside = [None if part is None else part.select(_inside(part, rule)) for part in parts]
        most = max(1, *(0 if part is None else len(part.classes) for part in inside))
        arrays: dict[str, NDArray[Any]] = {
            "boxes": np.zeros((len(parts), most, 7), np.float32),
            "classes": np.zeros((len(parts), most), np.int64),
            "velocity": np.zeros((len(parts), most, 2), np.float32),
            "has_velocity": np.zeros((len(parts), most), np.bool_),
            "present": np.zeros((len(parts), most), np.bool_),
        }
        for row, part in enumerate(inside):
            if part is not None:
                count = len(part.classes)
                known = np.asarray(np.isfinite(part.velocity).all(axis=1))
                arrays["boxes"][row, :count] = part.boxes
                arrays["classes"][row, :count] = part.classes
                arrays["velocity"][row, :count] = np.where(known[:, None], part.velocity, 0)
                arrays["has_velocity"][row, :count] = known
                arrays["present"][row, :count] = True
        return arrays

    def narrow_batch(
        self, targets: Mapping[str, "Tensor"], to_head: "Tensor", of_head: "Tensor"
    ) -> dict[str, "Tensor"]:
        """See ``AnnotationKind``."""
        classes = to_head[targets["classes"]]
        return {
            **targets,
            "classes": classes.clamp(min=0),
            "present": targets["present"] & (classes != UNKNOWN),
        }

    def from_batch(self, arrays: Mapping[str, NDArray[Any]]) -> Boxes3d:
        """See ``AnnotationKind``."""
        present: NDArray[np.bool_] = arrays["present"]
        classes = arrays["classes"][present]
        value = Boxes3d.of(arrays["boxes"][present], [""] * len(classes), [""])
        return replace(value, classes=classes, velocity=arrays["velocity"][present])


def _inside(part: LidarObjects, rule: "PointCanvas") -> NDArray[np.bool_]:
    """Whether the centre of each object is inside the grid along x and y."""
    low, high = (np.array(corner[:2], np.float32) for corner in (rule.minimum, rule.maximum))
    inside = (part.boxes[:, :2] > low) & (part.boxes[:, :2] < high)
    return np.asarray(inside.all(axis=1))


BOXES_3D = Boxes3dKind()
