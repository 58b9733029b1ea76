"""A spinning lidar that looks at simple shapes: which shape each ray hits first, and where.

Frame of the lidar: x front, y left, z up; metres. Everything is elementwise float64 on directions
that are rounded to nine decimals, so the result is the same on every machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_TOP_DEG, _MIDDLE_DEG, _BOTTOM_DEG = 2.0, -8.5, -24.5
"""Elevations of an HDL-64: half of the lasers above the middle, half below."""
_FRONT_DEG = 41.4
"""Half of the sector that a camera of KITTI sees, and a little more."""


@dataclass(frozen=True, slots=True, eq=False)
class Rays:
    """Directions by laser and column.

    Attributes:
        directions: (3, E, A) float64 unit vectors, from the lowest laser to the highest, from right
            to left.
        first: azimuth of the first column in radians.
        step: radians between two columns.
        closed: whether the last column is beside the first.
    """

    directions: Floats
    first: float
    step: float
    closed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Lasers and columns."""
        return self.directions.shape[1], self.directions.shape[2]

    def columns(self, x: float, y: float, radius: float) -> NDArray[np.int64]:
        """The columns that may hit something around (x, y), at least all that do."""
        count, distance = self.shape[1], math.hypot(x, y)
        if distance <= radius:
            return np.arange(count)
        middle, half = math.atan2(y, x), math.asin(radius / distance)
        low = math.floor((middle - half - self.first) / self.step)
        high = math.ceil((middle + half - self.first) / self.step)
        if self.closed:
            return np.unique(np.arange(low, high + 1) % count)
        return np.arange(max(low, 0), min(high, count - 1) + 1)


@lru_cache(maxsize=4)
def spinning_rays(beams: int, resolution: float, sector: Literal["front", "full"]) -> Rays:
    """The rays of one turn.

    Args:
        beams: lasers.
        resolution: degrees between two columns.
        sector: in front, as far as the camera sees, or all around.
    """
    count = round((360.0 if sector == "full" else 2 * _FRONT_DEG) / resolution)
    first = -math.pi if sector == "full" else math.radians(-_FRONT_DEG)
    step = 2 * math.pi / count if sector == "full" else math.radians(resolution)
    azimuths = [first + step * column for column in range(count)]
    elevations = [math.radians(_elevation(beam / (beams - 1))) for beam in range(beams)]
    along = np.array([(math.cos(angle), math.sin(angle)) for angle in azimuths]).round(9)
    up = np.array([(math.cos(angle), math.sin(angle)) for angle in elevations]).round(9)
    directions = np.empty((3, beams, count))
    directions[0] = up[:, :1] * along[:, 0]
    directions[1] = up[:, :1] * along[:, 1]
    directions[2] = up[:, 1:]
    directions.flags.writeable = False
    return Rays(directions, first, step, sector == "full")


def _elevation(place: float) -> float:
    """Degrees of the laser at 0 (lowest) to 1 (highest)."""
    if place < 0.5:
        return _BOTTOM_DEG + (_MIDDLE_DEG - _BOTTOM_DEG) * 2 * place
    return _MIDDLE_DEG + (_TOP_DEG - _MIDDLE_DEG) * (2 * place - 1)


# Shapes. ``distances`` gives metres along each ray (3, E, W) to the shape; inf where it is missed.


@dataclass(frozen=True, slots=True)
class UprightBox:
    """A box that stands upright: centre, half sizes, cosine and sine of its heading."""

    x: float
    y: float
    z: float
    half_length: float
    half_width: float
    half_height: float
    cosine: float
    sine: float

    @property
    def radius(self) -> float:
        """Of a circle around it, seen from above."""
        return math.sqrt(self.half_length**2 + self.half_width**2)

    def distances(self, directions: Floats) -> Floats:
        """See above."""
        c, s = self.cosine, self.sine
        origin = (-c * self.x - s * self.y, s * self.x - c * self.y, -self.z)
        local = (
            c * directions[0] + s * directions[1],
            c * directions[1] - s * directions[0],
            directions[2],
        )
        halves = (self.half_length, self.half_width, self.half_height)
        near, far = np.zeros(directions.shape[1:]), np.full(directions.shape[1:], np.inf)
        for start, way, half in zip(origin, local, halves, strict=True):
            # A ray along a face divides by 0: it is then before or behind all of the slab.
            with np.errstate(divide="ignore", invalid="ignore"):
                one, other = (-half - start) / way, (half - start) / way
            near = np.maximum(near, np.minimum(one, other))
            far = np.minimum(far, np.maximum(one, other))
        return np.where((near < far) & (near > 0), near, np.inf)


@dataclass(frozen=True, slots=True)
class Pole:
    """A cylinder that stands upright, from ``bottom`` to ``top``."""

    x: float
    y: float
    bottom: float
    top: float
    radius: float

    def distances(self, directions: Floats) -> Floats:
        """See above."""
        flat = directions[0] * directions[0] + directions[1] * directions[1]
        along = directions[0] * self.x + directions[1] * self.y
        rest = along * along - flat * (self.x**2 + self.y**2 - self.radius**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            near = (along - np.sqrt(np.maximum(rest, 0))) / flat
        height = near * directions[2]
        hit = (rest > 0) & (near > 0) & (height > self.bottom) & (height < self.top)
        return np.where(hit, near, np.inf)


@dataclass(frozen=True, slots=True)
class Ball:
    """An ellipsoid: centre, radius from above, half height."""

    x: float
    y: float
    z: float
    radius: float
    half_height: float

    def distances(self, directions: Floats) -> Floats:
        """See above."""
        scale = self.radius / self.half_height
        up, z = directions[2] * scale, self.z * scale
        square = directions[0] * directions[0] + directions[1] * directions[1] + up * up
        along = directions[0] * self.x + directions[1] * self.y + up * z
        rest = along * along - square * (self.x**2 + self.y**2 + z * z - self.radius**2)
        near = (along - np.sqrt(np.maximum(rest, 0))) / square
        return np.where((rest > 0) & (near > 0), near, np.inf)


SolidShape = UprightBox | Pole | Ball


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """What the rays hit.

    Attributes:
        distances: (E, A) float64 metres; inf where nothing is hit.
        owners: (E, A) int64 index of the thing that is hit first; -1 for the ground or nothing.
        alone: (T,) int64, rays that each thing would stop if it stood alone.
        seen: (T,) int64, rays that it stops.
    """

    distances: Floats
    owners: NDArray[np.int64]
    alone: NDArray[np.int64]
    seen: NDArray[np.int64]


def cast(rays: Rays, ground: Sequence[float], things: Sequence[Sequence[SolidShape]]) -> Hits:
    """Casts all rays.

    Args:
        rays: from the origin.
        ground: a, b, c, d of the plane a x + b y + c z + d = 0.
        things: the shapes of each.
    """
    a, b, c, d = ground
    x, y, z = rays.directions
    with np.errstate(divide="ignore"):
        distances = -d / (a * x + b * y + c * z)
    distances[distances <= 0] = np.inf
    owners = np.full(rays.shape, -1, np.int64)
    plain = distances.copy()
    alone = np.zeros(len(things), np.int64)
    for index, shapes in enumerate(things):
        stopped = np.zeros(rays.shape, np.bool_)
        for shape in shapes:
            columns = rays.columns(shape.x, shape.y, shape.radius)
            found = shape.distances(rays.directions[:, :, columns])
            stopped[:, columns] |= found < plain[:, columns]
            nearer = found < distances[:, columns]
            distances[:, columns] = np.where(nearer, found, distances[:, columns])
            owners[:, columns] = np.where(nearer, index, owners[:, columns])
        alone[index] = stopped.sum()
    seen = np.bincount(owners[owners >= 0], minlength=len(things)).astype(np.int64)
    return Hits(distances, owners, alone, seen)
