"""A bundle for point clouds."""

from pathlib import Path

from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from tests.inference.tiny_lidar import lidar_config, write_lidar_checkpoint


def cloud_bundle(folder: Path) -> str:
    """Exports a small network that nobody trained."""
    checkpoint = write_lidar_checkpoint(folder / "cloud_checkpoint", lidar_config())
    export(checkpoint, str(folder / "cloud"), ExportConfig(samples=1, min_agree=0.5))
    return str(folder / "cloud")
