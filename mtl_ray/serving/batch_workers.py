"""Worker threads of one model with a queue, so that the event loop is not blocked.

Requests that wait while all threads are busy are processed in one batch, up to a limit. A request
never waits for a batch to fill.

A lone request may do without a thread: to wake another core, and this one again for the answer,
costs about a millisecond.
"""

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
SHORT_S = 0.05
"""For how long a call may hold up the event loop."""


class BatchWorkers(Generic[Item, Result]):
    """Runs ``work`` on batches of items in its own threads.

    Args:
        work: from items to as many results, in order; an exception is raised in the item's caller.
        threads: concurrent calls of ``work``.
        max_batch: most items of one call.
        name: of the threads.
        after: called when the results of a call have been given; its errors are logged only.
        clock: seconds.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        threads: int,
        max_batch: int,
        name: str,
        after: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._work = work
        self._after = after
        self._clock = clock
        self._max_batch = max_batch
        self._waiting: OrderedDict[asyncio.Future[Result], Item] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._busy = 0
        self._last_s = math.inf
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Number of items in the queue."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Result:
        """The result for one item. If the caller is cancelled while it waits, its item leaves the
        queue at once.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._changed:
            self._waiting[future] = item
            self._changed.notify()
        del item
        try:
            return await future
        finally:
            with self._changed:
                self._waiting.pop(future, None)

    @property
    def short(self) -> bool:
        """Whether no thread is at work, and the last call was a short one."""
        return self._busy == 0 and self._last_s <= SHORT_S

    def call(self, item: Item) -> Result:
        """The result for one item, computed in the caller's thread, that of the event loop."""
        (result,) = self._results([item])
        asyncio.get_running_loop().call_soon(self._end)
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """Ends the threads after what they are doing now."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """Processes the next items; False when closed. As a separate call, so that a waiting thread
        holds no reference to the last items.
        """
        batch = self._next()
        if not batch:
            return False
        results = self._results([item for _, item in batch])
        for (future, _), result in zip(batch, results, strict=True):
            _give(future, result)
        self._end()
        with self._changed:
            self._busy -= 1
        return True

    def _end(self) -> None:
        if self._after is not None:
            try:
                self._after()
            except Exception:
                _log.exception("counting what was answered failed")

    def _results(self, items: Sequence[Item]) -> list[Result | Exception]:
        """A result for each item. If a batch fails, each item is tried alone, so that an item can
        only spoil its own result.
        """
        start = self._clock()
        try:
            results: list[Result | Exception] = list(self._work(items))
        except Exception as error:
            return (
                [error]
                if len(items) == 1
                else [result for item in items for result in self._results([item])]
            )
        self._last_s = self._clock() - start
        return results

    def _next(self) -> list[tuple["asyncio.Future[Result]", Item]]:
        """The next items; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            self._busy += 1
            return [
                self._waiting.popitem(last=False)
                for _ in range(min(len(self._waiting), self._max_batch))
            ]


def _give(future: "asyncio.Future[Result]", result: Result | Exception) -> None:
    with suppress(RuntimeError):  # the loop is closed: the server has ended
        future.get_loop().call_soon_threadsafe(_settle, future, result)


def _settle(future: "asyncio.Future[Result]", result: Result | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
