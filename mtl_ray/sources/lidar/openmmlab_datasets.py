"""The datasets of which MMDetection3D writes info files: where their files usually are, and what
they have in common.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mtl_ray.sources.lidar import lyft, nuscenes, waymo

KITTI_CLASSES = ("Pedestrian", "Cyclist", "Car")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """What the files of a dataset have in common.

    Attributes:
        classes: by default.
        labels: names of the numbers in files that do not name them.
        clouds: usual folders of the clouds; sweeps, images: also.
        features: numbers of a point.
        benchmark: of the calibrations.
    """

    classes: tuple[str, ...]
    labels: tuple[str, ...]
    clouds: tuple[str, ...]
    sweeps: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    features: tuple[str, ...] = ("x", "y", "z", "intensity", "ring")
    benchmark: str = ""


_KITTI_FOLDERS = tuple(
    f"{part}/{folder}"
    for part in ("training", "testing")
    for folder in ("velodyne_reduced", "velodyne")
)
_NUSCENES_LABELS = (
    *("car", "truck", "trailer", "bus", "construction_vehicle", "bicycle", "motorcycle"),
    *("pedestrian", "traffic_cone", "barrier"),
)
DATASETS: Mapping[str, Dataset] = {
    "kitti": Dataset(
        classes=KITTI_CLASSES,
        labels=(*KITTI_CLASSES, "Van", "Truck", "Person_sitting", "Tram", "Misc"),
        clouds=_KITTI_FOLDERS,
        images=("training/image_2", "testing/image_2"),
        features=("x", "y", "z", "intensity"),
        benchmark="kitti",
    ),
    "nuscenes": Dataset(
        classes=nuscenes.CLASSES,
        labels=_NUSCENES_LABELS,
        clouds=("samples/LIDAR_TOP",),
        sweeps=("sweeps/LIDAR_TOP", "samples/LIDAR_TOP"),
        images=tuple(f"samples/{name}" for name in nuscenes.CAMERAS),
        benchmark="nuscenes",
    ),
    "lyft": Dataset(
        classes=lyft.CLASSES,
        labels=lyft.CLASSES,
        clouds=("lidar", "v1.01-train/lidar", "v1.01-test/lidar"),
        sweeps=("lidar", "v1.01-train/lidar", "v1.01-test/lidar"),
        images=("images", "v1.01-train/images", "v1.01-test/images"),
    ),
    "waymo": Dataset(
        classes=waymo.CLASSES,
        labels=(*waymo.CLASSES, "Sign"),
        clouds=("training/velodyne", "testing/velodyne"),
        images=tuple(
            f"{part}/image_{number}" for part in ("training", "testing") for number in range(5)
        ),
        features=waymo.FEATURES,
    ),
}
