"""Old rows of sums become coarser: those of an hour, later of a UTC day, are added up into one (docs/database.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic

from sqlalchemy import ColumnElement, Connection, Engine, Table, delete, distinct, func, select, tuple_

from monitor.config import Limits
from monitor.label_sums import MINUTES_PER_HOUR
from monitor.state import SeriesState
from monitor.steps import ONSET_HORIZON_MINUTES
from monitor.store import schema
from monitor.store.bucket_rows import S, Summed, upsert_rows
from monitor.store.database import committed
from monitor.store.reads import bucket_versions
from monitor.trajectory import MINUTES_PER_DAY
from monitor.transcript import minute_of

_MERGE_LOCK: Final = 0x76616C7566
"""PostgreSQL advisory lock under which rows become coarser; an arbitrary number of our own."""


@dataclass(frozen=True)
class Part(Generic[S]):
    """Rows of sums of a series and a classifier version.

    `settled` is the minute before which no step will read again: the detectors have been past it, and neither the
    longest window nor the search for an onset reaches back so far. Only of the `current` version is that for good: a
    series that is given its earlier weights again is stepped again, which whole hours allow and days do not.
    """

    rows: Summed[S]
    series_id: int
    version: str
    settled: int
    current: bool

    @property
    def table(self) -> Table:
        return self.rows.table

    @property
    def where(self) -> tuple[ColumnElement[bool], ...]:
        return self.table.c.series_id == self.series_id, self.table.c.classifier_version == self.version

    def before(self, old: datetime) -> int:
        """The first minute that stays where all before a time goes: whole days go, and nothing that is not settled."""
        return _floor(min(minute_of(old), self.settled), MINUTES_PER_DAY)

    def coarsen(
        self, engine: Engine, limits: Limits, now: datetime, batch_rows: int, *, dry_run: bool
    ) -> Iterator[tuple[int, int]]:
        """Make those coarser that are old enough at `now`; yields (finer rows, coarser rows) of each batch."""
        for grain in self._grains(limits, now):
            if dry_run:
                yield grain.count(engine)
            else:
                yield from grain.merge(engine, batch_rows)

    def _grains(self, limits: Limits, now: datetime) -> Iterator[_Grain[S]]:
        days_before = 0
        if limits.hours_after is not None and self.current:
            days_before = self.before(now - limits.hours_after)
            yield _Grain(self, MINUTES_PER_DAY, schema.DAY_SHARD, 0, days_before)
        if limits.minutes_after is not None:
            before = _floor(min(minute_of(now - limits.minutes_after), self.settled), MINUTES_PER_HOUR)
            yield _Grain(self, MINUTES_PER_HOUR, schema.HOUR_SHARD, days_before, before)


@dataclass(frozen=True)
class _Grain(Generic[S]):
    """Rows with start <= minute < before that are to become rows of `minutes`, under the number `shard`."""

    part: Part[S]
    minutes: int
    shard: int
    start: int
    before: int

    @property
    def _finer(self) -> tuple[ColumnElement[bool], ...]:
        t = self.part.table
        return *self.part.where, t.c.minute >= self.start, t.c.minute < self.before, t.c.shard > self.shard

    def count(self, engine: Engine) -> tuple[int, int]:
        """(finer rows, coarser rows they would become)."""
        minute = self.part.table.c.minute
        query = select(func.count(), func.count(distinct(minute // self.minutes))).where(*self._finer)
        with engine.connect() as connection:
            finer, coarser = connection.execute(query).one()
        return finer, coarser

    def merge(self, engine: Engine, batch_rows: int) -> Iterator[tuple[int, int]]:
        """Yields the same for each batch. Which rows share a batch does not matter: sums of integers are exact."""
        start: int | None = self.start
        while start is not None:
            merge = partial(self._merge_batch, start=start, batch_rows=batch_rows)
            finer, coarser, start = committed(engine, merge)
            yield finer, coarser

    def _merge_batch(self, connection: Connection, start: int, batch_rows: int) -> tuple[int, int, int | None]:
        """(finer rows, coarser rows, minute to go on from or None) of the first rows from minute `start` on."""
        t = self.part.table
        order = (t.c.minute, t.c.shard)
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_MERGE_LOCK)))
        # in the order in which writers lock theirs. What a writer adds meanwhile is either waited for, or waits itself
        # and finds its row gone: it then makes a new one, for the next time
        page = select(*order).where(*self._finer, t.c.minute >= start).order_by(*order).limit(batch_rows)
        found = connection.execute(page.with_for_update()).all()
        if not found:
            return 0, 0, None
        taken = delete(t).where(*self._finer, t.c.minute >= start, tuple_(*order) <= tuple(found[-1]))
        # back in their order, which decides what values of a label are named (monitor.label_sums)
        finer = sorted(connection.execute(taken.returning(*order, t.c.sums)).all(), key=lambda row: tuple(row[:2]))
        return len(finer), self._add(connection, finer), found[-1].minute

    def _add(self, connection: Connection, finer: Sequence[Any]) -> int:
        t, kind = self.part.table, self.part.rows.kind
        added: dict[int, S] = {}
        for minute, _, packed in finer:
            begin = _floor(minute, self.minutes)
            sums = kind.unpack(packed)
            added[begin] = added[begin] + sums if begin in added else sums
        have = connection.execute(
            select(t.c.minute, t.c.sums).where(*self.part.where, t.c.shard == self.shard, t.c.minute.in_(added))
        )
        fresh = set(added)
        for minute, packed in have:
            added[minute] = kind.unpack(packed) + added[minute]
            fresh.discard(minute)
        upsert_rows(
            connection,
            t,
            [
                {
                    "series_id": self.part.series_id,
                    "classifier_version": self.part.version,
                    "minute": minute,
                    "shard": self.shard,
                    "n": sums.n,
                    "sums": sums.pack(),
                }
                for minute, sums in sorted(added.items())
            ],
        )
        return len(fresh)


def parts(engine: Engine, rows: Summed[S]) -> list[Part[S]]:
    """Every series and classifier version that a table has rows of."""
    p, s = schema.points, schema.series
    found: list[Part[S]] = []
    with engine.connect() as connection:
        for series_id, packed in connection.execute(select(s.c.id, s.c.state).order_by(s.c.id)).all():
            state = None if packed is None else SeriesState.unpack(packed)
            for version in bucket_versions(connection, series_id, rows.table):
                current = state is not None and state.classifier_version == version
                if state is not None and current:
                    upto = state.next_minute
                else:
                    stepped = (
                        select(p.c.t)
                        .where(p.c.series_id == series_id, p.c.classifier_version == version)
                        .order_by(p.c.t.desc())
                        .limit(1)
                    )
                    newest = connection.execute(stepped).scalar_one_or_none()
                    upto = 0 if newest is None else minute_of(newest)
                found.append(Part(rows, series_id, version, upto - ONSET_HORIZON_MINUTES, current))
    return found


def _floor(minute: int, grain: int) -> int:
    return minute // grain * grain
