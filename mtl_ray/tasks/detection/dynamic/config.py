"""Config of the dense heads with dynamic label assignment."""

from mtl_ray.tasks.task import AnyHead

HEADS: tuple[type[AnyHead], ...] = ()
