"""Folders of KITTI's label and result files for its metric, in the numbers that the files state."""

import math
from collections.abc import Container, Sequence
from dataclasses import replace

import numpy as np

from mtl_ray import storage
from mtl_ray.evaluation.data import SplitData
from mtl_ray.shards.split import Split
from mtl_ray.sources.class_names import text_of
from mtl_ray.sources.folders import read_ids
from mtl_ray.tasks.lidar.kitti.columns import KittiColumns, KittiFrame, camera_boxes, columns
from mtl_ray.tasks.lidar.kitti.frames import file_columns, measured_in_image
from mtl_ray.tasks.lidar.metric import Detection3dMetric, MeasuredFrame

CLASSES = ("Car", "Pedestrian", "Cyclist")
SUFFIX = ".txt"
LABELS, ALL_LABELS = "label_2", "label_all"
"""The folders of labels in ``training``; the second is that of several cameras, whose label_2 is of
one of them.
"""
UNKNOWN = -1
"""The height, width and length of what has a box in the image alone, such as DontCare."""
_MOST_LINES = 10_000
_NOTHING = columns((), np.zeros((0, 7)))


def is_result_folder(uri: str) -> bool:
    """Whether a folder holds text files."""
    return any(name.endswith(SUFFIX) for name in storage.names(uri))


def label_folder(uri: str) -> str | None:
    """The folder of label files: label_all or label_2 in ROOT/training or FOLDER where it is there,
    or the folder itself; None if it has no text files.
    """
    names = [("training", ALL_LABELS), (ALL_LABELS,), ("training", LABELS), (LABELS,), ()]
    return next(filter(is_result_folder, (storage.join(uri, *each) for each in names)), None)


def measure_folders(
    results: str, labels: str, classes: Sequence[str] = CLASSES, frames: str | None = None
) -> tuple[Detection3dMetric, list[str]]:
    """The metric of the frames that have a label file, and notes. A frame without a result file has
    no detections.

    Args:
        results: folder of result files, 16 columns.
        labels: folder of label files, 15 columns; see ``label_folder``. Those of several cameras
            are measured in the whole cloud.
        classes: to evaluate.
        frames: file with an id in each line, of the frames to measure; by default all.

    Raises:
        FileNotFoundError: if there are no files.
        ValueError: if a file is damaged, or a frame has no label file.
    """
    folder = label_folder(labels)
    if folder is None:
        raise FileNotFoundError(f"{labels} has no label files such as 000008.txt")
    names = [name.removesuffix(SUFFIX) for name in storage.names(folder) if name.endswith(SUFFIX)]
    files = _Results(results, names, frames, f"label file in {folder}")
    metric = Detection3dMetric(tuple(classes))
    for name in files.wanted:
        gt, found = read_file(storage.join(folder, name + SUFFIX), scored=False), files.of(name)
        if folder.rstrip("/").endswith(f"/{ALL_LABELS}"):
            gt, found = _without_image(gt), _without_image(found)
        metric.add(_frame(name, gt, found))
    return metric, files.notes()


def measure_on_split(
    results: str, split: Split, classes: Sequence[str], frames: str | None = None
) -> tuple[Detection3dMetric, list[str]]:
    """The same on a converted split, whose keys are the names of the result files. Samples that are
    not annotated are left out.

    Raises:
        ValueError: if a file is damaged, a frame is not in the split, or has no camera.
    """
    samples = SplitData(split).samples(0, split.num_samples, images=False)
    data = {
        _id(sample.key): (sample.annotations["boxes_3d"], sample.inputs["points"].calibration)
        for sample in samples
        if "boxes_3d" in sample.annotations
    }
    files = _Results(results, list(data), frames, f"annotated sample in {split.uri}")
    metric = Detection3dMetric(tuple(classes))
    own = split.vocabulary.classes["boxes_3d"]
    for name in files.wanted:
        objects, calibration = data[name]
        if not calibration.cameras:
            raise ValueError(
                f"{name} of the split has no camera, in whose frame the boxes of result files are"
            )
        gt = file_columns(objects, own, calibration)
        detections = files.of(name)
        if not measured_in_image(calibration):
            detections = _without_image(detections)
        metric.add(_frame(name, gt, detections))
    return metric, files.notes()


def _without_image(objects: KittiColumns) -> KittiColumns:
    """Without the rectangles in the image, whose heights decide what counts."""
    return replace(objects, boxes_2d=np.full_like(objects.boxes_2d, np.nan))


def _id(key: str) -> str:
    return key.rpartition("/")[2].partition(".")[0]


class _Results:
    """The result files of the frames that are measured.

    Args:
        uri: folder of the files.
        known: frames of the data.
        frames: file with those of them that are measured; None for all.
        what: how a frame of the data is called.

    Attributes:
        wanted: the frames that are measured, in the order of the data.

    Raises:
        ValueError: if a file is damaged, or a frame is not in the data.
    """

    def __init__(self, uri: str, known: Sequence[str], frames: str | None, what: str) -> None:
        self._found = read_folder(uri, scored=True)
        there = dict.fromkeys(known)
        if missing := sorted(self._found.keys() - there):
            raise ValueError(
                f"{uri} has results of {len(missing)} frames without a {what}, such as {missing[0]}"
            )
        self.wanted = there
        self._listed = frames is not None
        if frames is not None:
            listed = set(_listed(frames, there))
            if unknown := sorted(listed - there.keys()):
                raise ValueError(
                    f"{frames} lists {len(unknown)} frames without a {what}, such as {unknown[0]}"
                )
            self.wanted = {name: None for name in there if name in listed}

    def of(self, name: str) -> KittiColumns:
        """The detections of a frame."""
        return self._found.get(name, _NOTHING)

    def notes(self) -> list[str]:
        """About frames without a file, and files that are not measured."""
        notes = []
        if missing := len(self.wanted.keys() - self._found.keys()):
            advice = "" if self._listed else "; --frames FILE measures those of a list alone"
            notes.append(
                f"{missing} of {len(self.wanted)} frames have no result file and count as without "
                f"detections{advice}"
            )
        if others := len(self._found.keys() - self.wanted.keys()):
            notes.append(f"{others} result files are not in the list of frames and were left out")
        return notes


def _listed(uri: str, known: Container[str]) -> list[str]:
    """The ids in a list such as ImageSets/val.txt; 8 is 000008."""
    ids, _ = read_ids(uri, "", known)
    return [each if each in known or not each.isdigit() else each.zfill(6) for each in ids]


def _frame(name: str, gt: KittiColumns, found: KittiColumns) -> MeasuredFrame:
    return MeasuredFrame(
        key=name, benchmark="kitti", kitti=KittiFrame(gt=gt, found=found), nuscenes=None
    )


def read_folder(uri: str, *, scored: bool) -> dict[str, KittiColumns]:
    """The files of a folder by name without suffix; see ``read_file``.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if one is damaged.
    """
    names = [name for name in storage.names(uri) if name.endswith(SUFFIX)]
    if not names:
        raise FileNotFoundError(f"{uri} has no files such as 000008.txt")
    return {
        name.removesuffix(SUFFIX): read_file(storage.join(uri, name), scored=scored)
        for name in names
    }


def read_file(uri: str, *, scored: bool) -> KittiColumns:
    """The objects of a file: name, truncation, occlusion, alpha, x1 y1 x2 y2 in pixels, height,
    width, length, x y z of the bottom centre in the frame of the camera, rotation around y, and
    the score of a detection.

    Raises:
        ValueError: in one sentence, if a line has another form.
    """
    names: list[str] = []
    rows: list[list[float]] = []
    try:
        lines = text_of(storage.read(uri)).splitlines()
    except ValueError as error:
        raise ValueError(f"{uri} is {error}") from None
    if len(lines) > _MOST_LINES:
        raise ValueError(f"{uri} has {len(lines):,} lines, more than {_MOST_LINES:,}")
    for number, line in enumerate(lines, 1):
        name, *fields = line.split() or [""]
        if not name:
            continue
        if len(fields) != 15 and (scored or len(fields) != 14):
            wanted = "16 columns, the last is the score" if scored else "15 columns"
            raise ValueError(
                f"{uri}, line {number}: {len(fields) + 1} columns; it must have {wanted}"
            )
        try:
            values = [float(field) for field in fields]
        except ValueError:
            raise ValueError(f"{uri}, line {number}: a column is no number: {line[:80]}") from None
        if not all(map(math.isfinite, values)):
            raise ValueError(f"{uri}, line {number}: a number is not finite: {line[:80]}")
        if any(size < 0 and size != UNKNOWN for size in values[7:10]):
            raise ValueError(f"{uri}, line {number}: a size is negative: {line[:80]}")
        names.append(name)
        rows.append(values if scored else values[:14])
    table = np.array(rows, np.float64).reshape(len(rows), 15 if scored else 14)
    return columns(
        names,
        camera_boxes(table[:, 10:13], table[:, 7:10], table[:, 13]),
        boxes_2d=table[:, 3:7],
        alpha=table[:, 2],
        truncation=table[:, 0],
        occlusion=table[:, 1].astype(np.int64),
        scores=table[:, 14] if scored else None,
    )
