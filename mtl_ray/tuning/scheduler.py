"""Decides which trials stop early, from their evaluations so far.

It needs no other state. This module imports no torch and no ray.
"""

import statistics
from collections.abc import Sequence

from mtl_ray.tuning.config import Objective
from mtl_ray.tuning.record import Reported

TrialReports = Sequence[Reported]
"""The evaluations of one trial, by epoch."""


def asha(
    mine: TrialReports, others: Sequence[TrialReports], *, grace: float, reduction: float
) -> bool:
    """Asynchronous successive halving (Li et al. 2020, the variant that stops trials instead of
    pausing them).

    A trial reaches a rung with its first evaluation at or after the epoch of the rung. It is then
    compared once with all trials that reached the rung before. It must stop if it is not among the
    best 1/``reduction``.

    Args:
        mine: curve of the trial, the newest evaluation last; larger values are better.
        others: curves of all other trials, including those that have ended.
        grace: epoch of the first rung.
        reduction: ratio of the epochs of one rung and the rung before it.
    """
    rung = _new_rung(mine, grace, reduction)
    if rung is None:
        return False
    came = sorted(
        (value for curve in others if (value := _value_at(curve, rung)) is not None), reverse=True
    )
    if not came:
        return False
    stay = max(1, int((len(came) + 1) / reduction))
    return sum(value > mine[-1].value for value in came) >= stay


def _new_rung(mine: TrialReports, grace: float, reduction: float) -> float | None:
    """The highest rung that the newest evaluation is the first to reach."""
    before = mine[-2].epoch if len(mine) > 1 else 0.0
    rung, found = grace, None
    while rung <= mine[-1].epoch + 1e-9:
        if rung > before + 1e-9:
            found = rung
        rung *= reduction
    return found


def _value_at(curve: TrialReports, epoch: float) -> float | None:
    return next((report.value for report in curve if report.epoch >= epoch - 1e-9), None)


def median(
    mine: TrialReports, others: Sequence[TrialReports], *, grace: float, enough: int = 4
) -> bool:
    """The median stopping rule (Golovin et al. 2017, section 3.2.2).

    Args:
        mine: curve of the trial, the newest evaluation last; larger values are better.
        others: curves of all other trials.
        grace: epochs before which no trial stops.
        enough: fewest other trials that must have reached this epoch.
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


class TrialScheduler:
    """Decides which trials stop early.

    It runs as an actor: each trial reports its evaluations, and learns whether to stop.

    Args:
        curves: evaluations of earlier starts of the search, by number of the trial.
        goal: the objective by which trials are compared.
        rule, grace, reduction: see ``TuneConfig``.
    """

    def __init__(
        self,
        curves: dict[int, list[Reported]],
        goal: Objective,
        rule: str,
        grace: float,
        reduction: float,
    ) -> None:
        self._curves, self._rule, self._grace, self._reduction = curves, rule, grace, reduction
        self._sign = 1.0 if goal.mode == "max" else -1.0

    def report(self, number: int, epoch: float, value: float) -> tuple[list[Reported], bool]:
        """Adds an evaluation of a trial; an evaluation that was repeated counts once.

        Returns:
            All evaluations of the trial, and whether it must stop.
        """
        curve = [
            reported for reported in self._curves.get(number, []) if reported.epoch < epoch - 1e-9
        ]
        self._curves[number] = [*curve, Reported(epoch=epoch, value=value)]
        return self._curves[number], self._stops(number)

    def _stops(self, number: int) -> bool:
        mine = self._upward(self._curves[number])
        others = [self._upward(curve) for other, curve in self._curves.items() if other != number]
        if self._rule == "asha":
            return asha(mine, others, grace=self._grace, reduction=self._reduction)
        return self._rule == "median" and median(mine, others, grace=self._grace)

    def _upward(self, curve: TrialReports) -> TrialReports:
        """The curve with values of which larger ones are better."""
        return [Reported(epoch=each.epoch, value=self._sign * each.value) for each in curve]

    def curve(self, number: int) -> list[Reported]:
        """The evaluations of a trial."""
        return self._curves.get(number, [])
