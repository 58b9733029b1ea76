"""What a request has to pass, whatever its address: a key, a rate, a place in the queue, the size
of its body, and its time.
"""

from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mtl_ray.serving.asgi import (
    ALONE,
    PREDICTIONS,
    Receive,
    RequestEnd,
    header_of,
    header_text,
    read_whole,
)
from mtl_ray.serving.bodies import OVERHEAD_BYTES, AnyInput, body_limit
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.held import Held
from mtl_ray.serving.keys import Gate
from mtl_ray.serving.metrics import Metrics
from mtl_ray.serving.records import RequestLog, record_of
from mtl_ray.serving.reply import Reply, RequestError, preflight_headers, quoted
from mtl_ray.serving.service import Service
from mtl_ray.serving.v2_messages import SERVICE
from mtl_ray.serving.versions import Generation

RETRY_AFTER_S = 1


class Limits:
    """The limits of a server, and what is counted and logged of its requests.

    Args:
        current: what is served first.
        gate: the keys and their rates.
    """

    def __init__(self, current: Generation, gate: Gate) -> None:
        self.current = current
        self.gate = gate
        self.metrics = Metrics()
        self.log = RequestLog(current.config.request_log)
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

    def route(
        self, served: Generation, scope: Mapping[str, Any], model: str, version: str | None
    ) -> str:
        """The key of the predictor that answers a request; ``version`` is None for any.

        Raises:
            RequestError: 404 if there is no such model or version.
        """
        record = record_of(scope)
        choice = served.routes.choose(model, version, record.id)
        record.model, record.version = choice.model, choice.version
        return choice.key

    def check_method(self, scope: Mapping[str, Any], *methods: str) -> Reply | None:
        """The answer to ``OPTIONS`` (CORS preflight), which a browser requests before a page of
        another site may send a key or JSON; None for one of the methods.

        Raises:
            RequestError: 405 for others.
        """
        allowed = (*methods, "OPTIONS")
        if scope["method"] == "OPTIONS":
            cors = preflight_headers(
                header_text(scope, b"origin"), self.config.cors_origins, allowed
            )
            return Reply(body=b"", status=200, headers={"Allow": ", ".join(allowed), **cors})
        if scope["method"] in methods:
            return None
        raise RequestError(
            405,
            f"{quoted(scope['path'])} answers {' and '.join(methods)}, not {scope['method']}",
            Allow=", ".join(methods),
        )

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

    def finish(self, scope: Mapping[str, Any], reply: Reply) -> None:
        """Counts an answered request if it was one for predictions, and logs it."""
        record = record_of(scope)
        if _predicts(scope["path"]):
            self.metrics.request(record.model, record.version, reply.status, record.seconds)
        if record.alone:
            self.metrics.count("mtl_ray_alone_total", model=record.model)
        self.log.write(scope, reply)

    async def with_body(
        self,
        scope: Mapping[str, Any],
        receive: Receive,
        kind: AnyInput | None,
        work: Callable[[bytes], Reply | Coroutine[Any, Any, Reply]],
    ) -> Reply:
        """What some work makes of the body of a request, which waits for its turn and ends in time.

        Args:
            scope: of the request.
            receive: gives the body.
            kind: of the files in it; None for a body without files.
            work: makes the reply, at once or in a coroutine, which is cancelled when the client
                disconnects.

        Raises:
            RequestError: if the body or the time is over its limit, or too many requests wait.
        """
        if (coding := header_text(scope, b"content-encoding")) not in ("", "identity"):
            raise RequestError(415, f"the body is compressed ({quoted(coding)}); send it as it is")
        self.check_place()
        with self.held, RequestEnd(self.config.timeout_s, _no_body) as end:
            data = await self._body(scope, receive, kind)
            end.late = self.no_answer
            answer = work(data)
            del data  # the data of a refused or cancelled request is freed
            if isinstance(answer, Reply):
                return answer
            end.watch(receive)
            return await answer

    def is_alone(self, scope: Mapping[str, Any]) -> bool:
        """Whether there is no other request, on any replica, and likely will be none so soon."""
        name, value = ALONE
        return self.held.alone(stated=header_of(scope, name) == value)

    def check_place(self) -> None:
        """Raises a RequestError 503 if there is no place for another request in ``held``."""
        if self.held.count >= self.limit:
            raise _too_many()

    @contextmanager
    def more_places(self, count: int) -> Iterator[None]:
        """Places for the further files of a request; one that is alone gets any number.

        Raises:
            RequestError: 503 if there are too few.
        """
        if self.held.count + count > self.limit and self.held.count > 1:
            raise _too_many()
        self.held.count += count
        try:
            yield
        finally:
            self.held.count -= count

    def no_answer(self) -> RequestError:
        """The refusal after ``timeout_s``."""
        return RequestError(504, f"there was no answer within {self.config.timeout_s:g} s")

    async def _body(
        self, scope: Mapping[str, Any], receive: Receive, kind: AnyInput | None
    ) -> bytes:
        most = self.config.max_body_bytes
        limit = (
            most + OVERHEAD_BYTES
            if kind is None
            else body_limit(header_text(scope, b"content-type"), self.config)
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


def _predicts(path: str) -> bool:
    """Whether an address is one for predictions, also of a model that does not exist."""
    tensors = path.startswith("/v2/models/") and path.rstrip("/").endswith("/infer")
    return tensors or path.startswith(PREDICTIONS) or path == f"/{SERVICE}/ModelInfer"


def _no_body() -> RequestError:
    return RequestError(408, "the body did not arrive in time")


def _too_many() -> RequestError:
    return RequestError(
        503,
        "too many requests are waiting already; try again in a moment",
        Retry_After=str(RETRY_AFTER_S),
    )
