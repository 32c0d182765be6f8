"""Alerts as people look for them: a page of a list, one by the beginning of its id, what was decided, what waits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, Connection, Select, and_, func, or_, select

from monitor.store import schema
from monitor.store.oncall import MONITOR, AlertEvent, StateRow
from monitor.store.trajectories import Alert

MOST_PAGE: Final = 500
"""Alerts of one page."""
MOST_CANDIDATES: Final = 5
"""Ids with the same beginning that are named."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which alerts are wanted, newest first.

    Attributes
    ----------
    standing : only those that fire, acknowledged or not.
    series_ids : of these series; None: of any, and of the monitor.
    deployments : of these deployments only; None: of any, and of the monitor.
    before : id of the last alert of the page before.
    """

    standing: bool = True
    series_ids: Collection[int] | None = None
    deployments: Collection[str] | None = None
    before: str | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Waiting:
    """How the notices of an alert to a target stand.

    Attributes
    ----------
    due_at : when it is tried next; None: there is nothing to send.
    sent_status : the last that was delivered; None: nothing was.
    """

    target: str
    status: str
    due_at: datetime | None
    attempts: int
    sent_status: str | None
    sent_at: datetime | None
    last_error: str | None


def page(connection: Connection, wanted: Page) -> list[Alert]:
    t = schema.alerts
    query = select(t).order_by(t.c.raised_at.desc(), t.c.id.desc()).limit(min(wanted.limit, MOST_PAGE))
    if wanted.standing:
        query = query.where(t.c.firing)
    if wanted.series_ids is not None:
        query = query.where(t.c.series_id.in_(wanted.series_ids))
    if wanted.deployments is not None:
        query = query.where(t.c.series_id.in_(_series_of(wanted.deployments)))
    if wanted.before is not None:
        last = select(t.c.raised_at).where(t.c.id == wanted.before).scalar_subquery()
        query = query.where(or_(t.c.raised_at < last, and_(t.c.raised_at == last, t.c.id < wanted.before)))
    return [Alert(**r) for r in connection.execute(query).mappings()]


def ids_beginning(connection: Connection, prefix: str) -> list[str]:
    """Ids of alerts, those that only wait to fire included, that begin so; a few more than one at most."""
    columns: tuple[Column[Any], ...] = (
        schema.alerts.c.id,
        schema.alert_states.c.alert_id,
        schema.alert_events.c.alert_id,  # also of what fell back before it fired
    )
    for same in (True, False):
        for column in columns:
            fits = column == prefix if same else column.startswith(prefix, autoescape=True)
            query = select(column).where(fits).distinct().order_by(column).limit(MOST_CANDIDATES)
            if found := [str(x) for x in connection.execute(query).scalars()]:
                return found
    return []


def last_events(connection: Connection, alert_id: str, most: int) -> tuple[list[AlertEvent], int]:
    """The last that was decided about an alert, oldest first, and how much there is before it."""
    t = schema.alert_events
    mine = t.c.alert_id == alert_id
    count = connection.execute(select(func.count()).where(mine)).scalar_one()
    columns = (t.c.alert_id, t.c.rule, t.c.series_id, t.c.at, t.c.kind, t.c.reason, t.c.text, t.c.target)
    rows = connection.execute(select(*columns).where(mine).order_by(t.c.id.desc()).limit(most)).all()
    return [AlertEvent(*r) for r in reversed(rows)], count - len(rows)


def last_alert(connection: Connection, rule: str, series_id: int) -> Alert | None:
    """The alert of a rule and a series (or MONITOR) that was raised last."""
    t = schema.alerts
    of_series = t.c.series_id.is_(None) if series_id == MONITOR else t.c.series_id == series_id
    query = select(t).where(t.c.rule == rule, of_series).order_by(t.c.raised_at.desc(), t.c.id.desc()).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Alert(**row)


def waiting(connection: Connection, alert_id: str) -> list[Waiting]:
    """The outbox's rows of an alert, by target."""
    t = schema.outbox
    columns = (t.c.target, t.c.status, t.c.due_at, t.c.attempts, t.c.sent_status, t.c.sent_at, t.c.last_error)
    rows = connection.execute(select(*columns).where(t.c.alert_id == alert_id).order_by(t.c.target)).all()
    return [Waiting(*r) for r in rows]


def state_of(connection: Connection, rule: str, series_id: int) -> StateRow | None:
    """The memory of a rule and a series; None: nothing is remembered."""
    t = schema.alert_states
    query = select(t.c.rule, t.c.series_id, t.c.state, t.c.alert_id, t.c.memory)
    row = connection.execute(query.where(t.c.rule == rule, t.c.series_id == series_id)).one_or_none()
    return None if row is None or not row.memory else StateRow(*row)


def reading_of(connection: Connection, series_id: int) -> tuple[datetime | None, datetime | None, dict[str, Any]]:
    """`t`, `last_event` and values of a series, or of MONITOR, whose `t` is that of the last pass by the clock."""
    t = schema.readings
    row = connection.execute(
        select(t.c.t, t.c.last_event, t.c["values"]).where(t.c.series_id == series_id)
    ).one_or_none()
    return (None, None, {}) if row is None else (row[0], row[1], row[2])


def _series_of(deployments: Collection[str]) -> Select[tuple[int]]:
    t = schema.series
    return select(t.c.id).where(t.c.deployment.in_(deployments))
