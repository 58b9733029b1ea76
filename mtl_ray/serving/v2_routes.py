"""The addresses of the Open Inference Protocol v2: what each answers, and within which limits."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any, Protocol

from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.serving.asgi import text_of
from mtl_ray.serving.batch_workers import BatchWorkers
from mtl_ray.serving.reply import Reply, RequestError, as_json, failed, quoted
from mtl_ray.serving.routes import Routes
from mtl_ray.serving.service import PredictionRequest, Service
from mtl_ray.serving.v2_http import HEADER, HttpCall, as_error, header_bytes
from mtl_ray.serving.v2_model import VERSION, TensorCall, TensorModel

Item = PredictionRequest | TensorCall
"""What the workers of a model take."""
Scope = Mapping[str, Any]
OPEN = ("/v2", "/v2/health/live", "/v2/health/ready")
"""Addresses that need no key."""

_log = logging.getLogger(__name__)


class Limits(Protocol):
    """What the HTTP application gives: its queue, its limits, its key."""

    @property
    def service(self) -> Service:
        """The models now."""
        ...

    @property
    def workers(self) -> Mapping[str, BatchWorkers[Item, Reply]]:
        """By the key of a model or version."""
        ...

    def route(self, scope: Scope, model: str, version: str) -> str:
        """The key of what answers, or a RequestError 404; the version is empty for any."""
        ...

    def check_rate(self, scope: Scope) -> None:
        """Raises a RequestError 429 if the key, which was checked, is over its rate."""
        ...

    def check_key(self, scope: Scope) -> None:
        """Raises a RequestError 401 without the key."""
        ...

    def finish(self, scope: Scope, reply: Reply) -> None:
        """Counts an answered request, and logs it."""
        ...

    def place(self) -> AbstractContextManager[float]:
        """A place among the waiting requests and its deadline, or a RequestError 503."""
        ...

    async def in_time(self, work: Coroutine[Any, Any, Reply], deadline: float) -> Reply:
        """The result of some work, or a RequestError 504."""
        ...

    async def with_body(
        self,
        scope: Scope,
        receive: Any,
        kind: None,
        work: Callable[[bytes], Coroutine[Any, Any, Reply]],
    ) -> Reply:
        """What some work makes of the body of a request, within all limits."""
        ...


class OpenInference:
    """The protocol for the bundles of a service; models that are no bundles have no tensors.

    Args:
        limits: the application.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._models: dict[str, TensorModel] = {}

    async def reply(self, path: str, scope: Scope, receive: Any) -> Reply:
        """The answer to a request to ``/v2`` or below it."""
        try:
            return await self._route(path, scope, receive)
        except RequestError as error:
            return as_error(error)
        except Exception:
            _log.exception("%s %s failed", scope["method"], path)
            return as_error(failed())

    def model(self, scope: Scope, name: str, wanted: str = "") -> TensorModel:
        """A served model.

        Args:
            scope: of the request, whose id chooses among versions.
            name: of the model.
            wanted: its version; empty for any.

        Raises:
            RequestError: 404 if there is none.
        """
        service = self.limits.service
        single = name in service.predictors
        if single and wanted not in ("", VERSION):
            raise RequestError(
                404, f"the model {name} has no version {quoted(wanted)}; it has {VERSION}"
            )
        key = self.limits.route(scope, name, "" if single else wanted)
        return self._tensors(service, key)

    def metadata_of(self, model: TensorModel) -> dict[str, Any]:
        """A model with all its versions."""
        service = self.limits.service
        versions = tuple(Routes(service.predictors, service.config.models).versions_of(model.name))
        return {**model.metadata(), "versions": [each or VERSION for each in versions]}

    def _tensors(self, service: Service, key: str) -> TensorModel:
        predictor = service.predictors[key]
        if not isinstance(predictor, BundlePredictor):
            raise RequestError(404, f"the model {quoted(key)} is no bundle, so it has no tensors")
        known = self._models.get(key)
        if known is None or known.predictor is not predictor:
            name, version = Routes(service.predictors, service.config.models).place_of(key)
            known = TensorModel(name, predictor, service.config.max_images, version)
            self._models[key] = known
        return known

    def replies(self, service: Service, key: str, items: Sequence[Item]) -> list[Reply]:
        """The answers of one model to requests of all kinds, for its workers."""
        files = [each for each in items if isinstance(each, PredictionRequest)]
        calls = [each for each in items if not isinstance(each, PredictionRequest)]
        of_files = iter(service.replies(key, files) if files else ())
        of_calls = iter(self._tensors(service, key).replies(calls) if calls else ())
        return [
            next(of_files if isinstance(each, PredictionRequest) else of_calls) for each in items
        ]

    def server_metadata(self) -> dict[str, Any]:
        """The answer to ``GET /v2``."""
        return {
            "name": "mtl_ray",
            "version": version("mtl_ray"),
            "extensions": ["binary_tensor_data"],
        }

    async def infer(self, model: TensorModel, call: TensorCall) -> Reply:
        """Queues a call, whose place is taken already."""
        return await self.limits.workers[model.key].submit(call)

    async def _route(self, path: str, scope: Scope, receive: Any) -> Reply:
        parts = path.removeprefix("/v2").strip("/").split("/")
        infers = parts[0] == "models" and parts[-1] == "infer" and len(parts) > 2
        methods = ("POST",) if infers else ("GET", "HEAD")
        if scope["method"] not in methods:
            raise RequestError(
                405,
                f"{quoted(path)} answers {' and '.join(methods)}, not {scope['method']}",
                Allow=", ".join(methods),
            )
        if path in OPEN:
            name = parts[-1]
            return as_json({name: True} if name else self.server_metadata())
        self.limits.check_key(scope)
        name, wanted, what = _address(parts, path)
        model = self.model(scope, name, wanted)
        if what == "infer":
            self.limits.check_rate(scope)
            return await self._infer(model, scope, receive)
        if what == "ready":
            return as_json({"name": name, "ready": True})
        return as_json(await asyncio.to_thread(self.metadata_of, model))

    async def _infer(self, model: TensorModel, scope: Scope, receive: Any) -> Reply:
        stated = header_bytes(text_of(scope, HEADER.lower().encode()))

        async def answer(body: bytes) -> Reply:
            call = HttpCall(model=model.name, version=model.version, body=body, header_bytes=stated)
            return await self.infer(model, call)

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
    raise RequestError(404, f"there is nothing at {quoted(path)}; see /docs")
