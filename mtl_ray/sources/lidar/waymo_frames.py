"""Frames of the Waymo Open Dataset (Sun et al. 2020, https://waymo.com/open), version 1.

A record of a file is a message ``Frame``. The numbers of its fields are those of the data's own
schema (dataset.proto and label.proto of version 1.4); what is not listed here is not read.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.sources.lidar.protobuf_wire import Message

TOP = 1
"""The laser on the roof, whose range images have a pose for each pixel."""
NAMES = ("", "FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT")
"""Of cameras, by number."""
CLASSES: Mapping[int, str] = {1: "Car", 2: "Pedestrian", 3: "Sign", 4: "Cyclist"}
"""The class of each type of label, under the names that KITTI has."""
_MOST_NUMBERS = 16_000_000
"""Of a range image; one of the laser on the roof has 64 x 2650 pixels."""
_LASERS = 5
_HARD_POINTS = 5
"""An object of unstated difficulty with more points is of the first level."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Laser:
    """A lidar with its returns.

    Attributes:
        name: its number; 1 is the one on the roof.
        inclinations: (H,) radians of the rows of its range images, from the top.
        extrinsic: (4, 4), from its frame to the vehicle.
        returns: range images (H, W, 4): range in metres, intensity, elongation, 1 in a zone
            without labels.
        poses: (H, W, 6): roll, pitch, yaw, x, y, z of the vehicle when a pixel was measured, in
            the global frame; None for lasers without them.
    """

    name: int
    inclinations: NDArray[np.float64]
    extrinsic: NDArray[np.float64]
    returns: tuple[NDArray[np.float32], ...]
    poses: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameCamera:
    """A camera: its name, focal lengths and centre (4,) in pixels, (4, 4) to the vehicle, the
    pixels of its images, and the JPEG.
    """

    name: str
    intrinsic: NDArray[np.float64]
    extrinsic: NDArray[np.float64]
    width: int
    height: int
    image: bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Label:
    """An object.

    Attributes:
        name: of its class; empty if its type is not known.
        box: x, y, z of the centre in the vehicle's frame, length, width, height, heading.
        id: of its track.
        speed: metres per second along x and y of the global frame.
        level: 1 or 2, how hard it is to detect.
        num_points: of all lidars.
        box_2d: around its points in the image of the front camera; NaN if it is not there.
    """

    name: str
    box: tuple[float, ...]
    id: str
    speed: tuple[float, float]
    level: int
    num_points: int
    box_2d: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class WaymoFrame:
    """A message Frame: ``context`` is the name of the drive, ``pose`` (4, 4) the vehicle's."""

    context: str
    microseconds: int
    pose: NDArray[np.float64]
    lasers: tuple[Laser, ...]
    cameras: tuple[FrameCamera, ...]
    labels: tuple[Label, ...]


def read_frame(data: bytes | memoryview, *, images: bool = True) -> WaymoFrame:
    """The parts of a frame that are used.

    Args:
        data: a record.
        images: whether the JPEGs are taken out.

    Raises:
        ValueError: in one sentence, if it is damaged or no frame.
    """
    frame = Message(data)
    context = frame.message(1)
    jpegs = {each.integer(1): bytes(each.data(2)) for each in frame.messages(4)} if images else {}
    cameras = {each.integer(1): each for each in context.messages(2)}
    return WaymoFrame(
        context=context.text(1),
        microseconds=frame.integer(2),
        pose=_transform(frame.message(3), "the vehicle"),
        lasers=_lasers(frame, context),
        cameras=tuple(
            _camera(number, cameras[number], jpegs.get(number, b""))
            for number in range(1, len(NAMES))
            if number in cameras
        ),
        labels=_labels(frame),
    )


def _transform(message: Message, of: str) -> NDArray[np.float64]:
    values = message.doubles(1)
    if len(values) != 16 or not np.isfinite(values).all():
        raise ValueError(f"the pose of {of} is not of 16 finite numbers")
    matrix = values.reshape(4, 4)
    if abs(np.linalg.det(matrix[:3, :3]) - 1) > 1e-2:
        raise ValueError(f"the pose of {of} is no rotation")
    return matrix


def _camera(number: int, message: Message, image: bytes) -> FrameCamera:
    name = NAMES[number]
    intrinsic = message.doubles(2)
    if len(intrinsic) < 4 or not np.isfinite(intrinsic[:4]).all():
        raise ValueError(f"the camera {name} has no four numbers of its projection")
    return FrameCamera(
        name=f"CAM_{name}",
        intrinsic=intrinsic[:4],
        extrinsic=_transform(message.message(3), f"the camera {name}"),
        width=message.integer(4),
        height=message.integer(5),
        image=image,
    )


def _lasers(frame: Message, context: Message) -> tuple[Laser, ...]:
    """The lasers in the order of their numbers."""
    measured = {each.integer(1): each for each in frame.messages(5)}
    calibrations = sorted(context.messages(3), key=lambda each: each.integer(1))
    if len(calibrations) > _LASERS:
        raise ValueError(f"it has {len(calibrations)} lasers, more than {_LASERS}")
    found = []
    for calibration in calibrations:
        name = calibration.integer(1)
        if name not in measured:
            continue
        both = [measured[name].message(number) for number in (2, 3)]
        returns = [_matrix(each.data(2), 4) for each in both if len(each.data(2))]
        if not returns:
            continue
        poses = both[0].data(4)
        found.append(
            Laser(
                name=name,
                inclinations=_inclinations(calibration, len(returns[0])),
                extrinsic=_transform(calibration.message(5), f"the laser {name}"),
                returns=tuple(returns),
                poses=_matrix(poses, 6) if len(poses) else None,
            )
        )
    return tuple(found)


def _inclinations(calibration: Message, height: int) -> NDArray[np.float64]:
    """(H,) radians from the top; stated from the bottom, or by the lowest and the highest."""
    stated = calibration.doubles(2)
    if not len(stated):
        low, high = calibration.double(3), calibration.double(4)
        stated = low + (high - low) * (np.arange(height) + 0.5) / height
    if len(stated) != height or not np.isfinite(stated).all():
        raise ValueError(f"a laser has {len(stated)} inclinations for {height} rows")
    return np.asarray(stated[::-1], np.float64)


def _matrix(compressed: memoryview, channels: int) -> NDArray[np.float32]:
    """(H, W, channels) of a compressed message MatrixFloat."""
    most = 5 * _MOST_NUMBERS  # a number takes five bytes where it is not packed
    unpack = zlib.decompressobj()
    try:
        data = unpack.decompress(compressed, most)
    except zlib.error as error:
        raise ValueError(f"a range image cannot be unpacked: {error}") from None
    if not unpack.eof:
        raise ValueError("a range image is cut short, or absurdly large")
    message = Message(data)
    shape, numbers = message.message(2).integers(1), message.floats(1)
    if len(shape) != 3 or shape[2] != channels or min(shape) < 1:
        raise ValueError(f"a range image of the shape {shape} does not have {channels} channels")
    if len(numbers) != shape[0] * shape[1] * shape[2]:
        raise ValueError(f"a range image of the shape {shape} has {len(numbers):,} numbers")
    return numbers.reshape(shape)


def _labels(frame: Message) -> tuple[Label, ...]:
    """``laser_labels``, with the rectangles of ``projected_lidar_labels`` of the front camera."""
    rectangles: dict[str, tuple[float, float, float, float]] = {}
    for of_camera in frame.messages(9):
        if of_camera.integer(1) == 1:
            for each in of_camera.messages(2):
                box = each.message(1)
                x, y, length, width = (box.double(number) for number in (1, 2, 5, 4))
                rectangles[each.text(4).removesuffix("_FRONT")] = (
                    *(x - length / 2, y - width / 2),
                    *(x + length / 2, y + width / 2),
                )
    unseen = (float("nan"),) * 4
    found = []
    for each in frame.messages(6):
        box, speed, points = each.message(1), each.message(2), each.integer(7)
        found.append(
            Label(
                name=CLASSES.get(each.integer(3), ""),
                box=tuple(box.double(number) for number in (1, 2, 3, 5, 4, 6, 7)),
                id=each.text(4),
                speed=(speed.double(1), speed.double(2)),
                level=each.integer(5) or (1 if points > _HARD_POINTS else 2),
                num_points=points,
                box_2d=rectangles.get(each.text(4), unseen),
            )
        )
    return tuple(found)
