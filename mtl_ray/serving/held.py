"""How many requests a server holds: now, and on average over time."""

import time
from collections.abc import Callable


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

    @property
    def count(self) -> int:
        """The requests held now."""
        return self._count

    @count.setter
    def count(self, count: int) -> None:
        self._advance()
        self._count = count

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
