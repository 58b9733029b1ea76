"""Writes checkpoints in the background."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Seconds between attempts to write a checkpoint; doubled each time."""
SLOW_S = 30.0
"""Seconds that training waits for a write in progress. One that fails or takes longer is replaced
by the next checkpoint."""
_log = logging.getLogger(__name__)


class NotSavedError(ValueError):
    """The last checkpoint of a run could not be written; the one before it is whole."""


class Saver:
    """One thread that writes, one checkpoint at a time.

    A write that fails (``OSError``: a bucket that does not answer, a full disk) does not end the
    run: it is logged and repeated during training until a newer checkpoint replaces it. Only the
    last must succeed.

    Args:
        patience_s: seconds after which the last one gives up.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._waiting: Callable[[], None] | None = None
        self._writing = self._failing = self._closed = False
        self._fault = ""
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="saver")
        self._thread.start()

    def submit(self, write: Callable[[], None]) -> None:
        """Writes in the background, after the write before unless that one fails.

        Raises:
            Exception: what an earlier write raised, unless it was an ``OSError``.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._idle() or self._failing, SLOW_S)
            self._raise()
            if self._waiting is not None:
                _log.warning(
                    "the checkpoint that could not be written is dropped: there is a newer one"
                )
            self._waiting = write
            self._changed.notify_all()

    def busy(self) -> bool:
        """Whether training would wait in ``submit``: a write is in progress and not failing."""
        with self._changed:
            return not self._idle() and not self._failing

    def _idle(self) -> bool:
        return self._error is not None or (self._waiting is None and not self._writing)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (write := self._next()) is not None:
            wait_s = FIRST_WAIT_S
            while not self._try(write, wait_s):
                with self._changed:
                    if self._changed.wait_for(
                        lambda: self._waiting is not None or self._closed, wait_s
                    ):
                        break
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closed)
            write, self._waiting = self._waiting, None
            self._writing = write is not None
            return write

    def _try(self, write: Callable[[], None], wait_s: float) -> bool:
        """True if there is nothing left to try."""
        try:
            write()
        except OSError as error:
            self._say(error, wait_s)
            return False
        except BaseException as error:  # of the run, not of the storage: the rank raises it
            self._error = error
        with self._changed:
            self._failing = False
        return True

    def _say(self, error: OSError, wait_s: float) -> None:
        with self._changed:
            self._failing, self._fault = True, str(error)
            self._changed.notify_all()
        _log.warning(
            "a checkpoint could not be written, training goes on and it is tried again in %g s: %s",
            wait_s,
            error,
        )

    def finish(self) -> None:
        """Waits until the last write is done.

        Raises:
            NotSavedError: if it could not be written for ``patience_s`` seconds.
            Exception: what a write raised, unless it was an ``OSError``.
        """
        until = time.monotonic() + self._patience_s
        with self._changed:
            while not self._idle():
                self._changed.wait(0.5)
                if self._failing and time.monotonic() > until:
                    raise NotSavedError(
                        f"the last checkpoint could not be written for {self._patience_s:g} s: "
                        f"{self._fault}. "
                        "Fix: make the storage writable and run the same command again: it resumes "
                        "from the checkpoint before"
                    )
            self._raise()

    def close(self) -> None:
        """Ends the thread, after the write in progress."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()


def frozen(tree: Any) -> Any:
    """The same nested dicts and lists with all tensors copied to the CPU, so that later steps do
    not change them.
    """
    return tree_map(
        lambda leaf: leaf.detach().to("cpu", copy=True) if isinstance(leaf, torch.Tensor) else leaf,
        tree,
    )
