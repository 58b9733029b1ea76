"""The Open Inference Protocol v2 over gRPC, beside HTTP in the same process.

Each replica listens on ``serve.grpc_port`` itself: the system shares new connections among the
processes that listen on a port (SO_REUSEPORT), so that no proxy stands between, and more replicas
answer more connections. A request takes a place in the queue of the HTTP application and one of its
worker threads, and has its limits.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import grpc

from mtl_ray.serving.asgi import RequestEnd
from mtl_ray.serving.bodies import OVERHEAD_BYTES
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.records import record_of, recorded
from mtl_ray.serving.reply import Reply, RequestError, failed
from mtl_ray.serving.v2_messages import (
    SERVICE,
    GrpcCall,
    flag_message,
    model_message,
    read_message,
    server_message,
)
from mtl_ray.serving.v2_model import TensorModel
from mtl_ray.serving.v2_routes import OpenInference, Scope
from mtl_ray.serving.versions import Generation

GrpcMethod = Callable[[Scope, bytes, Any], bytes]
"""Answers the message of a call; the last is grpc's context."""
SPARE_CALLS = 16
"""Calls beyond the queue, which get our refusal; of still more, grpc says RESOURCE_EXHAUSTED."""
CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By HTTP status; others are INTERNAL."""

_log = logging.getLogger(__name__)


class GrpcServer:
    """Listens while the code inside runs, on an event loop; does nothing without a port.

    Args:
        v2: the protocol.
        config: the port and the limits.
        queue: most requests that wait or run in this process.
    """

    def __init__(self, v2: OpenInference, config: ServeConfig, queue: int) -> None:
        self.v2 = v2
        self.config = config
        self.queue = queue
        self._methods: dict[str, GrpcMethod] = {
            "ServerLive": lambda *_: flag_message(True),
            "ServerReady": lambda *_: flag_message(True),
            "ServerMetadata": lambda *_: server_message(v2.server_metadata()),
            "ModelReady": self._ready,
            "ModelMetadata": self._metadata,
            "ModelInfer": self._infer,
        }

    def __enter__(self) -> "GrpcServer":
        self._server = None
        if self.config.grpc_port is None:
            return self
        self._loop = asyncio.get_running_loop()
        most = self.queue + SPARE_CALLS
        self._server = grpc.server(
            ThreadPoolExecutor(most, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=most,
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", self.config.max_body_bytes + OVERHEAD_BYTES),
                ("grpc.max_send_message_length", -1),
            ],
        )
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._answering(name, method))
            for name, method in self._methods.items()
        }
        known = grpc.method_handlers_generic_handler(SERVICE, handlers)
        others = _OtherMethods(self._answering("other", self._missing))
        self._server.add_generic_rpc_handlers((known, others))
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        self._server.add_insecure_port(f"{host}:{self.config.grpc_port}")
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop(None)

    async def finish(self) -> None:
        """Tells the clients to connect elsewhere, and returns when the calls that run are
        answered.
        """
        if self._server is not None:
            stopped = self._server.stop(self.config.timeout_s)
            await asyncio.to_thread(stopped.wait)

    def _missing(self, *_: object) -> bytes:
        raise RequestError(
            501,
            f"the methods here are {', '.join(self._methods)}; Triton's further ones, such as its "
            "streams, repository and statistics, are not supported",
        )

    def _ready(self, scope: Scope, data: bytes, _: Any) -> bytes:
        self.v2.limits.check_key(scope)
        message = read_message(data)
        with contextlib.suppress(RequestError), self.v2.limits.current as served:
            self.v2.model(served, scope, message.text(1), message.text(2))
            return flag_message(True)
        return flag_message(False)

    def _metadata(self, scope: Scope, data: bytes, _: Any) -> bytes:
        self.v2.limits.check_key(scope)
        message = read_message(data)
        with self.v2.limits.current as served:
            model = self.v2.model(served, scope, message.text(1), message.text(2))
            return model_message(self.v2.metadata_of(served, model))

    def _infer(self, scope: Scope, data: bytes, context: Any) -> bytes:
        self.v2.limits.check_key(scope)
        self.v2.limits.check_rate(scope)
        message = read_message(data)
        with self.v2.limits.current as served:
            model = self.v2.model(served, scope, message.text(1), message.text(2))
            call = GrpcCall(model=model.name, version=model.version, message=message)
            reply = self._result(self._queued(served, model, call), context)
        if reply.status >= 400:
            raise RequestError(
                reply.status,
                reply.body.decode(),
                **{name.replace("-", "_"): value for name, value in reply.headers.items()},
            )
        return reply.body

    def _result(self, work: Coroutine[Any, Any, Reply], context: Any) -> Reply:
        """The result of some work on the event loop, which ends with its client."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        if not context.add_callback(future.cancel):  # the client is gone already
            future.cancel()
        try:
            return future.result()
        except CancelledError:
            raise RequestError(400, "the client went away before the answer") from None

    async def _queued(self, served: Generation, model: TensorModel, call: GrpcCall) -> Reply:
        limits = self.v2.limits
        limits.check_place()
        with limits.held, RequestEnd(limits.config.timeout_s, limits.no_answer):
            return await self.v2.infer(served, model, call)

    def _answering(self, name: str, method: GrpcMethod) -> Callable[[bytes, Any], bytes]:
        """A method whose calls are noted, and whose errors are a status and one sentence."""

        def answer(data: bytes, context: Any) -> bytes:
            scope = _scope(context, name)
            try:
                body = method(scope, data, context)
            except RequestError as error:
                refused = error
            except Exception:
                _log.exception("%s failed", name)
                refused = failed()
            else:
                context.set_trailing_metadata(_told(scope, {}))
                self.v2.limits.finish(scope, Reply(body=body))
                return body
            self.v2.limits.finish(scope, refused.reply)
            context.set_trailing_metadata(_told(scope, refused.reply.headers))
            context.abort(CODES.get(refused.status, grpc.StatusCode.INTERNAL), str(refused))
            raise AssertionError  # abort raises

        return answer


class _OtherMethods(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers all methods that are left: those of Triton alone, and those that nobody knows.

    Args:
        answer: ends a call with a status.
    """

    def __init__(self, answer: Callable[[bytes, Any], bytes]) -> None:
        self.handler = grpc.stream_stream_rpc_method_handler(
            lambda _, context: answer(b"", context)  # a call that streams nothing is one, too
        )

    def service(self, _: Any) -> Any:
        """See ``grpc.GenericRpcHandler``."""
        return self.handler


def _told(scope: Scope, headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The metadata of an answer, which over HTTP are headers."""
    wait = {name: headers[name] for name in ("Retry-After",) if name in headers}
    told = {**record_of(scope).headers(), **wait}
    return tuple((name.lower(), value) for name, value in told.items())


def _scope(context: Any, method: str) -> Scope:
    """A call in the form of an HTTP request, which it is."""
    headers = [
        (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in context.invocation_metadata()
    ]
    return recorded({"method": "POST", "path": f"/{SERVICE}/{method}", "headers": headers})
