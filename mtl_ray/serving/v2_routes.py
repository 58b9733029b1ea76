"""The addresses of the Open Inference Protocol v2: what each answers, and within which limits."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from mtl_ray.serving.asgi import header_text
from mtl_ray.serving.limits import Limits
from mtl_ray.serving.reply import Reply, RequestError, as_json, failed, quoted
from mtl_ray.serving.v2_http import HEADER, HttpCall, as_error, header_bytes
from mtl_ray.serving.v2_model import VERSION, TensorCall, TensorModel
from mtl_ray.serving.versions import Generation

Scope = Mapping[str, Any]
OPEN = ("/v2", "/v2/health/live", "/v2/health/ready")
"""Addresses that need no key."""
OF_TRITON = frozenset(
    (
        *("repository", "config", "stats", "trace", "logging"),
        *("systemsharedmemory", "cudasharedmemory"),
    )
)
"""Parts of the addresses that Triton has beside the protocol."""

_log = logging.getLogger(__name__)


class OpenInference:
    """The protocol for the bundles of a service; models that are no bundles have no tensors.

    Args:
        limits: of the server, and what it serves.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    async def reply(self, path: str, scope: Scope, receive: Any) -> Reply:
        """The answer to a request to ``/v2`` or below it."""
        try:
            return await self._route(path, scope, receive)
        except RequestError as error:
            return as_error(error)
        except Exception:
            _log.exception("%s %s failed", scope["method"], path)
            return as_error(failed())

    def model(self, served: Generation, scope: Scope, name: str, wanted: str = "") -> TensorModel:
        """A served model.

        Args:
            served: the models, which the request holds.
            scope: of the request, whose id chooses among versions.
            name: of the model.
            wanted: its version; empty for any.

        Raises:
            RequestError: 404 if there is none.
        """
        single = name in served.service.predictors
        if single and wanted not in ("", VERSION):
            raise RequestError(
                404, f"the model {name} has no version {quoted(wanted)}; it has {VERSION}"
            )
        version = None if single else wanted or None
        return served.tensors(self.limits.route(served, scope, name, version))

    def metadata_of(self, served: Generation, model: TensorModel) -> dict[str, Any]:
        """A model with all its versions."""
        versions = tuple(served.routes.versions_of(model.name))
        return {**model.metadata(), "versions": [each or VERSION for each in versions]}

    def server_metadata(self) -> dict[str, Any]:
        """The answer to ``GET /v2``."""
        return {
            "name": "mtl_ray",
            "version": version("mtl_ray"),
            "extensions": ["binary_tensor_data"],
        }

    async def infer(self, served: Generation, model: TensorModel, call: TensorCall) -> Reply:
        """Queues a call, whose place is taken already."""
        return await served.workers[model.key].submit(call)

    async def _route(self, path: str, scope: Scope, receive: Any) -> Reply:
        parts = path.removeprefix("/v2").strip("/").split("/")
        name, wanted, what = ("", "", "") if path in OPEN else _address(parts, path)
        methods = ("POST",) if what == "infer" else ("GET", "HEAD")
        if (options := self.limits.check_method(scope, *methods)) is not None:
            return options
        if path in OPEN:
            return as_json({parts[-1]: True} if parts[-1] else self.server_metadata())
        self.limits.check_key(scope)
        with self.limits.current as served:
            model = self.model(served, scope, name, wanted)
            if what == "infer":
                self.limits.check_rate(scope)
                return await self._infer(served, model, scope, receive)
            if what == "ready":
                return as_json({"name": name, "ready": True})
            return as_json(await asyncio.to_thread(self.metadata_of, served, model))

    async def _infer(
        self, served: Generation, model: TensorModel, scope: Scope, receive: Any
    ) -> Reply:
        stated = header_bytes(header_text(scope, HEADER.lower().encode()))

        async def answer(body: bytes) -> Reply:
            call = HttpCall(model=model.name, version=model.version, body=body, header_bytes=stated)
            return await self.infer(served, model, call)

        return await self.limits.with_body(scope, receive, None, answer)


def _address(parts: Sequence[str], path: str) -> tuple[str, str, str]:
    """Model, version (may be empty), and infer, ready or nothing."""
    match parts:
        case ["models", name]:
            return name, "", ""
        case ["models", name, ("infer" | "ready") as what]:
            return name, "", what
        case ["models", name, "versions", wanted]:
            return name, wanted, ""
        case ["models", name, "versions", wanted, ("infer" | "ready") as what]:
            return name, wanted, what
    if OF_TRITON.intersection(parts):
        raise RequestError(
            404,
            f"there is nothing at {quoted(path)}: the repository, configuration, statistics, "
            "traces, logging and shared memory of Triton are not supported; see /docs",
        )
    raise RequestError(404, f"there is nothing at {quoted(path)}; see /docs")
