"""Config of the heads that predict a set of objects from queries."""

from mtl_ray.tasks.task import AnyHead

HEADS: tuple[type[AnyHead], ...] = ()
