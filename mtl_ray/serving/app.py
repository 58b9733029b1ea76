"""HTTP for a ``Service``: routes, and the limits of a request.

It is plain ASGI (https://asgi.readthedocs.io), so that a body can be refused before it is read.
Every error is one sentence as JSON.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.serving.batch_workers import BatchWorkers
from mtl_ray.serving.bodies import body_limit, is_plain, read_body
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.openapi import openapi_document
from mtl_ray.serving.reply import (
    JSON,
    Reply,
    RequestError,
    as_json,
    cors_headers,
    join_replies,
    preflight_headers,
)
from mtl_ray.serving.service import PredictionRequest, Service

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Result = TypeVar("Result")

RETRY_AFTER_S = 1
DRAIN_BYTES = 64_000_000
"""Most bytes beyond the limit that are read and dropped: many clients read the answer only after
they have sent the whole body.
"""
PAGES = ("/", "/docs", "/openapi.json", "/ping", "/models")
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src "
    "'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_log = logging.getLogger(__name__)


class App:
    """An ASGI application.

    Args:
        service: makes the answers.
        config: limits.
        parallel: concurrent calls of each model.
        api_key: the key that ``/models`` and ``/predictions`` require as ``Authorization: Bearer``;
            None for no key.
    """

    def __init__(
        self, service: Service, config: ServeConfig, parallel: int, api_key: str | None = None
    ) -> None:
        self.service = service
        self.config = config
        self.api_key = api_key
        self.limit = config.max_queued + parallel
        self.workers: dict[str, BatchWorkers[PredictionRequest, Reply]] = {
            name: BatchWorkers(partial(service.replies, name), parallel, config.max_batch, name)
            for name in service.predictors
        }
        self.active = 0

    def close(self) -> None:
        """Ends the threads of all models."""
        for workers in self.workers.values():
            workers.close()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """One connection of the ASGI server: a request, or the start and end of the application."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            reply = await self._reply(scope, receive)
            headers = {
                **reply.headers,
                **cors_headers(_text(scope, b"origin"), self.config.cors_origins),
            }
            head = [
                (b"content-type", reply.type.encode()),
                (b"content-length", str(len(reply.body)).encode()),
            ]
            head += [
                (name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()
            ]
            await send({"type": "http.response.start", "status": reply.status, "headers": head})
            await send({"type": "http.response.body", "body": reply.body})

    async def _reply(self, scope: Mapping[str, Any], receive: Receive) -> Reply:
        try:
            return await self._route(scope, receive)
        except RequestError as error:
            return error.reply
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            return RequestError(500, "the server failed on this request; its log says why").reply

    async def _route(self, scope: Mapping[str, Any], receive: Receive) -> Reply:
        path: str = scope["path"].rstrip("/") or "/"
        predicts = path.startswith("/predictions/")
        if not predicts and path not in PAGES:
            raise RequestError(404, f"there is nothing at {path}; see /docs")
        methods = ("POST", "PUT") if predicts else ("GET", "HEAD")
        if scope["method"] == "OPTIONS":
            return self._options(scope, (*methods, "OPTIONS"))
        _allow(scope, *methods)
        if predicts:
            self._check_key(scope)
            return await self._predict(path.removeprefix("/predictions/"), scope, receive)
        if path == "/models":
            self._check_key(scope)
            return as_json(self.service.models())
        if path == "/openapi.json":
            return as_json(openapi_document(self.service.predictors.values()))
        return (
            as_json({"status": "Healthy"})
            if path == "/ping"
            else _page("page.html" if path == "/" else "docs.html")
        )

    def _options(self, scope: Mapping[str, Any], methods: Sequence[str]) -> Reply:
        """The allowed methods and headers (CORS preflight), which a browser requests before a page
        of another site may send a key or JSON.
        """
        cors = preflight_headers(_text(scope, b"origin"), self.config.cors_origins, methods)
        return Reply(body=b"", status=200, headers={"Allow": ", ".join(methods), **cors})

    def _check_key(self, scope: Mapping[str, Any]) -> None:
        given = _header(scope, b"authorization")
        if self.api_key is not None and not hmac.compare_digest(
            given, b"Bearer " + self.api_key.encode()
        ):
            raise RequestError(
                401,
                "this server requires its key in the header Authorization: Bearer KEY",
                WWW_Authenticate="Bearer",
            )

    async def _predict(self, model: str, scope: Mapping[str, Any], receive: Receive) -> Reply:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        request = self.service.check_request(model, query, _text(scope, b"accept"))
        if (coding := _text(scope, b"content-encoding")) not in ("", "identity"):
            raise RequestError(415, f"the body is compressed ({coding}); send it as it is")
        if self.active >= self.limit:
            raise _too_many()
        self.active += 1
        try:
            deadline = asyncio.get_running_loop().time() + self.config.timeout_s
            data = await _in_time(
                self._body(scope, receive, model), deadline, 408, "the body did not arrive in time"
            )
            work = _while_connected(
                self._answer(model, request, data, _text(scope, b"content-type")), receive
            )
            del data  # the data of a refused or cancelled request is freed
            return await _in_time(
                work, deadline, 504, f"there was no answer within {self.config.timeout_s:g} s"
            )
        finally:
            self.active -= 1

    async def _answer(
        self, model: str, request: PredictionRequest, data: bytes, content_type: str
    ) -> Reply:
        """The reply to a body of one or several files; each file is queued as its own item."""
        kind = self.service.predictors[model].canvas.input
        if is_plain(data, content_type, kind):
            return await self.workers[model].submit(replace(request, file=data))
        body = await asyncio.to_thread(read_body, data, content_type, self.config, kind)
        del data
        workers = self.workers[model]
        if body.shape == "one":
            return await workers.submit(replace(request, file=body.files[0], id=body.ids[0]))
        more = len(body.files) - 1
        if self.active + more > self.limit and self.active > 1:
            raise _too_many()
        self.active += more
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        workers.submit(replace(request, file=file, id=name, accept=JSON))
                    )
                    for name, file in zip(body.ids, body.files, strict=True)
                ]
            return join_replies(
                [task.result() for task in tasks],
                "predictions" if body.shape == "predictions" else None,
            )
        finally:
            self.active -= more

    async def _body(self, scope: Mapping[str, Any], receive: Receive, model: str) -> bytes:
        kind = self.service.predictors[model].canvas.input
        limit = body_limit(_text(scope, b"content-type"), self.config)
        too_large = RequestError(
            413,
            f"the body is larger than the {self.config.max_body_bytes:,} bytes of {kind.noun}s "
            "that are allowed",
        )
        stated = _header(scope, b"content-length")
        if stated.isdigit() and int(stated) > limit + DRAIN_BYTES:
            raise too_large
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
            raise too_large
        if not size and not kind.empty_files:
            raise RequestError(
                400,
                f"the body is empty; send a file ({kind.noun}), as curl --data-binary @FILE does",
            )
        return b"".join(chunks)


def open_app(
    models: Mapping[str, str], config: ServeConfig, parallel: int, api_key: str | None
) -> App:
    """The application for bundles, by model name."""
    predictors = {
        name: BundlePredictor(
            uri, threads=config.threads, batch=config.max_batch, engine=config.engine
        )
        for name, uri in models.items()
    }
    return App(Service(predictors, config), config, parallel, api_key)


async def _in_time(
    work: Coroutine[Any, Any, Result], deadline: float, status: int, message: str
) -> Result:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise RequestError(status, message) from None


def _allow(scope: Mapping[str, Any], *methods: str) -> None:
    if scope["method"] not in methods:
        raise RequestError(
            405,
            f"{scope['path']} answers {' and '.join(methods)}, not {scope['method']}",
            Allow=", ".join(methods),
        )


async def _while_connected(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    """The result of some work, which is cancelled when its client disconnects."""
    task = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise RequestError(400, "the client disconnected before the answer")
    finally:
        task.cancel()
        disconnected.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_many() -> RequestError:
    return RequestError(
        503,
        "too many requests are waiting already; try again in a moment",
        Retry_After=str(RETRY_AFTER_S),
    )


def _text(scope: Mapping[str, Any], name: bytes) -> str:
    return _header(scope, name).decode("latin-1")


def _header(scope: Mapping[str, Any], name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")


@cache
def _page(name: str) -> Reply:
    return Reply(
        body=(files("mtl_ray.serving") / name).read_bytes(),
        type="text/html; charset=utf-8",
        headers=PAGE_HEADERS,
    )


async def _lifespan(receive: Receive, send: Send) -> None:
    """Acknowledges the start and end of the server."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
