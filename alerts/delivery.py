"""What the outbox holds goes out: one lane a target, each a thread of its own, so that a slow one holds up no other.

A lane takes what is due under a lease, says it, and notes what came of it, each a transaction of its own. Killed in
between, the lease runs out and the same notice goes out again under the same id and revision: at least once, and a
target sees one incident. Any process may deliver; a row is held by one at a time.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from sqlalchemy import Connection, Engine

from alerts.compose import Told
from alerts.notice import Notice
from alerts.stages import group_key
from alerts.targets.base import Outcome, Target
from monitor.logs import get_logger
from monitor.store import oncall as store
from monitor.store import outbox
from monitor.store.database import committed
from monitor.store.outbox import Claimed, Depth
from monitor.store.retry import reading

LEASE: Final = timedelta(seconds=60)
"""Longer than any target takes (alerts.targets.http.SEND_SECONDS)."""
COMPOSE_WITHIN_SECONDS: Final = 2.0
"""What of a claim is not composed by then is let go: what is goes out first."""
START_WITHIN_SECONDS: Final = 8.0
"""What of a claim is not begun by then is let go, so that no notice goes out after its lease."""
MOST_CLAIMED: Final = 50
MOST_TOGETHER: Final = 20
"""Notices of one group that are sent together."""
FIRST_BACKOFF_SECONDS: Final = 1.0
LONGEST_BACKOFF_SECONDS: Final = 300.0
LONGEST_RETRY_AFTER_SECONDS: Final = 3600.0
"""A target may ask for more; it is tried again all the same."""
FAILURES_TO_OPEN: Final = 5
"""Failures in a row after which a target is left alone for a while."""
POLL_SECONDS: Final = 1.0
"""How often a lane looks for what other processes put into the outbox."""

_Group = list[tuple[Claimed, Notice]]

_log: Final = get_logger(__name__)


class Compose(Protocol):
    """What alerts.compose.Composer does; None: the alert is gone."""

    def compose(self, connection: Connection, alert_id: str, told: Told) -> Notice | None: ...


class Observer(Protocol):
    """Who counts; an `Observer` is monitor.metrics.Metrics."""

    def notified(self, target: str, result: str) -> None: ...

    def outbox(self, target: str, waiting: int, oldest_seconds: float) -> None: ...


def backoff_seconds(attempts: int, rng: random.Random, retry_after_seconds: float | None = None) -> float:
    """How long to wait after so many failed attempts: doubling, with jitter, and no less than was asked for.

    >>> backoff_seconds(3, random.Random(0), retry_after_seconds=30.0)
    30.0
    """
    longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(attempts - 1, 16))
    asked = min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
    return max(longest * rng.uniform(0.5, 1.0), asked)


@dataclass(slots=True)
class Breaker:
    """Leaves a target alone that fails again and again; then one notice tries whether it is back."""

    failures: int = 0
    open_until: float = 0.0

    def most(self, now: float) -> int:
        """How many notices may go now; `now` in seconds of a steady clock."""
        if self.failures < FAILURES_TO_OPEN:
            return MOST_CLAIMED
        return 1 if now >= self.open_until else 0

    def told(self, ok: bool, now: float, rng: random.Random) -> None:
        """What came of a call."""
        self.failures = 0 if ok else self.failures + 1
        if self.failures >= FAILURES_TO_OPEN:
            self.open_until = now + backoff_seconds(self.failures, rng)


class Lane:
    """The way to one target.

    Parameters
    ----------
    composer : makes notices of alerts.
    group_by : labels that notices share which are sent together.
    clock : by which the outbox is due.
    lease : longer than the target takes; what a killed process held is free again after so long.
    seed : of the jitter; None draws one.
    steady : seconds of a clock that is never set.
    """

    def __init__(
        self,
        engine: Engine,
        target: Target,
        composer: Compose,
        group_by: Sequence[str],
        clock: Callable[[], datetime],
        observer: Observer | None = None,
        *,
        lease: timedelta = LEASE,
        seed: int | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self._engine = engine
        self._composer = composer
        self._group_by = group_by
        self._clock = clock
        self._observer = observer
        self._lease = lease
        self._rng = random.Random(seed)
        self._steady = steady
        self._breaker = Breaker()

    def deliver(self) -> int:
        """Send what is due, once; returns how many notices were settled or have failed.

        Raises
        ------
        StoreError : the database cannot be used.
        """
        name, most = self.target.name, self._breaker.most(self._steady())
        if not most or not reading(self._engine, lambda c: outbox.due(c, name, self._clock())):
            return 0
        started = self._steady()
        groups, left = self._grouped(self._claim(most), started)
        done = 0
        for group in groups:
            late = self._steady() - started > START_WITHIN_SECONDS
            if done and (late or not self._breaker.most(self._steady())):
                left += [item for item, _ in group]
                continue
            outcomes = self._send([notice for _, notice in group])
            at = self._clock()
            for (item, _), outcome in zip(group, outcomes, strict=True):
                self._note(item, outcome, at)
            done += len(group)
        if left:
            committed(self._engine, lambda c: outbox.let_go(c, left))
        return done

    def depth(self) -> Depth:
        """What the target has not been told yet."""
        found = reading(self._engine, lambda c: outbox.depth(c, self.target.name))
        if self._observer is not None:
            oldest = 0.0 if found.oldest is None else max(0.0, (self._clock() - found.oldest).total_seconds())
            self._observer.outbox(self.target.name, found.waiting, oldest)
        return found

    def _claim(self, most: int) -> list[Claimed]:
        def work(connection: Connection) -> list[Claimed]:
            now = self._clock()
            return outbox.claim(connection, self.target.name, now, now + self._lease, most)

        return committed(self._engine, work)

    def _grouped(self, items: Sequence[Claimed], started: float) -> tuple[list[_Group], list[Claimed]]:
        """Notices that go together, and what there was no time for."""
        groups: dict[tuple[str, ...], _Group] = {}
        out: list[_Group] = []
        left: list[Claimed] = []
        for item in items:
            if out and self._steady() - started > COMPOSE_WITHIN_SECONDS:
                left.append(item)
                continue
            if item.status not in self.target.tells:
                self._note(item, Outcome("delivered"), self._clock())
                continue
            notice = self._compose(item)
            if notice is None:
                continue
            key = group_key(notice.labels, self._group_by)
            group = groups.setdefault(key, [])
            if not group:
                out.append(group)
            group.append((item, notice))
            if len(group) == MOST_TOGETHER:
                del groups[key]
        return out, left

    def _compose(self, item: Claimed) -> Notice | None:
        """The notice of a row; one that cannot be made keeps back no other."""
        told = Told(item.status, item.severity, item.revision, item.note)  # type: ignore[arg-type]
        try:
            notice = reading(self._engine, lambda c: self._composer.compose(c, item.alert_id, told))
        except Exception as e:  # whatever is stored of one alert
            _log.error("notice cannot be made", alert=item.alert_id, exc_info=e)
            self._note(item, Outcome("retry", f"cannot be made: {type(e).__name__}", lost=True), self._clock())
            return None
        if notice is None:
            self._note(item, Outcome("refused", "the alert is gone"), self._clock())
        return notice

    def _send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        try:
            outcomes = self.target.send(notices)
        except Exception as e:  # a target never raises; one that does is no reason to stop telling others
            _log.error("target failed", exc_info=e)
            outcomes = [Outcome("retry", type(e).__name__)] * len(notices)
        self._breaker.told(any(o.result != "retry" for o in outcomes), self._steady(), self._rng)
        return outcomes

    def _note(self, item: Claimed, outcome: Outcome, at: datetime) -> None:
        """What came of a notice, into the outbox and among the alert's events."""
        again = timedelta(seconds=backoff_seconds(item.attempts, self._rng, outcome.retry_after_seconds))
        refresh = self.target.refresh_seconds
        refresh_at = None if refresh is None or item.status == outbox.RESOLVED else at + timedelta(seconds=refresh)

        def note(connection: Connection) -> None:
            match outcome.result:
                case "delivered":
                    outbox.sent(connection, item, at, refresh_at)
                case "retry":
                    outbox.failed(connection, item, outcome.reason, at + again, lost=outcome.lost)
                case "refused":
                    outbox.refused(connection, item, outcome.reason, refresh_at)
            if item.refresh and outcome.result == "delivered":
                return
            if outcome.result == "retry" and item.attempts > 1:
                return
            text = f"{item.status}: {outcome.reason}" if outcome.reason else item.status
            event = store.AlertEvent(item.alert_id, "", 0, at, "delivery", outcome.result, text, item.target)
            store.add_events(connection, [store.of_alert(connection, event)])

        committed(self._engine, note)
        if self._observer is not None:
            self._observer.notified(item.target, outcome.result)
        if outcome.result != "delivered":
            _log.warning("notice not delivered", alert=item.alert_id, status=outcome.result, detail=item.target)


class Deliverer:
    """All lanes of a process.

    Parameters
    ----------
    poll_seconds : how often lanes look for what other processes put into the outbox.
    """

    def __init__(self, lanes: Sequence[Lane], poll_seconds: float = POLL_SECONDS) -> None:
        self.lanes = lanes
        self._poll_seconds = poll_seconds
        self._stop = threading.Event()
        self._wake = {lane.target.name: threading.Event() for lane in lanes}
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name=f"deliver-{lane.target.name}", daemon=True)
            for lane in lanes
        ]

    def start(self) -> None:
        """Begin, unless it has."""
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    def wake(self) -> None:
        """There is something in the outbox: do not wait for the next look."""
        for event in self._wake.values():
            event.set()

    def close(self, seconds: float) -> bool:
        """End after one more look at what is due; False when that takes longer: the next process sends what is left."""
        self._stop.set()
        self.wake()
        give_up = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, give_up - time.monotonic()))
        done = not any(thread.is_alive() for thread in self._threads)
        if done:
            for lane in self.lanes:
                lane.target.close()
        return done

    def drain(self, seconds: float) -> Mapping[str, int]:
        """Wait until all is delivered, for so long at most; returns what is not, by target."""
        give_up = time.monotonic() + seconds
        while True:
            left = {lane.target.name: n for lane in self.lanes if (n := lane.depth().waiting)}
            if not left or time.monotonic() >= give_up:
                return left
            time.sleep(0.05)

    def _run(self, lane: Lane) -> None:
        wake = self._wake[lane.target.name]
        ends = False
        while not ends:
            wake.clear()
            ends = self._stop.is_set()  # what was put there before goes out still
            try:
                busy = lane.deliver()
                lane.depth()
            except Exception as e:  # the database is away: what waits there keeps
                busy = 0
                _log.error("delivery failed", exc_info=e)
            if not (busy or ends):
                wake.wait(self._poll_seconds)
