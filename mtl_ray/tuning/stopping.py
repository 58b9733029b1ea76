"""Which trials are stopped early. Everything follows from what trials have reported so far, so nothing else has to be kept."""

import statistics
from collections.abc import Sequence

from mtl_ray.tuning.record import Reported

Curve = Sequence[Reported]
"""What one trial reported, by epoch."""


def asha(mine: Curve, others: Sequence[Curve], *, grace: float, reduction: float) -> bool:
    """Asynchronous successive halving (Li et al. 2020, in its form that stops trials instead of pausing them).

    A trial comes to a rung with its first report at or after that rung's epoch. There it is compared, once, with all that came
    there before it, and is stopped if it is not among their best 1/``reduction``.

    Args:
        mine: of the trial, its newest report last; larger values are better.
        others: of all other trials, those that have ended included.
        grace: epoch of the first rung; each further one is ``reduction`` times later.
        reduction: see there.
    """
    rung = _new_rung(mine, grace, reduction)
    if rung is None:
        return False
    came = sorted((value for curve in others if (value := _value_at(curve, rung)) is not None), reverse=True)
    if not came:
        return False
    stay = max(1, int((len(came) + 1) / reduction))
    return sum(value > mine[-1].value for value in came) >= stay


def _new_rung(mine: Curve, grace: float, reduction: float) -> float | None:
    """The highest rung that the newest report is the first to reach."""
    before = mine[-2].epoch if len(mine) > 1 else 0.0
    rung, found = grace, None
    while rung <= mine[-1].epoch + 1e-9:
        if rung > before + 1e-9:
            found = rung
        rung *= reduction
    return found


def _value_at(curve: Curve, epoch: float) -> float | None:
    return next((report.value for report in curve if report.epoch >= epoch - 1e-9), None)


def median(mine: Curve, others: Sequence[Curve], *, grace: float, enough: int = 4) -> bool:
    """The median stopping rule (Golovin et al. 2017, section 3.2.2).

    Args:
        mine: of the trial, its newest report last; larger values are better.
        others: of all other trials.
        grace: epochs that every trial gets.
        enough: so many others must have come as far.
    """
    epoch = mine[-1].epoch
    if epoch < grace - 1e-9:
        return False
    means = [
        statistics.fmean(report.value for report in curve if report.epoch <= epoch + 1e-9)
        for curve in others
        if curve and curve[-1].epoch >= epoch - 1e-9 and curve[0].epoch <= epoch + 1e-9
    ]
    return len(means) >= enough and max(report.value for report in mine) < statistics.median(means)
