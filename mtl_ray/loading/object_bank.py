"""Objects that were cut out of clouds, to be added to others: a split with one object a sample."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import UNKNOWN, ClassMapper
from mtl_ray.annotations.boxes_3d import BOXES_3D, LidarObjects
from mtl_ray.inputs.point_cloud import PointCloud
from mtl_ray.inputs.points import POINTS
from mtl_ray.loading.cloud_config import PasteObjects
from mtl_ray.shards.split import Split, open_split


class ObjectBank:
    """The objects of a database; threads may share it.

    Their boxes are in memory; their points are read when an object is used.

    Attributes:
        boxes: (N, 7) float32, where each was seen.
        classes: (N,) int64, of the run; ``UNKNOWN`` for a class that the run does not have.
        num_points: (N,) int64, points of each.
    """

    def __init__(self, split: Split, names: Sequence[str], limit: int) -> None:
        """Reads the boxes.

        Args:
            split: its samples have one object each.
            names: classes of the run.
            limit: the most numbers of a cloud.

        Raises:
            ValueError: if the split is no database of objects.
        """
        self._split, self._limit = split, limit
        self._names = tuple(names)
        if BOXES_3D.name not in split.vocabulary.classes:
            known = ", ".join(split.vocabulary.classes) or "nothing"
            raise ValueError(
                f"{split.uri} is no database of objects: it annotates {known}; jobs.convert "
                "objects makes one of a split of clouds"
            )
        own = [value for value in split.scan(BOXES_3D) if value is not None]
        counts = {len(value) for value in own}
        if len(own) != split.num_samples or counts - {1}:
            raise ValueError(
                f"{split.uri} is no database of objects: its samples must have one object each; "
                "jobs.convert objects makes one of a split of clouds"
            )
        mapper = ClassMapper.between(split.vocabulary.classes[BOXES_3D.name], names)
        self.boxes = np.array([value.boxes[0] for value in own], np.float32).reshape(-1, 7)
        self.classes = np.array(
            [mapper.indices[value.classes[0]] if len(value.classes) else UNKNOWN for value in own],
            np.int64,
        )
        self.num_points = np.array([value.num_points[0] for value in own], np.int64)
        self._ends = np.cumsum(split.block_rows)

    def label(self, name: str) -> int:
        """The class of the run with a name.

        Raises:
            ValueError: if there is none.
        """
        if name not in self._names:
            raise ValueError(
                f"paste_objects.counts names the class {name!r}, which the dataset does not have; "
                f"it has {', '.join(self._names)}"
            )
        return self._names.index(name)

    def rows(self, name: str, min_points: int) -> NDArray[np.int64]:
        """The objects of a class with at least so many points."""
        fitting = (self.classes == self.label(name)) & (self.num_points >= min_points)
        return np.flatnonzero(fitting)

    def read(self, row: int) -> tuple[PointCloud, LidarObjects]:
        """The points of an object, and the object alone.

        Raises:
            ValueError: if it is damaged.
        """
        block = int(np.searchsorted(self._ends, row, side="right"))
        within = row - int(self._ends[block] - self._split.block_rows[block])
        sample = self._split.read_row(block, within)
        value = sample.annotations[BOXES_3D.name]
        try:
            cloud = POINTS.decode(sample.inputs[POINTS.name], self._limit)
        except ValueError as error:
            raise ValueError(f"{self._split.uri}, object {sample.key}: {error}") from error
        found = LidarObjects(
            boxes=value.boxes, classes=self.classes[row : row + 1], velocity=value.velocity
        )
        return cloud, found


def open_banks(
    transforms: Iterable[object], classes: Mapping[str, Sequence[str]], limit: int
) -> dict[str, ObjectBank]:
    """The databases that transforms name, by URI.

    Args:
        transforms: any; of those that add objects, which the databases must be able to give.
        classes: of the run, by kind of annotation.
        limit: the most numbers of a cloud.

    Raises:
        ValueError: if one cannot be read, or has no object of a class that is asked for.
    """
    banks: dict[str, ObjectBank] = {}
    for each in transforms:
        if not isinstance(each, PasteObjects) or each.p == 0:
            continue
        if each.database not in banks:
            names = classes.get(BOXES_3D.name, ())
            banks[each.database] = ObjectBank(open_split(each.database), names, limit)
        bank = banks[each.database]
        for name, count in each.counts.items():
            if count and not len(bank.rows(name, each.least(name))):
                raise ValueError(
                    f"paste_objects: the database {each.database} has no {name} with at least "
                    f"{each.least(name)} points; leave {name} out of counts, or lower min_points"
                )
    return banks
