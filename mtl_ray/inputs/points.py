"""Point clouds as an input: float32 points in shards, voxels for the network.

``PointCanvas`` is the config of ``data.canvas``. It is written into every checkpoint and bundle.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from mtl_ray.columns import ColumnType
from mtl_ray.config.strict import STRICT
from mtl_ray.geometry.birds_eye import draw_points
from mtl_ray.geometry.voxels import VoxelGrid, hard_voxels
from mtl_ray.inputs.cloud_files import (
    SUFFIXES,
    check_points,
    check_suffix,
    read_cloud_file,
    write_npy,
)
from mtl_ray.inputs.cloud_options import FEATURES_OPTION, file_features, read_with_features
from mtl_ray.inputs.input import Arrays, ArraySpec, Input, TooLargeError
from mtl_ray.inputs.point_cloud import (
    MAX_FEATURES,
    EncodedPoints,
    PointCloud,
    SensorCalibration,
    encoded_points,
)

_log = logging.getLogger(__name__)

LEAST_VOXELS = 2
"""Arrays have at least this many voxels, so that a tracer takes their number for no constant."""


@dataclass(frozen=True, slots=True)
class CloudFrame:
    """Where a cloud lies in the network's frame: where it is, in metres of the lidar."""


class PointsInput(Input[EncodedPoints, PointCloud, "PointCanvas", CloudFrame]):
    """See ``Input``. The raw data is a ``PointCloud``.

    The arrays are ``voxels`` float32 (V, P, F) padded with zeros, ``num_points`` int32 (V,), 0 for
    padding, and ``coordinates`` int32 (V, 3) z, y, x of each cell, -1 for padding. V is open.
    """

    name = "points"
    statistic_name = "points"
    statistic_edges = (0.0, *(2.0**power for power in range(25)))
    columns: ClassVar[Mapping[str, ColumnType]] = {
        "point_features": "string",
        "calibration": "string",
        "camera_images": "list<binary>",
        "points": "binary",
    }
    limit_name = "numbers"
    formats = ("float32", "npy", "pcd", "ply")
    suffixes = SUFFIXES
    file_options: ClassVar[Mapping[str, str]] = {"features": FEATURES_OPTION}
    fill_name = "voxelize"
    empty_files = True
    named_answers = True

    @property
    def noun(self) -> str:
        """See ``Input``."""
        return "point cloud"

    def to_row(self, encoded: EncodedPoints) -> Mapping[str, Any]:
        """See ``Input``."""
        return {
            "point_features": " ".join(encoded.features),
            "calibration": encoded.calibration.to_json(),
            "camera_images": encoded.images,
            "points": encoded.data,
        }

    def from_row(self, row: Mapping[str, Any]) -> EncodedPoints:
        """See ``Input``."""
        return EncodedPoints(
            data=row["points"],
            features=tuple(row["point_features"].split()),
            calibration=SensorCalibration.from_json(row["calibration"]),
            images=tuple(row["camera_images"]),
        )

    def num_bytes(self, encoded: EncodedPoints) -> int:
        """See ``Input``."""
        return len(encoded.data) + sum(map(len, encoded.images))

    def decode(self, encoded: EncodedPoints, limit: int) -> PointCloud:
        """See ``Input``."""
        count = len(encoded.features)
        if not 3 <= count <= MAX_FEATURES or len(encoded.data) % (4 * count):
            raise ValueError(
                f"the cloud has {len(encoded.data)} bytes, no multiple of {count} float32 numbers"
            )
        if len(encoded.data) // 4 > limit:
            raise TooLargeError(
                f"the cloud has {len(encoded.data) // 4:,} numbers, more than the {limit:,} allowed"
            )
        points = np.frombuffer(encoded.data, "<f4").reshape(-1, count)
        return PointCloud(
            points=check_points(points),
            features=encoded.features,
            calibration=encoded.calibration,
        )

    def decode_file(self, data: bytes, limit: int) -> PointCloud:
        """See ``read_cloud_file``; bytes of no known format are float32 numbers, four a point."""
        return read_cloud_file(data, limit)

    def file_reader(
        self, rule: "PointCanvas", options: Mapping[str, str]
    ) -> Callable[[bytes, int], PointCloud]:
        """See ``Input``; without the option ``features`` a file has the features of the canvas."""
        super().file_reader(rule, options)
        features = file_features(options.get("features", ""), rule.features)
        return partial(read_with_features, features=features)

    def check_name(self, data: bytes, name: str) -> None:
        """See ``check_suffix``: numbers without a header could be read from any damaged file."""
        check_suffix(data, name)

    def encode_file(self, raw: PointCloud) -> bytes:
        """A ``.npy`` file, which does not name the features."""
        return write_npy(raw)

    def encoded_options(self, raw: PointCloud) -> Mapping[str, str]:
        """The names of the features."""
        return {"features": ",".join(raw.features)}

    def num_raw_bytes(self, raw: PointCloud) -> int:
        """Of the points."""
        return raw.points.nbytes

    def size(self, raw: PointCloud) -> Mapping[str, int]:
        """``points``, their number."""
        return {"points": len(raw.points)}

    def statistic(self, raw: PointCloud) -> float:
        """The number of points."""
        return float(len(raw.points))

    def pieces(self, raw: PointCloud) -> Sequence[PointCloud]:
        """The front half of the points, every fifth, and one."""
        nearest = np.argsort(raw.points[:, 0], kind="stable")
        return [
            raw.with_points(raw.points[nearest[len(nearest) // 2 :]]),
            raw.with_points(raw.points[::5]),
            raw.with_points(raw.points[:1]),
        ]

    def arrays(self, rule: "PointCanvas") -> Mapping[str, ArraySpec]:
        """See the class."""
        voxels = {0: "voxels"}
        return {
            "voxels": ArraySpec(
                shape=(rule.max_voxels, rule.max_points, len(rule.features)),
                dtype=np.float32,
                open_axes=voxels,
                ragged=True,
            ),
            "num_points": ArraySpec(
                shape=(rule.max_voxels,), dtype=np.int32, open_axes=voxels, ragged=True
            ),
            "coordinates": ArraySpec(
                shape=(rule.max_voxels, 3), dtype=np.int32, open_axes=voxels, ragged=True
            ),
        }

    def fill(self, raw: PointCloud, rule: "PointCanvas", arrays: Arrays) -> CloudFrame:
        """Voxels of the points; only those that are used are written, see ``trim``."""
        found = hard_voxels(
            select_features(raw, rule.features), rule.grid, rule.max_points, rule.max_voxels
        )
        used = len(found.counts)
        arrays["voxels"][:used] = found.points
        arrays["num_points"][:used] = found.counts
        arrays["num_points"][used:] = 0
        arrays["coordinates"][:used] = found.coordinates
        return CloudFrame()

    def fill_empty(self, rule: "PointCanvas", arrays: Arrays) -> CloudFrame:
        """No voxel."""
        arrays["num_points"][:] = 0
        return CloudFrame()

    def unfit(self, rule: "PointCanvas", arrays: Arrays) -> str | None:
        """Counts and cells are within the grid, and padding is as ``trim`` writes it."""
        counts, cells = arrays.get("num_points"), arrays.get("coordinates")
        if counts is not None and ((counts < 0) | (counts > rule.max_points)).any():
            return f"num_points must be from 0 to {rule.max_points}"
        if cells is None:
            return None
        sides = rule.grid.shape[::-1]
        padding = cells < 0
        mixed = padding.any(axis=-1) != padding.all(axis=-1)
        if ((cells < -1) | (cells >= sides)).any() or mixed.any():
            return f"coordinates must be z, y, x below {', '.join(map(str, sides))}, or -1 -1 -1"
        if counts is not None and ((counts > 0) & (cells[..., 0] < 0)).any():
            return "coordinates are -1 where num_points is not 0"
        return None

    def trim(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """As many voxels as the fullest sample has; the rest of each sample is padded."""
        counts = np.count_nonzero(arrays["num_points"], axis=1)
        most = max(LEAST_VOXELS, int(counts.max(initial=0)))
        trimmed = {name: values[:, :most] for name, values in arrays.items()}
        for sample, count in enumerate(counts):
            trimmed["voxels"][sample, count:] = 0
            trimmed["coordinates"][sample, count:] = -1
        return trimmed

    def training_rule(self, rule: "PointCanvas") -> "PointCanvas":
        """With ``max_train_voxels``."""
        return replace(rule, max_voxels=rule.max_train_voxels or rule.max_voxels)

    def own_frame(self, raw: PointCloud) -> CloudFrame:
        """Metres of the lidar."""
        return CloudFrame()

    def size_of(self, rule: "PointCanvas") -> str:
        """Cells along x and y."""
        return "x".join(map(str, rule.grid.shape))

    def show(self, raw: PointCloud) -> NDArray[np.uint8]:
        """The cloud from above; see ``birds_eye``."""
        return draw_points(raw.points)

    def show_arrays(self, arrays: Arrays) -> NDArray[np.uint8]:
        """The points of the voxels from above."""
        voxels, counts = arrays["voxels"], arrays["num_points"]
        return draw_points(voxels[np.arange(voxels.shape[1]) < counts[:, None]])

    def generate(self, rng: np.random.Generator) -> tuple[EncodedPoints, PointCloud]:
        """A ground plane with blocks of points on it, in front of the sensor."""
        ground = np.column_stack(
            [rng.uniform(0, 60, 4000), rng.uniform(-30, 30, 4000), rng.normal(-1.7, 0.03, 4000)]
        )
        blocks = [
            rng.uniform((2, -20, -1.7), (50, 20, -1.2))
            + rng.uniform(0, 1, (200, 3)) * rng.uniform((0.5, 0.5, 0.5), (4, 2, 2))
            for _ in range(8)
        ]
        xyz = np.concatenate([ground, *blocks])
        points = np.column_stack([xyz, rng.uniform(0, 1, len(xyz))]).astype(np.float32)
        cloud = PointCloud(points=points)
        return encoded_points(cloud), cloud


POINTS = PointsInput()


def select_features(cloud: PointCloud, features: tuple[str, ...]) -> NDArray[np.float32]:
    """(N, F) float32: the features that a network reads, in its order; a feature that the cloud
    does not have is 0, which a warning says once.

    Raises:
        ValueError: if it has no x, y or z.
    """
    if cloud.features == features:
        return cloud.points
    missing = [name for name in ("x", "y", "z") if name not in cloud.features]
    if missing:
        raise ValueError(f"the cloud has no {', '.join(missing)}: {', '.join(cloud.features)}")
    place = {name: index for index, name in enumerate(cloud.features)}
    if lacking := tuple(name for name in features if name not in place):
        _warn_of(lacking)
    chosen = np.zeros((len(cloud.points), len(features)), np.float32)
    for column, name in enumerate(features):
        if name in place:
            chosen[:, column] = cloud.points[:, place[name]]
    return chosen


@cache
def _warn_of(lacking: tuple[str, ...]) -> None:
    """Once in a process, not with every cloud."""
    _log.warning(
        "there are clouds without %s: the network reads 0 in their place", ", ".join(lacking)
    )


@pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)
class PointCanvas:
    """How a cloud becomes voxels."""

    input: ClassVar[PointsInput] = POINTS
    type: Literal["points"]
    """The kind of input."""
    features: tuple[str, ...] = ("x", "y", "z", "intensity")
    """The numbers of a point that the network reads; one that a cloud lacks is 0."""
    minimum: tuple[float, float, float]
    """x, y, z in metres where the grid begins; points outside it are dropped."""
    maximum: tuple[float, float, float]
    """x, y, z in metres where it ends."""
    voxel: tuple[float, float, float]
    """x, y, z of a cell in metres."""
    max_points: int = Field(default=32, ge=1, le=1024)
    """Most points of a voxel; its first are kept."""
    max_voxels: int = Field(default=40_000, ge=LEAST_VOXELS, le=1_000_000)
    """Most voxels of a cloud."""
    max_train_voxels: int | None = Field(default=None, ge=LEAST_VOXELS)
    """The same in training, by default as many."""

    def __post_init__(self) -> None:
        if self.features[:3] != ("x", "y", "z") or len(set(self.features)) < len(self.features):
            raise ValueError("features must begin with x, y, z, each name once")
        for axis, low, high, side in zip(
            "xyz", self.minimum, self.maximum, self.voxel, strict=True
        ):
            cells = (high - low) / side if side > 0 else 0
            if not 0.5 <= cells <= 10_000 or abs(cells - round(cells)) > 1e-3 * cells:
                raise ValueError(
                    f"along {axis} there are {cells:.4g} cells of {side:g} m between {low:g} and "
                    f"{high:g}; it must be a whole number up to 10,000"
                )

    @property
    def grid(self) -> VoxelGrid:
        """The cells."""
        return VoxelGrid(minimum=self.minimum, maximum=self.maximum, size=self.voxel)
