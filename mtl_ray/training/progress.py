"""How far a run is."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is; rank 0 tells it at every logged step and after every evaluation.

    Attributes:
        step: optimiser steps done.
        steps: of the whole run.
        first: the step from which this attempt went on.
        epoch: visits of the training split so far.
        images_per_s: images of all ranks in a second of training, over the last logged steps.
        loss: mean over the last logged steps.
        metrics: of the newest evaluation, HEAD/METRIC; empty before the first.
        measured: the step after which they were measured; 0 before the first.
    """

    step: int
    steps: int
    first: int
    epoch: float
    images_per_s: float
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    measured: int = 0
