"""Lone requests for predictions reach the application of a replica without the code of Serve.

Serve counts every request for its own metrics, as the application does for ``/metrics``, and for
the end of a replica, at which uvicorn waits for running requests anyway. That takes 0.2 ms, which
shows when nobody else is served (``benchmarks/README.md``). So Serve's own metrics lack these
requests.

Ray calls ``middlewares`` in each process that answers HTTP, if its environment variable
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware import Middleware

from mtl_ray.serving.asgi import ALONE, PREDICTIONS, Receive, Send

Application = Callable[[Any, Receive, Send], Awaitable[None]]

_applications: list[Application] = []
"""That of this process, if it is a replica."""


def take_lone_requests(application: Application) -> None:
    """Lets an application answer the lone requests for predictions of this process, a replica."""
    _applications.append(application)


def middlewares() -> list[Middleware]:
    """What Ray puts around the HTTP server of this process."""
    return [Middleware(_PastServe, application=each) for each in _applications]


class _PastServe:
    """Gives lone requests for predictions to the application, and all others to Serve."""

    def __init__(self, app: Application, application: Application) -> None:
        self._serve, self._application = app, application

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        lone = (
            scope["type"] == "http"
            and scope["path"].startswith(PREDICTIONS)
            and ALONE in scope["headers"]
        )
        await (self._application if lone else self._serve)(scope, receive, send)
