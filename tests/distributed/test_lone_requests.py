"""Which requests pass by Serve's own code."""

import asyncio
from typing import Any

import pytest

from mtl_ray.distributed import lone_requests
from mtl_ray.serving.asgi import ALONE

PREDICTION = {"type": "http", "path": "/predictions/a", "headers": [(b"host", b"x"), ALONE]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "application"),
        ({"headers": [(b"host", b"x")]}, "serve"),
        ({"headers": [(ALONE[0], b"?0")]}, "serve"),
        ({"path": "/-/healthz"}, "serve"),
        ({"path": "/v2/models/a/infer"}, "serve"),
        ({"type": "websocket"}, "serve"),
    ],
)
def test_only_lone_requests_for_predictions_pass_by(
    changes: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def named(name: str) -> Any:
        async def answer(*_: Any) -> None:
            asked.append(name)

        return answer

    monkeypatch.setattr(lone_requests, "_applications", [])
    assert lone_requests.middlewares() == [], "a process that is no replica"
    lone_requests.take_lone_requests(named("application"))
    (middleware,) = lone_requests.middlewares()
    around = middleware.cls(named("serve"), *middleware.args, **middleware.kwargs)
    asyncio.run(around({**PREDICTION, **changes}, None, None))
    assert asked == [expected]
