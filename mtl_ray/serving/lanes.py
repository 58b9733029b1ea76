"""Threads that do the work of one model, so that the event loop stays free.

Requests that wait while a thread is busy go through the network together, up to a limit: batches
form under load by themselves, and nobody waits for a batch to fill.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchWorkers(Generic[Item, Result]):
    """Runs ``work`` on lists of items in threads of its own.

    Args:
        work: from items to as many results, in order; an exception is given to the item's caller.
        threads: how many calls of ``work`` may run at the same moment.
        max_batch: most items of one call.
        name: of the threads.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]], threads: int, max_batch: int, name: str) -> None:
        self._work = work
        self._max_batch = max_batch
        self._waiting: OrderedDict[asyncio.Future[Result], Item] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """How many items wait for a thread."""
        return len(self._waiting)

    async def do(self, item: Item) -> Result:
        """The result for one item. A caller that is cancelled while it waits leaves the queue at
        once, and its item with it.
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
        """Works on the next items; a call of its own, so that a thread that waits keeps nothing of
        the last ones. False when closed.
        """
        batch = self._next()
        if not batch:
            return False
        outcomes = self._outcomes([item for _, item in batch])
        for (future, _), outcome in zip(batch, outcomes, strict=True):
            _give(future, outcome)
        return True

    def _outcomes(self, items: Sequence[Item]) -> list[Result | Exception]:
        """A result for each item; where they fail together each is tried alone, so that one spoils
        only its own.
        """
        try:
            return list(self._work(items))
        except Exception as error:
            return [error] if len(items) == 1 else [outcome for item in items for outcome in self._outcomes([item])]

    def _next(self) -> list[tuple["asyncio.Future[Result]", Item]]:
        """The next items; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            return [self._waiting.popitem(last=False) for _ in range(min(len(self._waiting), self._max_batch))]


def _give(future: "asyncio.Future[Result]", outcome: Result | Exception) -> None:
    with suppress(RuntimeError):  # the loop is closed: the server has ended, and nobody waits any more
        future.get_loop().call_soon_threadsafe(_settle, future, outcome)


def _settle(future: "asyncio.Future[Result]", outcome: Result | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
