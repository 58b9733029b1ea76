"""Supervised learning: every head learns from the annotations of the batch."""

from collections.abc import Mapping
from typing import Any

from mtl_ray.loading.batch import Batch
from mtl_ray.methods.method import Watched
from mtl_ray.models.head import Term
from mtl_ray.models.model import Model


class Supervised:
    """Minimises the losses of a model's heads.

    Args:
        model: what learns; it is also what is evaluated and exported.
    """

    watches: Watched | None = None

    def __init__(self, model: Model) -> None:
        self.module = model

    def losses(self, batch: Batch, step: int) -> dict[str, Term]:
        """See ``Method``: the terms of all heads."""
        return self.module.losses(batch, step)

    def after_step(self, step: int) -> None:
        """See ``Method``: nothing follows the model."""

    def model(self) -> Model:
        """See ``Method``."""
        return self.module

    def state_dict(self) -> dict[str, Any]:
        """See ``Method``: there is no further state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ``Method``."""
