"""HTTP for a ``Service``: routes, and the limits of a request.

It is plain ASGI (``asgi.py``), so that a body can be refused before it is read.
Every error is one sentence as JSON.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

from mtl_ray.serving.asgi import (
    Receive,
    Send,
    header_of,
    in_time,
    lifespan,
    read_whole,
    text_of,
    while_connected,
)
from mtl_ray.serving.bodies import OVERHEAD_BYTES, AnyInput, body_limit, is_plain, read_body
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.held import Held
from mtl_ray.serving.keys import ONLY_KEY, ApiKey, Gate
from mtl_ray.serving.metrics import Metrics, added, exposition, series
from mtl_ray.serving.openapi import openapi_document
from mtl_ray.serving.records import RequestLog, record_of, recorded
from mtl_ray.serving.reply import (
    JSON,
    Reply,
    RequestError,
    as_json,
    cors_headers,
    failed,
    join_replies,
    preflight_headers,
    quoted,
)
from mtl_ray.serving.report import Exchange, ReplicaReport, alone, statistics_reply
from mtl_ray.serving.service import PredictionRequest, Service
from mtl_ray.serving.v2_grpc import SERVICE, GrpcServer
from mtl_ray.serving.v2_routes import OpenInference
from mtl_ray.serving.versions import Generation, open_predictors

RETRY_AFTER_S = 1
PAGES = ("/", "/docs", "/openapi.json", "/ping", "/models", "/metrics")
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
        api_key: the key that all but the pages require as ``Authorization: Bearer``; None for no
            key.
        keys: several keys, by name.
        exchange: gives the reports of all replicas for that of this one.
    """

    def __init__(
        self,
        service: Service,
        config: ServeConfig,
        parallel: int,
        api_key: str | None = None,
        *,
        keys: Mapping[str, ApiKey] | None = None,
        exchange: Exchange = alone,
    ) -> None:
        self.v2 = OpenInference(self)
        self.current = Generation(service, config, parallel)
        self.gate = Gate(keys or ({} if api_key is None else {ONLY_KEY: ApiKey(key=api_key)}))
        self.metrics = Metrics()
        self.log = RequestLog(config.request_log)
        self.exchange = exchange
        self.held = Held()

    @property
    def service(self) -> Service:
        """Makes the answers now."""
        return self.current.service

    @property
    def config(self) -> ServeConfig:
        """The limits now."""
        return self.current.config

    @property
    def limit(self) -> int:
        """Most requests and files in work and waiting."""
        return self.current.limit

    def route(self, served: Generation, scope: Mapping[str, Any], model: str, version: str) -> str:
        """The key of the predictor that answers a request; ``version`` is empty for any.

        Raises:
            RequestError: 404 if there is no such model or version.
        """
        record = record_of(scope)
        choice = served.routes.choose(model, version or None, record.id)
        record.model, record.version = choice.model, choice.version
        return choice.key

    def close(self) -> None:
        """Ends the threads of all models."""
        self.current.close()

    def update(
        self, config: ServeConfig, parallel: int, keys: Mapping[str, ApiKey] | None = None
    ) -> None:
        """Serves something else from now on. Requests that have begun end as they began, and none
        waits: the new models are opened first. Called from another thread than the server's.

        Raises:
            FileNotFoundError, ValueError: if a model cannot be opened; nothing has changed then.
        """
        before = self.current
        try:
            predictors = open_predictors(config, before.service.predictors, before.config)
            service = Service(predictors, config, before.service.kept_statistics(predictors))
        except (OSError, ValueError, RuntimeError):
            self.metrics.count("mtl_ray_updates_total", result="failed")
            raise
        self.current = Generation(service, config, parallel)
        if keys is not None and keys != self.gate.keys:
            replicas, self.gate = self.gate.replicas, Gate(keys)
            self.gate.replicas = replicas
        self.metrics.count("mtl_ray_updates_total", result="done")
        before.retire(before.config.timeout_s)

    def report(self) -> ReplicaReport:
        """The counts of this replica."""
        served = self.current
        gauges = {"mtl_ray_replicas": 1.0, "mtl_ray_active": float(self.held.count)}
        for name in served.routes.names:
            for version, key in served.routes.versions_of(name).items():
                labels = {"model": name, **({"version": version} if version else {})}
                gauges[series("mtl_ray_queue", **labels)] = float(len(served.workers[key]))
        return ReplicaReport(
            metrics={**self.metrics.snapshot(), **gauges}, statistics=served.service.counted()
        )

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """One connection of the ASGI server: a request, or the start and end of the application."""
        if scope["type"] == "lifespan":
            with GrpcServer(self.v2, self.config, self.limit) as server:
                await lifespan(receive, send, server.finish)
        elif scope["type"] == "http":
            scope = recorded(scope)
            reply = await self._reply(scope, receive)
            record = record_of(scope)
            headers = {
                **reply.headers,
                **record.headers(),
                **cors_headers(text_of(scope, b"origin"), self.config.cors_origins),
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
            self.finish(scope, reply)

    def finish(self, scope: Mapping[str, Any], reply: Reply) -> None:
        """Counts an answered request if it was one for predictions, and logs it."""
        record = record_of(scope)
        if _predicts(scope["path"]):
            self.metrics.request(record.model, record.version, reply.status, record.seconds)
        self.log.write(scope, reply)

    async def _reply(self, scope: Mapping[str, Any], receive: Receive) -> Reply:
        try:
            return await self._route(scope, receive)
        except RequestError as error:
            return error.reply
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            return failed().reply

    async def _route(self, scope: Mapping[str, Any], receive: Receive) -> Reply:
        path: str = scope["path"].rstrip("/") or "/"
        if path == "/v2" or path.startswith("/v2/"):
            return await self.v2.reply(path, scope, receive)
        predicts = path.startswith("/predictions/")
        counted = path.startswith("/models/") and path.endswith("/statistics")
        if not predicts and not counted and path not in PAGES:
            raise RequestError(404, f"there is nothing at {quoted(path)}; see /docs")
        methods = ("POST", "PUT") if predicts else ("GET", "HEAD")
        if scope["method"] == "OPTIONS":
            return self.options(scope, (*methods, "OPTIONS"))
        _allow(scope, *methods)
        if predicts:
            self.check_key(scope)
            self.check_rate(scope)
            return await self._predict(path.removeprefix("/predictions/"), scope, receive)
        if counted or path in ("/models", "/metrics"):
            self.check_key(scope)
        if path == "/models":
            return as_json(self.service.models())
        if counted or path == "/metrics":
            reports = await asyncio.to_thread(self.exchange, self.report())
            if path == "/metrics":
                return exposition(added(each.metrics for each in reports))
            model = path.removeprefix("/models/").removesuffix("/statistics")
            return statistics_reply(self.service, model, reports)
        if path == "/openapi.json":
            return as_json(openapi_document(self.service.predictors.values()))
        return (
            as_json({"status": "Healthy"})
            if path == "/ping"
            else _page("page.html" if path == "/" else "docs.html")
        )

    def options(self, scope: Mapping[str, Any], methods: Sequence[str]) -> Reply:
        """The allowed methods and headers (CORS preflight), which a browser requests before a page
        of another site may send a key or JSON.
        """
        cors = preflight_headers(text_of(scope, b"origin"), self.config.cors_origins, methods)
        return Reply(body=b"", status=200, headers={"Allow": ", ".join(methods), **cors})

    def check_key(self, scope: Mapping[str, Any]) -> None:
        """Raises a RequestError 401 if no key of the server is in the headers."""
        record_of(scope).key = self.gate.name_of(header_of(scope, b"authorization"))

    def check_rate(self, scope: Mapping[str, Any]) -> None:
        """Raises a RequestError 429 if the key of a request is over its rate."""
        name = record_of(scope).key
        try:
            self.gate.take(name)
        except RequestError:
            self.metrics.count("mtl_ray_limited_total", key=name)
            raise

    async def _predict(self, place: str, scope: Mapping[str, Any], receive: Receive) -> Reply:
        """The reply of a model.

        Args:
            place: MODEL or MODEL/versions/VERSION.
            scope: of the request.
            receive: gives its body.
        """
        with self.current as served:
            query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
            model, named, version = place.partition("/versions/")
            asked = query.pop("version", None) if model in served.routes.shares else None
            record = record_of(scope)
            choice = served.routes.choose(model, version if named else asked, record.id)
            record.model, record.version = choice.model, choice.version
            request = served.service.check_request(choice.key, query, text_of(scope, b"accept"))
            kind = served.service.predictors[choice.key].canvas.input
            content_type = text_of(scope, b"content-type")
            return await self.with_body(
                scope,
                receive,
                kind,
                lambda data: self._answer(served, choice.key, request, data, content_type),
            )

    async def with_body(
        self,
        scope: Mapping[str, Any],
        receive: Receive,
        kind: AnyInput | None,
        work: Callable[[bytes], Coroutine[Any, Any, Reply]],
    ) -> Reply:
        """What some work makes of the body of a request, which waits for its turn and ends in time.

        Args:
            scope: of the request.
            receive: gives the body.
            kind: of the files in it; None for a body without files.
            work: makes the reply; it is cancelled when the client disconnects.

        Raises:
            RequestError: if the body or the time is over its limit, or too many requests wait.
        """
        if (coding := text_of(scope, b"content-encoding")) not in ("", "identity"):
            raise RequestError(415, f"the body is compressed ({quoted(coding)}); send it as it is")
        with self.place() as deadline:
            data = await in_time(
                self._body(scope, receive, kind), deadline, 408, "the body did not arrive in time"
            )
            running = while_connected(work(data), receive)
            del data  # the data of a refused or cancelled request is freed
            return await self.in_time(running, deadline)

    @contextmanager
    def place(self) -> Iterator[float]:
        """A place among the waiting requests; gives its deadline on the clock of the event loop.

        Raises:
            RequestError: 503 if there is none.
        """
        if self.held.count >= self.limit:
            raise _too_many()
        self.held.count += 1
        try:
            yield asyncio.get_running_loop().time() + self.config.timeout_s
        finally:
            self.held.count -= 1

    async def in_time(self, work: Coroutine[Any, Any, Reply], deadline: float) -> Reply:
        """The result of some work, or a RequestError 504."""
        return await in_time(
            work, deadline, 504, f"there was no answer within {self.config.timeout_s:g} s"
        )

    async def _answer(
        self,
        served: Generation,
        key: str,
        request: PredictionRequest,
        data: bytes,
        content_type: str,
    ) -> Reply:
        """The reply to a body of one or several files; each file is queued as its own item."""
        kind = served.service.predictors[key].canvas.input
        workers = served.workers[key]
        if is_plain(data, content_type, kind):
            return await workers.submit(replace(request, file=data))
        body = await asyncio.to_thread(read_body, data, content_type, served.config, kind)
        del data
        if body.shape == "one":
            return await workers.submit(replace(request, file=body.files[0], id=body.ids[0]))
        more = len(body.files) - 1
        if self.held.count + more > served.limit and self.held.count > 1:
            raise _too_many()
        self.held.count += more
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
            self.held.count -= more

    async def _body(
        self, scope: Mapping[str, Any], receive: Receive, kind: AnyInput | None
    ) -> bytes:
        most = self.config.max_body_bytes
        limit = (
            most + OVERHEAD_BYTES
            if kind is None
            else body_limit(text_of(scope, b"content-type"), self.config)
        )
        what = "tensors" if kind is None else f"{kind.noun}s"
        data = await read_whole(
            scope,
            receive,
            limit,
            f"the body is larger than the {most:,} bytes of {what} that are allowed",
        )
        if not data and kind is not None and not kind.empty_files:
            raise RequestError(
                400,
                f"the body is empty; send a file ({kind.noun}), as curl --data-binary @FILE does",
            )
        return data


def open_app(
    config: ServeConfig,
    parallel: int,
    keys: Mapping[str, ApiKey],
    exchange: Exchange = alone,
) -> App:
    """The application for the models and pipelines of a config."""
    service = Service(open_predictors(config), config)
    return App(service, config, parallel, keys=keys, exchange=exchange)


def _predicts(path: str) -> bool:
    """Whether an address is one for predictions, also of a model that does not exist."""
    tensors = path.startswith("/v2/models/") and path.rstrip("/").endswith("/infer")
    return tensors or path.startswith("/predictions/") or path == f"/{SERVICE}/ModelInfer"


def _allow(scope: Mapping[str, Any], *methods: str) -> None:
    if scope["method"] not in methods:
        raise RequestError(
            405,
            f"{quoted(scope['path'])} answers {' and '.join(methods)}, not {scope['method']}",
            Allow=", ".join(methods),
        )


def _too_many() -> RequestError:
    return RequestError(
        503,
        "too many requests are waiting already; try again in a moment",
        Retry_After=str(RETRY_AFTER_S),
    )


@cache
def _page(name: str) -> Reply:
    return Reply(
        body=(files("mtl_ray.serving") / name).read_bytes(),
        type="text/html; charset=utf-8",
        headers=PAGE_HEADERS,
    )
