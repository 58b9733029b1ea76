"""What is noted of each request: its id, who answered it, and how long that took; one line of JSON
in a log, if one is wanted.
"""

import json
import os
import re
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mtl_ray.serving.asgi import header_of, with_headers
from mtl_ray.serving.reply import Reply

ID_HEADER, VERSION_HEADER = "X-Request-ID", "X-Model-Version"
ID_PATTERN = "[A-Za-z0-9._:/+=-]{1,128}"
"""An id that a client may choose; any other is replaced."""
_ID, _ID_HEADER = re.compile(ID_PATTERN.encode()), ID_HEADER.lower().encode()
_IN_SCOPE = "mtl_ray.record"


@dataclass(kw_only=True)
class RequestRecord:
    """Notes of one request.

    Attributes:
        id: of the header ``X-Request-ID``, or a new one.
        has_own_id: whether it is that of the header.
        started: when, in seconds of the monotonic clock.
        model: the name of the model that was asked, if it exists.
        version: the version that answered, if there are several.
        key: the name of the API key.
        alone: whether it was answered without a thread.
    """

    id: str
    has_own_id: bool = False
    started: float = field(default_factory=time.perf_counter)
    model: str = ""
    version: str = ""
    key: str = ""
    alone: bool = False

    @property
    def seconds(self) -> float:
        """Since the request began."""
        return time.perf_counter() - self.started

    def headers(self, *, with_id: bool = True) -> dict[str, str]:
        """Of the answer."""
        headers = {ID_HEADER: self.id} if with_id else {}
        return {**headers, VERSION_HEADER: self.version} if self.version else headers


def recorded(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The scope of a request with a record in it."""
    scope = with_headers(scope)
    given = header_of(scope, _ID_HEADER)
    fits = _ID.fullmatch(given) is not None
    scope[_IN_SCOPE] = RequestRecord(
        id=given.decode() if fits else uuid.uuid4().hex, has_own_id=fits
    )
    return scope


def record_of(scope: Mapping[str, Any]) -> RequestRecord:
    """The record of a request."""
    record: RequestRecord = scope[_IN_SCOPE]
    return record


class RequestLog:
    """One line of JSON for each request.

    Args:
        target: a file, to which lines are appended whole, also by several processes; "-" for
            standard error; None for no log.

    Raises:
        ValueError: if the file cannot be opened.
    """

    def __init__(self, target: str | None) -> None:
        self._file: int | None = None
        if target is not None:
            try:
                self._file = (
                    sys.stderr.fileno()
                    if target == "-"
                    else os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
                )
            except OSError as error:
                raise ValueError(
                    f"serve.request_log: {target} cannot be written ({error.strerror})"
                ) from error

    def write(self, scope: Mapping[str, Any], reply: Reply) -> None:
        """Writes the line of an answered request; its query, which may hold anything, is left
        out.
        """
        if self._file is None:
            return
        record = record_of(scope)
        length = header_of(scope, b"content-length")
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": record.id,
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": reply.status,
            "ms": round(1e3 * record.seconds, 3),
            "bytes_in": int(length) if length.isdigit() else None,
            "bytes_out": len(reply.body),
            "model": record.model,
            "version": record.version,
            "key": record.key,
        }
        try:
            os.write(self._file, json.dumps(line).encode() + b"\n")
        except OSError:  # a full disk must not fail the request
            return
