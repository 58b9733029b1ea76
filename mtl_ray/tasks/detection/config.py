"""The heads of the task detection, family by family."""

from mtl_ray.tasks.detection.dense import config as dense
from mtl_ray.tasks.detection.dynamic import config as dynamic
from mtl_ray.tasks.detection.query import config as query
from mtl_ray.tasks.detection.realtime import config as realtime
from mtl_ray.tasks.detection.two_stage import config as two_stage
from mtl_ray.tasks.task import AnyHead

HEADS: tuple[type[AnyHead], ...] = (
    *dense.HEADS,
    *dynamic.HEADS,
    *two_stage.HEADS,
    *query.HEADS,
    *realtime.HEADS,
)
