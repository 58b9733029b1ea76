"""One optimiser step over a batch that is spread over ranks and micro-batches."""

import hashlib
import struct
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtl_ray.loading.batch import Batch
from mtl_ray.models.head import Term
from mtl_ray.training.config import RuntimeConfig, ScheduleConfig
from mtl_ray.training.context import RunContext
from mtl_ray.training.gradients import Gradients
from mtl_ray.training.statistics import Statistics

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a step measured, over all ranks; tensors stay on the device, so that nothing waits for it.

    Attributes:
        names: the loss terms.
        losses: float64 (K,), each term's sum divided by its count.
        grad_norm: scalar, before clipping; None without clipping.
    """

    names: tuple[str, ...]
    losses: Tensor
    grad_norm: Tensor | None


class Step:
    """Forward, backward, the sum over ranks, clipping and the optimiser.

    The gradient is that of the sum over terms of (sum over all samples of the batch / count over all samples of the batch), so
    it does not depend on how many ranks and micro-batches share the work, as long as the network treats samples one by one
    (batch normalisation does not, unless it is synchronised).
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: ScheduleConfig, runtime: RuntimeConfig, context: RunContext
    ) -> None:
        self.model, self.optimizer, self.context = model, optimizer, context
        self.seed, self.dtype = runtime.seed, DTYPES[runtime.precision]
        self.accumulate, self.clip_grad_norm = schedule.accumulate, schedule.clip_grad_norm
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.gradients = Gradients(learning, context.world_size, overlap=not runtime.sync_bn)
        self.statistics = Statistics(model, 1 if runtime.sync_bn else context.world_size)
        self.scaler = torch.amp.GradScaler(context.device.type, enabled=runtime.precision == "fp16")

    def __call__(self, batch: Batch, step: int) -> Outcome:
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
                self.statistics.share()
                self.gradients.arm()
            loss = sum(
                (terms[name][0] / divisors[k].to(terms[name][0].dtype) for k, name in enumerate(names)),
                start=torch.zeros((), device=counts.device),
            )
            torch.autograd.backward(self.scaler.scale(loss))
            terms = None
        self.gradients.wait()
        self.statistics.wait()
        return Outcome(names=names, losses=totals[: len(names)] / divisors, grad_norm=self._update())

    def _parts(self, batch: Batch) -> list[Batch]:
        size = len(batch)
        if size < self.accumulate:
            raise ValueError(
                f"rank {self.context.rank} has {size} samples of each batch, too few for schedule.accumulate={self.accumulate}; "
                "make data.batch larger or accumulate less"
            )
        edges = [i * size // self.accumulate for i in range(self.accumulate + 1)]
        return [batch[a:b].to(self.context.device) for a, b in pairwise(edges)]

    def _forward(self, part: Batch, step: int, number: int) -> Mapping[str, Term]:
        """The loss terms; dropout and the like depend on nothing but seed, step, rank and micro-batch."""
        torch.manual_seed(_key(self.seed, step, self.context.rank, number))
        with self._precision():
            terms: Mapping[str, Term] = self.model(part, step)
        return terms

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.context.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    @torch.no_grad()
    def _rehearse(self, parts: list[Batch], step: int) -> list[Mapping[str, Term]]:
        """The terms of all micro-batches: their counts must be known before the first backward, which costs a forward more."""
        with self.statistics.untouched():
            return [self._forward(part, step, number) for number, part in enumerate(parts)]

    def _totals(self, parts: list[Mapping[str, Term]]) -> tuple[tuple[str, ...], Tensor]:
        """Names of the K terms, and their sums and counts over micro-batches and ranks, float64 (2 K,)."""
        names = tuple(parts[0])
        rows = [[terms[name][side].detach().double() for side in (0, 1) for name in names] for terms in parts]
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
    return int.from_bytes(hashlib.blake2b(struct.pack(f"{len(numbers)}q", *numbers), digest_size=8).digest(), "little", signed=True)
