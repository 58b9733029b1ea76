"""The task semantic segmentation: a class for each pixel."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.semantic import SEMANTIC
from mtl_ray.inputs.frame import Frame
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.difference import (
    Comparison,
    Difference,
    Fields,
    Sides,
    field_faults,
    fields_of,
)
from mtl_ray.tasks.segmentation.decode import SemanticMap, class_map, decode_class_map
from mtl_ray.tasks.task import HeadKind, View

if TYPE_CHECKING:
    from mtl_ray.tasks.segmentation.metric import SemanticMetric

MAX_RESPONSE_PIXELS = 1 << 28
"""Most pixels of a class map from a server."""


@dataclass(frozen=True)
class SegmentationTask:
    """See ``Task``."""

    name = "segmentation"
    kind = SEMANTIC
    view: ClassVar[View] = "map"
    schema_name = "ClassMap"
    to_coco = None

    def decode(self, arrays: Fields, frame: Frame, head: object) -> SemanticMap:
        """See ``decode.decode``."""
        return decode_class_map(arrays, frame)

    def of_windows(self, classes: NDArray[np.uint8]) -> SemanticMap:
        """See ``WindowTask``."""
        return SemanticMap(classes=classes)

    def metric(self, head: HeadKind, vocabulary: Vocabulary) -> "SemanticMetric":
        """See ``Task``."""
        from mtl_ray.tasks.segmentation.metric import SemanticMetric

        return SemanticMetric(tuple(vocabulary.classes[self.kind.name]))

    def to_response(
        self,
        prediction: SemanticMap,
        vocabulary: Vocabulary,
        score_threshold: float,
        image_file: str | None = None,
    ) -> dict[str, Any]:
        """``{"height", "width", "classes": [{"class_label", "class_name", "share"}, ...], "png":
        base64}``.

        ``classes`` are those in the map, the largest share first; ``png`` is ``plain_image``. A
        class map has no scores, so the threshold has no effect.
        """
        names = vocabulary.classes[self.kind.name]
        counts = np.bincount(prediction.classes.ravel(), minlength=len(names))
        order = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
        return {
            "height": prediction.classes.shape[0],
            "width": prediction.classes.shape[1],
            "classes": [
                {
                    "class_label": c,
                    "class_name": names[c],
                    "share": float(counts[c] / prediction.classes.size),
                }
                for c in order
            ],
            "png": image_file or base64.b64encode(self.plain_image(prediction)).decode(),
        }

    def from_response(
        self,
        content: Any,
        vocabulary: Vocabulary,
        head: HeadKind,
        size: Mapping[str, int] | None = None,
    ) -> SemanticMap:
        """See ``Task``."""
        try:
            data = base64.b64decode(content["png"], validate=True)
        except (KeyError, binascii.Error) as error:
            raise ValueError(
                "the response of a segmentation head has no class map under 'png'"
            ) from error
        classes = _read_png(data, MAX_RESPONSE_PIXELS, size)
        known = len(vocabulary.classes[self.kind.name])
        if (strange := classes[classes >= known]).size:
            raise ValueError(
                f"its class map has the class index {strange[0]}, but there are {known} classes"
            )
        return SemanticMap(classes=classes)

    def plain_image(self, prediction: SemanticMap) -> bytes:
        """One 8-bit channel, (height, width) of the image that was sent; the value of a pixel is
        its class index.
        """
        done, data = cv2.imencode(".png", prediction.classes, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert done
        return bytes(data)

    def response_schema(self) -> dict[str, Any]:
        """See ``Task``."""
        label = {
            "class_label": {"type": "integer"},
            "class_name": {"type": "string"},
            "share": {"type": "number"},
        }
        properties = {
            "height": {"type": "integer"},
            "width": {"type": "integer"},
            "classes": {
                "type": "array",
                "items": {"type": "object", "properties": label, "required": list(label)},
            },
            "png": {"type": "string", "description": "base64 of the index PNG"},
        }
        return {"type": "object", "properties": properties, "required": list(properties)}

    def draw_ground_truth(
        self, image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary
    ) -> NDArray[np.uint8]:
        """See ``Task``."""
        from mtl_ray.tasks.segmentation.draw import draw_semantic

        return draw_semantic(image, sample, vocabulary)

    def draw_prediction(
        self,
        image: NDArray[np.uint8],
        prediction: SemanticMap,
        vocabulary: Vocabulary,
        score_threshold: float = 0.3,
    ) -> NDArray[np.uint8]:
        """See ``Task``."""
        from mtl_ray.tasks.segmentation.draw import draw_class_map

        return draw_class_map(image, prediction, vocabulary, score_threshold)

    def row_type(self) -> Any:
        """A struct with an index PNG of the image's size."""
        import pyarrow as pa

        return pa.struct([("png", pa.binary())])

    def to_row(self, prediction: SemanticMap) -> dict[str, Any]:
        """A value of ``row_type``."""
        return {"png": self.plain_image(prediction)}

    def from_row(self, row: Mapping[str, Any]) -> SemanticMap:
        """The inverse of ``to_row``."""
        from mtl_ray.inputs.image_file import NO_LIMIT

        return SemanticMap(classes=_read_png(row["png"], NO_LIMIT))

    def difference(self, first: SemanticMap, second: SemanticMap, how: Comparison) -> Difference:
        """Pixel by pixel."""
        return _difference(fields_of(first), fields_of(second), how.sides)

    def array_difference(self, first: Fields, second: Fields, how: Comparison) -> Difference:
        """Pixel by pixel of the canvas."""
        return _difference(first, second, how.sides)


def _difference(first: Fields, second: Fields, sides: Sides) -> Difference:
    """The pixels of the same class; of logits also the largest difference, relative to the largest
    one.
    """
    problems = field_faults(first, second, ("classes", "logits"), sides)
    if problems:
        return Difference(unit="pixels", incomparable=problems)
    same = class_map(first) == class_map(second)
    apart = Difference(unit="pixels", compared=same.size, agreeing=int(same.sum()), count=same.size)
    if "logits" not in first:
        return apart
    largest = max(1.0, float(np.abs(first["logits"]).max()))
    return apart.with_scores(first["logits"] / largest, second["logits"] / largest)


def _read_png(
    data: bytes, max_pixels: int, size: Mapping[str, int] | None = None
) -> NDArray[np.uint8]:
    """The inverse of ``plain_image``.

    Raises:
        ValueError: if it is no PNG of one 8-bit channel, has too many pixels, or another size than
            the image.
    """
    from mtl_ray.inputs.image_file import load_image, open_image
    from mtl_ray.inputs.image_header import PNG

    opened = open_image(data, max_pixels) if data.startswith(PNG) else None
    if opened is None or opened.mode != "L":
        raise ValueError("a class map must be a PNG with one channel of 8 bits")
    if size is not None and {"height": opened.height, "width": opened.width} != size:
        raise ValueError(
            f"its class map has {opened.width} x {opened.height} pixels, the image has "
            f"{size['width']} x {size['height']}"
        )
    return np.array(load_image(opened), np.uint8)


SEGMENTATION = SegmentationTask()
