"""Folders of KITTI's label and result files for its metric, in the numbers that the files state."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mtl_ray import storage
from mtl_ray.evaluation.data import SplitData
from mtl_ray.shards.split import Split
from mtl_ray.sources.class_names import text_of
from mtl_ray.tasks.lidar.kitti.columns import Columns, KittiFrame, camera_boxes, columns
from mtl_ray.tasks.lidar.kitti.frames import file_columns, in_image
from mtl_ray.tasks.lidar.metric import Detection3dMetric, MeasuredFrame

CLASSES = ("Car", "Pedestrian", "Cyclist")
SUFFIX = ".txt"
LABELS = "label_2"
"""The folder of labels in ``training``."""
_MOST_LINES = 10_000


def is_result_folder(uri: str) -> bool:
    """Whether a folder holds text files."""
    return any(name.endswith(SUFFIX) for name in storage.names(uri))


def measure_folders(
    results: str, labels: str, classes: Sequence[str] = CLASSES
) -> tuple[Detection3dMetric, list[str]]:
    """The metric of the frames that have a result file, and notes.

    Args:
        results: folder of result files, 16 columns; an empty one is a frame without detections.
        labels: folder of label files, 15 columns, or the folder above it.
        classes: to evaluate.

    Raises:
        ValueError: if a file is damaged, or a frame has no label file.
    """
    found = read_folder(results, scored=True)
    folder = labels
    if not is_result_folder(labels) and LABELS in storage.names(labels):
        folder = storage.join(labels, LABELS)
    names = {name.removesuffix(SUFFIX) for name in storage.names(folder) if name.endswith(SUFFIX)}
    if missing := sorted(found.keys() - names):
        raise ValueError(
            f"{results} has results of {len(missing)} frames without a label file in {folder}, "
            f"such as {missing[0]}"
        )
    metric = Detection3dMetric(tuple(classes))
    for name, detections in found.items():
        truth = read_file(storage.join(folder, name + SUFFIX), scored=False)
        metric.add(_frame(name, truth, detections))
    others = len(names) - len(found)
    notes = [f"{others} label files have no result file and were left out"] if others else []
    return metric, notes


def measure_on_split(
    results: str, split: Split, classes: Sequence[str]
) -> tuple[Detection3dMetric, list[str]]:
    """The same on a converted split, whose keys are the names of the result files.

    Raises:
        ValueError: if a file is damaged, a frame is not in the split, or has no camera.
    """
    found = read_folder(results, scored=True)
    metric = Detection3dMetric(tuple(classes))
    left_out = 0
    own = split.vocabulary.classes["boxes_3d"]
    for sample in SplitData(split).samples(0, split.num_samples, images=False):
        name = sample.key.rpartition("/")[2].partition(".")[0]
        if name not in found or "boxes_3d" not in sample.annotations:
            left_out += 1
            continue
        calibration = sample.inputs["points"].calibration
        if not calibration.cameras:
            raise ValueError(
                f"{sample.key} of the split has no camera, in whose frame the boxes of result "
                "files are"
            )
        truth = file_columns(sample.annotations["boxes_3d"], own, calibration)
        detections = found.pop(name)
        if not in_image(calibration):
            unknown = np.full_like(detections.boxes_2d, np.nan)
            detections = replace(detections, boxes_2d=unknown)
        metric.add(_frame(name, truth, detections))
    if found:
        raise ValueError(
            f"{results} has results of {len(found)} frames that the split does not have, such as "
            f"{sorted(found)[0]}"
        )
    notes = [f"{left_out} frames have no result file and were left out"] if left_out else []
    return metric, notes


def _frame(name: str, truth: Columns, found: Columns) -> MeasuredFrame:
    return MeasuredFrame(
        key=name, benchmark="kitti", kitti=KittiFrame(truth=truth, found=found), nuscenes=None
    )


def read_folder(uri: str, *, scored: bool) -> dict[str, Columns]:
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


def read_file(uri: str, *, scored: bool) -> Columns:
    """The objects of a file: name, truncation, occlusion, alpha, x1 y1 x2 y2 in pixels, height,
    width, length, x y z of the bottom centre in the frame of the camera, rotation around y, and
    the score of a detection.

    Raises:
        ValueError: in one sentence, if a line has another form.
    """
    names: list[str] = []
    rows: list[list[float]] = []
    lines = text_of(storage.read(uri)).splitlines()
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
