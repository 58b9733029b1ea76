"""Labels: the classes that a sample as a whole has, one or several."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import UNKNOWN, AnnotationKind, ClassMapper, Region
from mtl_ray.columns import ColumnType, Feature, Features, numbers

if TYPE_CHECKING:
    from torch import Tensor

Labels = NDArray[np.int64]
"""(K,) class indices; none of them is "annotated, and it has no class"."""


class LabelsKind(AnnotationKind[Labels, Labels]):
    """See ``AnnotationKind``. A batch has ``present`` float32 (B, C), 1 for each class that the
    sample has.
    """

    name = "labels"
    columns: ClassVar[Mapping[str, ColumnType]] = {"labels": "list<int64>"}
    class_column = "labels"
    balance_order = 1

    def to_row(self, value: Labels) -> Mapping[str, Any]:
        """See ``AnnotationKind``."""
        return {"labels": value}

    def from_row(self, row: Mapping[str, Any]) -> Labels | None:
        """See ``AnnotationKind``."""
        found: Labels | None = row["labels"]
        return found

    def to_features(self, value: Labels, keypoints: Sequence[str]) -> dict[str, Feature]:
        """``label`` and, as ObjectiveMTL's readers want it, ``confidence``."""
        return {"label": value, "confidence": np.ones(len(value), np.int64)}

    def from_features(
        self, features: Features, keypoints: Sequence[str], annotated: bool | None
    ) -> Labels | None:
        """See ``AnnotationKind``; of an Example from elsewhere the labels with a positive
        ``confidence``.
        """
        if not (annotated or (annotated is None and "label" in features)):
            return None
        labels: Labels = numbers(features, "label", np.int64)
        if annotated is None and "confidence" in features:
            labels = labels[numbers(features, "confidence", np.int64) > 0]
        return labels

    def classes(self, value: Labels) -> Labels:
        """The labels themselves."""
        return value

    def num_annotations(self, value: Labels, counts: Mapping[int, int]) -> int:
        """One for each label."""
        return len(counts)

    def with_classes(self, value: Labels, mapper: ClassMapper) -> Labels:
        """See ``AnnotationKind``."""
        mapped: Labels = mapper.indices[value]
        kept: Labels = mapped[mapped != UNKNOWN]
        return kept

    def load(
        self, value: Labels, mapper: ClassMapper, raw: Any, limit: int, fields: frozenset[str]
    ) -> Labels:
        """See ``AnnotationKind``."""
        return self.with_classes(value, mapper)

    def join(
        self,
        parts: Sequence[tuple[Labels | None, Region, tuple[int, int]]],
        height: int,
        width: int,
    ) -> Labels | None:
        """The labels of all images; unknown if those of one are."""
        labels = [part for part, _, _ in parts if part is not None]
        return np.unique(np.concatenate(labels)) if len(labels) == len(parts) else None

    def blend(self, part: Labels, other: Labels) -> Labels:
        """The labels of both images."""
        return np.unique(np.concatenate([part, other]))

    def collate(
        self,
        parts: Sequence[Labels | None],
        classes: Sequence[str],
        rule: Any,
        fields: frozenset[str],
    ) -> dict[str, NDArray[Any]]:
        """See the class."""
        present = np.zeros((len(parts), len(classes)), np.float32)
        for row, part in enumerate(parts):
            if part is not None:
                present[row, part] = 1
        return {"present": present}

    def narrow_batch(
        self, targets: Mapping[str, "Tensor"], to_head: "Tensor", of_head: "Tensor"
    ) -> dict[str, "Tensor"]:
        """See ``AnnotationKind``."""
        return {**targets, "present": targets["present"][:, of_head]}

    def from_batch(self, arrays: Mapping[str, NDArray[Any]]) -> Labels:
        """See ``AnnotationKind``."""
        return np.flatnonzero(arrays["present"])


LABELS = LabelsKind()
