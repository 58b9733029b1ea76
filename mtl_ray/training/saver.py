"""Makes checkpoints while training goes on."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch.utils._pytree import tree_map

_log = logging.getLogger(__name__)


class Saver:
    """One thread that writes, one checkpoint at a time.

    A write that fails does not end the run: it is said, and the next checkpoint is another chance; only the last must succeed.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._last: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Writes in the background; waits first until the one before is done."""
        self._settle()
        self._last = self._pool.submit(write)

    def _settle(self) -> None:
        if self._last is None:
            return
        try:
            self._last.result()
        except OSError as error:
            _log.warning("a checkpoint could not be written, training goes on: %s", error)

    def finish(self) -> None:
        """Waits for the last one.

        Raises:
            OSError: if it could not be written.
        """
        if self._last is not None:
            self._last.result()

    def close(self) -> None:
        """Ends the thread, after the write that is under way."""
        self._pool.shutdown(wait=True)


def frozen(tree: Any) -> Any:
    """A copy on the CPU of all tensors in nested dicts and lists, which training cannot change any more."""
    return tree_map(lambda leaf: leaf.detach().to("cpu", copy=True) if isinstance(leaf, torch.Tensor) else leaf, tree)
