"""The task detection: objects with boxes, and masks or keypoints if a head predicts them."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.inputs.frame import Frame
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.detection.decode import Detections, SelectingHead, decode_detections
from mtl_ray.tasks.detection.mask_json import MASK_SCHEMA, mask_from_json, mask_to_json
from mtl_ray.tasks.difference import Comparison, Difference, Fields
from mtl_ray.tasks.optional import FusionRule
from mtl_ray.tasks.response import MaskForm
from mtl_ray.tasks.task import HeadKind, View

if TYPE_CHECKING:
    from mtl_ray.tasks.detection.metric import DetectionMetric


@dataclass(frozen=True)
class DetectionTask:
    """See ``Task``."""

    name = "detection"
    kind = INSTANCES
    view: ClassVar[View] = "boxes"
    schema_name = "Detections"
    masks_in_response = True

    def decode(self, arrays: Fields, frame: Frame, head: SelectingHead) -> Detections:
        """See ``decode.decode``."""
        return decode_detections(arrays, frame, head)

    def mirrored(
        self, prediction: Detections, size: Mapping[str, int], vocabulary: Vocabulary
    ) -> Detections:
        """See ``FusingTask``."""
        from mtl_ray.tasks.detection.fuse import mirrored

        return mirrored(prediction, size["height"], size["width"], vocabulary.mirror)

    def fused(
        self, predictions: Sequence[Detections], rule: FusionRule, head: HeadKind
    ) -> Detections:
        """See ``FusingTask``; as many detections as the variant with the most has."""
        from mtl_ray.tasks.detection.fuse import fused_variants

        return fused_variants(predictions, rule, head)

    def metric(self, head: HeadKind, vocabulary: Vocabulary) -> "DetectionMetric":
        """See ``Task``."""
        from mtl_ray.tasks.detection.metric import DetectionMetric

        return DetectionMetric(tuple(vocabulary.classes[self.kind.name]))

    def to_response(
        self,
        prediction: Detections,
        vocabulary: Vocabulary,
        score_threshold: float,
        image_file: str | None = None,
        *,
        masks: MaskForm = "rle",
        size: Mapping[str, int] | None = None,
    ) -> list[dict[str, Any]]:
        """``[{"class_label": 2, "class_name": "Platelets", "bbox": [x1, y1, x2, y2], "score": 0.9},
        ...]``, best first.

        The shape of TorchServe's answers for OpenMMLab detectors. Boxes are in pixels of the image
        that was sent; those with a score below ``score_threshold`` are left out. Masks follow
        under ``mask`` (``response.MaskForm``; run lengths alone if ``size`` is not known), and
        keypoints as ``[[x, y, score], ...]``, if there are any.
        """
        names = vocabulary.classes[self.kind.name]
        items = []
        for i in np.flatnonzero(prediction.scores >= score_threshold):
            label = int(prediction.classes[i])
            item = {
                "class_label": label,
                "class_name": names[label],
                "bbox": prediction.boxes_xyxy[i].tolist(),
                "score": float(prediction.scores[i]),
            }
            if prediction.masks is not None and masks != "none":
                item["mask"] = mask_to_json(prediction.masks[i], masks, size)
            if prediction.keypoints is not None:
                item["keypoints"] = prediction.keypoints[i].tolist()
            items.append(item)
        return items

    def from_response(
        self,
        content: Any,
        vocabulary: Vocabulary,
        head: HeadKind,
        size: Mapping[str, int] | None = None,
    ) -> Detections:
        """See ``Task``; only detections above the requested threshold are in the response."""
        masks = tuple(mask_from_json(item["mask"], size) for item in content if "mask" in item)
        keypoints = [item["keypoints"] for item in content if "keypoints" in item]
        prediction = Detections(
            boxes_xyxy=np.array([item["bbox"] for item in content], np.float32).reshape(-1, 4),
            scores=np.array([item["score"] for item in content], np.float32),
            classes=np.array([operator.index(item["class_label"]) for item in content], np.int64),
            masks=masks or None,
            keypoints=np.array(keypoints, np.float32) if keypoints else None,
        )
        counts = {
            len(values)
            for values in (
                prediction.boxes_xyxy,
                prediction.scores,
                prediction.classes,
                prediction.masks,
                prediction.keypoints,
            )
            if values is not None
        }
        known = len(vocabulary.classes[self.kind.name])
        numbers = np.isfinite(prediction.boxes_xyxy).all() and np.isfinite(prediction.scores).all()
        if (
            len(counts) > 1
            or ((prediction.classes < 0) | (prediction.classes >= known)).any()
            or not numbers
        ):
            raise ValueError("its detections do not have a box, a score and a known class each")
        return prediction

    def plain_image(self, prediction: Detections) -> None:
        """None: objects are no image."""
        return

    def response_schema(self) -> dict[str, Any]:
        """See ``Task``."""
        properties: dict[str, Any] = {
            "class_label": {"type": "integer"},
            "class_name": {"type": "string"},
            "bbox": {"type": "array", "items": {"type": "number"}, "description": "x1, y1, x2, y2"},
            "score": {"type": "number"},
        }
        required = list(properties)
        points = {"type": "array", "items": {"type": "number"}, "description": "x, y, score"}
        optional = {"mask": MASK_SCHEMA, "keypoints": {"type": "array", "items": points}}
        return {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {**properties, **optional},
                "required": required,
            },
        }

    def draw_ground_truth(
        self, image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary
    ) -> NDArray[np.uint8]:
        """See ``Task``."""
        from mtl_ray.tasks.detection.draw import draw_objects

        return draw_objects(image, sample, vocabulary)

    def draw_prediction(
        self,
        image: NDArray[np.uint8],
        prediction: Detections,
        vocabulary: Vocabulary,
        score_threshold: float = 0.3,
    ) -> NDArray[np.uint8]:
        """See ``Task``."""
        from mtl_ray.tasks.detection.draw import draw_detections

        return draw_detections(image, prediction, vocabulary, score_threshold)

    def row_type(self) -> Any:
        """A struct: boxes are 4 N numbers, keypoints 3 K each; masks and keypoints are null if
        there are none.
        """
        import pyarrow as pa

        return pa.struct(
            [
                ("boxes_xyxy", pa.list_(pa.float32())),
                ("scores", pa.list_(pa.float32())),
                ("classes", pa.list_(pa.int64())),
                ("masks", pa.list_(pa.binary())),
                ("keypoints", pa.list_(pa.list_(pa.float32()))),
            ]
        )

    def to_row(self, prediction: Detections) -> dict[str, Any]:
        """A value of ``row_type``."""
        return {
            "boxes_xyxy": prediction.boxes_xyxy.ravel(),
            "scores": prediction.scores,
            "classes": prediction.classes,
            "masks": None if prediction.masks is None else list(prediction.masks),
            "keypoints": None
            if prediction.keypoints is None
            else [points.ravel() for points in prediction.keypoints],
        }

    def from_row(self, row: Mapping[str, Any]) -> Detections:
        """The inverse of ``to_row``."""
        points = row["keypoints"]
        width = len(points[0]) // 3 if points else 0
        return Detections(
            boxes_xyxy=np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4),
            scores=np.array(row["scores"], np.float32),
            classes=np.array(row["classes"], np.int64),
            masks=None if row["masks"] is None else tuple(row["masks"]),
            keypoints=None
            if points is None
            else np.array(points, np.float32).reshape(len(points), width, 3),
        )

    def to_coco(
        self,
        prediction: Detections,
        image_id: int,
        height: int,
        width: int,
        category_ids: Sequence[int],
    ) -> list[dict[str, Any]]:
        """Entries of a COCO results file: bbox as x, y, width, height; ``category_ids`` by class
        index.
        """
        boxes = prediction.boxes_xyxy.tolist()
        rows = zip(boxes, prediction.scores.tolist(), prediction.classes.tolist(), strict=True)
        entries: list[dict[str, Any]] = [
            {
                "image_id": image_id,
                "category_id": category_ids[label],
                "score": score,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            for (x1, y1, x2, y2), score, label in rows
        ]
        for i in np.flatnonzero(np.isnan(prediction.boxes_xyxy).any(axis=1)).tolist():
            del entries[i]["bbox"]  # a file of masks or keypoints alone has no boxes
        if prediction.masks is not None:
            for entry, mask in zip(entries, prediction.masks, strict=True):
                entry["segmentation"] = {"size": [height, width], "counts": mask.decode()}
        if prediction.keypoints is not None:
            for entry, points in zip(entries, prediction.keypoints, strict=True):
                entry["keypoints"] = points.ravel().tolist()
        return entries

    def difference(self, first: Detections, second: Detections, how: Comparison) -> Difference:
        """See ``difference.prediction_difference``."""
        from mtl_ray.tasks.detection.difference import prediction_difference

        return prediction_difference(first, second, how)

    def array_difference(self, first: Fields, second: Fields, how: Comparison) -> Difference:
        """See ``difference.array_difference``."""
        from mtl_ray.tasks.detection.difference import array_difference

        return array_difference(first, second, how)


DETECTION = DetectionTask()


def predicts_objects(head: HeadKind) -> bool:
    """Whether the predictions of a head are ``Detections``. Its kind of annotation does not say it:
    a head of another task may read objects too, such as one that counts them.
    """
    return isinstance(head.task, DetectionTask)
