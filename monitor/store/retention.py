"""Retention: what is older than its limit goes, and old buckets become coarser (docs/database.md).

On PostgreSQL `turns`, `turn_texts` and `points` go by whole months. All else, and texts of the month that is not over,
goes in batches, each a transaction of its own and so short that no writer waits long. Killed anywhere, what was done is
done, and the next run does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Engine,
    Row,
    Select,
    Table,
    bindparam,
    delete,
    distinct,
    exists,
    func,
    select,
    tuple_,
)
from sqlalchemy.exc import OperationalError, ProgrammingError

from monitor.buckets import Sums
from monitor.config import Limits
from monitor.state import SeriesState
from monitor.steps import ONSET_HORIZON_MINUTES
from monitor.store import schema
from monitor.store.database import insert, writing
from monitor.store.partitions import drop_before, make_ahead, month_after, month_of, months
from monitor.store.reads import bucket_versions
from monitor.store.retry import reading, retrying
from monitor.trajectory import MINUTES_PER_DAY
from monitor.transcript import minute_of

P = ParamSpec("P")
T = TypeVar("T")

BATCH_ROWS: Final = 5000
"""Rows of one transaction: a fraction of a second."""
MINUTES_PER_HOUR: Final = 60
_LOCK_TIMEOUT: Final = "55P03"
_UNDEFINED_TABLE: Final = "42P01"
_MERGE_LOCK: Final = 0x76616C7566
"""PostgreSQL advisory lock under which buckets become coarser; an arbitrary number of our own."""


@dataclass(slots=True)
class Pruned:
    """What went, or would go."""

    rows: dict[str, int] = field(default_factory=dict)
    """By table."""
    months: dict[str, list[date]] = field(default_factory=dict)
    """Whole months of a table, by their first day."""
    busy: list[str] = field(default_factory=list)
    """Tables of which months are left for the next time, because somebody held on to them."""
    merged: int = 0
    """Bucket rows that became coarser ones."""
    into: int = 0
    """Hours and days that these were added to."""


def prune(
    engine: Engine, limits: Limits, now: datetime, *, dry_run: bool = False, batch_rows: int = BATCH_ROWS
) -> Pruned:
    """Let go of what is older than its limit at `now`, make buckets coarser, and make the months to come.

    May run beside writers and beside itself. A dry run counts and changes nothing.
    """
    out = Pruned()
    if not dry_run:
        make_ahead(engine, now.date())
    turns_before = _turns_before(engine, limits, now)
    of_table = {"turns": turns_before, "turn_texts": _before(now, limits.texts), "points": _before(now, limits.points)}
    for table, before in of_table.items():
        if before is not None and engine.dialect.name == "postgresql":
            _drop_months(engine, table, before, out, dry_run)
    for old in _old(engine, limits, now, turns_before):
        gone = old.count(engine) if dry_run else old.delete(engine, batch_rows)
        out.rows[old.table.name] = out.rows.get(old.table.name, 0) + gone
    for said in (schema.reviews, schema.second_judgements):
        out.rows[said.name] = _orphans(engine, said, batch_rows, dry_run, turns_before)
    keys_before = _before(now, limits.event_keys)
    if keys_before is not None and turns_before is not None:
        keys_before = min(keys_before, _oldest_kept(engine, turns_before, out) - limits.ahead)
        out.rows["event_keys"] = _event_keys(engine, keys_before, batch_rows, dry_run)
    for part in _parts(engine):
        for grain in part.grains(limits, now):
            for merged, into in [grain.count(engine)] if dry_run else grain.merge(engine, batch_rows):
                out.merged += merged
                out.into += into
    return out


def _read(engine: Engine, query: Select[Any]) -> Sequence[Row[Any]]:
    return reading(engine, lambda connection: connection.execute(query).all())


def _batch(engine: Engine, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A transaction of its own, again when it collides: it finds out itself what is left to do."""

    def attempt() -> T:
        with writing(engine) as connection:
            return work(connection, *args, **kwargs)

    return retrying(engine, attempt)


def _execute(connection: Connection, statement: Delete, parameters: Sequence[dict[str, Any]] = ()) -> int:
    return connection.execute(statement, parameters).rowcount if parameters else connection.execute(statement).rowcount


def _before(now: datetime, kept: timedelta | None) -> datetime | None:
    return None if kept is None else now - kept


def _turns_before(engine: Engine, limits: Limits, now: datetime) -> datetime | None:
    """Turns from before this time go: on PostgreSQL, up to the end of the last month that is wholly too old."""
    before = _before(now, limits.turns)
    return before if before is None or engine.dialect.name != "postgresql" else _start(month_of(before))


def _drop_months(engine: Engine, table: str, before: datetime, out: Pruned, dry_run: bool) -> None:
    with engine.connect() as connection:
        had = months(connection, table)
    if dry_run:
        out.months[table] = [m for m in had if month_after(m) <= month_of(before)]
        return

    def drop() -> None:
        while True:
            try:
                drop_before(engine, table, before.date())
            except (OperationalError, ProgrammingError) as e:
                state = getattr(e.orig, "sqlstate", None)
                if state == _UNDEFINED_TABLE:  # another prune was first
                    continue
                if state != _LOCK_TIMEOUT:
                    raise
                out.busy.append(table)
            return

    retrying(engine, drop)
    with engine.connect() as connection:
        have = months(connection, table)
    out.months[table] = sorted(set(had) - set(have))


def _oldest_kept(engine: Engine, turns_before: datetime, out: Pruned) -> datetime:
    """No turn that stays is older: the ledger knows its event as long, so that it does not count again beside it."""
    with engine.connect() as connection:
        kept = [m for m in months(connection, "turns") if m not in out.months.get("turns", [])]
    return min([turns_before, *(_start(m) for m in kept)])


def _start(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Old:
    """Rows of a table that go, walked in the order of an index."""

    table: Table
    where: tuple[ColumnElement[bool], ...]
    order: tuple[ColumnElement[Any], ...]

    def count(self, engine: Engine) -> int:
        with engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(self.table).where(*self.where)).scalar_one())

    def delete(self, engine: Engine, batch_rows: int) -> int:
        gone = 0
        last: tuple[Any, ...] | None = None
        while True:
            where = self.where if last is None else (*self.where, tuple_(*self.order) > last)
            page = select(*self.order).where(*where).order_by(*self.order).limit(batch_rows)
            found = _read(engine, page)
            if not found:
                return gone
            last = tuple(found[-1])
            taken = delete(self.table).where(*where, tuple_(*self.order) <= last)
            gone += _batch(engine, _execute, taken)


def _old(engine: Engine, limits: Limits, now: datetime, turns_before: datetime | None) -> Iterator[_Old]:
    """What goes in batches by an age of its own."""
    t, p, d, a = schema.turns, schema.points, schema.dead_letters, schema.alerts
    with engine.connect() as connection:
        series = connection.execute(select(schema.series.c.id).order_by(schema.series.c.id)).scalars().all()
        sources = connection.execute(select(schema.offsets.c.id).order_by(schema.offsets.c.id)).scalars().all()
    if engine.dialect.name != "postgresql":
        for s in series if turns_before is not None else ():
            yield _Old(t, (t.c.series_id == s, t.c.ts < turns_before), (t.c.ts, t.c.event_id, t.c.turn))
        points_before = _before(now, limits.points)
        for s in series if points_before is not None else ():
            yield _Old(p, (p.c.series_id == s, p.c.t < points_before), (p.c.t, p.c.window_minutes))
    x = schema.turn_texts
    texts_before = _before(now, limits.texts)
    if texts_before is not None:
        yield _Old(x, (x.c.ts < texts_before,), (x.c.ts, x.c.event_id, x.c.turn))
    letters_before = _before(now, limits.dead_letters)
    for o in sources if letters_before is not None else ():
        yield _Old(d, (d.c.offset_id == o, d.c.seen_at < letters_before), (d.c.line,))
    alerts_before = _before(now, limits.alerts)
    if alerts_before is not None:
        yield _Old(a, (a.c.firing.is_(False), a.c.resolved_at < alerts_before), (a.c.id,))
    buckets_before = _before(now, limits.buckets)
    for part in _parts(engine) if buckets_before is not None else ():
        assert buckets_before is not None
        before = _floor(min(minute_of(buckets_before), part.settled), MINUTES_PER_DAY)
        yield _Old(part.table, (*part.where, part.table.c.minute < before), (part.table.c.minute, part.table.c.shard))


def _orphans(engine: Engine, table: Table, batch_rows: int, dry_run: bool, turns_before: datetime | None) -> int:
    """What was said of turns that are no longer there; a turn and what is said of it are stored together."""
    t, keys = schema.turns, (table.c.event_id, table.c.turn)
    turn = exists().where(t.c.event_id == table.c.event_id, t.c.turn == table.c.turn)
    orphan = delete(table).where(keys[0] == bindparam("id"), keys[1] == bindparam("place"), ~turn)
    kept = select(t.c.event_id, t.c.turn)
    if dry_run and turns_before is not None:
        kept = kept.where(t.c.ts >= turns_before)
    gone = 0
    last: tuple[Any, ...] = ("", -1)
    while True:
        page = [
            tuple(r) for r in _read(engine, select(*keys).where(tuple_(*keys) > last).order_by(*keys).limit(batch_rows))
        ]
        if not page:
            return gone
        last = page[-1]
        have = {tuple(r) for r in _read(engine, kept.where(t.c.event_id.in_({event_id for event_id, _ in page})))}
        without = [{"id": event_id, "place": place} for event_id, place in page if (event_id, place) not in have]
        gone += len(without)
        if without and not dry_run:
            _batch(engine, _execute, orphan, without)


def _event_keys(engine: Engine, before: datetime, batch_rows: int, dry_run: bool) -> int:
    """Forget events that were seen so long ago; those of one instant, which are one transaction's, together."""
    t = schema.event_keys
    instants = (
        select(t.c.seen_at, func.count())
        .where(t.c.seen_at < before)
        .group_by(t.c.seen_at)
        .order_by(t.c.seen_at)
        .execution_options(yield_per=1000)
    )
    gone = 0
    with engine.connect() as reader:
        # each slice by both its ends, so that PostgreSQL's block ranges lead to it and past what is gone already
        after: datetime | None = None
        for last, rows in _slices(((r[0], r[1]) for r in reader.execute(instants)), batch_rows):
            gone += rows
            if not dry_run:
                taken = delete(t).where(t.c.seen_at <= last)
                taken = taken if after is None else taken.where(t.c.seen_at > after)
                _batch(engine, _execute, taken)
            after = last
    return gone


def _slices(instants: Iterable[tuple[datetime, int]], most: int) -> Iterator[tuple[datetime, int]]:
    """Runs of instants of at most so many rows, or one instant alone: (the last one, rows)."""
    held: tuple[datetime, int] | None = None
    for at, rows in instants:
        if held is not None and held[1] + rows > most:
            yield held
            held = None
        held = (at, rows + (0 if held is None else held[1]))
    if held is not None:
        yield held


# --- buckets become coarser


@dataclass(frozen=True, slots=True)
class _Part:
    """Buckets of a series and a classifier version.

    `settled` is the minute before which no step will read again: the detectors have been past it, and neither the
    longest window nor the search for an onset reaches back so far. Only of the `current` version is that for good: a
    series that is given its earlier weights again is stepped again, which whole hours allow and days do not.
    """

    series_id: int
    version: str
    settled: int
    current: bool

    table = schema.buckets

    @property
    def where(self) -> tuple[ColumnElement[bool], ...]:
        return self.table.c.series_id == self.series_id, self.table.c.classifier_version == self.version

    def grains(self, limits: Limits, now: datetime) -> Iterator[_Grain]:
        days_before = 0
        if limits.hours_after is not None and self.current:
            days_before = _floor(min(minute_of(now - limits.hours_after), self.settled), MINUTES_PER_DAY)
            yield _Grain(self, MINUTES_PER_DAY, schema.DAY_SHARD, 0, days_before)
        if limits.minutes_after is not None:
            before = _floor(min(minute_of(now - limits.minutes_after), self.settled), MINUTES_PER_HOUR)
            yield _Grain(self, MINUTES_PER_HOUR, schema.HOUR_SHARD, days_before, before)


@dataclass(frozen=True, slots=True)
class _Grain:
    """Buckets with start <= minute < before that are to become rows of `minutes`, under the number `shard`."""

    part: _Part
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
            finer, coarser, start = _batch(engine, self._merge_batch, start, batch_rows)
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
        finer = connection.execute(taken.returning(t.c.minute, t.c.sums)).all()
        return len(finer), self._add(connection, finer), found[-1].minute

    def _add(self, connection: Connection, finer: Sequence[Any]) -> int:
        t = self.part.table
        added: dict[int, Sums] = {}
        for minute, packed in finer:
            begin = _floor(minute, self.minutes)
            added[begin] = added.get(begin, Sums.zero()) + Sums.unpack(packed)
        have = connection.execute(
            select(t.c.minute, t.c.sums).where(*self.part.where, t.c.shard == self.shard, t.c.minute.in_(added))
        )
        fresh = set(added)
        for minute, packed in have:
            added[minute] = added[minute] + Sums.unpack(packed)
            fresh.discard(minute)
        upsert = insert(t, connection)
        connection.execute(
            upsert.on_conflict_do_update(
                index_elements=[c.name for c in t.primary_key],
                set_={"n": upsert.excluded.n, "sums": upsert.excluded.sums},
            ),
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


def _parts(engine: Engine) -> list[_Part]:
    p, s = schema.points, schema.series
    parts: list[_Part] = []
    with engine.connect() as connection:
        for series_id, packed in connection.execute(select(s.c.id, s.c.state).order_by(s.c.id)).all():
            state = None if packed is None else SeriesState.unpack(packed)
            for version in bucket_versions(connection, series_id):
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
                parts.append(_Part(series_id, version, upto - ONSET_HORIZON_MINUTES, current))
    return parts


def _floor(minute: int, grain: int) -> int:
    return minute // grain * grain
