"""What the numbers of a point are in a file that does not name them: the option ``features``."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.cloud_files import feature_names, is_raw, read_cloud_file
from mtl_ray.inputs.cloud_pcd import is_pcd
from mtl_ray.inputs.cloud_ply import is_ply
from mtl_ray.inputs.input import TooLargeError
from mtl_ray.inputs.point_cloud import MAX_FEATURES, PointCloud

FEATURES_OPTION = (
    "How many numbers a point has in a file that does not say it (raw float32, .npy), such as 4 or "
    "5: x, y, z, intensity, ring, time in this order; or their names, such as "
    "x,y,z,intensity,time. By default those that the network reads; where it reads a time, whole "
    "numbers above 1 are taken for rings, as in files of nuScenes, and the time is 0."
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFeatures:
    """The numbers of a point in files that do not name them.

    Attributes:
        names: in their order.
        counted: a file must have as many; else one with another count has the usual names.
        named: they were given by name; else a ring may stand where the network reads a time.
    """

    names: tuple[str, ...]
    counted: bool
    named: bool


def file_features(text: str, own: tuple[str, ...]) -> FileFeatures:
    """What the option says.

    Args:
        text: a number, or names with commas between them; empty if the option is not given.
        own: the features that the network reads. They are taken if the option is not given, or is
            just their number.

    Raises:
        ValueError: if it is neither, or there is no x, y, z.
    """
    if not text:
        return FileFeatures(names=own, counted=False, named=False)
    if text.isascii() and text.isdigit():
        count = int(text[:4])
        if not 3 <= count <= MAX_FEATURES:
            raise ValueError(f"features is {text[:20]}; a point has 3 to {MAX_FEATURES} numbers")
        names = own if count == len(own) else feature_names(count)
        return FileFeatures(names=names, counted=True, named=False)
    names = tuple(text.split(","))
    if (
        not set("xyz") <= set(names)
        or len(set(names)) < len(names)
        or len(names) > MAX_FEATURES
        or not all(map(_NAME.fullmatch, names))
    ):
        raise ValueError(
            f"features is {text[:80]!r}; it must be a number such as 4, or names such as "
            "x,y,z,intensity, each once"
        )
    return FileFeatures(names=names, counted=True, named=True)


def read_with_features(data: bytes, limit: int, *, features: FileFeatures) -> PointCloud:
    """The cloud of a file; see ``read_cloud_file``. Names that the file states itself stay.

    Raises:
        ValueError: also if a point of the file has another number of features than it must, or,
            where the option does not state it, than it is read with.
    """
    names = features.names
    try:
        cloud = read_cloud_file(data, limit, len(names), guessed=not features.counted)
    except TooLargeError:
        raise
    except ValueError as error:
        if not is_raw(data) or len(data) % 4 or len(data) % (4 * len(names)) == 0:
            raise
        raise ValueError(f"{error}; the option features says how many a point has") from None
    if is_pcd(data) or is_ply(data) or cloud.features != feature_names(len(cloud.features)):
        return cloud  # the file names them
    if (count := cloud.points.shape[1]) != len(names):
        if features.counted:
            raise ValueError(f"a point of the file has {count} numbers, not {len(names)}")
        names = feature_names(count)
    elif not features.named and _has_rings(cloud.points, names):
        names = tuple("ring" if name == "time" else name for name in names)
    return PointCloud(points=cloud.points, features=names, calibration=cloud.calibration)


def _has_rings(points: NDArray[np.float32], names: tuple[str, ...]) -> bool:
    """Whether there are numbers of lasers in place of seconds before the frame, as in files of
    nuScenes: whole numbers above 1.
    """
    if "time" not in names or "ring" in names or not len(points):
        return False
    values = points[:, names.index("time")]
    return bool(values.max() > 1 and (values == np.floor(values)).all())
