"""Writes frames of the Waymo Open Dataset: messages and TFRecords."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.sources.lidar.waymo_frames import Laser
from mtl_ray.sources.tfrecord_files import masked_crc32c

TYPES = {"Car": 1, "Pedestrian": 2, "Sign": 3, "Cyclist": 4}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number: int, value: Any) -> bytes:
    """An int is a varint, a float a double, bytes and text are of a length, an array is repeated
    doubles, one field each.
    """
    if isinstance(value, np.ndarray):
        return b"".join(field(number, float(each)) for each in value.ravel())
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def transform(matrix: NDArray[np.float64]) -> bytes:
    return field(1, np.asarray(matrix, np.float64))


def compressed(image: NDArray[np.float32], *, packed: bool = True) -> bytes:
    """A compressed MatrixFloat."""
    numbers = np.ascontiguousarray(image, "<f4")
    data = (
        field(1, numbers.tobytes())
        if packed
        else b"".join(varint(1 << 3 | 5) + struct.pack("<f", each) for each in numbers.ravel())
    )
    shape = b"".join(field(1, int(side)) for side in numbers.shape)
    return zlib.compress(data + field(2, shape))


def point_of(
    laser: Laser,
    row: int,
    column: int,
    metres: float,
    width: int,
    frame_pose: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(3,) where the ray of a pixel is at a distance, in the vehicle's frame; written without the
    reader's own functions.
    """
    heading = np.arctan2(laser.extrinsic[1, 0], laser.extrinsic[0, 0])
    azimuth = np.pi - (column + 0.5) * 2 * np.pi / width - heading
    rise = laser.inclinations[row]
    own = metres * np.array(
        [np.cos(rise) * np.cos(azimuth), np.cos(rise) * np.sin(azimuth), np.sin(rise)]
    )
    found = laser.extrinsic @ (*own, 1)
    if laser.poses is not None:
        roll, pitch, yaw, *place = laser.poses[row, column].astype(np.float64)
        turns = np.eye(3)
        for axis, angle in ((2, yaw), (1, pitch), (0, roll)):
            turn = np.eye(3)
            first, second = [each for each in range(3) if each != axis]
            sign = -1 if axis == 1 else 1
            turn[first, first] = turn[second, second] = np.cos(angle)
            turn[first, second], turn[second, first] = -sign * np.sin(angle), sign * np.sin(angle)
            turns = turns @ turn
        found = np.linalg.solve(frame_pose, (*(turns @ found[:3] + place), 1))
    return np.asarray(found[:3])


def encode_laser(laser: Laser) -> tuple[bytes, bytes]:
    """The messages LaserCalibration and Laser."""
    stated = field(2, np.asarray(laser.inclinations[::-1]))
    calibration = field(1, laser.name) + stated + field(5, transform(laser.extrinsic))
    content = field(1, laser.name)
    for number, image in enumerate(laser.returns):
        message = field(2, compressed(image, packed=number == 0))
        if number == 0 and laser.poses is not None:
            message += field(4, compressed(laser.poses))
        content += field(2 + number, message)
    return calibration, content


def encode_label(
    name: str,
    box: Sequence[float],
    token: str,
    points: int,
    speed: tuple[float, float] = (0.0, 0.0),
    level: int = 0,
) -> bytes:
    numbers = (1, 2, 3, 5, 4, 6, 7)
    message = b"".join(
        field(number, float(value)) for number, value in zip(numbers, box, strict=True)
    )
    motion = field(1, float(speed[0])) + field(2, float(speed[1]))
    kind = field(3, TYPES.get(name, 0))
    found = field(1, message) + field(2, motion) + kind + field(4, token)
    return found + (field(5, level) if level else b"") + field(7, points)


def encode_rectangle(token: str, box: tuple[float, float, float, float]) -> bytes:
    """A label of ``projected_lidar_labels``."""
    left, top, right, bottom = box
    values = {1: (left + right) / 2, 2: (top + bottom) / 2, 5: right - left, 4: bottom - top}
    message = b"".join(field(number, float(value)) for number, value in values.items())
    return field(1, message) + field(4, token)


def encode_camera(
    number: int, intrinsic: Sequence[float], extrinsic: NDArray[np.float64], size: tuple[int, int]
) -> bytes:
    return (
        field(1, number)
        + field(2, np.array(intrinsic, np.float64))
        + field(3, transform(extrinsic))
        + field(4, size[0])
        + field(5, size[1])
    )


def write_tfrecord(path: Path, records: Sequence[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b""
    for record in records:
        length = struct.pack("<Q", len(record))
        content += length + struct.pack("<I", masked_crc32c(length))
        content += record + struct.pack("<I", masked_crc32c(record))
    path.write_bytes(content)
