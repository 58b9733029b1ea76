"""What all files of point clouds share: names and numbers of points, within limits."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.input import TooLargeError
from mtl_ray.inputs.point_cloud import MAX_FEATURES, PointCloud

NAMES = ("x", "y", "z", "intensity", "ring", "time")
"""The names of the numbers of a point in files that do not say them, by place."""

LONGEST_TIME = 1e6
"""Larger numbers are a clock or no seconds, and no lag that a network could read."""

FARTHEST_M = 1e6
"""Metres of the lidar; larger coordinates are damage, or numbers of something else."""

MAX_HEADER_BYTES = 65_536
"""The longest header of a file."""

_COUNTS = (4, 5, 6)
"""Numbers of a point in the files of the usual datasets."""
_FEWEST = 100
"""Points from which on the columns of a file tell how many they are."""
_NEGATIVE = 0.05
"""Share of negative intensities that no sensor gives."""
_ALIASES = {
    "i": "intensity",
    "reflectivity": "intensity",
    "reflectance": "intensity",
    "remission": "intensity",
    "channel": "ring",
    "laser_id": "ring",
    "t": "time",
    "timestamp": "time",
    "time_lag": "time",
}
_IGNORED = frozenset({"rgb", "rgba", "_", "padding"})  # bits of colours and gaps, not numbers


def feature_names(count: int) -> tuple[str, ...]:
    """Names for ``count`` numbers of a point."""
    return (*NAMES, *(f"f{place}" for place in range(len(NAMES), count)))[:count]


def check_points(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The points.

    Raises:
        ValueError: if a number is not finite, or one of the first three, the coordinates, is above
            1,000 km.
    """
    invalid = int((~np.isfinite(points)).any(axis=1).sum())
    if invalid:
        raise ValueError(f"{invalid} of {len(points)} points have a NaN or infinite number")
    far = int((np.abs(points[:, :3]) > FARTHEST_M).any(axis=1).sum())
    if far:
        raise ValueError(f"{far} of {len(points)} points are more than {FARTHEST_M:,.0f} m away")
    return points


def better_count(numbers: NDArray[np.float32], count: int) -> int | None:
    """How many numbers a point of a file has that was read with another count; None unless it is
    certain.

    With a wrong count every column is a mixture of all: the third is as wide as the scene, and the
    fourth, an intensity, is often negative. With the right one no intensity is, and the points are
    less than half as high.

    Args:
        numbers: of the file.
        count: numbers of a point, of which the file has whole points.
    """
    read = numbers.reshape(-1, count)
    if len(read) < _FEWEST or (count > 3 and (read[:, 3] < 0).mean() < _NEGATIVE):
        return None
    for other in (each for each in _COUNTS if each != count and len(numbers) % each == 0):
        points = numbers.reshape(-1, other)
        if (points[:, 3] >= 0).all() and 2 * _height(points) < _height(read):
            return other
    return None


def _height(points: NDArray[np.float32]) -> float:
    """Metres that all but a tenth of the points are in."""
    low, high = np.percentile(points[:, 2], (5, 95))
    return float(high - low)


def check_size(points: int, numbers: int, limit: int) -> None:
    """Compares what a header claims with the limit, before memory is taken.

    Args:
        points: of the cloud.
        numbers: of each point.
        limit: the most numbers of a cloud.

    Raises:
        TooLargeError: if there are more.
    """
    if points * numbers > limit:
        raise TooLargeError(
            f"the file has {points:,} points of {numbers} numbers, more than the {limit:,} numbers "
            f"allowed"
        )


def whole_number(text: str, what: str) -> int:
    """A number of a header.

    Raises:
        ValueError: if it is none, or has more than 12 digits.
    """
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise ValueError(f"{what} is {text[:40]!r}, not a whole number")
    return int(text)


def cloud_of_columns(names: Sequence[str], columns: Sequence[NDArray[np.generic]]) -> PointCloud:
    """A cloud of named columns: x, y, z first, then intensity, ring and time, then the others in
    their order, all under the names that this project uses.

    Args:
        names: as the file has them.
        columns: (N,) numbers each, of any real type.

    Raises:
        ValueError: if x, y or z is missing, a name appears twice, there are too many columns, or a
            number is not finite.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for name, column in zip(names, columns, strict=True):
        short = re.sub(r"\W", "_", name.lower().removeprefix("scalar_"), flags=re.ASCII)
        if short in _IGNORED:
            continue
        if not short[:1].isalpha():  # so that the option features can name it
            short = f"f{short}"
        short = short[:32]
        with np.errstate(over="ignore", invalid="ignore"):  # becomes infinite and is refused
            values = column.astype(np.float32)
        feature = _ALIASES.get(short, short)
        if feature == "time" and (np.abs(values) > LONGEST_TIME).any():
            feature = "timestamp"
        if feature in found:
            raise ValueError(f"the file has more than one field {feature}")
        found[feature] = values
    missing = [name for name in "xyz" if name not in found]
    if missing:
        raise ValueError(f"the file has no field {', '.join(missing)}")
    if len(found) > MAX_FEATURES:
        raise ValueError(f"the file has {len(found)} fields, more than the {MAX_FEATURES} allowed")
    order = sorted(found, key=lambda name: NAMES.index(name) if name in NAMES else len(NAMES))
    points = np.stack([found[name] for name in order], axis=1)
    return PointCloud(points=check_points(points), features=tuple(order))


def columns_of_text(body: bytes, points: int, numbers: int, *, alone: bool) -> NDArray[np.float64]:
    """(points, numbers) of lines of text.

    Args:
        body: the lines.
        points: that the header states.
        numbers: of each point.
        alone: whether no further lines may follow; else they are not read.

    Raises:
        ValueError: if there are fewer lines, or more, or a line has other numbers.
    """
    lines = body.decode("ascii", "replace").splitlines()
    filled = [line for line in lines if line.strip()]
    if len(filled) < points or (alone and len(filled) > points):
        raise ValueError(f"the file has {len(filled)} lines of points, its header says {points}")
    if not points:
        return np.zeros((0, numbers), np.float64)
    try:
        values = np.loadtxt(filled[:points], np.float64, comments=None, ndmin=2)
    except ValueError as error:
        raise ValueError(
            f"a line of points has something that is not a number, or not {numbers} numbers"
        ) from error
    if values.shape != (points, numbers):
        raise ValueError(f"a line has {values.shape[1]} numbers, the header says {numbers}")
    return values


def records_of_bytes(
    body: bytes, points: int, row: np.dtype[np.void], *, alone: bool
) -> NDArray[np.void]:
    """(points,) records of binary data.

    Args:
        body: the records.
        points: that the header states.
        row: a record.
        alone: whether no further records may follow, but less than one, or zeros; else they are not
            read.

    Raises:
        ValueError: if there are fewer bytes, or more.
    """
    size, rest = points * row.itemsize, body[points * row.itemsize :]
    if len(body) < size or (alone and len(rest) >= row.itemsize and rest.strip(b"\0")):
        raise ValueError(f"the file has {len(body):,} bytes of points, its header says {size:,}")
    return np.frombuffer(body, row, count=points)
