"""How this process is doing, as Prometheus reads it. No label ever holds text that came from outside."""

from __future__ import annotations

import platform
import re
from datetime import datetime
from importlib.metadata import version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError

from classifiers.api import Classifier
from monitor.store.ledger import BAD
from monitor.store.retry import is_outage, passes
from monitor.store.writes import Offset, Written

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_CLASSES: Final = (
    ("too_many_series", r"more than .* series"),
    ("deployment", r"deployment is not one of"),
    ("size", r"over the limit|line of .* bytes|nested too deeply|more than .* (?:labels|messages)"),
    ("encoding", r"not UTF-8"),
    ("json", r"JSON is malformed|Input data was truncated|Invalid|nested"),
    ("missing", r"is missing|missing required"),
    ("time", r"\bts\b|timestamp|created|RFC 3339|\btime\b"),
    ("sample_rate", r"sample_rate"),
    ("no_answer", r"no assistant message|no answer"),
    ("field", r"Expected `|is empty|is not text|contains NUL|neither|labels|context"),
    ("undecodable", r"cannot be (?:decoded|judged|stored)"),
)
REASON_CLASSES: Final = (*(name for name, _ in _CLASSES), "other")
_COMPILED: Final = tuple((name, re.compile(pattern)) for name, pattern in _CLASSES)

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_EVENTS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


def reason_class(reason: str) -> str:
    """One of REASON_CLASSES for the reason of a dead letter."""
    return next((name for name, pattern in _COMPILED if pattern.search(reason)), "other")


class Metrics:
    """The figures of one process, in a registry of their own. An `Observer` of monitor.intake."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second line for each, of no use here
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        r = self.registry
        self._build = Gauge(
            "valuedrift_build_info", "Versions, as labels.", ["version", "python", "weights"], registry=r
        )
        self._events = Counter("valuedrift_events", "Events taken in, whatever came of them.", registry=r)
        self._turns = Counter("valuedrift_turns", "Turns judged and stored.", registry=r)
        self._duplicates = Counter("valuedrift_duplicates", "Events that were counted before.", registry=r)
        self.skipped = Counter("valuedrift_skipped", "What rightly holds nothing to judge.", registry=r)
        self._sampled_out = Counter("valuedrift_sampled_out", "Events that sampling leaves out.", registry=r)
        self._dead = Counter("valuedrift_dead_letters", "Events that could not be counted.", ["reason"], registry=r)
        self._batch = Histogram(
            "valuedrift_batch_seconds", "From a batch taken to its commit.", buckets=_SECONDS, registry=r
        )
        self._batch_events = Histogram("valuedrift_batch_events", "Events of a batch.", buckets=_EVENTS, registry=r)
        self._classify = Histogram(
            "valuedrift_classify_seconds", "Judging the turns of a batch.", buckets=_SECONDS, registry=r
        )
        self._errors = Counter("valuedrift_database_errors", "Errors the database answered with.", ["kind"], registry=r)
        self._lag = Gauge(
            "valuedrift_lag_seconds", "Clock minus event time of the newest event, when it was stored.", registry=r
        )
        self.lag_events = Gauge(
            "valuedrift_lag_events", "Events that wait in a partition.", ["topic", "partition"], registry=r
        )
        self.partitions_given_up = Gauge(
            "valuedrift_partitions_given_up", "Partitions that stand still and that steps do not wait for.", registry=r
        )
        self.queue_events = Gauge("valuedrift_queue_events", "Events taken in and not yet stored.", registry=r)
        self.held_bytes = Gauge("valuedrift_held_bytes", "Bytes of requests at hand, decompressed.", registry=r)
        self.series = Gauge("valuedrift_series", "Series in the database.", registry=r)
        self._steps = Histogram(
            "valuedrift_step_seconds", "Moving all series on.", ["outcome"], buckets=_SECONDS, registry=r
        )
        self._notifications = Counter(
            "valuedrift_notifications", "Notices by target and what came of them.", ["target", "result"], registry=r
        )
        self._outbox = Gauge("valuedrift_outbox", "Notices that a target was not told yet.", ["target"], registry=r)
        self._outbox_oldest = Gauge(
            "valuedrift_outbox_oldest_seconds", "Since when the oldest of them waits; 0: none.", ["target"], registry=r
        )
        self._requests = Counter("valuedrift_http_requests", "Requests answered.", ["route", "status"], registry=r)
        self._answer = Histogram(
            "valuedrift_http_seconds",
            "From a request's headers to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=r,
        )
        for reason in REASON_CLASSES:  # a rate needs its zero
            self._dead.labels(reason)
        for kind in ("outage", "collision", "other"):
            self._errors.labels(kind)
        for outcome in ("done", "failed"):
            self._steps.labels(outcome)

    def text(self) -> bytes:
        """What Prometheus scrapes."""
        return generate_latest(self.registry)

    def build(self, classifier: Classifier) -> None:
        self._build.labels(version("valuedrift"), platform.python_version(), classifier.version).set(1)

    def watch(self, engine: Engine) -> None:
        """Count what the database refuses, also where it is tried again; keys that are there already are no errors."""

        @event.listens_for(engine, "handle_error")
        def count(context: ExceptionContext) -> None:
            e = context.sqlalchemy_exception
            if isinstance(e, DBAPIError) and not isinstance(e, IntegrityError):
                self._errors.labels("outage" if is_outage(e) else "collision" if passes(e) else "other").inc()

    def classified(self, seconds: float) -> None:
        self._classify.observe(seconds)

    def sampled_out(self, events: int) -> None:
        self._sampled_out.inc(events)

    def stored(self, before: Offset, written: Written, newest: datetime | None, now: datetime, seconds: float) -> None:
        """A batch was committed.

        Parameters
        ----------
        before : the source's offset until then.
        newest : event time of the batch's newest event.
        """
        after = written.offset
        self._events.inc(after.events - before.events)
        self._turns.inc(after.turns - before.turns)
        self._duplicates.inc(after.duplicates - before.duplicates)
        self._batch_events.observe(after.events - before.events)
        self._batch.observe(seconds)
        for letter in written.dead:
            if letter.kind == BAD:
                self._dead.labels(reason_class(letter.reason)).inc()
        if newest is not None:
            self._lag.set((now - newest).total_seconds())

    def stepped(self, seconds: float, *, failed: bool) -> None:
        self._steps.labels("failed" if failed else "done").observe(seconds)

    def notified(self, target: str, result: str) -> None:
        """`target` is the name of a configured one, `result` one of alerts.targets.base.Result."""
        self._notifications.labels(target, result).inc()

    def outbox(self, target: str, waiting: int, oldest_seconds: float) -> None:
        self._outbox.labels(target).set(waiting)
        self._outbox_oldest.labels(target).set(oldest_seconds)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """`route` is one of the paths served, or "other"."""
        self._requests.labels(route, str(status)).inc()
        self._answer.labels(route).observe(seconds)
