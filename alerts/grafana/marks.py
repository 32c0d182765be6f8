"""Annotations: when an alert stood, when a series got a new baseline. For dashboards of other things, by their tags."""

from __future__ import annotations

import html
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from alerts.grafana.panels import Json
from monitor.store import oncall, reads, schema
from monitor.store.trajectories import Alert

TAG: Final = "valuedrift"
"""Every annotation of ours has it."""
LONGEST_TEXT: Final = 2000
"""Characters of an annotation."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation; `key` is the tag that tells it from every other."""

    key: str
    start: datetime
    end: datetime
    text: str
    tags: tuple[str, ...]

    def values(self) -> Json:
        """As Grafana keeps it: times in milliseconds."""
        return {
            "time": _milliseconds(self.start),
            "timeEnd": _milliseconds(self.end),
            "tags": [TAG, self.key, *self.tags],
            "text": html.escape(self.text[:LONGEST_TEXT]),  # shown as markup, and holds what strangers wrote
        }


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def alert_mark(alert: Alert, series: str) -> Mark:
    """From when it was raised until it was resolved; while it fires, the moment it was raised."""
    where = f" ({series})" if series else ""
    tags = ("alert", f"rule:{alert.rule}", f"series:{alert.series_id or oncall.MONITOR}")
    end = alert.resolved_at or alert.raised_at
    return Mark(f"alert:{alert.id}", alert.raised_at, end, f"{alert.rule}{where}: {alert.reason}", tags)


def stored_marks(connection: Connection, since: datetime) -> list[Mark]:
    """Of alerts that stood and baselines that came into force since a time, oldest first.

    The watchdog, which always fires, has none.
    """
    names = {series_id: key.name for series_id, key in oncall.series_keys(connection).items()}
    marks = [
        alert_mark(a, names.get(a.series_id or oncall.MONITOR, ""))
        for a in reads.alerts(connection, None, since)
        if a.rule != "watchdog"
    ]
    b = schema.baselines
    query = select(b.c.id, b.c.series_id, b.c.origin, b.c.reason, b.c.frozen_at).where(b.c.frozen_at > since)
    for r in connection.execute(query):
        text = f"baseline {r.origin} ({names.get(r.series_id, '')})" + (f": {r.reason}" if r.reason else "")
        tags = ("baseline", f"series:{r.series_id}")
        marks.append(Mark(f"baseline:{r.id}", r.frozen_at, r.frozen_at, text, tags))
    return sorted(marks, key=lambda m: (m.start, m.key))
