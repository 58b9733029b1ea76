"""A bundle for point clouds."""

from pathlib import Path

from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from tests.inference.tiny_lidar import lidar_config, write_lidar_checkpoint


def cloud_bundle(folder: Path) -> str:
    """Exports a small network that nobody trained."""
    checkpoint = write_lidar_checkpoint(folder / "cloud_checkpoint", lidar_config())
    loose = ExportConfig(samples=1, min_agree=0.5, max_abs=1.0, max_score=0.01, max_metric=1.0)
    export(checkpoint, str(folder / "cloud"), loose)
    return str(folder / "cloud")
