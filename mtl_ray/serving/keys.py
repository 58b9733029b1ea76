"""API keys with names and rates.

A key is compared by its hash in constant time, and appears in no message and no log; its name does.
"""

import hashlib
import hmac
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.serving.config import NAME, ServeConfig
from mtl_ray.serving.reply import RequestError

MAX_KEYS_BYTES = 1_000_000
ONLY_KEY = "key"
"""The name of the key of ``serve.api_key_env``."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ApiKey:
    """One key."""

    key: str = Field(min_length=1, repr=False)
    per_second: float | None = Field(default=None, gt=0)
    """Requests for predictions per second over time; None for no limit."""
    burst: int | None = Field(default=None, ge=1)
    """Requests that may come at once; by default those of one second."""


def read_keys(config: ServeConfig) -> dict[str, ApiKey]:
    """The keys that a config names, by name; empty if the server needs none.

    Raises:
        ValueError: if the environment variable is empty or its content invalid.
    """
    variable = config.api_keys_env or config.api_key_env
    if variable is None:
        return {}
    option = "api_keys_env" if config.api_keys_env else "api_key_env"
    content = os.environ.get(variable)
    if not content:
        raise ValueError(f"serve.{option} is {variable}, but that environment variable is empty")
    if config.api_keys_env is None:
        return {ONLY_KEY: ApiKey(key=content)}
    where = f"the environment variable {variable}"
    if not content.lstrip().startswith("{"):
        where = f"the file that {variable} names"
        content = _file(content)
    return _keys(content, where)


def _file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_KEYS_BYTES).decode()
    except (OSError, ValueError):
        # the content may be a key by mistake, so it is not repeated
        raise ValueError(
            "serve.api_keys_env names a variable that holds neither JSON nor the path of a "
            "readable file"
        ) from None


def _keys(content: str, where: str) -> dict[str, ApiKey]:
    """The keys in JSON. Errors name places, never values."""
    form = '{"NAME": {"key": "KEY", "per_second": 5, "burst": 10}}'
    try:
        keys = TypeAdapter(dict[str, ApiKey]).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the JSON"
        raise ValueError(f"{where} is invalid at {place} ({first['type']}); give {form}") from None
    if not keys:
        raise ValueError(f"{where} holds no key; give {form}")
    if unfit := [name for name in keys if not NAME.fullmatch(name)]:
        raise ValueError(f"{where} has a key whose name has other characters: {unfit[0]!r}")
    if len({each.key for each in keys.values()}) < len(keys):
        raise ValueError(f"{where} has the same key under two names")
    return keys


class Gate:
    """Lets requests with a key pass, at the rate of the key (a token bucket each,
    https://en.wikipedia.org/wiki/Token_bucket).

    Args:
        keys: by name; empty lets all pass.
        clock: seconds.
    """

    def __init__(
        self, keys: Mapping[str, ApiKey], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.keys = dict(keys)
        self.replicas = 1
        """Among which the rate of a key is divided."""
        self._digests = {name: _digest(each.key.encode()) for name, each in self.keys.items()}
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()  # each gRPC call is a thread

    def name_of(self, authorization: bytes) -> str:
        """The name of the key in the header ``Authorization``; empty if none is needed.

        Raises:
            RequestError: 401.
        """
        if not self.keys:
            return ""
        scheme, _, given = authorization.partition(b" ")
        digest = _digest(given.strip() if scheme.lower() == b"bearer" else b"")
        found = ""
        for name, expected in self._digests.items():  # all of them: the time tells nothing
            if hmac.compare_digest(digest, expected):
                found = name
        if not found:
            raise RequestError(
                401,
                "this server requires its key in the header Authorization: Bearer KEY",
                WWW_Authenticate="Bearer",
            )
        return found

    def take(self, name: str) -> None:
        """Counts a request of a key.

        Raises:
            RequestError: 429 if it has used its rate.
        """
        key = self.keys.get(name)
        if key is None or key.per_second is None:
            return
        rate = key.per_second / self.replicas
        most = max(1.0, (key.burst or max(1.0, key.per_second)) / self.replicas)
        with self._lock:
            now = self._clock()
            tokens, then = self._buckets.get(name, (most, now))
            tokens = min(most, tokens + (now - then) * rate)
            self._buckets[name] = (tokens - 1 if tokens >= 1 else tokens, now)
        if tokens < 1:
            wait_s = max(1, math.ceil((1 - tokens) / rate))
            raise RequestError(
                429,
                f"the key {name!r} may send {key.per_second:g} requests per second; try again in "
                f"{wait_s} s",
                Retry_After=str(wait_s),
            )


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
