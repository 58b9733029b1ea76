"""Writes KITTI objects: training/{velodyne,calib,label_2,planes,image_2}/ID.*, ImageSets/SPLIT.txt.

Clouds of several cameras (Waymo) get image_0, image_1, ..., a calibration with a line for each, and
label_all in the frame of the first, as the Waymo converter of MMDetection3D does.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_ray import storage
from mtl_ray.annotations.boxes_3d import BOXES_3D, Boxes3d
from mtl_ray.inputs.image_header import JPEG
from mtl_ray.inputs.point_cloud import Camera, EncodedPoints
from mtl_ray.inputs.points import POINTS
from mtl_ray.samples import Sample
from mtl_ray.sources.lidar.kitti_calibration import (
    IMAGE_SIZE,
    calibration_lines,
    plane_lines,
)
from mtl_ray.sources.lidar.kitti_labels import label_lines
from mtl_ray.sources.source import SkippedItem, UnreadableError
from mtl_ray.sources.writers.writer import Target, Writing, unique, write_file

NO_CAMERA = "no camera is known, so that its boxes are written for a nominal one"
"""Note on a cloud."""
OTHER_FEATURES = "points of other than four numbers, which --features says where they are read"
"""Note on a cloud."""
NOMINAL = Camera(
    name="image_2",
    width=IMAGE_SIZE[0],
    height=IMAGE_SIZE[1],
    lidar_to_camera=np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    projection=np.array([[721.5377, 0, 609.5593, 0], [0, 721.5377, 172.854, 0], [0, 0, 1.0, 0]]),
)
"""A camera at the lidar that looks to the front."""


@dataclass(frozen=True, slots=True)
class KittiWriter:
    """Writes the files of each frame; the record is its id."""

    target: Target

    def write(self, sample: Sample) -> Writing:
        """Writes cloud, calibration, images, and labels where the sample is annotated."""
        if POINTS.name not in sample.inputs:
            raise UnreadableError(sample.key, "it has no point cloud")
        encoded: EncodedPoints = sample.inputs[POINTS.name]
        found = frame_id(sample.key)
        cameras = encoded.calibration.cameras
        notes = [SkippedItem(sample.key, "", note, note=True) for note in _notes(encoded)]
        cameras = cameras or (NOMINAL,)
        self._put("velodyne", f"{found}.bin", encoded.data)
        self._put("calib", f"{found}.txt", _text(calibration_file_lines(cameras)))
        if (ground := encoded.calibration.ground) is not None:
            plane = plane_lines(ground, cameras[0].lidar_to_camera)
            self._put("planes", f"{found}.txt", _text(plane))
        objects: Boxes3d | None = sample.annotations.get(BOXES_3D.name)
        if objects is not None:
            folder = "label_2" if len(cameras) == 1 else "label_all"
            self._put(folder, f"{found}.txt", _text(label_lines(objects, cameras[0])))
        if self.target.images:
            names = _image_folders(cameras)
            for name, image in zip(names, encoded.images, strict=False):
                if image:
                    suffix = ".jpg" if image.startswith(JPEG) else ".png"
                    self._put(name, found + suffix, image)
        return found, notes

    def _put(self, folder: str, name: str, data: bytes) -> None:
        write_file(storage.join(self.target.uri, _part(self.target), folder, name), data)

    def finish(self, records: Iterable[Any]) -> str:
        """Writes the list of ids."""
        names = unique(map(str, records), "frame id")
        uri = storage.join(self.target.uri, "ImageSets", f"{self.target.split}.txt")
        storage.write(uri, _text(names))
        return uri


def _notes(encoded: EncodedPoints) -> Iterator[str]:
    if not encoded.calibration.cameras:
        yield NO_CAMERA
    if len(encoded.features) != 4:
        yield f"{OTHER_FEATURES}: {','.join(encoded.features)}"


def open_kitti_writer(target: Target) -> KittiWriter:
    """A writer of KITTI objects.

    Raises:
        ValueError: if the dataset has other annotations than boxes in space, or a form of masks is
            requested.
    """
    if others := [kind for kind in target.vocabulary.classes if kind != BOXES_3D.name]:
        raise ValueError(
            f"--format kitti needs point clouds with boxes in space; the dataset has "
            f"{', '.join(others)}"
        )
    if target.masks is not None:
        raise ValueError("KITTI has no masks; leave out --masks")
    return KittiWriter(target)


def frame_id(key: str) -> str:
    """The key of a sample as the name of files: letters, digits, ``-``, ``_`` and dots."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", key).strip("._") or "_"


def calibration_file_lines(cameras: Sequence[Camera]) -> list[str]:
    """The lines of a calibration file."""
    if len(cameras) == 1:
        return calibration_lines(cameras[0])
    whole = [calibration_lines(camera) for camera in cameras]
    lines = [lines[0].replace("P0", f"P{number}", 1) for number, lines in enumerate(whole)]
    lines += [line for line in whole[0] if line.startswith(("R0_rect", "Tr_velo_to_cam"))]
    for number, found in enumerate(whole):
        moved = next(line for line in found if line.startswith("Tr_velo_to_cam"))
        lines.append(moved.replace("Tr_velo_to_cam", f"Tr_velo_to_cam_{number}", 1))
    return lines


def _image_folders(cameras: Sequence[Camera]) -> list[str]:
    if len(cameras) == 1:
        return ["image_2"]
    return [f"image_{number}" for number in range(len(cameras))]


def _part(target: Target) -> str:
    return "testing" if target.split in ("test", "testing") else "training"


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
