"""Reads of the weekly report: sums, points and turns of a span of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, and_, or_, select

from monitor.buckets import Q_UNIT, Sums
from monitor.label_sums import MINUTES_PER_HOUR, Terms, added, as_sums
from monitor.store import schema
from monitor.store.reads import bucket_versions
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import MINUTES_PER_DAY
from monitor.transcript import minute_of, time_of

MOST_RANGES: Final = 100
"""Stretches of hours of one query."""
_TOTAL: Final = msgspec.msgpack.Decoder(tuple[Terms, msgspec.Raw])
"""Of packed monitor.label_sums.LabelSums the sums of all turns alone: those by label take far longer to unpack."""


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection whose reads all see the same state of the database."""
    options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**options) as connection:
        yield connection


@dataclass(frozen=True, slots=True)
class Spanned:
    """The turns of a span, and in how many of its hours there were any (a day that is one row counts as one)."""

    sums: Sums
    hours: int


def span_sums(connection: Connection, series_id: int, version: str, start: datetime, end: datetime) -> Spanned:
    """Sums of a series in [start, end), which are whole hours.

    From the hourly sums of label_sums, sixty times fewer than buckets; where an hour has none (no labels were followed
    then) from the buckets. The detectors' counts are not in it.
    """
    first, last = minute_of(start), minute_of(end)
    total: Terms = []
    hours: set[int] = set()
    known = np.zeros((last - first) // MINUTES_PER_HOUR, dtype=bool)
    t = schema.label_sums
    mine = (t.c.series_id == series_id, t.c.classifier_version == version, t.c.minute >= first, t.c.minute < last)
    rows = connection.execute(select(t.c.minute, t.c.shard, t.c.sums).where(*mine).execution_options(yield_per=500))
    for minute, shard, packed in rows:
        total = added(total, _TOTAL.decode(packed)[0])
        hours.add(minute // MINUTES_PER_HOUR)
        at = (minute - first) // MINUTES_PER_HOUR
        known[at : at + (MINUTES_PER_DAY // MINUTES_PER_HOUR if shard == schema.DAY_SHARD else 1)] = True
    sums = as_sums(total)
    for minute, packed in _buckets(connection, series_id, version, _stretches(~known, first)):
        sums = sums + Sums.unpack(packed)
        hours.add(minute // MINUTES_PER_HOUR)
    return Spanned(sums, len(hours))


def _stretches(wanted: NDArray[np.bool_], first: int) -> list[tuple[int, int]]:
    """Runs of wanted hours as [start, end) minutes."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    return [(first + int(a) * MINUTES_PER_HOUR, first + int(b) * MINUTES_PER_HOUR) for a, b in edges.reshape(-1, 2)]


def _buckets(
    connection: Connection, series_id: int, version: str, stretches: Sequence[tuple[int, int]]
) -> Iterator[Any]:
    """(minute, packed sums) of the buckets of some stretches."""
    t = schema.buckets
    for i in range(0, len(stretches), MOST_RANGES):
        within = or_(*(and_(t.c.minute >= a, t.c.minute < b) for a, b in stretches[i : i + MOST_RANGES]))
        query = (
            select(t.c.minute, t.c.sums)
            .where(t.c.series_id == series_id, t.c.classifier_version == version, within)
            .execution_options(yield_per=500)
        )
        yield from connection.execute(query)


def versions_in(connection: Connection, series_id: int, start: datetime, end: datetime) -> dict[str, datetime]:
    """The classifier versions that judged turns of a series in [start, end), each with the first of its minutes."""
    t = schema.buckets
    found: dict[str, datetime] = {}
    for version in bucket_versions(connection, series_id):
        query = (
            select(t.c.minute)
            .where(
                t.c.series_id == series_id,
                t.c.classifier_version == version,
                t.c.minute >= minute_of(start),
                t.c.minute < minute_of(end),
            )
            .order_by(t.c.minute)
            .limit(1)
        )
        first = connection.execute(query).scalar_one_or_none()
        if first is not None:
            found[version] = time_of(first)
    return dict(sorted(found.items(), key=lambda x: (x[1], x[0])))


def last_point(
    connection: Connection, series_id: int, version: str, window_minutes: int, start: datetime, end: datetime
) -> Mapping[str, Any] | None:
    """The last trajectory point with start < t <= end, by the table's column names."""
    t = schema.points
    query = (
        select(t)
        .where(t.c.series_id == series_id, t.c.t > start, t.c.t <= end)
        .where(t.c.window_minutes == window_minutes, t.c.classifier_version == version)
        .order_by(t.c.t.desc())
        .limit(1)
    )
    return cast(Mapping[str, Any] | None, connection.execute(query).mappings().first())


@dataclass(frozen=True, slots=True)
class JudgedTurns:
    """Turns of a series: their conversations, their places in their events, and (n, 5) probabilities."""

    conversations: list[str]
    places: NDArray[np.float64]
    q: NDArray[np.float64]


def judged_turns(
    connection: Connection, series_id: int, version: str, start: datetime, end: datetime, most: int
) -> JudgedTurns:
    """The first turns of a series in [start, end), at most so many."""
    t = schema.turns
    query = (
        select(t.c.conversation_id, t.c.turn, *(t.c[f"q_{b}"] for b in BEHAVIOURS))
        .where(t.c.series_id == series_id, t.c.classifier_version == version, t.c.ts >= start, t.c.ts < end)
        .order_by(t.c.ts, t.c.event_id, t.c.turn)
        .limit(most)
    )
    rows = connection.execute(query).all()
    figures = np.array([tuple(r)[1:] for r in rows], dtype=np.float64).reshape(-1, 1 + len(BEHAVIOURS))
    return JudgedTurns([r.conversation_id for r in rows], figures[:, 0], figures[:, 1:] / Q_UNIT)
