"""What is read: the few queries the product makes."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from typing import cast as cast_type

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Label,
    Select,
    Table,
    and_,
    cast,
    extract,
    func,
    or_,
    select,
)

from monitor.buckets import Q_UNIT, Bucket, Sums
from monitor.engine import SeriesKey
from monitor.prediction_powered import Slice
from monitor.store import schema
from monitor.store.trajectories import Alert
from monitor.taxonomy import ALIGNED, BEHAVIOURS
from monitor.trajectory import MINUTES_PER_DAY, POINT_EVERY_MINUTES


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """A series, its id and its packed state (None before its first step)."""

    id: int
    key: SeriesKey
    state: bytes | None


def all_series(connection: Connection) -> list[StoredSeries]:
    """Every series, by name."""
    return sorted(_series(connection, select(schema.series)), key=lambda s: s.key)


def one_series(connection: Connection, series_id: int) -> StoredSeries | None:
    """The series of an id."""
    return next(_series(connection, select(schema.series).where(schema.series.c.id == series_id)), None)


def _series(connection: Connection, query: Select[Any]) -> Iterator[StoredSeries]:
    for r in connection.execute(query).all():
        key = SeriesKey(r.deployment, r.model, tuple((k, v) for k, v in json.loads(r.labels)))
        yield StoredSeries(r.id, key, r.state)


def series_count(connection: Connection) -> int:
    """How many series there are."""
    return int(connection.execute(select(func.count()).select_from(schema.series)).scalar_one())


def buckets(
    connection: Connection, series_id: int, version: str, start: int, end: int | None = None
) -> Generator[Bucket, None, None]:
    """Buckets of a series with start <= minute < end, in time order, shards added up; streamed, not held."""
    t = schema.buckets
    query = (
        select(t.c.minute, t.c.sums)
        .where(t.c.series_id == series_id, t.c.classifier_version == version, t.c.minute >= start)
        .order_by(t.c.minute, t.c.shard)
        .execution_options(yield_per=500)
    )
    if end is not None:
        query = query.where(t.c.minute < end)
    held: Bucket | None = None
    for minute, packed in connection.execute(query):
        sums = Sums.unpack(packed)
        if held is not None and held.minute == minute:
            held = Bucket(minute, held.sums + sums)
            continue
        if held is not None:
            yield held
        held = Bucket(minute, sums)
    if held is not None:
        yield held


def telling_turns(
    connection: Connection,
    series_id: int,
    version: str,
    feature: str,
    start: datetime,
    end: datetime,
    limit: int = 5,
    *,
    at_least: float = 0.0,
) -> list[dict[str, Any]]:
    """The turns in [start, end) that show a feature most clearly: least doubtful evidence first, then oldest.

    Parameters
    ----------
    at_least : least probability of the feature.
    """
    t, keys, offsets = schema.turns, schema.event_keys, schema.offsets
    aligned = t.c[f"q_{BEHAVIOURS[ALIGNED]}"]
    q = Q_UNIT - aligned if feature == "misaligned" else t.c[f"q_{feature}"]
    columns = ("event_id", "turn", "conversation_id", "ts", "line", *(f"q_{b}" for b in BEHAVIOURS[1:]))
    chosen = (
        select(*(t.c[name] for name in columns), q.label("shown"))
        .where(t.c.series_id == series_id, t.c.classifier_version == version, t.c.ts >= start, t.c.ts < end)
        .where(q >= math.ceil(at_least * Q_UNIT))
        .order_by(q.desc(), t.c.ts, t.c.event_id, t.c.turn)
        .limit(limit)
        .subquery()
    )
    # where they stand is looked up of the chosen few alone
    query = (
        select(chosen, offsets.c.source)
        .join_from(chosen, keys, chosen.c.event_id == keys.c.event_id, isouter=True)
        .join(offsets, keys.c.offset_id == offsets.c.id, isouter=True)
        .order_by(chosen.c.shown.desc(), chosen.c.ts, chosen.c.event_id, chosen.c.turn)
    )
    return [
        {
            "event_id": r["event_id"],
            "turn": r["turn"],
            "conversation_id": r["conversation_id"],
            "ts": r["ts"].isoformat(),
            "where": f"{r['source'] or '?'}:{r['line']}",
            "behaviour": max(BEHAVIOURS[1:], key=lambda b: r[f"q_{b}"]),
            "probability": round(max(r[f"q_{b}"] for b in BEHAVIOURS[1:]) / Q_UNIT, 4),
        }
        for r in connection.execute(query).mappings()
    ]


def with_excerpts(connection: Connection, telling: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Telling turns with the redacted `request` and `answer` of those that have their texts kept.

    Looked up when they are shown and never kept with an alert: texts go before alerts do, and fewer may read them.
    """
    t = schema.turn_texts
    times = [datetime.fromisoformat(x["ts"]) for x in telling]
    query = select(t).where(t.c.ts.in_(times), t.c.event_id.in_([x["event_id"] for x in telling]))
    rows = connection.execute(query).mappings().all() if telling else []
    found = {(r["event_id"], r["turn"]): {"request": r["request"], "answer": r["answer"]} for r in rows}
    return [{**x, **found.get((x["event_id"], x["turn"]), {})} for x in telling]


def top_turns(
    connection: Connection,
    series_id: int,
    version: str,
    start: datetime,
    end: datetime,
    limit: int = 5,
    *,
    at_least: float = 0.5,
) -> dict[str, list[dict[str, Any]]]:
    """The turns in [start, end) that show each behaviour other than aligned most clearly, by behaviour.

    Parameters
    ----------
    at_least : least probability of the behaviour: a window without deception has no most deceptive turns.
    """
    return {
        b: telling_turns(connection, series_id, version, b, start, end, limit, at_least=at_least)
        for b in BEHAVIOURS[1:]
    }


def reviewed_slice(connection: Connection, series_id: int, version: str, start: datetime, end: datetime) -> Slice:
    """The turns of a series in [start, end) that the judge or a person labelled; without those it refused."""
    r = schema.reviews
    labels = [r.c.label.label("label")]
    rows = _slice_rows(connection, r, labels, r.c.label.in_(BEHAVIOURS), series_id, version, start, end)
    labelled = np.eye(len(BEHAVIOURS))[[BEHAVIOURS.index(x["label"]) for x in rows]].reshape(-1, len(BEHAVIOURS))
    return _slice(rows, labelled)


def second_slice(connection: Connection, series_id: int, version: str, start: datetime, end: datetime) -> Slice:
    """The turns of a series in [start, end) that the accurate tier judged too, with its probabilities as labels.

    All of one version of that tier, the one with most of them.
    """
    r = schema.second_judgements
    labels = [r.c.classifier_version.label("by"), *(r.c[f"q_{b}"].label(f"second_{b}") for b in BEHAVIOURS)]
    rows = _slice_rows(connection, r, labels, None, series_id, version, start, end)
    versions = [x["by"] for x in rows]
    most = max(sorted(set(versions)), key=versions.count, default=None)
    rows = [x for x in rows if x["by"] == most]
    second = np.array([[x[f"second_{b}"] for b in BEHAVIOURS] for x in rows], dtype=np.float64)
    return _slice(rows, second.reshape(-1, len(BEHAVIOURS)) / Q_UNIT)


def _slice_rows(
    connection: Connection,
    of: Table,
    labels: Sequence[Label[Any]],
    where: ColumnElement[bool] | None,
    series_id: int,
    version: str,
    start: datetime,
    end: datetime,
) -> Sequence[Mapping[str, Any]]:
    t = schema.turns
    query = (
        select(t.c.weight, of.c.choice_probability, *(t.c[f"q_{b}"] for b in BEHAVIOURS), *labels)
        .join_from(t, of, and_(t.c.event_id == of.c.event_id, t.c.turn == of.c.turn))
        .where(t.c.series_id == series_id, t.c.classifier_version == version, t.c.ts >= start, t.c.ts < end)
        .order_by(t.c.ts, t.c.event_id, t.c.turn)
    )
    if where is not None:
        query = query.where(where)
    return cast_type(Sequence[Mapping[str, Any]], connection.execute(query).mappings().all())


def _slice(rows: Sequence[Mapping[str, Any]], labels: NDArray[np.float64]) -> Slice:
    q = np.array([[x[f"q_{b}"] for b in BEHAVIOURS] for x in rows], dtype=np.float64).reshape(-1, len(BEHAVIOURS))
    chosen, weights = (np.array([x[c] for x in rows], dtype=np.float64) for c in ("choice_probability", "weight"))
    return Slice(q / Q_UNIT, labels, chosen, weights)


@dataclass(frozen=True, slots=True)
class TurnCount:
    """Turns of a series and the time they span."""

    turns: int
    first: datetime | None
    last: datetime | None


def turn_count(connection: Connection, series_id: int) -> TurnCount:
    t = schema.turns
    row = connection.execute(
        select(func.count(), func.min(t.c.ts), func.max(t.c.ts)).where(t.c.series_id == series_id)
    ).one()
    return TurnCount(*row)


def alerts(
    connection: Connection,
    series_id: int | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[Alert]:
    """Alerts of a series (None: of all) that stood at some time in [start, end), oldest first."""
    t = schema.alerts
    query = select(t).order_by(t.c.raised_at, t.c.id)
    if series_id is not None:
        query = query.where(t.c.series_id == series_id)
    if start is not None:
        query = query.where(or_(t.c.firing, t.c.resolved_at > start))
    if end is not None:
        query = query.where(t.c.raised_at < end)
    return [Alert(**r) for r in connection.execute(query).mappings()]


def alerts_by_id(connection: Connection, ids: Iterable[str]) -> list[Alert]:
    """The alerts of these ids that there are."""
    t, wanted = schema.alerts, list(ids)
    pages = (select(t).where(t.c.id.in_(wanted[i : i + 500])) for i in range(0, len(wanted), 500))
    return [Alert(**r) for page in pages for r in connection.execute(page).mappings()]


def firing_alerts(connection: Connection) -> list[Alert]:
    """The alerts of all series that fire, oldest first."""
    t = schema.alerts
    rows = connection.execute(select(t).where(t.c.firing).order_by(t.c.raised_at, t.c.id)).mappings()
    return [Alert(**r) for r in rows]


def points(
    connection: Connection, series_id: int, version: str, window_minutes: int, *, after: datetime | None = None
) -> Sequence[Mapping[str, Any]]:
    """Trajectory points of one window length (after a time), oldest first, by the table's column names."""
    query = _points(series_id, version, window_minutes).order_by(schema.points.c.t)
    if after is not None:
        query = query.where(schema.points.c.t > after)
    return cast_type(Sequence[Mapping[str, Any]], connection.execute(query).mappings().all())


def trajectory(
    connection: Connection,
    series_id: int,
    version: str,
    start: datetime,
    end: datetime,
    window_minutes: int,
    resolution_minutes: int = POINT_EVERY_MINUTES,
) -> Sequence[Mapping[str, Any]]:
    """Trajectory points of one window length with start < t <= end, at most one each `resolution_minutes` of UTC.

    A step is shown by its last point as it is: windows overlap, so that neither a mean of points nor the outermost ends
    of their intervals would be a 90 % interval of anything. What it leaves out shows in `s_lowest`, `s_highest` and
    `evidence_highest`, the extremes over the `points` of the step. Else by the table's column names, oldest first.
    """
    t = schema.points
    # a point tells of the time before it: that of midnight is the last of its day
    step = (cast(extract("epoch", t.c.t), BigInteger) - 1) // (60 * resolution_minutes)
    steps = (
        _points(series_id, version, window_minutes)
        .where(t.c.t > start, t.c.t <= end)
        .add_columns(
            func.row_number().over(partition_by=step, order_by=t.c.t.desc()).label("place"),
            func.count().over(partition_by=step).label("points"),
            func.min(t.c.s).over(partition_by=step).label("s_lowest"),
            func.max(t.c.s).over(partition_by=step).label("s_highest"),
            func.max(t.c.evidence).over(partition_by=step).label("evidence_highest"),
        )
        .subquery()
    )
    shown = select(*(c for c in steps.c if c.name != "place")).where(steps.c.place == 1).order_by(steps.c.t)
    return cast_type(Sequence[Mapping[str, Any]], connection.execute(shown).mappings().all())


def latest_point(connection: Connection, series_id: int, version: str, window_minutes: int) -> Mapping[str, Any] | None:
    """The last trajectory point of one window length, by the table's column names."""
    query = _points(series_id, version, window_minutes).order_by(schema.points.c.t.desc()).limit(1)
    return cast_type(Mapping[str, Any] | None, connection.execute(query).mappings().first())


def _points(series_id: int, version: str, window_minutes: int) -> Select[Any]:
    t = schema.points
    return select(t).where(
        t.c.series_id == series_id, t.c.classifier_version == version, t.c.window_minutes == window_minutes
    )


def dead_letters(
    connection: Connection,
    offset_ids: Sequence[int] | None = None,
    limit: int = 100,
    *,
    sources: Sequence[str] | None = None,
    kind: str | None = None,
    since: datetime | None = None,
) -> list[Any]:
    """Dead letters of the given sources (None: of all), by source and line; `since` is when they were seen."""
    t, o = schema.dead_letters, schema.offsets
    query = select(o.c.source, t.c.line, t.c.position, t.c.size, t.c.kind, t.c.reason, t.c.seen_at).join_from(t, o)
    if offset_ids is not None:
        query = query.where(t.c.offset_id.in_(offset_ids))
    if sources is not None:
        query = query.where(o.c.source.in_(sources))
    if kind is not None:
        query = query.where(t.c.kind == kind)
    if since is not None:
        query = query.where(t.c.seen_at >= since)
    return list(connection.execute(query.order_by(o.c.source, t.c.line).limit(limit)).all())


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """What came of a source; events = judged + duplicates + dead_letters.

    Attributes
    ----------
    position, line : how far it has been read.
    newest : event time of its newest event.
    lag : by how much that is older than the newest event of all sources.
    """

    source: str
    position: int
    line: int
    events: int
    judged: int
    turns: int
    duplicates: int
    dead_letters: int
    newest: datetime | None
    lag: timedelta | None


@dataclass(frozen=True, slots=True)
class IngestionHealth:
    """All sources, by name, and their sums."""

    sources: list[SourceHealth]

    @property
    def newest(self) -> datetime | None:
        """Event time of the newest event."""
        return max((s.newest for s in self.sources if s.newest is not None), default=None)

    @property
    def totals(self) -> dict[str, int]:
        """Events, judged, duplicates, dead letters and turns."""
        names = ("events", "judged", "duplicates", "dead_letters", "turns")
        return {name: sum(getattr(s, name) for s in self.sources) for name in names}

    @property
    def dead_letter_share(self) -> float:
        """Dead letters among all events."""
        return self.totals["dead_letters"] / (self.totals["events"] or 1)


def ingestion_health(connection: Connection) -> IngestionHealth:
    """How far each source has been read, what came of it, and which one stays behind."""
    t = schema.offsets
    rows = connection.execute(select(t).order_by(t.c.source)).all()
    newest = max((r.newest_ts for r in rows if r.newest_ts is not None), default=None)
    return IngestionHealth(
        [
            SourceHealth(
                source=r.source,
                position=r.position,
                line=r.line,
                events=r.events,
                judged=r.judged,
                turns=r.turns,
                duplicates=r.duplicates,
                dead_letters=r.dead_letters,
                newest=r.newest_ts,
                lag=None if newest is None or r.newest_ts is None else newest - r.newest_ts,
            )
            for r in rows
        ]
    )


def days_until(connection: Connection, series_id: int, version: str) -> int:
    """The minute after the last bucket that is a whole day by now; 0 when none is."""
    t = schema.buckets
    last = connection.execute(
        select(func.max(t.c.minute)).where(
            t.c.series_id == series_id, t.c.classifier_version == version, t.c.shard == schema.DAY_SHARD
        )
    ).scalar_one()
    return 0 if last is None else int(last) + MINUTES_PER_DAY


def bucket_versions(connection: Connection, series_id: int, table: Table = schema.buckets) -> list[str]:
    """The classifier versions that a series has buckets (or other sums) of; leaps through the index."""
    t = table
    found: list[str] = []
    while True:
        after = t.c.classifier_version > (found[-1] if found else "")
        version = connection.execute(
            select(func.min(t.c.classifier_version)).where(t.c.series_id == series_id, after)
        ).scalar_one()
        if version is None:
            return found
        found.append(version)
