"""The outbox: what every target is to know of every alert, and what it was told last.

One row a target and alert: what is newer takes the place of what was not sent yet, so a target that was away gets what
still holds. Rows are written with the states they follow from (alerts.oncall) and sent by alerts.delivery, which holds
a row by its lease meanwhile. A row that was ever tried may have arrived although nobody noted it: its end is told too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, func, or_, select, update

from monitor.store import schema

RESOLVED: Final = "resolved"
MOST_ERROR: Final = 512
"""Characters of an error that is kept."""
FARTHEST: Final = timedelta(hours=2)
"""Nothing is put off or held for so long (an hour at most): a time further ahead is of a clock that was set back."""

_T: Final = schema.outbox
_UNSENT: Final = and_(_T.c.due_at.is_not(None), _T.c.revision > _T.c.sent_revision)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a target is to know of an alert from now on."""

    target: str
    alert_id: str
    status: str
    severity: str
    revision: int
    note: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that is held until `lease_until`, to be sent.

    Attributes
    ----------
    attempts : how often it was tried, this time included.
    refresh : it was sent, and is to be sent again as it is.
    may_have_arrived : before this time.
    """

    target: str
    alert_id: str
    status: str
    severity: str
    revision: int
    note: str
    attempts: int
    refresh: bool
    may_have_arrived: bool
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class Depth:
    """What waits for a target: how many rows, since when the oldest."""

    waiting: int
    oldest: datetime | None


def want(connection: Connection, wanted: Sequence[Wanted], at: datetime) -> list[Wanted]:
    """Put what targets are to know into the outbox; `at` is the clock's time.

    What fires again after its memory was forgotten counts revisions anew; here they go on from the row's.

    Returns
    -------
    Ends of what their targets were never told: they are settled, and not sent.
    """
    unsaid, fresh = [], []
    have = _rows(connection, {w.alert_id for w in wanted})
    for w in wanted:
        row = have.get((w.target, w.alert_id))
        revision = w.revision if row is None else max(w.revision, row.revision + 1)
        news = {"status": w.status, "severity": w.severity, "note": w.note, "revision": revision, "created_at": at}
        knows = row is not None and (row.sent_status not in (None, RESOLVED) or row.may_have_arrived)
        if w.status == RESOLVED and not knows:
            news |= {"due_at": None, "sent_revision": revision}
            unsaid.append(w)
        elif row is None or row.due_at is None or row.revision == row.sent_revision:
            news |= {"due_at": at, "attempts": 0}
        if row is None:
            unsent = {"attempts": 0, "may_have_arrived": False, "sent_revision": 0, "due_at": at}
            fresh.append({"target": w.target, "alert_id": w.alert_id} | unsent | news)
        else:
            connection.execute(update(_T).where(*_key(w.target, w.alert_id)).values(news))
    if fresh:
        connection.execute(_T.insert(), fresh)
    return unsaid


def _rows(connection: Connection, alert_ids: Collection[str]) -> dict[tuple[str, str], Row[Any]]:
    """What is there of these alerts."""
    ids = sorted(alert_ids)
    pages = (select(_T).where(_T.c.alert_id.in_(ids[i : i + 500])) for i in range(0, len(ids), 500))
    return {(row.target, row.alert_id): row for page in pages for row in connection.execute(page)}


def due(connection: Connection, target: str, now: datetime) -> bool:
    """Whether there is something to send to a target."""
    return connection.execute(select(_T.c.alert_id).where(*_free(target, now)).limit(1)).first() is not None


def claim(connection: Connection, target: str, now: datetime, lease_until: datetime, most: int) -> list[Claimed]:
    """Take what is due for a target, what waits longest first; nobody else gets it until the lease is over."""
    page = select(_T).where(*_free(target, now)).order_by(_T.c.due_at, _T.c.alert_id).limit(most)
    found = []
    for row in connection.execute(page.with_for_update(skip_locked=True)).all():
        connection.execute(
            update(_T)
            .where(*_key(target, row.alert_id))
            .values(lease_until=lease_until, attempts=row.attempts + 1, may_have_arrived=True)
        )
        found.append(
            Claimed(
                target=target,
                alert_id=row.alert_id,
                status=row.status,
                severity=row.severity,
                revision=row.revision,
                note=row.note,
                attempts=row.attempts + 1,
                refresh=row.revision == row.sent_revision,
                may_have_arrived=row.may_have_arrived,
                lease_until=lease_until,
            )
        )
    return found


def sent(connection: Connection, item: Claimed, at: datetime, refresh_at: datetime | None) -> None:
    """It was delivered; `refresh_at`: when it is to be sent again as it is."""
    row = _held(connection, item)
    if row is None or item.revision < row.sent_revision:
        return
    values = {
        "sent_status": item.status,
        "sent_severity": item.severity,
        "sent_revision": item.revision,
        "sent_at": at,
        "may_have_arrived": False,
        "last_error": None,
        "attempts": 0,
    }
    if row.revision == item.revision:
        values["due_at"] = refresh_at
    else:  # what came meanwhile goes at once
        values["due_at"] = at
    _settle(connection, item, row, values)


def failed(connection: Connection, item: Claimed, error: str, again_at: datetime, *, lost: bool) -> None:
    """It did not go through, this time; `lost`: it surely did not arrive."""
    row = _held(connection, item)
    if row is None:
        return
    values = {"last_error": error[:MOST_ERROR], "due_at": again_at}
    if lost and not item.may_have_arrived:
        values["may_have_arrived"] = False
        unsaid = item.revision < row.revision and row.status == RESOLVED and row.sent_status in (None, RESOLVED)
        if unsaid:  # resolved while it was tried
            values |= {"due_at": None, "sent_revision": row.revision}
    _settle(connection, item, row, values)


def refused(connection: Connection, item: Claimed, error: str, again_at: datetime | None) -> None:
    """It never will go through: given up until there is something new, or until `again_at` if it was a refresh."""
    row = _held(connection, item)
    if row is None or item.revision < row.sent_revision:
        return
    values = {
        "last_error": error[:MOST_ERROR],
        "sent_revision": item.revision,
        "attempts": 0,
        "may_have_arrived": item.may_have_arrived,
        "due_at": (again_at if item.refresh else None) if row.revision == item.revision else row.due_at,
    }
    _settle(connection, item, row, values)


def let_go(connection: Connection, items: Sequence[Claimed]) -> None:
    """Not tried after all: as if it had not been claimed."""
    for item in items:
        row = _held(connection, item)
        if row is not None:
            values = {"attempts": item.attempts - 1, "may_have_arrived": item.may_have_arrived}
            _settle(connection, item, row, values)


def depth(connection: Connection, target: str) -> Depth:
    """What a target has not been told yet."""
    query = select(func.count(), func.min(_T.c.created_at)).where(_T.c.target == target, _UNSENT)
    count, oldest = connection.execute(query).one()
    return Depth(count, oldest)


def _key(target: str, alert_id: str) -> tuple[Any, Any]:
    return _T.c.target == target, _T.c.alert_id == alert_id


def _free(target: str, now: datetime) -> tuple[Any, ...]:
    ahead = now + FARTHEST
    unheld = or_(_T.c.lease_until.is_(None), _T.c.lease_until <= now, _T.c.lease_until > ahead)
    return _T.c.target == target, or_(_T.c.due_at <= now, _T.c.due_at > ahead), unheld


def _held(connection: Connection, item: Claimed) -> Row[Any] | None:
    query = select(_T).where(*_key(item.target, item.alert_id))
    return connection.execute(query.with_for_update()).one_or_none()


def _settle(connection: Connection, item: Claimed, row: Row[Any], values: dict[str, Any]) -> None:
    """Somebody else may hold it by now, if this lease was over; then their word on it is the one that counts."""
    if row.lease_until != item.lease_until and item.revision <= row.sent_revision:
        return
    if row.lease_until == item.lease_until:
        values["lease_until"] = None
    else:
        values.pop("due_at", None)
        values.pop("may_have_arrived", None)
    connection.execute(update(_T).where(*_key(item.target, item.alert_id)).values(values))
