"""One optimizer step over a batch that is split over ranks and micro-batches, and the means over
steps that are logged.
"""

import hashlib
import math
import struct
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from mtl_ray.loading.batch import Batch
from mtl_ray.methods.method import Method
from mtl_ray.models.head import Term
from mtl_ray.training.batch_norm import BatchNormSync
from mtl_ray.training.config import RuntimeConfig, ScheduleConfig
from mtl_ray.training.context import RunContext
from mtl_ray.training.gradients import Gradients

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What a step measured, over all ranks; tensors stay on the device, so that nothing waits for
    them.

    Attributes:
        names: the loss terms.
        losses: float64 (K,), each term's sum divided by its count.
        grad_norm: scalar, before clipping; None without clipping.
    """

    names: tuple[str, ...]
    losses: Tensor
    grad_norm: Tensor | None


class Step:
    """Forward, backward, the sum over ranks, clipping, the optimizer, and ``Method.after_step``.

    The gradient is that of the sum over terms of (sum over all samples of the batch / count over
    all samples of the batch), so it does not depend on how many ranks and micro-batches share the
    work, as long as the network treats samples one by one (batch normalisation does not, unless it
    is synchronised).
    """

    def __init__(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        schedule: ScheduleConfig,
        runtime: RuntimeConfig,
        context: RunContext,
    ) -> None:
        self.method, self.optimizer, self.context = method, optimizer, context
        self.seed, self.dtype = runtime.seed, DTYPES[runtime.precision]
        self.accumulate, self.clip_grad_norm = schedule.accumulate, schedule.clip_grad_norm
        learning = [
            parameter for parameter in method.module.parameters() if parameter.requires_grad
        ]
        self.gradients = Gradients(learning, context.world_size, overlap=not runtime.sync_bn)
        self.batch_norm = BatchNormSync(method.module, 1 if runtime.sync_bn else context.world_size)
        self.scaler = torch.amp.GradScaler(context.device.type, enabled=runtime.precision == "fp16")

    def __call__(self, batch: Batch, step: int) -> StepResult:
        """Trains on this rank's share of one batch.

        Args:
            batch: on any device.
            step: counted from 0.

        Raises:
            ValueError: if the share has fewer samples than there are micro-batches.
        """
        parts = self._parts(batch)
        terms = self._forward(parts[0], step, 0) if len(parts) == 1 else None
        names, totals = self._totals([terms] if terms else self._rehearse(parts, step))
        counts = totals[len(names) :]
        divisors = torch.where(counts > 0, counts, 1.0)
        self.gradients.zero()
        for number, part in enumerate(parts):
            terms = terms if terms is not None else self._forward(part, step, number)
            if number == len(parts) - 1:
                self.batch_norm.start()
                self.gradients.arm()
            loss = sum(
                (
                    terms[name][0] / divisors[k].to(terms[name][0].dtype)
                    for k, name in enumerate(names)
                ),
                start=torch.zeros((), device=counts.device),
            )
            torch.autograd.backward(self.scaler.scale(loss))
            terms = None
        self.gradients.wait()
        self.batch_norm.wait()
        grad_norm = self._update()
        self.method.after_step(step)
        return StepResult(names=names, losses=totals[: len(names)] / divisors, grad_norm=grad_norm)

    def _parts(self, batch: Batch) -> list[Batch]:
        size = len(batch)
        if size < self.accumulate:
            raise ValueError(
                f"rank {self.context.rank} has {size} samples of each batch, too few for "
                f"schedule.accumulate={self.accumulate}; "
                "make data.batch larger or accumulate less"
            )
        edges = [i * size // self.accumulate for i in range(self.accumulate + 1)]
        return [batch[a:b].to(self.context.device) for a, b in pairwise(edges)]

    def _forward(self, part: Batch, step: int, number: int) -> Mapping[str, Term]:
        """The loss terms.

        The random seed depends on seed, step, rank and micro-batch alone, so a resumed run draws
        the same.
        """
        torch.manual_seed(_key(self.seed, step, self.context.rank, number))
        with self._precision():
            return self.method.losses(part, step)

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(
            self.context.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    @torch.no_grad()
    def _rehearse(self, parts: list[Batch], step: int) -> list[Mapping[str, Term]]:
        """The terms of all micro-batches without gradients: their counts must be known before the
        first backward.
        """
        with self.batch_norm.untouched():
            return [self._forward(part, step, number) for number, part in enumerate(parts)]

    def _totals(self, parts: list[Mapping[str, Term]]) -> tuple[tuple[str, ...], Tensor]:
        """Names of the K terms, and their sums and counts over micro-batches and ranks, float64 (2
        K,).
        """
        names = tuple(parts[0])
        rows = [
            [terms[name][side].detach().double() for side in (0, 1) for name in names]
            for terms in parts
        ]
        totals = torch.stack([torch.stack(row) for row in rows]).sum(0)
        if self.context.world_size > 1:
            dist.all_reduce(totals)
        return names, totals

    def _update(self) -> Tensor | None:
        self.scaler.unscale_(self.optimizer)
        norm = self.gradients.clip(self.clip_grad_norm) if self.clip_grad_norm is not None else None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm


def _key(*numbers: int) -> int:
    return int.from_bytes(
        hashlib.blake2b(struct.pack(f"{len(numbers)}q", *numbers), digest_size=8).digest(),
        "little",
        signed=True,
    )


class Meter:
    """Means over steps. Results stay on the device until they are asked for.

    Args:
        sums: from ``state``, so that a resumed run logs the same curve as an uninterrupted one.
    """

    def __init__(self, sums: Mapping[str, float]) -> None:
        self._sums = {name: value for name, value in sums.items() if name != "steps"}
        self._steps = int(sums.get("steps", 0))
        self._pending: list[tuple[int, StepResult]] = []
        self._timed = 0
        self._data_s = 0.0
        self._since = time.perf_counter()

    def add(self, step: int, result: StepResult, data_s: float) -> None:
        """Called after a step, counted from 1, that waited ``data_s`` for its batch.

        On a CPU the losses are read at once.

        Raises:
            ValueError: as ``state``.
        """
        self._pending.append((step, result))
        self._timed += 1
        self._data_s += data_s
        if result.losses.device.type == "cpu":
            self.state()

    def state(self) -> dict[str, float]:
        """The sums so far.

        Raises:
            ValueError: if a loss is not finite.
        """
        for step, result in self._pending:
            self._count(step, result)
        self._pending.clear()
        return {**self._sums, "steps": float(self._steps)}

    def _count(self, step: int, result: StepResult) -> None:
        names = [
            term.replace("/", "/loss_", 1) if "/" in term else f"loss_{term}"
            for term in result.names
        ]
        values = dict(zip(names, result.losses.tolist(), strict=True))
        if not all(math.isfinite(value) for value in values.values()):
            listed = ", ".join(f"{name}={value:g}" for name, value in values.items())
            raise ValueError(
                f"the loss is not finite at step {step} ({listed}): lower schedule.optimizer.lr, "
                "set schedule.clip_grad_norm, "
                "lengthen schedule.rate.warmup, or check the annotations of the data"
            )
        values["loss"] = sum(values.values())
        # fp16 may overflow: that step is skipped
        if result.grad_norm is not None and math.isfinite(norm := float(result.grad_norm)):
            values["grad_norm"] = norm
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1

    def flush(self) -> dict[str, float]:
        """The means, and ``time`` and ``data_time`` in seconds per step; then starts over."""
        self.state()
        means = {name: value / self._steps for name, value in self._sums.items()}
        now = time.perf_counter()
        timed = max(1, self._timed)
        means |= {"data_time": self._data_s / timed, "time": (now - self._since) / timed}
        self._sums, self._steps, self._timed, self._data_s, self._since = {}, 0, 0, 0.0, now
        return means

    def pause(self, seconds: float) -> None:
        """Leaves out time that was not training (an evaluation)."""
        self._since += seconds
