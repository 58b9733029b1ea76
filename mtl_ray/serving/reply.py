"""HTTP responses: an answer, or an error of one sentence; and their CORS headers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
_ENCODER = json.JSONEncoder(allow_nan=False)
_SHOWN = 60
"""Most characters of a client's word that an answer repeats."""


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
    """A request that is refused.

    Args:
        status: HTTP status code.
        message: one sentence for the client.
        headers: such as Retry-After.
    """

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.content = {"code": status, "message": message}
        self.reply = as_json(
            self.content,
            status,
            {name.replace("_", "-"): value for name, value in headers.items()},
        )


def failed() -> RequestError:
    """The refusal where the server is at fault."""
    return RequestError(500, "the server failed on this request; its log says why")


def quoted(text: object) -> str:
    """A client's word for an error message, not too long."""
    if not isinstance(text, str):
        text = str(text) if isinstance(text, int | float) else type(text).__name__
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


def join_replies(replies: Sequence[Reply], key: str | None) -> Reply:
    """The answers to the images of one request as a JSON list, or as an object with that list under
    ``key``.

    An image that cannot be read has its error in its place. If no image can be read, the first
    error is the reply.
    """
    if all(reply.status >= 400 for reply in replies):
        return replies[0]
    body = b"[" + b", ".join(reply.body for reply in replies) + b"]"
    return Reply(body=body if key is None else b'{"' + key.encode() + b'": ' + body + b"}")


def as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON response."""
    return Reply(body=_ENCODER.encode(content).encode(), status=status, headers=headers or {})


MAX_AGE_S = 600
EXPOSED = "Retry-After, X-Request-ID, X-Model-Version, Inference-Header-Content-Length"
"""Headers of an answer that a page of another site may read."""


def cors_headers(origin: str, allowed: Sequence[str]) -> Mapping[str, str]:
    """The CORS headers of an answer to a page of ``origin`` (https://fetch.spec.whatwg.org, section
    3.2); none if CORS is off.
    """
    if not allowed:
        return {}
    if "*" in allowed:
        return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED}
    if origin not in allowed:
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": EXPOSED,
        "Vary": "Origin",
    }


def preflight_headers(
    origin: str, allowed: Sequence[str], methods: Sequence[str]
) -> Mapping[str, str]:
    """The further CORS headers of the answer to a preflight request."""
    if "*" not in allowed and origin not in allowed:
        return {}
    return {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Accept, X-Request-ID, "
        "Inference-Header-Content-Length",
        "Access-Control-Max-Age": str(MAX_AGE_S),
    }
