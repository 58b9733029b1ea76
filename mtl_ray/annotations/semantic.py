"""Semantic maps: a class for each pixel."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import UNKNOWN, AnnotationKind, ClassMapper, Region
from mtl_ray.columns import ColumnType, Feature, Features, first_bytes
from mtl_ray.inputs.decode import decode_semantic
from mtl_ray.inputs.frame import Frame, place_map
from mtl_ray.inputs.image_file import NO_LIMIT
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.samples import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor

Map = NDArray[np.uint8]
"""(H, W) class indices, ``IGNORE_INDEX`` where there is none."""


class SemanticKind(AnnotationKind[bytes, Map]):
    """See ``AnnotationKind``. It is stored as a PNG. A batch has ``classes`` uint8 (B, H, W) on
    the canvas.
    """

    name = "semantic"
    columns: ClassVar[Mapping[str, ColumnType]] = {"semantic": "binary"}
    unit = "pixels"
    balance_order = 2

    def to_row(self, value: bytes) -> Mapping[str, Any]:
        """See ``AnnotationKind``."""
        return {"semantic": value}

    def from_row(self, row: Mapping[str, Any]) -> bytes | None:
        """See ``AnnotationKind``."""
        found: bytes | None = row["semantic"]
        return found

    def num_bytes(self, value: bytes) -> int:
        """See ``AnnotationKind``."""
        return len(value)

    def to_features(self, value: bytes, keypoints: Sequence[str]) -> dict[str, Feature]:
        """``segmentation``, as ObjectiveMTL's readers call it."""
        return {"segmentation": [value]}

    def from_features(
        self, features: Features, keypoints: Sequence[str], annotated: bool | None
    ) -> bytes | None:
        """See ``AnnotationKind``."""
        return first_bytes(features, "segmentation")

    def check(self, value: bytes, size: Mapping[str, int]) -> None:
        """See ``AnnotationKind``."""
        hw = size["height"], size["width"]
        self._of_size(value, hw, max(MAX_PIXELS, hw[0] * hw[1]))

    def _of_size(self, value: bytes, hw: tuple[int, int], limit: int) -> Map:
        decoded = decode_semantic(value, limit)
        if decoded.shape != hw:
            height, width = decoded.shape
            raise ValueError(
                f"the semantic map is {width} x {height} pixels, the image {hw[1]} x {hw[0]}"
            )
        return decoded

    def classes(self, value: bytes) -> NDArray[np.int64]:
        """The classes of its pixels, each once; none of a damaged map, which is for whoever
        reads it to say.
        """
        return np.array(sorted(self.count(value)), np.int64)

    def count(self, value: bytes) -> Mapping[int, int]:
        """The pixels of each class; none of a damaged map."""
        try:
            decoded = decode_semantic(value, NO_LIMIT)
        except ValueError:
            return {}
        counts = np.bincount(decoded.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
        return {int(index): int(counts[index]) for index in np.flatnonzero(counts)}

    def num_annotations(self, value: bytes, counts: Mapping[int, int]) -> int:
        """One for each class in the map."""
        return len(counts)

    def with_classes(self, value: bytes, mapper: ClassMapper) -> bytes:
        """See ``AnnotationKind``; pixels of an unknown class have none."""
        done, data = cv2.imencode(
            ".png", _table(mapper)[decode_semantic(value)], [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )
        assert done
        return bytes(data)

    def load(
        self,
        value: bytes,
        mapper: ClassMapper,
        raw: NDArray[np.uint8],
        limit: int,
        fields: frozenset[str],
    ) -> Map:
        """See ``AnnotationKind``."""
        return _table(mapper)[self._of_size(value, (raw.shape[0], raw.shape[1]), limit)]

    def num_loaded_bytes(self, part: Map) -> int:
        """See ``AnnotationKind``."""
        return part.nbytes

    def flip(self, part: Map, axis: int, length: int, mirror: Sequence[int]) -> Map:
        """See ``AnnotationKind``."""
        return np.asarray(cv2.flip(part, 1 - axis), np.uint8)

    def crop(
        self, part: Map, top: int, left: int, height: int, width: int, min_visible: float
    ) -> Map:
        """See ``AnnotationKind``."""
        return part[top : top + height, left : left + width]

    def pad(self, part: Map, top: int, left: int, height: int, width: int) -> Map:
        """See ``AnnotationKind``; the new pixels have no class."""
        borders = (top, height - top - part.shape[0], left, width - left - part.shape[1])
        return np.asarray(
            cv2.copyMakeBorder(part, *borders, cv2.BORDER_CONSTANT, value=(IGNORE_INDEX,)), np.uint8
        )

    def join(
        self, parts: Sequence[tuple[Map | None, Region, tuple[int, int]]], height: int, width: int
    ) -> Map | None:
        """The maps side by side; pixels of an image without one have no class."""
        if all(part is None for part, _, _ in parts):
            return None
        joined = np.full((height, width), IGNORE_INDEX, np.uint8)
        for part, region, (top, left) in parts:
            if part is not None and region.height and region.width:
                shown, size = part[region.rows, region.columns], (region.width, region.height)
                target = slice(top, top + region.height), slice(left, left + region.width)
                joined[target] = cv2.resize(shown, size, interpolation=cv2.INTER_NEAREST_EXACT)
        return joined

    def blend(self, part: Map, other: Map) -> Map:
        """The class where both images have the same; elsewhere there is none."""
        return np.where(part == other, part, np.uint8(IGNORE_INDEX))

    def paste(
        self, part: Map, pasted: Map | None, shape: NDArray[np.uint8], min_visible: float
    ) -> Map:
        """The classes of the pasted pixels; none where the other image has no map."""
        new = np.uint8(IGNORE_INDEX) if pasted is None else pasted
        return np.where(shape > 0, new, part)

    def place(self, part: Map, frame: Frame) -> Map:
        """See ``AnnotationKind``; nearest neighbour."""
        return place_map(part, frame, IGNORE_INDEX)

    def collate(
        self, parts: Sequence[Map | None], classes: Sequence[str], rule: Any, fields: frozenset[str]
    ) -> dict[str, NDArray[Any]]:
        """See the class; ``IGNORE_INDEX`` where there is nothing to learn."""
        maps = np.full((len(parts), rule.height, rule.width), IGNORE_INDEX, np.uint8)
        for row, part in enumerate(parts):
            if part is not None:
                maps[row] = part
        return {"classes": maps}

    def narrow_batch(
        self, targets: Mapping[str, "Tensor"], to_head: "Tensor", of_head: "Tensor"
    ) -> dict[str, "Tensor"]:
        """See ``AnnotationKind``; pixels of other classes have none."""
        table = to_head.new_full((IGNORE_INDEX + 1,), IGNORE_INDEX)
        table[: len(to_head)] = to_head.masked_fill(to_head == UNKNOWN, IGNORE_INDEX)
        classes = targets["classes"]  # uint8 (B, H, W)
        return {**targets, "classes": table.to(classes.dtype)[classes.long()]}

    def from_batch(self, arrays: Mapping[str, NDArray[Any]]) -> bytes:
        """See ``AnnotationKind``."""
        done, data = cv2.imencode(".png", arrays["classes"])
        assert done
        return bytes(data)


def _table(mapper: ClassMapper) -> NDArray[np.uint8]:
    """(256,) what each value of a map becomes; ``IGNORE_INDEX`` for every value that is no
    class, or an unknown one.
    """
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[: len(mapper.indices)] = np.where(mapper.indices == UNKNOWN, IGNORE_INDEX, mapper.indices)
    return table


SEMANTIC = SemanticKind()
