"""What is told of the series that need attention most, beside the figures of every series: read from the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from monitor.entropy import Quantifier
from monitor.label_sums import MINUTES_PER_HOUR, Split
from monitor.paired_work import Stressed, paired
from monitor.readings import share
from monitor.report.model import Interval, Mark, Pair, Point, ReportAlert, Turn
from monitor.report.windows import told
from monitor.store import reads, report_reads
from monitor.store.baselines import StoredBaseline
from monitor.store.label_reads import label_splits
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import MINUTES_PER_DAY
from monitor.transcript import minute_of

TELLING_TURNS: Final = 3
"""Of each behaviour."""
TELLING_AT_LEAST: Final = 0.5
MOST_POINTS: Final = 400
"""Of a trajectory; longer ones have a point every few hours."""
MOST_PAIRED_TURNS: Final = 10_000
"""Of either series of a pair: the jackknife holds every conversation."""


@dataclass(frozen=True, slots=True)
class Place:
    """A series in a classifier's eyes."""

    series_id: int
    version: str
    name: str


def trajectory(connection: Connection, of: Place, start: datetime, end: datetime) -> list[Point]:
    """The windows of 24 h that end in (start, end]."""
    hours = int((end - start) / timedelta(hours=1))
    every = MINUTES_PER_HOUR * max(1, -(-hours // MOST_POINTS))
    rows = reads.trajectory(connection, of.series_id, of.version, start, end, MINUTES_PER_DAY, every)
    return [Point(p["t"], p["s"], p["s_lo"], p["s_hi"], [p[f"p_{b}"] for b in BEHAVIOURS]) for p in rows]


def marks(
    connection: Connection,
    of: Place,
    start: datetime,
    end: datetime,
    alerts: Sequence[ReportAlert],
    history: Sequence[StoredBaseline],
) -> list[Mark]:
    """What happened in [start, end), oldest first."""
    found: list[Mark] = []
    for a in alerts:
        found.append(Mark(a.raised_at, "alert", f"{a.rule} raised: {a.reason}"))
        if a.resolved_at is not None:
            found.append(Mark(a.resolved_at, "resolved", f"{a.rule} resolved"))
    for b in history:
        why = f": {b.origin.reason}" if b.origin.reason else ""
        found.append(Mark(b.origin.frozen_at, "baseline", f"new baseline, {b.origin.kind}{why}"))
    versions = report_reads.versions_in(connection, of.series_id, start, end)
    earlier = ""
    for version, first in versions.items():
        if earlier:
            found.append(Mark(first, "classifier", f"classifier {version} follows {earlier}"))
        earlier = version
    return sorted((m for m in found if start <= m.t < end), key=lambda m: (m.t, m.kind, m.text))


def split_by(connection: Connection, of: Place, start: datetime, end: datetime) -> dict[str, Split]:
    """The turns of [start, end), whole hours, by the values of each label."""
    return label_splits(connection, of.series_id, of.version, minute_of(start), minute_of(end))


def telling(connection: Connection, of: Place, start: datetime, end: datetime) -> dict[str, list[Turn]]:
    """The turns of [start, end) that show each behaviour other than aligned most clearly; without texts."""
    found = reads.top_turns(connection, of.series_id, of.version, start, end, TELLING_TURNS, at_least=TELLING_AT_LEAST)
    return {b: [_turn(x) for x in some] for b, some in found.items() if some}


def _turn(x: dict[str, Any]) -> Turn:
    ts = datetime.fromisoformat(x["ts"])
    return Turn(x["event_id"], x["turn"], ts, x["behaviour"], x["probability"], x["where"])


def reviewed(connection: Connection, of: Place, start: datetime, end: datetime) -> tuple[int, Interval | None]:
    """How many turns of [start, end) were reviewed, and on what share of them judge and classifier agree."""
    labelled = reads.reviewed_slice(connection, of.series_id, of.version, start, end)
    n = len(labelled.q)
    if not n:
        return 0, None
    agrees = labelled.q.argmax(axis=1) == labelled.labels.argmax(axis=1)
    return n, Interval(*share(float(agrees.mean()), n))


def pair(connection: Connection, base: Place, tuned: Place, lens: Quantifier, start: datetime, end: datetime) -> Pair:
    """What tuning holds back in [start, end), of two series under the same traffic."""
    found = []
    for of in (base, tuned):
        turns = report_reads.judged_turns(connection, of.series_id, of.version, start, end, MOST_PAIRED_TURNS)
        found.append(Stressed(turns.conversations, turns.places, turns.q))
    work = paired(found[0], found[1], corrected=lens.inverse())
    return Pair(base.name, tuned.name, told(work.suppression), told(work.total))
