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

from mtl_ray.serving.asgi import header_of
from mtl_ray.serving.reply import Reply

ID_HEADER, VERSION_HEADER = "X-Request-ID", "X-Model-Version"
ID_PATTERN = "[A-Za-z0-9._:/+=-]{1,128}"
"""An id that a client may choose; any other is replaced."""
_ID = re.compile(ID_PATTERN.encode())
_IN_SCOPE = "mtl_ray.record"


@dataclass(kw_only=True)
class RequestRecord:
    """Notes of one request.

    Attributes:
        id: of the header ``X-Request-ID``, or a new one.
        started: when, in seconds of the monotonic clock.
        model: the name of the model that was asked, if it exists.
        version: the version that answered, if there are several.
        key: the name of the API key.
        alone: whether it was answered without a thread.
    """

    id: str
    started: float = field(default_factory=time.perf_counter)
    model: str = ""
    version: str = ""
    key: str = ""
    alone: bool = False

    @property
    def seconds(self) -> float:
        """Since the request began."""
        return time.perf_counter() - self.started

    def headers(self) -> dict[str, str]:
        """Of the answer."""
        version = {VERSION_HEADER: self.version} if self.version else {}
        return {ID_HEADER: self.id, **version}


def recorded(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The scope of a request with a record in it."""
    given = header_of(scope, ID_HEADER.lower().encode())
    name = given.decode() if _ID.fullmatch(given) else uuid.uuid4().hex
    return {**scope, _IN_SCOPE: RequestRecord(id=name)}


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
