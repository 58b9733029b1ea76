"""What a kind of annotation is: one object that knows how its values are stored, transformed,
batched and counted.

Each kind has its own file here. ``labels``, ``instances``, ``semantic`` and ``boxes_3d`` are built
in; plugins add others. Code that handles annotations loops over the kinds, and never asks for the
name of one. No kind imports torch or ray.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mtl_ray.columns import ColumnType, Feature, Features, row_from_features, row_to_features
from mtl_ray.geometry.motion import Motion

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")
"""The annotation of one sample as it is stored; None is never one ("not annotated")."""
Part = TypeVar("Part")
"""The same in memory, as transforms change it and a batch takes it."""

Choose = Callable[[int], NDArray[np.int64]]
"""Given a number of objects, the places of those that are chosen among them."""
UNKNOWN = -1
"""In a ``ClassMapper``: the class does not exist in the other list."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassMapper:
    """What the class indices of one list of classes become in another.

    Attributes:
        indices: (C,) int64; ``UNKNOWN`` for a class that the other list does not have.
        names: the other list.
    """

    indices: NDArray[np.int64]
    names: tuple[str, ...]

    @staticmethod
    def between(own: Sequence[str], other: Sequence[str]) -> "ClassMapper":
        """Maps classes by name."""
        place = {name: index for index, name in enumerate(other)}
        return ClassMapper(
            np.array([place.get(name, UNKNOWN) for name in own], np.int64), tuple(other)
        )

    @property
    def changes(self) -> bool:
        """False if every index stays what it is."""
        return not np.array_equal(self.indices, np.arange(len(self.indices)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A part of an image and what it becomes: it is cut out, scaled, and lies at the top left
    corner of a smaller image.

    Attributes:
        rows, columns: pixels of the image that are kept.
        scale_y, scale_x: pixels afterwards per pixel before.
        height, width: pixels afterwards.
        min_visible: objects of which a smaller share is left are dropped.
    """

    rows: slice
    columns: slice
    scale_y: float
    scale_x: float
    height: int
    width: int
    min_visible: float


class AnnotationKind(Generic[Value, Part]):
    """A kind of annotation.

    A subclass gives ``name``, ``columns``, ``to_row``, ``from_row``, ``load`` and ``collate``. All
    else has a default that fits an annotation of the sample as a whole, which no geometric
    transform changes.

    Attributes:
        name: the key in ``Sample.annotations`` and ``Batch.targets``.
        columns: the columns of a shard that hold it, by name. Names are unique among all kinds. All
            are null where a sample is not annotated.
        class_column: the column of type ``list<int64>`` that holds class indices; None if there is
            none.
        unit: what ``count`` counts, such as instances or pixels; None if each class counts once a
            sample.
        balance_order: of several kinds that all splits have, ``data.train.balanced`` looks at the
            one with the lowest number.
        fields: names of further arrays that ``collate`` gives only if a head reads them, such as
            masks.
        cut_fields: those of them without which ``cut_out`` finds nothing.
    """

    name: ClassVar[str]
    columns: ClassVar[Mapping[str, ColumnType]]
    class_column: ClassVar[str | None] = None
    unit: ClassVar[str | None] = None
    balance_order: ClassVar[int] = 10
    fields: ClassVar[frozenset[str]] = frozenset()
    cut_fields: ClassVar[frozenset[str]] = frozenset()

    def __eq__(self, other: object) -> bool:
        """Equal to the same kind in another process."""
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    # Storage.

    def to_row(self, value: Value) -> Mapping[str, Any]:
        """The values of ``columns``; a column that is absent is null."""
        raise NotImplementedError

    def from_row(self, row: Mapping[str, Any]) -> Value | None:
        """The inverse of ``to_row``; None where the columns say "not annotated"."""
        raise NotImplementedError

    def num_bytes(self, value: Value) -> int:
        """About the bytes that it takes in a shard, if these are many."""
        return 0

    def check(self, value: Value, size: Mapping[str, int]) -> None:
        """Compares a value with the size of the input of its sample (``Input.size``).

        Raises:
            ValueError: in one sentence, if it is damaged or does not fit the input: no metric could
                read it.
        """

    def to_features(self, value: Value, keypoints: Sequence[str]) -> dict[str, Feature]:
        """Its features in a ``tf.train.Example``.

        Args:
            value: as stored.
            keypoints: names of the keypoints of the split.
        """
        return row_to_features(f"mtl/{self.name}", self.columns, self.to_row(value))

    def from_features(
        self, features: Features, keypoints: Sequence[str], annotated: bool | None
    ) -> Value | None:
        """The inverse of ``to_features``.

        Args:
            features: of an Example.
            keypoints: names of the keypoints to look for in an Example from elsewhere.
            annotated: whether the Example says that this kind is annotated; None for one from
                elsewhere, which does not say it.

        Raises:
            ValueError: if the features do not fit together.
        """
        return (
            self.from_row(row_from_features(f"mtl/{self.name}", self.columns, features))
            if annotated
            else None
        )

    # Classes.

    def classes(self, value: Value) -> NDArray[np.int64]:
        """Class indices: one for each object, or each class once. None of them for a kind
        without classes.
        """
        return np.zeros(0, np.int64)

    def count(self, value: Value) -> Mapping[int, int]:
        """How many units (objects, pixels) have each class."""
        indices, counts = np.unique(self.classes(value), return_counts=True)
        return dict(zip(indices.tolist(), counts.tolist(), strict=True))

    def num_annotations(self, value: Value, counts: Mapping[int, int]) -> int:
        """How many annotations a value is, for the summary of a conversion; ``counts`` is what
        ``count`` gives.
        """
        return 1

    def with_classes(self, value: Value, mapper: ClassMapper) -> Value:
        """The value with the class indices of another list; what has an unknown class is left
        out.
        """
        return value

    # From a sample to a batch.

    def load(
        self, value: Value, mapper: ClassMapper, raw: Any, limit: int, fields: frozenset[str]
    ) -> Part:
        """What transforms change.

        Args:
            value: as stored.
            mapper: the class indices of its split -> those of the run.
            raw: the decoded input that it belongs to.
            limit: the most pixels of an image.
            fields: those of ``fields`` that a head reads.

        Raises:
            ValueError: in one sentence, if it is damaged or does not fit the input.
        """
        raise NotImplementedError

    def num_loaded_bytes(self, part: Part) -> int:
        """About the bytes that ``load`` takes in memory, if these are many."""
        return 0

    def flip(self, part: Part, axis: int, length: int, mirror: Sequence[int]) -> Part:
        """Mirrored along x (``axis`` 0) or y (1) of an image of ``length`` pixels there.

        ``mirror`` says for each keypoint which one it becomes when left and right are exchanged.
        """
        return part

    def crop(
        self, part: Part, top: int, left: int, height: int, width: int, min_visible: float
    ) -> Part:
        """Cut off outside a rectangle, in pixels; objects of which less than ``min_visible`` is
        left are dropped.
        """
        return part

    def pad(self, part: Part, top: int, left: int, height: int, width: int) -> Part:
        """Inside a larger image of (height, width) pixels, its corner at (top, left)."""
        return part

    def join(
        self, parts: Sequence[tuple[Part | None, Region, tuple[int, int]]], height: int, width: int
    ) -> Part | None:
        """A mosaic: parts of several images side by side in an image of (height, width) pixels.

        Args:
            parts: of each image its annotation (None is not annotated), the region that is shown,
                and where that lies (top, left). An image of which nothing is shown comes with a
                region of no height or width.
            height: pixels of the mosaic.
            width: pixels of the mosaic.

        Returns:
            None if the mosaic counts as not annotated.
        """
        return None

    def blend(self, part: Part, other: Part) -> Part | None:
        """Of two images of one size that are shown at once, half transparent (mixup); None if the
        result counts as not annotated.
        """
        return None

    def cut_out(
        self, part: Part, height: int, width: int, choose: Choose
    ) -> tuple[Part, NDArray[np.uint8]] | None:
        """Some objects of an image, to be pasted into another one.

        Args:
            part: of the image.
            height: pixels of the image.
            width: pixels of the image.
            choose: which of the objects that can be cut out.

        Returns:
            The chosen objects, and (height, width) uint8, 1 where one of them is; None if there are
            none, or the kind has no objects.
        """
        return None

    def paste(
        self, part: Part, pasted: Part | None, shape: NDArray[np.uint8], min_visible: float
    ) -> Part | None:
        """What is annotated after some pixels of another image were pasted over it.

        Args:
            part: before.
            pasted: what ``cut_out`` gave, if this kind gave it; else the annotation of the other
                image, None if that is not annotated.
            shape: (H, W) uint8, 1 where a pixel was pasted.
            min_visible: objects of which a smaller share is left are dropped.

        Returns:
            None if the image counts as not annotated now.
        """
        return None

    def move(self, part: Part, motion: Motion) -> Part:
        """In a point cloud that is moved."""
        return part

    def place(self, part: Part, frame: Any) -> Part:
        """In the network's frame."""
        return part

    def collate(
        self,
        parts: Sequence[Part | None],
        classes: Sequence[str],
        rule: Any,
        fields: frozenset[str],
    ) -> Mapping[str, NDArray[Any]]:
        """The arrays of a batch, batch first.

        The loader adds ``annotated`` bool (B,) and ``known_classes`` bool (B, C).

        Args:
            parts: of each sample, placed; None is not annotated.
            classes: names of the classes of the run.
            rule: the config of the network's frame.
            fields: those of ``fields`` that a head reads.
        """
        raise NotImplementedError

    def narrow_batch(
        self, targets: Mapping[str, "Tensor"], to_head: "Tensor", of_head: "Tensor"
    ) -> Mapping[str, "Tensor"]:
        """The targets of a head that learns some of the classes, in the class indices of the head.

        Args:
            targets: what ``collate`` gives, as tensors.
            to_head: (C,) int64, the head's index of each class of the run, ``UNKNOWN`` for one that
                it does not learn.
            of_head: (K,) int64, the index in the run of each class of the head.

        Raises:
            ValueError: if the kind has no classes among which a head could choose.
        """
        raise ValueError(
            f"{self.name} has no classes that a head could choose among; leave out the head's "
            "option 'classes'"
        )

    def from_batch(self, arrays: Mapping[str, NDArray[Any]]) -> Value | None:
        """About the inverse of ``load``, ``place`` and ``collate`` for one sample: what is drawn of
        a batch; None if nothing is.

        Args:
            arrays: of ``collate``, without the batch axis.
        """
        return None
