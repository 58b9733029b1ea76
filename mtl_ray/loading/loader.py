"""Shards -> Batch: the samples in the computed order, decoded by threads ahead of need, put on the
network's canvas.

The sequence of batches depends on the data, the config and the seed alone, not on threads,
processes or the world's size; the cursor, one integer, says where in it the loader is.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from mtl_ray.loading.batch import Batch
from mtl_ray.loading.collate import BatchSlot, Collator, InputBuffers
from mtl_ray.loading.config import DataConfig
from mtl_ray.loading.plan import BatchPlan, plan_batch
from mtl_ray.loading.prepare import FurtherFields, Preparer
from mtl_ray.loading.reader import Address, Reader
from mtl_ray.loading.scene import InvalidSample

_log = logging.getLogger(__name__)
_BEING_MADE = 3
"""Batches that threads work on, the one that comes next among them."""
_NAMED = 8
"""Batches whose addresses are known ahead, so that their blocks can be brought near."""


class BadSamplesError(ValueError):
    """More samples could not be read than ``data.max_bad`` allows."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A batch whose slots are being filled."""

    buffers: InputBuffers
    parts: list[Future[list[BatchSlot]]]


class Loader:
    """Endless batches of one training split.

    Attributes:
        vocabulary: of all URIs together.
        samples_per_epoch: over all ranks.
        cursor: samples that all ranks together have consumed; where the next batch starts.
        bad: the keys of samples that could not be read, with the reason.
        closed_from: the cursor of the first batch without the transforms that ``data.close_mosaic``
            switches off; None if all batches have them.
    """

    def __init__(
        self,
        data: DataConfig,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        cursor: int = 0,
        fields: FurtherFields | None = None,
    ) -> None:
        """Opens ``data.train``.

        Args:
            data: the whole section.
            seed: of the order and of the augmentation.
            rank: this process, from 0.
            world_size: processes that share each batch.
            cursor: where to go on, from a checkpoint.
            fields: by kind of annotation, further arrays that some head reads, such as masks.

        Raises:
            ValueError: if the splits cannot be read together, or the numbers do not fit.
        """
        self._data, self._seed = data, seed
        self._rank, self._world_size = rank, world_size
        self._reader = Reader(
            data.train, batch=data.batch, seed=seed, lanes=data.lanes, window=data.window
        )
        self._preparer = Preparer(data, self._reader, seed, fields or {})
        self.vocabulary = self._reader.vocabulary
        self._pinned = torch.cuda.is_available()
        self._collate = Collator(
            vocabulary=self.vocabulary,
            kinds=self._reader.kinds,
            fields=fields or {},
            pinned=self._pinned,
        )
        self.samples_per_epoch = self._reader.samples_per_epoch
        self.cursor = cursor
        self.bad: dict[str, str] = {}
        self.closed_from: int | None = None
        self._addresses(cursor)  # what does not fit together is said now, not in the first step

    @property
    def pins(self) -> Mapping[str, Any]:
        """What a checkpoint keeps beside the cursor (JSON values): under other pins the cursor
        means other samples.
        """
        return self._reader.pins

    def close_mosaic(self) -> int:
        """Leaves out the transforms that ``data.close_mosaic`` switches off, from the first batch
        on that is not begun yet.

        Every rank must call it after the same batch.

        Returns:
            ``closed_from``, which a loader that goes on in its place must get.
        """
        first = self.cursor + _BEING_MADE * self._data.batch
        self.closed_from = first if self.closed_from is None else min(self.closed_from, first)
        return self.closed_from

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the cursor on; ``cursor`` moves when one is given. The threads end with the
        iterator.

        Raises:
            BadSamplesError: if too many samples could not be read.
            ValueError: if a shard is damaged.
        """
        pool = ThreadPoolExecutor(self._data.threads, thread_name_prefix="loader")
        try:
            named = deque(
                self._addresses(self.cursor + step * self._data.batch) for step in range(_NAMED)
            )
            being_made = deque(
                self._begin(pool, self.cursor + step * self._data.batch, named[step])
                for step in range(_BEING_MADE)
            )
            while True:
                batch = self._finish(being_made.popleft())
                named.popleft()
                named.append(self._addresses(self.cursor + _NAMED * self._data.batch))
                following = self.cursor + _BEING_MADE * self._data.batch
                being_made.append(self._begin(pool, following, named[_BEING_MADE - 1]))
                self.cursor += self._data.batch
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _addresses(self, cursor: int) -> list[Address]:
        return self._reader.addresses(cursor, self._rank, self._world_size, self._preparer.partners)

    def _begin(self, pool: ThreadPoolExecutor, cursor: int, addresses: list[Address]) -> _Pending:
        closed = self.closed_from is not None and cursor >= self.closed_from
        plan = plan_batch(self._data, self._seed, cursor // self._data.batch, closed=closed)
        buffers = InputBuffers(len(addresses), plan.canvas, pinned=self._pinned)
        run = max(1, min(8, len(addresses) // (2 * self._data.threads)))
        starts = range(0, len(addresses), run)
        return _Pending(
            buffers,
            [
                pool.submit(self._fill, buffers, plan, start, addresses[start : start + run])
                for start in starts
            ],
        )

    def _fill(
        self, buffers: InputBuffers, plan: BatchPlan, start: int, addresses: list[Address]
    ) -> list[BatchSlot]:
        slots = []
        for index, address in enumerate(addresses, start):
            prepared = self._preparer.prepare(address, plan)
            if prepared.scene is None:
                slot = buffers.leave_empty(index, prepared.key)
            else:
                slot = buffers.fill(
                    index, prepared.key, prepared.scene, plan.canvases[address.where[0]]
                )
            slots.append(replace(slot, invalid=prepared.invalid) if prepared.invalid else slot)
        return slots

    def _finish(self, pending: _Pending) -> Batch:
        slots = [slot for part in pending.parts for slot in part.result()]
        for slot in slots:
            for sample in slot.invalid:
                self._count_bad(sample)
        return self._collate(pending.buffers, slots)

    def _count_bad(self, sample: InvalidSample) -> None:
        """Counts a sample once, however often it comes."""
        if sample.key in self.bad:
            return
        self.bad[sample.key] = sample.reason
        _log.warning("sample %s is left out: %s", sample.key, sample.reason)
        if len(self.bad) > self._data.max_bad:
            named = "; ".join(f"{key}: {reason}" for key, reason in list(self.bad.items())[:5])
            raise BadSamplesError(
                f"{len(self.bad)} samples could not be read, data.max_bad allows "
                f"{self._data.max_bad}: {named}"
            )
