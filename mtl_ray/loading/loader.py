"""Shards -> Batch: the samples in the computed order, decoded by threads ahead of need, put on the network's canvas.

The sequence of batches depends on the data, the config and the seed alone, not on threads, processes or the world's size; the
cursor, one integer, says where in it the loader is.
"""

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from mtl_ray.loading.batch import Batch
from mtl_ray.loading.collate import Canvases, Slot, collate
from mtl_ray.loading.config import DataConfig
from mtl_ray.loading.reader import Address, Reader
from mtl_ray.loading.scene import scene_of

_log = logging.getLogger(__name__)
_AHEAD = 2
"""Batches that are being made while one is used."""


class BadSamplesError(ValueError):
    """More samples could not be read than ``data.max_bad`` allows."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A batch whose slots are being filled."""

    canvases: Canvases
    parts: list[Future[list[Slot]]]


class Loader:
    """Endless batches of one training split.

    Attributes:
        vocabulary: of all URIs together.
        samples_per_epoch: over all ranks.
        cursor: samples that all ranks together have consumed; where the next batch starts.
        bad: the keys of samples that could not be read, with the reason.
    """

    def __init__(self, data: DataConfig, seed: int = 0, rank: int = 0, world_size: int = 1, cursor: int = 0) -> None:
        """Opens ``data.train``.

        Args:
            data: the whole section.
            seed: of the order and of the augmentation.
            rank: this process, from 0.
            world_size: processes that share each batch.
            cursor: where to go on, from a checkpoint.

        Raises:
            ValueError: if the splits cannot be read together.
        """
        self._data = data
        self._rank, self._world_size = rank, world_size
        self._reader = Reader(data.train, batch=data.batch, seed=seed, lanes=data.lanes, window=data.window)
        self.vocabulary = self._reader.vocabulary
        self.samples_per_epoch = self._reader.sequence.samples_per_epoch
        self.cursor = cursor
        self.bad: dict[str, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the cursor on. The threads end with the iterator."""
        pool = ThreadPoolExecutor(self._data.threads, thread_name_prefix="loader")
        pending: deque[_Pending] = deque()
        ahead = self.cursor
        try:
            while True:
                while len(pending) <= _AHEAD:
                    pending.append(self._begin(pool, ahead))
                    ahead += self._data.batch
                batch = self._finish(pending.popleft())
                self.cursor += self._data.batch
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, cursor: int) -> _Pending:
        addresses = self._reader.addresses(cursor, self._rank, self._world_size)
        canvases = Canvases(
            len(addresses), self._data.canvas, semantic="semantic" in self.vocabulary.classes, pinned=torch.cuda.is_available()
        )
        run = max(1, min(8, len(addresses) // (2 * self._data.threads)))
        parts = [pool.submit(self._fill, canvases, start, addresses[start : start + run]) for start in range(0, len(addresses), run)]
        return _Pending(canvases, parts)

    def _fill(self, canvases: Canvases, start: int, addresses: list[Address]) -> list[Slot]:
        return [self._fill_slot(canvases, slot, address) for slot, address in enumerate(addresses, start)]

    def _fill_slot(self, canvases: Canvases, slot: int, address: Address) -> Slot:
        sample = self._reader.sample(address.source, address.block, address.row)
        try:
            scene = scene_of(sample, self._reader.recodings[address.source], self.vocabulary.classes, self._data.max_pixels)
        except ValueError as error:
            return canvases.leave_empty(slot, sample.key, str(error))
        return canvases.fill(slot, sample.key, scene)

    def _finish(self, pending: _Pending) -> Batch:
        slots = [slot for part in pending.parts for slot in part.result()]
        for slot in slots:
            if slot.fault is not None:
                self._count_bad(slot.key, slot.fault)
        return collate(pending.canvases, slots, self.vocabulary)

    def _count_bad(self, key: str, fault: str) -> None:
        if key in self.bad:
            return
        self.bad[key] = fault
        _log.warning("sample %s is left out: %s", key, fault)
        if len(self.bad) > self._data.max_bad:
            listed = "; ".join(f"{key}: {reason}" for key, reason in list(self.bad.items())[:5])
            raise BadSamplesError(f"{len(self.bad)} samples could not be read, data.max_bad allows {self._data.max_bad}: {listed}")
