"""The Open Inference Protocol v2 over gRPC, beside HTTP in the same process.

Each replica listens on ``serve.grpc_port`` itself: the system shares new connections among the
processes that listen on a port (SO_REUSEPORT), so that no proxy stands between, and more replicas
answer more connections. A request takes a place in the queue of the HTTP application and one of its
worker threads, and has its limits.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import grpc

from mtl_ray.serving.bodies import OVERHEAD_BYTES
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.records import recorded
from mtl_ray.serving.reply import Reply, RequestError, failed
from mtl_ray.serving.v2_messages import (
    GrpcCall,
    flag_message,
    model_message,
    read_message,
    server_message,
)
from mtl_ray.serving.v2_model import TensorModel
from mtl_ray.serving.v2_routes import OpenInference

SERVICE = "inference.GRPCInferenceService"
SPARE_CALLS = 16
"""Calls beyond the queue, which get our refusal; of still more, grpc says RESOURCE_EXHAUSTED."""
CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
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
        self._methods: dict[str, Callable[[bytes, Any], bytes]] = {
            "ServerLive": lambda *_: flag_message(True),
            "ServerReady": lambda *_: flag_message(True),
            "ServerMetadata": lambda *_: server_message(v2.server_metadata()),
            "ModelReady": self._ready,
            "ModelMetadata": self._metadata,
            "ModelInfer": self._infer,
        }

    def __enter__(self) -> None:
        self._server = None
        if self.config.grpc_port is None:
            return
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
            name: grpc.unary_unary_rpc_method_handler(_answering(name, method))
            for name, method in self._methods.items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        self._server.add_insecure_port(f"{host}:{self.config.grpc_port}")
        self._server.start()

    def __exit__(self, *_: object) -> None:
        """Tells the clients to connect elsewhere; calls that run are answered first."""
        if self._server is not None:
            self._server.stop(self.config.timeout_s)

    def _ready(self, data: bytes, context: Any) -> bytes:
        scope = _scope(context, "ModelReady")
        self.v2.limits.check_key(scope)
        message = read_message(data)
        with contextlib.suppress(RequestError):
            self.v2.model(scope, message.text(1), message.text(2))
            return flag_message(True)
        return flag_message(False)

    def _metadata(self, data: bytes, context: Any) -> bytes:
        scope = _scope(context, "ModelMetadata")
        self.v2.limits.check_key(scope)
        message = read_message(data)
        model = self.v2.model(scope, message.text(1), message.text(2))
        return model_message(self.v2.metadata_of(model))

    def _infer(self, data: bytes, context: Any) -> bytes:
        scope = _scope(context, "ModelInfer")
        try:
            reply = self._reply(scope, data, context)
        except Exception as error:
            refused = error if isinstance(error, RequestError) else failed()
            self.v2.limits.finish(scope, refused.reply)
            raise
        self.v2.limits.finish(scope, reply)
        return reply.body

    def _reply(self, scope: Mapping[str, Any], data: bytes, context: Any) -> Reply:
        self.v2.limits.check_key(scope)
        self.v2.limits.check_rate(scope)
        message = read_message(data)
        model = self.v2.model(scope, message.text(1), message.text(2))
        future = asyncio.run_coroutine_threadsafe(
            self._queued(model, GrpcCall(model=model.name, version=model.version, message=message)),
            self._loop,
        )
        if not context.add_callback(future.cancel):  # the client is gone already
            future.cancel()
        try:
            reply = future.result()
        except CancelledError:
            raise RequestError(400, "the client went away before the answer") from None
        if reply.status >= 400:
            raise RequestError(
                reply.status,
                reply.body.decode(),
                **{name.replace("-", "_"): value for name, value in reply.headers.items()},
            )
        return reply

    async def _queued(self, model: TensorModel, call: GrpcCall) -> Reply:
        with self.v2.limits.place() as deadline:
            return await self.v2.limits.in_time(self.v2.infer(model, call), deadline)


def _scope(context: Any, method: str) -> Mapping[str, Any]:
    """A call in the form of an HTTP request, which it is."""
    headers = [
        (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in context.invocation_metadata()
    ]
    return recorded({"method": "POST", "path": f"/{SERVICE}/{method}", "headers": headers})


def _answering(name: str, method: Callable[[bytes, Any], bytes]) -> Callable[[bytes, Any], bytes]:
    """A method whose errors are a status and one sentence."""

    def answer(data: bytes, context: Any) -> bytes:
        try:
            return method(data, context)
        except RequestError as error:
            code = CODES.get(error.status, grpc.StatusCode.INTERNAL)
            sentence, headers = str(error), error.reply.headers
        except Exception:
            _log.exception("%s failed", name)
            code, headers, sentence = grpc.StatusCode.INTERNAL, {}, str(failed())
        if wait := headers.get("Retry-After"):
            context.set_trailing_metadata((("retry-after", wait),))
        context.abort(code, sentence)
        raise AssertionError  # abort raises

    return answer
