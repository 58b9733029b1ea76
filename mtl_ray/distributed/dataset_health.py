"""Checks the health of datasets in Ray tasks."""

from collections.abc import Sequence
from dataclasses import replace

from mtl_ray.analysis.health import Health
from mtl_ray.analysis.health_clouds import CloudNetwork
from mtl_ray.analysis.health_data import (
    HealthDataset,
    look_at_piece,
    open_health_dataset,
    report_rejects,
)
from mtl_ray.analysis.health_report import HealthReport, health_report
from mtl_ray.distributed.executor import map_tasks

ROWS_A_PIECE = 500
MOST_PIECES = 64
"""At most this many tasks per split. An annotation file gets two per worker, since each task
reads it whole.
"""


def check_health(
    uris: Sequence[str],
    *,
    images: str | None = None,
    workers: int = 1,
    network: CloudNetwork | None = None,
    plugins: Sequence[str] = (),
) -> tuple[HealthReport, list[HealthDataset]]:
    """Checks every sample of some datasets.

    Args:
        uris: see ``open_health_dataset``; with several workers they must be valid on every machine.
        images: folder of the images of annotation files.
        network: what point clouds are compared with.
        plugins: see ``open_health_dataset``.
        workers: tasks at a time; 1 runs in this process without Ray.

    Raises:
        ValueError, FileNotFoundError: if a dataset cannot be read.
    """
    if workers < 1:
        raise ValueError(f"--workers is {workers}; at least 1 is needed")
    sets = [open_health_dataset(uri, images, plugins) for uri in uris]
    pieces = [
        (place, replace(piece, network=network))
        for place, each in enumerate(sets)
        for piece in each.pieces(_share(each, workers))
    ]
    found = [Health(vocabulary=each.vocabulary) for each in sets]
    for health, each in zip(found, sets, strict=True):
        report_rejects(each.skipped, health)
    looked_at = map_tasks(
        look_at_piece,
        [piece for _, piece in pieces],
        description="dataset",
        workers=workers,
        unit="part",
    )
    for (place, _), part in zip(pieces, looked_at, strict=True):
        found[place].merge(part)
    return health_report([each.name for each in sets], found, network), sets


def _share(data: HealthDataset, workers: int) -> int:
    if data.name.endswith(".json"):
        return 1 if workers == 1 else 2 * workers
    return max(1, min(MOST_PIECES, -(-len(data) // ROWS_A_PIECE)))
