"""Config of the heads that classify regions of interest."""

from mtl_ray.tasks.task import AnyHead

HEADS: tuple[type[AnyHead], ...] = ()
