"""Work in threads: what is cancelled leaves the queue at once, and nothing of it is kept."""

import asyncio
import gc
import socket
import threading
import weakref
from collections.abc import Callable, Sequence

import pytest

from mtl_ray.serving.batch_workers import SHORT_S, BatchWorkers
from tests.serving.server import running
from tests.serving.test_app import held_app
from tests.serving.test_held import Clock


class Item:
    """Something that can be looked at weakly."""


def test_cancelled_work_leaves_the_queue_with_its_item() -> None:
    begun, go = threading.Event(), threading.Event()
    worked: list[int] = []

    def work(items: Sequence[Item]) -> Sequence[int]:
        begun.set()
        assert go.wait(20)
        worked.append(len(items))
        return [1] * len(items)

    async def cancel() -> None:
        workers: BatchWorkers[Item, int] = BatchWorkers(work, threads=1, max_batch=4, name="test")
        first = asyncio.create_task(workers.submit(Item()))
        assert await asyncio.to_thread(begun.wait, 20)
        items = [Item() for _ in range(50)]
        left = [weakref.ref(item) for item in items]
        tasks = [asyncio.create_task(workers.submit(item)) for item in items]
        del items
        await asyncio.sleep(0)
        assert len(workers) == 50
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks[1:], return_exceptions=True)
        assert len(workers) == 1
        gc.collect()
        assert sum(ref() is not None for ref in left) == 1, "the item that still waits"
        go.set()
        assert [await first, await tasks[0]] == [1, 1]
        workers.close()

    asyncio.run(cancel())
    assert worked == [1, 1]


def test_a_thread_that_waits_keeps_nothing_of_its_last_work() -> None:
    async def one() -> None:
        workers: BatchWorkers[Item, Item] = BatchWorkers(
            lambda items: [Item() for _ in items], threads=1, max_batch=4, name="test"
        )
        item = Item()
        seen = weakref.ref(item)
        result = weakref.ref(await workers.submit(item))
        del item
        for _ in range(2000):  # until the thread has come back to its queue
            gc.collect()
            if seen() is None and result() is None:
                break
            await asyncio.sleep(0.01)
        assert seen() is None
        assert result() is None
        workers.close()

    asyncio.run(one())


def test_one_item_that_fails_spoils_only_its_own_result() -> None:
    begun, go = threading.Event(), threading.Event()

    def work(items: Sequence[int]) -> Sequence[int]:
        begun.set()
        assert go.wait(20)
        return [6 // item for item in items]

    async def several() -> list[int | BaseException]:
        workers: BatchWorkers[int, int] = BatchWorkers(work, threads=1, max_batch=8, name="test")
        tasks = [asyncio.create_task(workers.submit(1))]
        assert await asyncio.to_thread(begun.wait, 20)
        tasks += [asyncio.create_task(workers.submit(item)) for item in (1, 0, 3)]
        await asyncio.sleep(0)
        go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        workers.close()
        return found

    first, second, third, fourth = asyncio.run(several())
    assert (first, second, fourth) == (6, 6, 2)
    assert isinstance(third, ZeroDivisionError)


def test_a_call_without_a_thread_has_the_result_or_error_of_one() -> None:
    done: list[str] = []
    clock = Clock()

    def work(items: Sequence[int]) -> Sequence[int]:
        done.append(threading.current_thread().name)
        clock.now += 2 * SHORT_S if items == [1] else 0
        return [6 // item for item in items]

    def after() -> None:
        done.append("after")

    async def several() -> None:
        workers: BatchWorkers[int, int] = BatchWorkers(
            work, threads=1, max_batch=8, name="test", after=after, clock=clock
        )
        assert not workers.short, "nothing is known yet"
        assert await workers.submit(2) == 3
        await asyncio.to_thread(_until, lambda: workers.short)
        assert workers.call(3) == 2
        assert done == ["test-0", "after", "MainThread"], "the result comes first"
        await asyncio.sleep(0)
        assert done[3:] == ["after"]
        with pytest.raises(ZeroDivisionError):
            workers.call(0)
        assert workers.short
        assert workers.call(1) == 6
        assert not workers.short, "the last call took long"
        workers.close()

    asyncio.run(several())


def test_threads_at_work_are_not_short() -> None:
    begun, go = threading.Event(), threading.Event()

    def work(items: Sequence[int]) -> Sequence[int]:
        if items == [2]:
            begun.set()
            assert go.wait(20)
        return items

    async def two() -> None:
        workers: BatchWorkers[int, int] = BatchWorkers(
            work, threads=1, max_batch=8, name="test", clock=Clock()
        )
        await workers.submit(1)
        await asyncio.to_thread(_until, lambda: workers.short)
        running = asyncio.create_task(workers.submit(2))
        assert await asyncio.to_thread(begun.wait, 20)
        assert not workers.short
        go.set()
        await running
        workers.close()

    asyncio.run(two())


def test_counting_that_fails_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    def after() -> None:
        raise OSError("the disk of the counts is gone")

    async def several() -> list[int]:
        workers: BatchWorkers[int, int] = BatchWorkers(
            lambda items: items, threads=1, max_batch=8, name="test", after=after
        )
        found = [await workers.submit(1), workers.call(2), await workers.submit(3)]
        workers.close()
        return found

    assert asyncio.run(several()) == [1, 2, 3]
    assert caplog.text.count("OSError: the disk of the counts is gone") == 3


@pytest.mark.parametrize("count", [50])
def test_clients_that_hang_up_leave_the_queue(
    bundle: Callable[..., str], picture: bytes, count: int
) -> None:
    app, held = held_app(bundle("boxes"), max_queued=100)
    head = (
        f"POST /predictions/boxes HTTP/1.1\r\nHost: test\r\nContent-Length: {len(picture)}\r\n\r\n"
    ).encode()
    with running(app) as port:
        clients = []
        for _ in range(count + 1):
            clients.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            clients[-1].sendall(head + picture)
        assert held.begun.wait(20)
        _until(lambda: len(app.limits.current.workers["boxes"]) == count)
        for client in clients:
            client.close()
        _until(lambda: len(app.limits.current.workers["boxes"]) == 0 and app.limits.held.count == 0)
        held.go.set()
    app.close()
    assert held.batches == [1]


def _until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come to that")
