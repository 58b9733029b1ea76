"""ASGI (https://asgi.readthedocs.io): headers, bodies within a limit, work that ends in time or
with its client, and the start and end of a server.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Self

from mtl_ray.serving.reply import RequestError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREDICTIONS = "/predictions/"
"""Begins the address of a model."""
ALONE_HEADER = "x-mtl-ray-alone"
"""The proxy sets it to ``?1`` for a request that arrives while there is no other. From anyone else
it does no harm: other requests then wait for one short call.
"""
ALONE = (ALONE_HEADER.encode(), b"?1")
_HEADERS = "mtl_ray.headers"
DRAIN_BYTES = 64_000_000
"""Most bytes beyond the limit that are read and dropped: many clients read the answer only after
they have sent the whole body.
"""


def with_headers(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The scope of a request, for ``header_of``: of headers with the same name the first counts."""
    return {**scope, _HEADERS: dict(reversed(scope["headers"]))}


def header_text(scope: Mapping[str, Any], name: bytes) -> str:
    """The value of a header as text; empty if it is not there."""
    return header_of(scope, name).decode("latin-1")


def header_of(scope: Mapping[str, Any], name: bytes) -> bytes:
    """The value of a header, whose name is in lower case; empty if it is not there."""
    value: bytes = scope[_HEADERS].get(name, b"")
    return value


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


class RequestEnd:
    """Cancels the work of a request, in a ``with`` block, at a deadline, or when its client
    disconnects.

    The work runs in the task of the request itself: a task of its own would cost every request
    several turns of the event loop. ``asyncio.timeout`` takes longer than all of this.

    Args:
        seconds: until the deadline.
        late: gives the error at the deadline; it may be replaced while the work goes on.

    Raises:
        RequestError: at the end of the block, if the work was cancelled.
    """

    def __init__(self, seconds: float, late: Callable[[], RequestError]) -> None:
        self.late = late
        self._seconds = seconds
        self._running = False
        self._error: RequestError | None = None
        self._client: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelled_before = task, task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._at_deadline)
        self._running = True
        return self

    def watch(self, receive: Receive) -> None:
        """Cancels the work when the client disconnects, which has sent its whole body."""
        self._client = asyncio.ensure_future(_disconnected(receive))
        self._client.add_done_callback(self._without_client)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._running = False
        self._timer.cancel()
        if self._client is not None:
            self._client.cancel()
        if self._error is not None:
            by_others = self._task.uncancel() > self._cancelled_before
            if kind is asyncio.CancelledError and not by_others:
                raise self._error from None

    def _at_deadline(self) -> None:
        self._cancel(self.late())

    def _without_client(self, _: object) -> None:
        if self._running:
            self._cancel(RequestError(400, "the client disconnected before the answer"))

    def _cancel(self, error: RequestError) -> None:
        if self._error is None:
            self._error = error
            self._task.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def lifespan(receive: Receive, send: Send, end: Callable[[], Awaitable[None]]) -> None:
    """Acknowledges the start and end of the server; ``end`` is awaited before its end."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await end()
    await send({"type": "lifespan.shutdown.complete"})
