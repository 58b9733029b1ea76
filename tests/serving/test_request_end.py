"""What ends the work of a request: its deadline, its client, or others."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from mtl_ray.serving.asgi import RequestEnd
from mtl_ray.serving.reply import RequestError


def error(status: int) -> RequestError:
    return RequestError(status, "too late")


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_the_error_at_the_deadline_is_the_last_one_given() -> None:
    async def work() -> None:
        with RequestEnd(0, lambda: error(408)) as end:
            end.late = lambda: error(504)
            await for_ever()

    with pytest.raises(RequestError) as found:
        asyncio.run(work())
    assert found.value.status == 504


def test_work_ends_with_its_client() -> None:
    async def gone() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def work() -> None:
        with RequestEnd(100, lambda: error(504)) as end:
            end.watch(gone)
            await for_ever()

    with pytest.raises(RequestError, match="the client disconnected"):
        asyncio.run(work())


def test_a_task_that_others_cancel_stays_cancelled() -> None:
    async def both() -> bool:
        begun = asyncio.Event()

        async def work() -> None:
            with RequestEnd(100, lambda: error(504)) as end:
                begun.set()
                try:
                    await for_ever()
                finally:
                    end._at_deadline()  # at the same time

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(both())


def test_after_the_work_nothing_ends_it() -> None:
    async def work() -> str:
        with RequestEnd(0, lambda: error(504)):
            pass
        with pytest.raises(KeyError), RequestEnd(0, lambda: error(504)):
            raise KeyError
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "done"

    assert asyncio.run(work()) == "done"
