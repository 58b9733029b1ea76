"""HTTP for a ``Service``: its addresses, and how each is answered (limits: ``limits.py``).

It is plain ASGI (``asgi.py``), so that a body can be refused before it is read.
Every error is one sentence as JSON.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

from mtl_ray.serving.asgi import PREDICTIONS, Receive, Send, header_text, lifespan
from mtl_ray.serving.bodies import is_plain, read_body
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.keys import ONLY_KEY, ApiKey, Gate
from mtl_ray.serving.limits import Limits
from mtl_ray.serving.metrics import added, exposition, series
from mtl_ray.serving.openapi import openapi_document
from mtl_ray.serving.records import record_of, recorded
from mtl_ray.serving.reply import (
    JSON,
    Reply,
    RequestError,
    as_json,
    cors_headers,
    failed,
    join_replies,
    quoted,
)
from mtl_ray.serving.report import Exchange, ReplicaReport, alone, statistics_reply
from mtl_ray.serving.service import PredictionRequest, Service
from mtl_ray.serving.v2_grpc import GrpcServer
from mtl_ray.serving.v2_routes import OpenInference
from mtl_ray.serving.versions import Generation, open_predictors

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
        gate = Gate(keys or ({} if api_key is None else {ONLY_KEY: ApiKey(key=api_key)}))
        self.limits = Limits(Generation(service, config, parallel), gate)
        self.v2 = OpenInference(self.limits)
        self.exchange = exchange

    def close(self) -> None:
        """Ends the threads of all models."""
        self.limits.current.close()

    def update(
        self, config: ServeConfig, parallel: int, keys: Mapping[str, ApiKey] | None = None
    ) -> None:
        """Serves something else from now on. Requests that have begun end as they began, and none
        waits: the new models are opened first. Called from another thread than the server's.

        Raises:
            FileNotFoundError, ValueError: if a model cannot be opened; nothing has changed then.
        """
        before = self.limits.current
        try:
            predictors = open_predictors(config, before.service.predictors, before.config)
            service = Service(predictors, config, before.service.kept_statistics(predictors))
        except (OSError, ValueError, RuntimeError):
            self.limits.metrics.count("mtl_ray_updates_total", result="failed")
            raise
        self.limits.current = Generation(service, config, parallel)
        if keys is not None and keys != self.limits.gate.keys:
            replicas, self.limits.gate = self.limits.gate.replicas, Gate(keys)
            self.limits.gate.replicas = replicas
        self.limits.metrics.count("mtl_ray_updates_total", result="done")
        before.retire(before.config.timeout_s)

    def report(self) -> ReplicaReport:
        """The counts of this replica."""
        served = self.limits.current
        gauges = {"mtl_ray_replicas": 1.0, "mtl_ray_active": float(self.limits.held.count)}
        for name in served.routes.names:
            for version, key in served.routes.versions_of(name).items():
                labels = {"model": name, **({"version": version} if version else {})}
                gauges[series("mtl_ray_queue", **labels)] = float(len(served.workers[key]))
        return ReplicaReport(
            metrics={**self.limits.metrics.snapshot(), **gauges},
            statistics=served.service.counted(),
        )

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """One connection of the ASGI server: a request, or the start and end of the application."""
        await self._answer(scope, receive, send, id_is_added=False)

    async def in_serve(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """The same within Ray Serve, which adds the id of a request to its answer itself."""
        await self._answer(scope, receive, send, id_is_added=True)

    async def _answer(
        self, scope: Mapping[str, Any], receive: Receive, send: Send, *, id_is_added: bool
    ) -> None:
        if scope["type"] == "lifespan":
            with GrpcServer(self.v2, self.limits.config, self.limits.limit) as server:
                await lifespan(receive, send, server.finish)
        elif scope["type"] == "http":
            scope = recorded(scope)
            reply = await self._reply(scope, receive)
            record = record_of(scope)
            headers = {
                **reply.headers,
                **record.headers(with_id=not (id_is_added and record.has_own_id)),
                **cors_headers(header_text(scope, b"origin"), self.limits.config.cors_origins),
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
            # uvloop writes at the end of a turn: what Serve and we still have to do can wait
            await asyncio.sleep(0)
            self.limits.finish(scope, reply)

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
        predicts = path.startswith(PREDICTIONS)
        counted = path.startswith("/models/") and path.endswith("/statistics")
        if not predicts and not counted and path not in PAGES:
            raise RequestError(404, f"there is nothing at {quoted(path)}; see /docs")
        methods = ("POST", "PUT") if predicts else ("GET", "HEAD")
        if (options := self.limits.check_method(scope, *methods)) is not None:
            return options
        if predicts:
            self.limits.check_key(scope)
            self.limits.check_rate(scope)
            return await self._predict(path.removeprefix(PREDICTIONS), scope, receive)
        if counted or path in ("/models", "/metrics"):
            self.limits.check_key(scope)
        if path == "/models":
            return as_json(self.limits.service.models())
        if counted or path == "/metrics":
            reports = await asyncio.to_thread(self.exchange, self.report())
            if path == "/metrics":
                return exposition(added(each.metrics for each in reports))
            model = path.removeprefix("/models/").removesuffix("/statistics")
            return statistics_reply(self.limits.service, model, reports)
        if path == "/openapi.json":
            return as_json(openapi_document(self.limits.service.predictors.values()))
        return (
            as_json({"status": "Healthy"})
            if path == "/ping"
            else _page("page.html" if path == "/" else "docs.html")
        )

    async def _predict(self, place: str, scope: Mapping[str, Any], receive: Receive) -> Reply:
        """The reply of a model.

        Args:
            place: MODEL or MODEL/versions/VERSION.
            scope: of the request.
            receive: gives its body.
        """
        with self.limits.current as served:
            query = _query(scope["query_string"])
            model, named, version = place.partition("/versions/")
            asked = query.pop("version", None) if model in served.routes.shares else None
            key = self.limits.route(served, scope, model, version if named else asked)
            request = served.service.check_request(key, query, header_text(scope, b"accept"))
            kind = served.service.predictors[key].canvas.input
            return await self.limits.with_body(
                scope, receive, kind, lambda data: self._reply_to(served, key, request, data, scope)
            )

    def _reply_to(
        self,
        served: Generation,
        key: str,
        request: PredictionRequest,
        data: bytes,
        scope: Mapping[str, Any],
    ) -> Reply | Coroutine[Any, Any, Reply]:
        """The reply to a body of one or several files, or what waits for it."""
        content_type = header_text(scope, b"content-type")
        if not is_plain(data, content_type, served.service.predictors[key].canvas.input):
            return self._reply_to_files(served, key, request, data, content_type)
        request = replace(request, file=data)
        if self.limits.is_alone(scope) and served.is_short(key):
            record_of(scope).alone = True
            return served.workers[key].call(request)
        return served.workers[key].submit(request)

    async def _reply_to_files(
        self,
        served: Generation,
        key: str,
        request: PredictionRequest,
        data: bytes,
        content_type: str,
    ) -> Reply:
        """The reply to a form or JSON; each file in it is queued as its own item."""
        kind = served.service.predictors[key].canvas.input
        workers = served.workers[key]
        body = await asyncio.to_thread(read_body, data, content_type, served.config, kind)
        del data
        if body.shape == "one":
            return await workers.submit(replace(request, file=body.files[0], id=body.ids[0]))
        with self.limits.more_places(len(body.files) - 1):
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


def open_app(
    config: ServeConfig,
    parallel: int,
    keys: Mapping[str, ApiKey],
    exchange: Exchange = alone,
) -> App:
    """The application for the models and pipelines of a config."""
    service = Service(open_predictors(config), config)
    return App(service, config, parallel, keys=keys, exchange=exchange)


def _query(text: bytes) -> dict[str, str]:
    return dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True)) if text else {}


@cache
def _page(name: str) -> Reply:
    return Reply(
        body=(files("mtl_ray.serving") / name).read_bytes(),
        type="text/html; charset=utf-8",
        headers=PAGE_HEADERS,
    )
