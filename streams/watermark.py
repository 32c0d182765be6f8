"""Which minutes are over: those no record that still waits in Kafka can belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from monitor.transcript import minute_of


@dataclass(frozen=True, slots=True)
class Standing:
    """How a partition stands.

    Attributes
    ----------
    position : the next offset to be counted.
    end : the offset the next record produced gets.
    newest_ts : event time of the newest event counted.
    stuck_seconds : for how long the position has not moved although records wait.
    """

    position: int
    end: int
    newest_ts: datetime | None
    stuck_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Closing:
    """Minutes before `until` are over; None: none is known to be.

    Attributes
    ----------
    waits_for : partitions that hold it back behind the clock.
    given_up : partitions that are waited for no longer.
    """

    until: int | None
    waits_for: tuple[int, ...] = ()
    given_up: tuple[int, ...] = ()


def closing(
    standings: Mapping[int, Standing], now: datetime, *, lateness_minutes: int, patience_seconds: float
) -> Closing:
    """What is over when these are all partitions.

    One without lag has nothing older than the clock; one that lags, nothing much older than the newest it has shown.

    >>> from datetime import UTC
    >>> twelve, ten = (datetime(2026, 3, 1, h, tzinfo=UTC) for h in (12, 10))
    >>> at = closing({0: Standing(7, 7, ten), 1: Standing(3, 9, ten)}, twelve, lateness_minutes=2, patience_seconds=900)
    >>> at.until == minute_of(ten) - 2, at.waits_for
    (True, (1,))
    """
    lagging = {p: s for p, s in standings.items() if s.position < s.end}
    given_up = tuple(sorted(p for p, s in lagging.items() if s.stuck_seconds >= patience_seconds))
    waits_for = tuple(sorted(lagging.keys() - set(given_up)))
    clock = minute_of(now) - lateness_minutes
    newest = [lagging[p].newest_ts for p in waits_for]
    if any(ts is None for ts in newest):
        return Closing(None, waits_for, given_up)
    return Closing(
        min([clock, *(minute_of(ts) - lateness_minutes for ts in newest if ts is not None)]), waits_for, given_up
    )


class Stuck:
    """Since when each partition's position has not moved although records wait."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}

    def seconds(self, partition: int, position: int, end: int, now: float) -> float:
        """For how long it has been stuck, as of `now` on a monotonic clock."""
        before = self._seen.get(partition)
        if before is None or before[0] != position or position >= end:
            self._seen[partition] = position, now
            return 0.0
        return now - before[1]

    def only(self, partitions: Iterable[int]) -> None:
        """Forget the others."""
        kept = set(partitions)
        self._seen = {p: seen for p, seen in self._seen.items() if p in kept}
