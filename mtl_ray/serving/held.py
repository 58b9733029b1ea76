"""How many requests a server holds: now, and on average over time."""

import math
import time
from collections.abc import Callable

ALONE_S = 1.0
"""For how long no two requests must have met before one counts as alone."""


class Held:
    """The number of requests in work and waiting.

    A sample of the number now and then is no measure of the load: on an event loop that answers
    short requests one after the other, it finds none in work. ``mean`` is exact. All calls come
    from one event loop.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count = 0
        self._since = self._changed = clock()
        self._request_seconds = 0.0
        self._met = -math.inf

    @property
    def count(self) -> int:
        """The requests held now."""
        return self._count

    @count.setter
    def count(self, count: int) -> None:
        self._advance()
        self._count = count

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1

    def alone(self, *, stated: bool) -> bool:
        """Whether a request is the only one, and is likely to stay so.

        Args:
            stated: whether it was the only one when it arrived at the proxy.
        """
        now = self._clock()
        if not stated or self._count > 1:
            self._met = now
        return now - self._met > ALONE_S

    def mean(self) -> float:
        """The requests held on average since the last call."""
        self._advance()
        seconds = self._changed - self._since
        mean = self._request_seconds / seconds if seconds > 0 else float(self._count)
        self._since, self._request_seconds = self._changed, 0.0
        return mean

    def _advance(self) -> None:
        now = self._clock()
        self._request_seconds += self._count * (now - self._changed)
        self._changed = now
