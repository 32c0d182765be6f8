"""Requests' events into the database, many in one transaction; an answer is given only after its commit.

A request's way: `submit` puts it on the queue, the one thread takes what is there, `_store` judges and commits it, and
its future gets one outcome an item. What cannot be stored now is turned away, and the client sends it again: an event
counts once by its id.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sqlalchemy import Engine, text

from monitor.engine import SeriesKey, series_of
from monitor.errors import StoreError, StoreUnreachable
from monitor.intake import Intake, store_by_halves
from monitor.logs import get_logger
from monitor.metrics import Metrics
from monitor.store.ledger import BAD, DUPLICATE, Arrival, DeadLetter
from monitor.store.retry import retrying
from monitor.store.writes import ChunkWriter, Offset, open_offset
from monitor.transcript import Event
from monitor.web.keys import ANYBODY, Key
from monitor.web.refusals import Refused

COUNTED: Final = "counted"
REJECTED: Final = "rejected"

LINGER_SECONDS: Final = 0.003
"""A batch that is not full waits so long for more: a transaction costs about as much."""
PROBE_SECONDS: Final = 1.0
"""A database that is away is looked for so often."""
FULL: Final = 0.9
"""A queue is full from this share on: requests are of many sizes, and the next may be too large."""
MOST_NAMES: Final = 100
"""Processes of one instance name that a source is found for."""

_log: Final = get_logger(__name__)


class Outcome(NamedTuple):
    """What came of one item."""

    event_id: str | None
    status: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of a request: an event, or why it is none.

    Attributes
    ----------
    size : bytes.
    payload_hash : of its text (Intake.payload_hash); None where it had none of its own.
    """

    size: int
    event: Event | None
    reason: str = ""
    payload_hash: bytes | None = None


@dataclass(slots=True)
class Submission:
    """The items of one request, and where their outcomes go."""

    items: Sequence[Item]
    key: Key
    future: Future[list[Outcome]] = field(default_factory=Future)


class Committer:
    """The queue, and the thread that empties it.

    Parameters
    ----------
    instance : of the source's name, http@INSTANCE. Where another process uses that very source, this one goes on as
        http@INSTANCE#2, #3 ...
    queue_events : more than these never wait, but for a single request when nothing waits.
    """

    def __init__(
        self,
        intake: Intake,
        metrics: Metrics,
        *,
        instance: str,
        series_by: Sequence[str],
        queue_events: int,
        batch_events: int,
        max_series_per_key: int,
        retry_after: float,
    ) -> None:
        self._intake = intake
        self._metrics = metrics
        self._instance = instance
        self._series_by = series_by
        self._queue_events = queue_events
        self._batch_events = batch_events
        self._max_series_per_key = max_series_per_key
        self._retry_after = retry_after
        self._series: dict[str, set[SeriesKey]] = {}
        self._queue: deque[Submission] = deque()
        self._waiting = 0  # items in the queue
        self._changed = threading.Condition()
        self._closed = False
        self._away = False
        self._number = 1
        self._writer: ChunkWriter | None = None
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    @property
    def source(self) -> str:
        """The name of its offset in the database."""
        return f"http@{self._instance}" + ("" if self._number == 1 else f"#{self._number}")

    @property
    def away(self) -> bool:
        """Whether the database is away."""
        return self._away

    @property
    def full(self) -> bool:
        """Whether a request of a usual size is turned away."""
        return self._waiting >= FULL * self._queue_events

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def close(self, seconds: float) -> bool:
        """Store what waits, and end; False when that takes longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def check(self, items: int = 1) -> None:
        """Raises Refused 503 where so many items would be turned away now."""
        if self._away:
            raise self._unavailable("the database is away")
        if self._closed or not self.alive:
            raise self._unavailable("shutting down")
        if self._waiting and self._waiting + items > self._queue_events:
            raise self._unavailable("the queue is full")

    def submit(self, submission: Submission) -> Future[list[Outcome]]:
        """Queue a request. Its future has an outcome for each item once they are committed, or raises Refused."""
        with self._changed:
            self.check(len(submission.items))
            self._queue.append(submission)
            self._count(len(submission.items))
            self._changed.notify_all()
        return submission.future

    def _count(self, items: int) -> None:
        self._waiting += items
        self._metrics.queue_events.set(self._waiting)

    def _unavailable(self, reason: str) -> Refused:
        return Refused(503, reason, retry_after=self._retry_after)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            if self._away:
                self._probe()
            if batch:
                self._serve(batch)

    def _take(self) -> list[Submission] | None:
        """The next requests, at least one, but for [] where the database is to be looked for; None at the end."""
        with self._changed:
            while not self._queue:
                if self._closed:
                    return None
                self._changed.wait(PROBE_SECONDS if self._away else None)
                if self._away:
                    return []
            if self._waiting < self._batch_events and not self._closed:
                self._changed.wait(LINGER_SECONDS)
            batch: list[Submission] = []
            size = 0
            while self._queue and (not batch or size + len(self._queue[0].items) <= self._batch_events):
                taken = self._queue.popleft()
                size += len(taken.items)
                if taken.future.set_running_or_notify_cancel():  # else its client has gone, and will send it again
                    batch.append(taken)
            self._count(-size)
            return batch

    def _serve(self, batch: Sequence[Submission]) -> None:
        """Store a batch and tell its clients."""
        pairs = [(item, s.key) for s in batch for item in s.items]
        try:
            outcomes = self._store_all(pairs)
        except StoreUnreachable as e:
            _log.error("database away", error=type(e).__name__, detail=str(e))
            self._turn_away(batch, "the database is away")
            self._away, self._writer = True, None
            self._empty_queue()
        except Exception as e:
            _log.error("batch not stored", exc_info=e, items=len(pairs))
            self._turn_away(batch, "the database does not take it")
            self._writer = None
        else:
            for s in batch:
                s.future.set_result([next(outcomes) for _ in s.items])

    def _turn_away(self, batch: Sequence[Submission], reason: str) -> None:
        for s in batch:
            s.future.set_exception(self._unavailable(reason))

    def _empty_queue(self) -> None:
        """What waits would wait in vain: each client is told at once."""
        with self._changed:
            waiting = [s for s in self._queue if s.future.set_running_or_notify_cancel()]
            self._queue.clear()
            self._count(-self._waiting)
        self._turn_away(waiting, "the database is away")

    def _probe(self) -> None:
        try:
            retrying(self._intake.engine, lambda: ask(self._intake.engine), 0)
        except Exception:  # whatever it is: it does not answer as it should
            return
        self._away = False
        _log.warning("database back")

    def _store_all(self, pairs: Sequence[tuple[Item, Key]]) -> Iterator[Outcome]:
        """Outcomes of all items; an event that breaks what judges or stores it becomes a dead letter."""

        def refuse(pair: tuple[Item, Key], reason: str) -> list[Outcome]:
            item, key = pair
            return self._store([(Item(item.size, None, reason, item.payload_hash), key)])

        def failed(e: Exception, items: int) -> None:
            self._writer = None
            _log.error("batch failed", exc_info=e, items=items)

        return iter(store_by_halves(pairs, self._store, refuse, failed))

    def _store(self, pairs: Sequence[tuple[Item, Key]]) -> list[Outcome]:
        """One transaction, under a source that nobody else uses."""
        for _ in range(MOST_NAMES):
            writer = self._open()
            at = writer.offset.line
            arrivals: list[Arrival] = []
            bad: list[DeadLetter] = []
            for line, (item, key) in enumerate(pairs, start=at + 1):
                event, reason = self._allowed(item, key)
                if event is None:
                    bad.append(DeadLetter(line, line, item.size, BAD, reason, item.payload_hash))
                else:
                    arrivals.append(Arrival(event, line, line, item.size, item.payload_hash))
            end = at + len(pairs)
            try:
                written = self._intake.store(writer, arrivals, bad, position=end, line=end)
            except StoreUnreachable:
                raise
            except StoreError:
                self._writer = None
                if not self._moved(writer.offset):
                    raise
                _log.warning("instance name in use", source=self.source)
                self._number += 1
                continue
            dead = {d.line: d for d in written.dead}
            return [_outcome(item, dead.get(line)) for line, (item, _) in enumerate(pairs, start=at + 1)]
        raise StoreError(f"{self.source}: too many processes use this instance name; set serve.instance")

    def _open(self) -> ChunkWriter:
        if self._writer is None:
            self._writer = self._intake.open(self.source)
            _log.info("writing", source=self.source, position=self._writer.offset.position)
        return self._writer

    def _moved(self, known: Offset) -> bool:
        """Whether another process wrote to our source."""
        return open_offset(self._intake.engine, self.source) != known

    def _allowed(self, item: Item, key: Key) -> tuple[Event | None, str]:
        """The item's event, or why its key may not write it."""
        event = item.event
        if event is None:
            return None, item.reason
        if key.deployments and event.deployment not in key.deployments:
            return None, "deployment is not one of this key's"
        if key is ANYBODY:
            return event, ""
        series = series_of(event, self._series_by)
        seen = self._series.setdefault(key.name, set())
        if series not in seen:
            if len(seen) >= self._max_series_per_key:
                return None, f"more than {self._max_series_per_key} series of one key; raise serve.max_series_per_key"
            seen.add(series)
        return event, ""


def _outcome(item: Item, dead: DeadLetter | None) -> Outcome:
    event_id = None if item.event is None else item.event.event_id
    if dead is None:
        return Outcome(event_id, COUNTED)
    if dead.kind == DUPLICATE:
        return Outcome(event_id, DUPLICATE)
    return Outcome(event_id, REJECTED, dead.reason)


def ask(engine: Engine) -> None:
    """Whether the database answers. Raises what SQLAlchemy does where not."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
