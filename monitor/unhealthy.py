"""How the monitor itself is doing, as figures that a rule compares: what it could not count, of late."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from monitor.readings import Reading, share
from monitor.store import reads

WINDOW_SECONDS: Final = 3600.0
_EVERY_SECONDS: Final = 300.0
"""Counts are kept so often to look back by."""


def monitor_figures(
    connection: Connection, kept: Mapping[str, Any], now: datetime
) -> tuple[dict[str, Reading], dict[str, Any]]:
    """Figures, and what to keep for the next time.

    Parameters
    ----------
    kept : what was kept last: `counts`, (epoch seconds, events, dead letters) over the last hour, oldest first.
    """
    totals = reads.ingestion_health(connection).totals
    counts = [(now.timestamp(), totals["events"], totals["dead_letters"])]
    # of a clock that was set back, or of sources that were forgotten, nothing is told
    counts = [tuple(c) for c in kept.get("counts", ()) if c[0] <= counts[0][0] and c[1] <= counts[0][1]] + counts
    while len(counts) > 2 and counts[1][0] <= now.timestamp() - WINDOW_SECONDS:
        counts.pop(0)
    (_, events_then, dead_then), (_, events, dead) = counts[0], counts[-1]
    figures: dict[str, Reading] = {}
    if events > events_then:
        # a source that was forgotten meanwhile takes its events out of the sum
        dead_share = min(1.0, max(0, dead - dead_then) / (events - events_then))
        figures["dead_letter_share"] = share(dead_share, events - events_then)
    if len(counts) > 2 and counts[-1][0] - counts[-3][0] < _EVERY_SECONDS:
        counts.pop(-2)
    return figures, {**{name: list(x) for name, x in figures.items()}, "counts": [list(c) for c in counts]}
