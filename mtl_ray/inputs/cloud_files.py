"""Files of point clouds: raw float32 numbers, ``.npy``, ``.pcd`` and ``.ply``, read within limits.

A file is untrusted: its header is checked before memory is taken for what it claims, and nothing in
it is executed.
"""

import io

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.input import TooLargeError
from mtl_ray.inputs.point_cloud import MAX_FEATURES, PointCloud

SUFFIXES = (".bin", ".npy", ".pcd", ".ply")
NAMES = ("x", "y", "z", "intensity", "ring", "time")
"""The names of the numbers of a point in files that do not say them, by place."""


def feature_names(count: int) -> tuple[str, ...]:
    """Names for ``count`` numbers of a point."""
    return (*NAMES, *(f"f{place}" for place in range(len(NAMES), count)))[:count]


def check_points(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The points.

    Raises:
        ValueError: if a coordinate is not a finite number.
    """
    invalid = int((~np.isfinite(points)).any(axis=1).sum())
    if invalid:
        raise ValueError(f"{invalid} of {len(points)} points have a NaN or infinite number")
    return points


def read_cloud_file(data: bytes, limit: int, features: int = 4) -> PointCloud:
    """The cloud of a file or of the body of a request.

    Args:
        data: the file.
        limit: the most numbers, points times features.
        features: numbers of a point in a file of raw float32 numbers.

    Raises:
        TooLargeError: if there are more numbers than allowed.
        ValueError: in one sentence, if it is damaged.
    """
    if len(data) // 4 > limit:
        raise TooLargeError(
            f"the file has {len(data) // 4:,} numbers, more than the {limit:,} allowed"
        )
    if not 3 <= features <= MAX_FEATURES or len(data) % (4 * features):
        raise ValueError(
            f"{len(data)} bytes are no multiple of {features} float32 numbers of a point"
        )
    points = np.frombuffer(data, "<f4").reshape(-1, features)
    return PointCloud(points=check_points(points), features=feature_names(features))


def write_npy(cloud: PointCloud) -> bytes:
    """A ``.npy`` file of (N, F) float32."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(cloud.points, np.float32), allow_pickle=False)
    return file.getvalue()
