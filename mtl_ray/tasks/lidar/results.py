"""Predictions as result files of KITTI and the results JSON of nuScenes."""

from collections.abc import Sequence
from typing import Any

from mtl_ray import storage
from mtl_ray.inputs.point_cloud import EncodedPoints, SensorCalibration
from mtl_ray.samples import Sample
from mtl_ray.sources.lidar.kitti_labels import kitti_lines
from mtl_ray.sources.lidar.nuscenes import CLASSES
from mtl_ray.sources.writers.kitti import frame_id
from mtl_ray.sources.writers.nuscenes_results import result_boxes, write_nuscenes_results
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.optional import ResultsForm, ResultsWriter


class KittiResults:
    """Writes ``FRAME.txt`` of each frame into a folder.

    Args:
        uri: of the folder.
        names: of the classes.
        score_threshold: objects with a lower score are left out.
    """

    def __init__(self, uri: str, names: Sequence[str], score_threshold: float) -> None:
        self.uri, self.names, self.score_threshold = uri, names, score_threshold
        self._written: set[str] = set()

    def write(self, sample: Sample, prediction: Detections3d) -> None:
        """Boxes are written for the first camera, those outside its image only where there are
        several; see ``ResultsWriter``.
        """
        cameras = _calibration(sample).cameras
        if not cameras:
            raise ValueError(
                f"sample {sample.key} has no camera, in whose frame KITTI states boxes. Fix: leave "
                "out --format kitti"
            )
        kept = prediction.scores >= self.score_threshold
        names = [self.names[each] for each in prediction.classes[kept]]
        lines = kitti_lines(
            prediction.boxes[kept],
            names,
            prediction.scores[kept],
            cameras[0],
            unseen=len(cameras) > 1,
        )
        name = f"{frame_id(sample.key)}.txt"
        if name in self._written:
            raise ValueError(f"two samples have the frame {name}, so one would replace the other")
        self._written.add(name)
        text = "".join(f"{line}\n" for line in lines)
        storage.write(storage.join(self.uri, name), text.encode())

    def finish(self) -> str:
        """The folder."""
        return self.uri


class NuScenesResults:
    """Writes ``results_nusc.json`` into a folder at the end; arguments as of ``KittiResults``."""

    def __init__(self, uri: str, names: Sequence[str], score_threshold: float) -> None:
        self.uri = storage.join(uri, "results_nusc.json")
        self.names, self.score_threshold = names, score_threshold
        self._results: dict[str, list[dict[str, Any]]] = {}

    def write(self, sample: Sample, prediction: Detections3d) -> None:
        """See ``ResultsWriter``."""
        calibration = _calibration(sample)
        kept = prediction.scores >= self.score_threshold
        names = [self.names[each] for each in prediction.classes[kept]]
        try:
            boxes = result_boxes(
                calibration,
                prediction.boxes[kept],
                prediction.scores[kept],
                names,
                None if prediction.velocity is None else prediction.velocity[kept],
            )
        except ValueError as error:
            raise ValueError(f"sample {sample.key}: {error}") from None
        if unknown := sorted(set(names) - set(CLASSES)):
            raise ValueError(
                f"{unknown[0]} is predicted, which is no class of nuScenes, and its evaluation "
                "takes no other. Fix: leave out --format nuscenes"
            )
        self._results[calibration.notes["token"]] = boxes

    def finish(self) -> str:
        """Writes the file."""
        write_nuscenes_results(self.uri, self._results)
        return self.uri


def open_results_writer(
    form: ResultsForm, uri: str, names: Sequence[str], score_threshold: float
) -> ResultsWriter:
    """The writer of a form."""
    writer = KittiResults if form == "kitti" else NuScenesResults
    return writer(uri, names, score_threshold)


def _calibration(sample: Sample) -> SensorCalibration:
    encoded = sample.inputs.get("points")
    return encoded.calibration if isinstance(encoded, EncodedPoints) else SensorCalibration()
