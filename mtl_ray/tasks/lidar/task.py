"""The task detection_3d: objects of a point cloud with boxes in space."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import BOXES_3D
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.difference import Comparison, Difference, Fields
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.optional import DrawnView, ResultsForm, ResultsWriter
from mtl_ray.tasks.task import HeadKind, PlainTask, View

if TYPE_CHECKING:
    from mtl_ray.tasks.lidar.metric import Detection3dMetric

BOX = ("x", "y", "z", "length", "width", "height", "yaw")


@dataclass(frozen=True)
class Detection3dTask(PlainTask):
    """See ``Task``."""

    name = "detection_3d"
    kind = BOXES_3D
    view: ClassVar[View] = "boxes_3d"
    schema_name = "Detections3d"

    def decode(self, arrays: Fields, frame: Any, head: Any) -> Detections3d:
        """See ``decode.decode_detections_3d``."""
        from mtl_ray.tasks.lidar.decode import decode_detections_3d

        return decode_detections_3d(arrays, frame, head)

    def nothing_found(self) -> Detections3d:
        """See ``CountingTask``."""
        return Detections3d(
            boxes=np.zeros((0, 7), np.float32),
            scores=np.zeros(0, np.float32),
            classes=np.zeros(0, np.int64),
        )

    def is_brief(self, entry: str) -> bool:
        """See ``Brief``."""
        from mtl_ray.tasks.lidar.kitti.keys import is_brief

        return is_brief(entry)

    def metric(self, head: HeadKind, vocabulary: Vocabulary) -> "Detection3dMetric":
        """See ``Task``."""
        from mtl_ray.tasks.lidar.metric import Detection3dMetric

        return Detection3dMetric(tuple(vocabulary.classes[self.kind.name]))

    def to_response(
        self,
        prediction: Detections3d,
        vocabulary: Vocabulary,
        score_threshold: float,
        image_file: str | None = None,
    ) -> list[dict[str, Any]]:
        """``[{"class_label": 2, "class_name": "Car", "box_3d": [x, y, z, length, width, height,
        yaw], "score": 0.9}, ...]``, best first; ``velocity`` [x, y] follows if it is known.

        Metres and radians in the frame of the lidar, x, y, z of the centre. Objects with a score
        below ``score_threshold`` are left out.
        """
        names = vocabulary.classes[self.kind.name]
        items = []
        for i in np.flatnonzero(prediction.scores >= score_threshold):
            label = int(prediction.classes[i])
            item: dict[str, Any] = {
                "class_label": label,
                "class_name": names[label],
                "box_3d": prediction.boxes[i].tolist(),
                "score": float(prediction.scores[i]),
            }
            if prediction.velocity is not None:
                item["velocity"] = prediction.velocity[i].tolist()
            items.append(item)
        return items

    def from_response(
        self,
        content: Any,
        vocabulary: Vocabulary,
        head: HeadKind,
        size: Mapping[str, int] | None = None,
    ) -> Detections3d:
        """See ``Task``; only objects above the requested threshold are in the response."""
        velocity = [item["velocity"] for item in content if "velocity" in item]
        prediction = Detections3d(
            boxes=np.array([item["box_3d"] for item in content], np.float32).reshape(-1, 7),
            scores=np.array([item["score"] for item in content], np.float32),
            classes=np.array([operator.index(item["class_label"]) for item in content], np.int64),
            velocity=np.array(velocity, np.float32).reshape(-1, 2) if velocity else None,
        )
        counts = {len(prediction.boxes), len(prediction.scores), len(prediction.classes)}
        if prediction.velocity is not None:
            counts.add(len(prediction.velocity))
        known = len(vocabulary.classes[self.kind.name])
        if (
            len(counts) > 1
            or ((prediction.classes < 0) | (prediction.classes >= known)).any()
            or not np.isfinite(prediction.boxes).all()
            or not np.isfinite(prediction.scores).all()
        ):
            raise ValueError(
                "its objects do not have a box of 7 finite numbers, a score and a known class each"
            )
        return prediction

    def response_schema(self) -> dict[str, Any]:
        """See ``Task``."""
        number = {"type": "number"}
        properties: dict[str, Any] = {
            "class_label": {"type": "integer"},
            "class_name": {"type": "string"},
            "box_3d": {
                "type": "array",
                "items": number,
                "minItems": 7,
                "maxItems": 7,
                "description": f"{', '.join(BOX)}; metres and radians in the frame of the lidar, "
                "x, y, z of the centre",
            },
            "score": number,
        }
        required = list(properties)
        velocity = {
            "type": "array",
            "items": number,
            "minItems": 2,
            "maxItems": 2,
            "description": "metres per second along x and y",
        }
        return {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {**properties, "velocity": velocity},
                "required": required,
            },
        }

    def draw_ground_truth(
        self, image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary
    ) -> NDArray[np.uint8]:
        """See ``Task``; the image is the cloud from above (``geometry/birds_eye.py``)."""
        from mtl_ray.tasks.lidar.draw import draw_objects

        return draw_objects(image, sample, vocabulary)

    def draw_prediction(
        self,
        image: NDArray[np.uint8],
        prediction: Detections3d,
        vocabulary: Vocabulary,
        score_threshold: float = 0.3,
    ) -> NDArray[np.uint8]:
        """See ``Task``."""
        from mtl_ray.tasks.lidar.draw import draw_detections

        return draw_detections(image, prediction, vocabulary, score_threshold)

    def draw_views(
        self,
        sample: Sample,
        vocabulary: Vocabulary,
        prediction: Detections3d | None,
        score_threshold: float,
    ) -> list[DrawnView]:
        """See ``ViewsTask``: the images of the cameras."""
        from mtl_ray.tasks.lidar.camera_views import draw_cameras

        return draw_cameras(sample, vocabulary, prediction, score_threshold)

    def results_writer(
        self, form: ResultsForm, uri: str, vocabulary: Vocabulary, score_threshold: float
    ) -> ResultsWriter:
        """See ``ResultsTask``."""
        from mtl_ray.tasks.lidar.results import open_results_writer

        return open_results_writer(form, uri, vocabulary.classes[self.kind.name], score_threshold)

    def row_type(self) -> Any:
        """A struct: boxes are 7 K numbers, velocity 2 K or null."""
        import pyarrow as pa

        return pa.struct(
            [
                ("boxes", pa.list_(pa.float32())),
                ("scores", pa.list_(pa.float32())),
                ("classes", pa.list_(pa.int64())),
                ("velocity", pa.list_(pa.float32())),
            ]
        )

    def to_row(self, prediction: Detections3d) -> dict[str, Any]:
        """A value of ``row_type``."""
        return {
            "boxes": prediction.boxes.ravel(),
            "scores": prediction.scores,
            "classes": prediction.classes,
            "velocity": None if prediction.velocity is None else prediction.velocity.ravel(),
        }

    def from_row(self, row: Mapping[str, Any]) -> Detections3d:
        """The inverse of ``to_row``."""
        velocity = row["velocity"]
        return Detections3d(
            boxes=np.array(row["boxes"], np.float32).reshape(-1, 7),
            scores=np.array(row["scores"], np.float32),
            classes=np.array(row["classes"], np.int64),
            velocity=None if velocity is None else np.array(velocity, np.float32).reshape(-1, 2),
        )

    def difference(self, first: Detections3d, second: Detections3d, how: Comparison) -> Difference:
        """See ``difference.prediction_difference``."""
        from mtl_ray.tasks.lidar.difference import prediction_difference

        return prediction_difference(first, second, how)

    def array_difference(self, first: Fields, second: Fields, how: Comparison) -> Difference:
        """See ``difference.array_difference``."""
        from mtl_ray.tasks.lidar.difference import array_difference

        return array_difference(first, second, how)


DETECTION_3D = Detection3dTask()


def predicts_boxes_3d(head: HeadKind) -> bool:
    """Whether the predictions of a head are ``Detections3d``."""
    return isinstance(head.task, Detection3dTask)
