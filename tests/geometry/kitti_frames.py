"""Frames of KITTI read without the code under test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Frame:
    """Points (P, 4), labels (N, 14) without their class, and the camera."""

    points: np.ndarray
    names: list[str]
    labels: np.ndarray
    lidar_to_camera: np.ndarray
    projection: np.ndarray
    width: int = 1242
    height: int = 375


def read_frame(folder: Path, name: str) -> Frame:
    """Of ``lidar_kitti_samples``."""
    root = folder / "lidar_kitti_samples" / "training"
    lines = (root / "calib" / f"{name}.txt").read_text().splitlines()
    calib = {
        key: np.array(values.split(), np.float64)
        for key, values in (line.split(":") for line in lines if ":" in line)
    }
    rectify, to_camera = np.eye(4), np.eye(4)
    rectify[:3, :3] = calib["R0_rect"].reshape(3, 3)
    to_camera[:3] = calib["Tr_velo_to_cam"].reshape(3, 4)
    rows = [line.split() for line in (root / "label_2" / f"{name}.txt").read_text().splitlines()]
    rows = [row for row in rows if row[0] != "DontCare"]
    cloud = np.fromfile(root / "velodyne_reduced" / f"{name}.bin", "<f4").reshape(-1, 4)
    return Frame(
        points=cloud,
        names=[row[0] for row in rows],
        labels=np.array([row[1:15] for row in rows], np.float64),
        lidar_to_camera=rectify @ to_camera,
        projection=calib["P2"].reshape(3, 4),
    )
