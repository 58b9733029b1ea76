"""Threads that do the work of one model, so that the event loop stays free.

Requests that wait while a thread is busy go through the network together, up to a limit: batches form under load by
themselves, and nobody waits for a batch to fill.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    result: "asyncio.Future[Result]"
    loop: asyncio.AbstractEventLoop


class Lanes(Generic[Item, Result]):
    """Runs ``work`` on lists of items in threads of its own.

    Args:
        work: from items to as many results, in order; an exception is given to each item's caller.
        threads: how many calls of ``work`` may run at the same moment.
        max_batch: most items of one call.
        name: of the threads.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]], threads: int, max_batch: int, name: str) -> None:
        self._work = work
        self._max_batch = max_batch
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    async def do(self, item: Item) -> Result:
        """The result for one item. A caller that is cancelled while it waits leaves the queue."""
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Result] = _Waiting(item, loop.create_future(), loop)
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify()
        return await waiting.result

    def close(self) -> None:
        """Ends the threads after what they are doing now."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while batch := self._next():
            try:
                results = self._work([waiting.item for waiting in batch])
            except Exception as error:
                for waiting in batch:
                    _give(waiting, None, error)
            else:
                for waiting, result in zip(batch, results, strict=True):
                    _give(waiting, result, None)

    def _next(self) -> list[_Waiting[Item, Result]]:
        """The next items whose callers still wait; empty when closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return []
                batch: list[_Waiting[Item, Result]] = []
                while self._waiting and len(batch) < self._max_batch:
                    waiting = self._waiting.popleft()
                    if not waiting.result.cancelled():
                        batch.append(waiting)
                if batch:
                    return batch


def _give(waiting: _Waiting[Item, Result], result: Result | None, error: Exception | None) -> None:
    with suppress(RuntimeError):  # the loop is closed: the server has ended, and nobody waits any more
        waiting.loop.call_soon_threadsafe(_settle, waiting.result, result, error)


def _settle(future: "asyncio.Future[Result]", result: Result | None, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)  # type: ignore[arg-type]
