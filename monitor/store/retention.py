"""Retention: what is older than its limit goes, and old sums become coarser (docs/database.md).

On PostgreSQL `turns`, `turn_texts` and `points` go by whole months. All else, and texts of the month that is not over,
goes in batches, each a transaction of its own and so short that no writer waits long. Killed anywhere, what was done is
done, and the next run does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Delete,
    Engine,
    Row,
    Select,
    Table,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
)
from sqlalchemy.exc import OperationalError, ProgrammingError

from monitor.config import Limits
from monitor.store import schema
from monitor.store.bucket_rows import BUCKETS, LABEL_SUMS
from monitor.store.coarser import Part, parts
from monitor.store.database import committed
from monitor.store.partitions import drop_before, make_ahead, month_after, month_of, months
from monitor.store.retry import reading, retrying

BATCH_ROWS: Final = 5000
"""Rows of one transaction: a fraction of a second."""
_LOCK_TIMEOUT: Final = "55P03"
_UNDEFINED_TABLE: Final = "42P01"


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
        for merged, into in part.coarsen(engine, limits, now, batch_rows, dry_run=dry_run):
            out.merged += merged
            out.into += into
    return out


def _read(engine: Engine, query: Select[Any]) -> Sequence[Row[Any]]:
    return reading(engine, lambda connection: connection.execute(query).all())


def _delete(engine: Engine, statement: Delete, parameters: Sequence[dict[str, Any]] | None = None) -> int:
    """A transaction of its own; returns how many rows went."""
    return committed(engine, lambda connection: connection.execute(statement, parameters).rowcount)


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
            gone += _delete(engine, taken)


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
        yield from _old_on_call(alerts_before)
    reports, reports_before = schema.reports, _before(now, limits.reports)
    if reports_before is not None:
        key = (reports.c.week, reports.c["compare"], reports.c.scope)  # c.compare is a method
        yield _Old(reports, (reports.c.ends_at < reports_before,), key)
    sums_before = {BUCKETS.table.name: _before(now, limits.buckets), LABEL_SUMS.table.name: _before(now, limits.labels)}
    for part in _parts(engine) if any(sums_before.values()) else ():
        before, s = sums_before[part.table.name], part.table
        if before is not None:
            yield _Old(s, (*part.where, s.c.minute < part.before(before)), (s.c.minute, s.c.shard))


def _old_on_call(before: datetime) -> Iterator[_Old]:
    """What was decided and sent about alerts that are gone, and silences as old."""
    a, e, o = schema.alerts, schema.alert_events, schema.outbox
    stays = exists().where(or_(a.c.firing, a.c.resolved_at >= before))
    yield _Old(e, (e.c.at < before, ~stays.where(a.c.id == e.c.alert_id)), (e.c.at, e.c.id))
    yield _Old(o, (o.c.created_at < before, ~stays.where(a.c.id == o.c.alert_id)), (o.c.target, o.c.alert_id))
    s, m = schema.silences, schema.alert_states
    yield _Old(s, (s.c.ends_at < before,), (s.c.ends_at, s.c.id))
    yield _Old(m, (m.c.state == "inactive", m.c.changed_at < before), (m.c.rule, m.c.series_id))


def _parts(engine: Engine) -> list[Part[Any]]:
    return [*parts(engine, BUCKETS), *parts(engine, LABEL_SUMS)]


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
            _delete(engine, orphan, without)


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
                _delete(engine, taken)
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
