"""How much one key may send, and how much of it all is held in memory at once."""

from __future__ import annotations

import time
from collections.abc import Callable

from monitor.web.refusals import Refused


class Rate:
    """Events a second for each key, saved up for a while when unused.

    A request is let in while its key has anything left, and may leave a debt: one of any size gets through in the end.

    Parameters
    ----------
    per_second : 0 is no limit.
    burst_seconds : for how long of silence a key may make up.
    """

    def __init__(self, per_second: float, burst_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._most = per_second * burst_seconds
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def check(self, key: str) -> None:
        """Raises Refused 429 as long as the key is in debt."""
        left = self._now(key)
        if self._per_second and left <= 0:
            raise Refused(
                429,
                f"more than {self._per_second:g} events a second of this key",
                retry_after=(1 - left) / self._per_second,
            )

    def charge(self, key: str, events: int) -> None:
        """Take events off what the key has left."""
        if self._per_second:
            self._left[key] = (self._now(key) - events, self._clock())

    def _now(self, key: str) -> float:
        left, since = self._left.get(key, (self._most, self._clock()))
        return min(self._most, left + (self._clock() - since) * self._per_second)


class Held:
    """Bytes of all requests at hand, decompressed, from their first byte to their answer."""

    def __init__(self, limit: int, retry_after: float) -> None:
        self.limit = limit
        self.bytes = 0
        self._retry_after = retry_after

    def take(self, n: int) -> None:
        """Raises Refused 503 when there is no room."""
        if self.bytes + n > self.limit:
            raise Refused(503, "too many requests at once", retry_after=self._retry_after)
        self.bytes += n

    def give_back(self, n: int) -> None:
        self.bytes -= n
