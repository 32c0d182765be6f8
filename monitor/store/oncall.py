"""What on-call keeps: readings, the state of every rule and series, decisions, silences (alerts.oncall).

Everything is handed in and out as plain values; what they mean is known to alerts.machine and alerts.silences.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, func, or_, select, update

from monitor.engine import SeriesKey
from monitor.store import schema
from monitor.store.database import insert
from monitor.store.trajectories import Alert

MONITOR: Final = 0
"""In place of a series' number: the monitor itself."""
MOST_TEXT: Final = 2000
"""Characters of an event's text."""
MOST_NAMED: Final = 1000
"""Series that a query names; of more all are read."""
_LOCK: Final = 0x6F6E63616C6C
"""PostgreSQL advisory lock of whoever decides about alerts; SQLite has one writer at a time anyway."""

Kind = Literal["state", "notify", "suppressed", "ack", "delivery"]


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """The latest figures of a series: (mean, low, high) by name; `t` None: it has had no point yet."""

    series_id: int
    t: datetime | None
    last_event: datetime | None
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StateRow:
    """The memory of a rule and a series."""

    rule: str
    series_id: int
    state: str
    alert_id: str | None
    memory: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """A decision about an alert, and why."""

    alert_id: str | None
    rule: str
    series_id: int
    at: datetime
    kind: Kind
    reason: str
    text: str = ""
    target: str | None = None


def take_turn(connection: Connection) -> None:
    """Wait until no other transaction decides about alerts; it is this one's turn until it ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def series_keys(connection: Connection, ids: Collection[int] | None = None) -> dict[int, SeriesKey]:
    """Every series (or those of some numbers), without its state."""
    t = schema.series
    query = select(t.c.id, t.c.deployment, t.c.model, t.c.labels)
    if ids is not None and len(ids) <= MOST_NAMED:
        query = query.where(t.c.id.in_(ids))
    rows = connection.execute(query).all()
    return {r.id: SeriesKey(r.deployment, r.model, tuple((k, v) for k, v in json.loads(r.labels))) for r in rows}


def packed_states(connection: Connection) -> dict[int, bytes]:
    """Of every series that was stepped, by its number."""
    t = schema.series
    rows = connection.execute(select(t.c.id, t.c.state).where(t.c.state.is_not(None))).all()
    return {r.id: r.state for r in rows}


def readings(connection: Connection) -> list[ReadingRow]:
    """Of all series, and of the monitor where it has one."""
    t = schema.readings
    rows = connection.execute(select(t.c.series_id, t.c.t, t.c.last_event, t.c["values"])).all()
    return [ReadingRow(*r) for r in rows]


def put_reading(connection: Connection, row: ReadingRow) -> None:
    upsert = insert(schema.readings, connection).values(
        series_id=row.series_id, t=row.t, last_event=row.last_event, values=dict(row.values)
    )
    changed = {name: upsert.excluded[name] for name in ("t", "last_event", "values")}
    connection.execute(upsert.on_conflict_do_update(index_elements=["series_id"], set_=changed))


def states(connection: Connection, alert_id: str | None = None) -> list[StateRow]:
    """The memories that are kept: all, or that of the alert a key stands at."""
    t = schema.alert_states
    query = select(t.c.rule, t.c.series_id, t.c.state, t.c.alert_id, t.c.memory)
    if alert_id is not None:
        query = query.where(t.c.alert_id == alert_id)
    return [StateRow(*r) for r in connection.execute(query).all() if r.memory]


def put_states(connection: Connection, rows: Sequence[StateRow], at: datetime) -> None:
    if not rows:
        return
    table = schema.alert_states
    upsert = insert(table, connection)
    changed = {name: upsert.excluded[name] for name in ("state", "alert_id", "memory", "changed_at")}
    connection.execute(
        upsert.on_conflict_do_update(index_elements=["rule", "series_id"], set_=changed),
        [
            {
                "rule": r.rule,
                "series_id": r.series_id,
                "state": r.state,
                "alert_id": r.alert_id,
                "memory": r.memory,
                "changed_at": at,
            }
            for r in rows
        ],
    )


def forget_states(connection: Connection, keys: Sequence[tuple[str, int]], at: datetime) -> None:
    """Nothing is remembered of these from now on; their rows go with old alerts, for who writes may not delete."""
    put_states(connection, [StateRow(rule, series_id, "inactive", None, {}) for rule, series_id in keys], at)


def add_events(connection: Connection, events: Iterable[AlertEvent]) -> None:
    rows = [
        {
            "alert_id": e.alert_id,
            "rule": e.rule,
            "series_id": e.series_id,
            "at": e.at,
            "kind": e.kind,
            "reason": e.reason[:64],
            "text": e.text[:MOST_TEXT],
            "target": e.target,
        }
        for e in events
    ]
    if rows:
        connection.execute(schema.alert_events.insert(), rows)


def of_alert(connection: Connection, event: AlertEvent) -> AlertEvent:
    """The event with the rule and series of its alert, as far as that is there."""
    t = schema.alerts
    row = connection.execute(select(t.c.rule, t.c.series_id).where(t.c.id == event.alert_id)).one_or_none()
    return event if row is None else replace(event, rule=row.rule, series_id=row.series_id or MONITOR)


def raise_alerts(connection: Connection, alerts: Sequence[Alert]) -> None:
    """Rows of rules that fire; one that is there already (its id is its episode's) fires again."""
    if not alerts:
        return
    table = schema.alerts
    upsert = insert(table, connection)
    connection.execute(
        upsert.on_conflict_do_update(index_elements=["id"], set_={"firing": True, "resolved_at": None}),
        [{c.name: getattr(alert, c.name) for c in table.c} for alert in alerts],
    )


def change_alert(connection: Connection, alert_id: str, **values: Any) -> None:
    t = schema.alerts
    connection.execute(update(t).where(t.c.id == alert_id).values(**values))


def end_raised(connection: Connection, alert_id: str, at: datetime) -> None:
    """An alert that a rule raised is over."""
    t = schema.alerts
    connection.execute(update(t).where(t.c.id == alert_id, t.c.firing).values(firing=False, resolved_at=at))


def silences(connection: Connection, now: datetime | None = None) -> list[Mapping[str, Any]]:
    """Silences by the columns of their table, the latest to end first: all, or those not over at `now`."""
    t = schema.silences
    query = select(t).order_by(t.c.ends_at.desc(), t.c.id)
    if now is not None:
        query = query.where(t.c.ends_at > now, or_(t.c.ended_at.is_(None), t.c.ended_at > now))
    return [dict(r) for r in connection.execute(query).mappings()]


def add_silence(connection: Connection, values: Mapping[str, Any]) -> None:
    connection.execute(schema.silences.insert().values(**values))


def end_silence(connection: Connection, silence_id: str, at: datetime) -> bool:
    """Returns whether it stood."""
    t = schema.silences
    ended = update(t).where(t.c.id == silence_id, t.c.ends_at > at, t.c.ended_at.is_(None)).values(ended_at=at)
    return connection.execute(ended).rowcount == 1


def newest_event(connection: Connection) -> datetime | None:
    """Event time of the newest event of all series, as far as they were stepped; a pass by the clock counts as one."""
    found: datetime | None = connection.execute(select(func.max(schema.readings.c.last_event))).scalar_one()
    return found
