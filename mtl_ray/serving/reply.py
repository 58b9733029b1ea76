"""What goes back over HTTP: an answer, or one sentence that says why there is none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One HTTP response.

    Attributes:
        status: HTTP status code.
        body: the bytes.
        type: content type.
        headers: further headers.
    """

    body: bytes
    status: int = 200
    type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class RequestError(Exception):
    """A request that gets no answer.

    Args:
        status: HTTP status code.
        message: one sentence for the person who sent the request.
        headers: such as Retry-After.
    """

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.reply = as_json(
            {"code": status, "message": message}, status, {name.replace("_", "-"): value for name, value in headers.items()}
        )


def as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON response."""
    return Reply(body=json.dumps(content, allow_nan=False).encode(), status=status, headers=headers or {})
