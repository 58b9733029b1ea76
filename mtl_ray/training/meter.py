"""Means over the steps since the last logged one."""

import math
import time
from collections.abc import Mapping

import torch

from mtl_ray.training.step import Outcome


class Meter:
    """Collects what steps measured and reads it from the device only when asked.

    Args:
        sums: as ``state`` gave them, so that a resumed run logs the curve that the undisturbed run does.
    """

    def __init__(self, sums: Mapping[str, float]) -> None:
        self._sums = {name: value for name, value in sums.items() if name != "steps"}
        self._steps = int(sums.get("steps", 0))
        self._pending: list[tuple[int, Outcome]] = []
        self._timed = 0
        self._data_s = 0.0
        self._since = time.perf_counter()

    def add(self, step: int, outcome: Outcome, data_s: float) -> None:
        """After a step, counted from 1, that waited ``data_s`` for its batch. On a CPU the losses are looked at now.

        Raises:
            ValueError: as ``state``.
        """
        self._pending.append((step, outcome))
        self._timed += 1
        self._data_s += data_s
        if outcome.losses.device.type == "cpu":
            self.state()

    def state(self) -> dict[str, float]:
        """The sums so far.

        Raises:
            ValueError: if a loss is not finite.
        """
        for step, outcome in self._pending:
            self._count(step, outcome)
        self._pending.clear()
        return {**self._sums, "steps": float(self._steps)}

    def _count(self, step: int, outcome: Outcome) -> None:
        names = [f"{term.replace('/', '/loss_', 1)}" for term in outcome.names]
        values = dict(zip(names, outcome.losses.tolist(), strict=True))
        if not all(math.isfinite(value) for value in values.values()):
            listed = ", ".join(f"{name}={value:g}" for name, value in values.items())
            raise ValueError(
                f"the loss is not finite at step {step} ({listed}): lower schedule.optimizer.lr, set schedule.clip_grad_norm, "
                "lengthen schedule.rate.warmup, or look at the annotations of the data"
            )
        values["loss"] = sum(values.values())
        if outcome.grad_norm is not None and math.isfinite(norm := float(outcome.grad_norm)):  # fp16 may overflow: that step is skipped
            values["grad_norm"] = norm
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1

    def flush(self) -> dict[str, float]:
        """The means, and ``time`` and ``data_time`` in seconds a step; begins anew."""
        self.state()
        means = {name: value / self._steps for name, value in self._sums.items()}
        now = time.perf_counter()
        timed = max(1, self._timed)
        means |= {"data_time": self._data_s / timed, "time": (now - self._since) / timed}
        self._sums, self._steps, self._timed, self._data_s, self._since = {}, 0, 0, 0.0, now
        return means

    def pause(self, seconds: float) -> None:
        """Time that was not training (an evaluation) does not count."""
        self._since += seconds


def memory_mb(device: torch.device) -> int | None:
    """The most megabytes that tensors took on a GPU; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) >> 20 if device.type == "cuda" else None
