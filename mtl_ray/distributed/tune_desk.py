"""Where trials ask whether to go on. Imports no torch, so it is there at once."""

from mtl_ray.tuning.config import Objective
from mtl_ray.tuning.record import Reported
from mtl_ray.tuning.stopping import Curve, asha, median


class Desk:
    """An actor that all trials ask whether to go on. What it knows is what they have reported, now or in earlier starts.

    Args:
        curves: reported so far, by number.
        goal: what trials are compared by.
        rule, grace, reduction: see ``TuneConfig``.
    """

    def __init__(self, curves: dict[int, list[Reported]], goal: Objective, rule: str, grace: float, reduction: float) -> None:
        self._curves, self._rule, self._grace, self._reduction = curves, rule, grace, reduction
        self._sign = 1.0 if goal.mode == "max" else -1.0

    def report(self, number: int, epoch: float, value: float) -> tuple[list[Reported], bool]:
        """An evaluation of a trial; its whole curve, and whether it shall stop. An evaluation that was made again counts once."""
        curve = [reported for reported in self._curves.get(number, []) if reported.epoch < epoch - 1e-9]
        self._curves[number] = [*curve, Reported(epoch=epoch, value=value)]
        return self._curves[number], self._stops(number)

    def _stops(self, number: int) -> bool:
        mine = self._upward(self._curves[number])
        others = [self._upward(curve) for other, curve in self._curves.items() if other != number]
        if self._rule == "asha":
            return asha(mine, others, grace=self._grace, reduction=self._reduction)
        return self._rule == "median" and median(mine, others, grace=self._grace)

    def _upward(self, curve: Curve) -> Curve:
        return [Reported(epoch=each.epoch, value=self._sign * each.value) for each in curve]

    def curve(self, number: int) -> list[Reported]:
        """What a trial has reported."""
        return self._curves.get(number, [])
