"""ASGI (https://asgi.readthedocs.io): headers, bodies within a limit, work that ends in time or
with its client, and the start and end of a server.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any, TypeVar

from mtl_ray.serving.reply import RequestError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Result = TypeVar("Result")

DRAIN_BYTES = 64_000_000
"""Most bytes beyond the limit that are read and dropped: many clients read the answer only after
they have sent the whole body.
"""


def header_text(scope: Mapping[str, Any], name: bytes) -> str:
    """The value of a header as text; empty if it is not there."""
    return header_of(scope, name).decode("latin-1")


def header_of(scope: Mapping[str, Any], name: bytes) -> bytes:
    """The value of a header, whose name is in lower case; empty if it is not there."""
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")


async def read_whole(
    scope: Mapping[str, Any], receive: Receive, limit: int, too_large: str
) -> bytes:
    """The body of a request.

    Args:
        scope: of the request.
        receive: gives the parts of the body.
        limit: most bytes; a little more is read and dropped.
        too_large: the sentence for larger ones.

    Raises:
        RequestError: 413 if it is larger, 400 if it ends too early.
    """
    stated = header_of(scope, b"content-length")
    if stated.isdigit() and int(stated) > limit + DRAIN_BYTES:
        raise RequestError(413, too_large)
    chunks: list[bytes] = []
    size, more = 0, True
    while more and size <= limit + DRAIN_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "the body ended too early")
        chunk = message.get("body", b"")
        size, more = size + len(chunk), message.get("more_body", False)
        if size <= limit:
            chunks.append(chunk)
    if size > limit:
        raise RequestError(413, too_large)
    return b"".join(chunks)


async def in_time(
    work: Coroutine[Any, Any, Result], deadline: float, status: int, message: str
) -> Result:
    """The result of some work, or a RequestError if there is none at the deadline of the event
    loop's clock.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise RequestError(status, message) from None


async def while_connected(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    """The result of some work, which is cancelled when its client disconnects.

    The work runs in the task of the request itself: a task of its own would cost every request
    several turns of the event loop.
    """
    task = asyncio.current_task()
    assert task is not None
    running, lost = True, False

    def stop(_: object) -> None:
        nonlocal lost
        if running:
            lost = True
            task.cancel()

    disconnected = asyncio.ensure_future(_disconnected(receive))
    disconnected.add_done_callback(stop)
    try:
        return await work
    except asyncio.CancelledError:
        if not lost:
            raise
        task.uncancel()
        raise RequestError(400, "the client disconnected before the answer") from None
    finally:
        running = False
        disconnected.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def lifespan(receive: Receive, send: Send, end: Callable[[], Awaitable[None]]) -> None:
    """Acknowledges the start and end of the server; ``end`` is awaited before its end."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await end()
    await send({"type": "lifespan.shutdown.complete"})
