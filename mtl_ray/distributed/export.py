"""The engines of a bundle, built as Ray tasks."""

from collections.abc import Callable, Sequence

from mtl_ray.distributed.executor import map_tasks
from mtl_ray.export.engines import BuiltEngine, EngineRequest


def map_engines(
    function: Callable[[EngineRequest], BuiltEngine],
    requests: Sequence[EngineRequest],
    *,
    workers: int,
) -> list[BuiltEngine]:
    """Builds engines, each as a task of its own; with one worker in this process."""
    return list(
        map_tasks(function, requests, description="engines", workers=workers, unit="engine")
    )
