"""The health of datasets, looked at by Ray tasks."""

from collections.abc import Sequence

from mtl_ray.analysis.health import Health
from mtl_ray.analysis.health_data import HealthDataset, look_at_piece, open_health_dataset, report_rejects
from mtl_ray.analysis.health_report import HealthReport, report_of
from mtl_ray.distributed.executor import map_tasks

ROWS_A_PIECE = 500
MOST_PIECES = 64
"""Of a file of annotations, which each task reads whole, two for each worker."""


def check_health(uris: Sequence[str], *, images: str | None = None, workers: int = 1) -> tuple[HealthReport, list[HealthDataset]]:
    """Looks at every sample of some datasets.

    Args:
        uris: see ``open_health_dataset``; with several workers they must mean the same on every machine.
        images: where the images of annotation files lie.
        workers: tasks at a time; 1 looks in this process and starts no Ray.

    Raises:
        ValueError, FileNotFoundError: if one of them cannot be read.
    """
    if workers < 1:
        raise ValueError(f"--workers is {workers}; at least 1 is needed")
    sets = [open_health_dataset(uri, images) for uri in uris]
    pieces = [(place, piece) for place, each in enumerate(sets) for piece in each.pieces(_share(each, workers))]
    found = [Health(vocabulary=each.vocabulary) for each in sets]
    for health, each in zip(found, sets, strict=True):
        report_rejects(each.skipped, health)
    looked_at = map_tasks(look_at_piece, [piece for _, piece in pieces], description="dataset", workers=workers, unit="part")
    for (place, _), part in zip(pieces, looked_at, strict=True):
        found[place].merge(part)
    return report_of([each.name for each in sets], found), sets


def _share(data: HealthDataset, workers: int) -> int:
    if data.name.endswith(".json"):
        return 1 if workers == 1 else 2 * workers
    return max(1, min(MOST_PIECES, -(-len(data) // ROWS_A_PIECE)))
