"""Where an alert's change likely comes from: which label values carry it, read from what is stored, and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from alerts.reasons import FELL, interval_values
from monitor.baseline import Baseline
from monitor.decomposition import Carrier, likely_where
from monitor.entropy import Interval, Quantifier
from monitor.label_sums import MINUTES_PER_HOUR, OTHER, WITHOUT, Split
from monitor.store.label_reads import label_splits
from monitor.taxonomy import BEHAVIOURS
from monitor.transcript import minute_of

ENOUGH_OF_BASELINE: Final = 0.5
"""A label of which less of the baseline's turns is known was not followed then, and says nothing."""


def where(
    connection: Connection,
    series_id: int,
    version: str,
    baseline: Baseline,
    quantifier: Quantifier,
    directions: Mapping[str, str],
    onset: datetime,
    raised_at: datetime,
) -> list[dict[str, Any]]:
    """The label values that carry a change from onset to alarm against the baseline, as plain values.

    Parameters
    ----------
    directions : which way each behaviour moved (alerts.reasons); asked is where those come from that rose, or, where
        none did, those that fell.
    """
    fell = [BEHAVIOURS.index(b) for b, way in directions.items() if way == FELL]
    moved = [BEHAVIOURS.index(b) for b in directions if BEHAVIOURS.index(b) not in fell] or fell
    start, end = whole_hours(minute_of(onset), minute_of(raised_at))
    until = min(baseline.last_minute + 1, start)
    first = baseline.first_minute // MINUTES_PER_HOUR * MINUTES_PER_HOUR
    before = label_splits(connection, series_id, version, first, until)
    after = label_splits(connection, series_id, version, start, end)
    least = ENOUGH_OF_BASELINE * baseline.sums.n
    known = {label: split for label, split in before.items() if _turns(split) >= least}
    return [_values(c) for c in likely_where(quantifier, known, after, moved)]


def whole_hours(start: int, end: int) -> tuple[int, int]:
    """The hours (first minute, minute after) that stand for the minutes start <= minute < end.

    Those wholly within, as long as they are half of that time: what came after it in its last hour does not matter
    then. Else all that it touches.
    """
    inner = -(-start // MINUTES_PER_HOUR) * MINUTES_PER_HOUR, end // MINUTES_PER_HOUR * MINUTES_PER_HOUR
    if 2 * (inner[1] - inner[0]) >= end - start:
        return inner
    return start // MINUTES_PER_HOUR * MINUTES_PER_HOUR, -(-end // MINUTES_PER_HOUR) * MINUTES_PER_HOUR


def where_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """`route=/chat carries 83 % (61-97) of it`, one a label value; for whoever shows it to make printable."""
    return [
        f"{x['label']}={_shown(x['value'])} carries {_percent(x['share_of_shift']['mean'])} % "
        f"({_percent(x['share_of_shift']['low'])}-{_percent(x['share_of_shift']['high'])}) of it"
        for x in found
    ]


def _turns(split: Split) -> int:
    return sum(s.n for s in split.values())


def _values(c: Carrier) -> dict[str, Any]:
    def rate(x: Interval | None) -> dict[str, float] | None:
        return None if x is None else interval_values(x)

    return {
        "label": c.label,
        "value": c.value,
        "share_of_shift": interval_values(c.share),
        "traffic_before": round(c.traffic[0], 5),
        "traffic_after": round(c.traffic[1], 5),
        "rate_before": rate(c.rate[0]),
        "rate_after": rate(c.rate[1]),
    }


def _shown(value: str | None) -> str:
    return {OTHER: "(all others)", WITHOUT: "(none)"}.get(value) or str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"
