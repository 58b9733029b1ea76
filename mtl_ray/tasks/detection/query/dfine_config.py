"""Config of the real-time head ``dfine``."""

from mtl_ray.tasks.task import AnyHead

HEADS: tuple[type[AnyHead], ...] = ()
