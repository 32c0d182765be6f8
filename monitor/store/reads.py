"""What is read: the few queries the product makes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Label, Select, Table, and_, func, select

from monitor.buckets import Q_UNIT, Bucket, Sums
from monitor.engine import SeriesKey
from monitor.prediction_powered import Slice
from monitor.store import schema
from monitor.store.trajectories import Alert
from monitor.taxonomy import ALIGNED, BEHAVIOURS


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """A series, its id and its packed state (None before its first step)."""

    id: int
    key: SeriesKey
    state: bytes | None


def all_series(connection: Connection) -> list[StoredSeries]:
    """Every series, by name."""
    t = schema.series
    rows = connection.execute(select(t.c.id, t.c.deployment, t.c.model, t.c.labels, t.c.state)).all()
    found = [
        StoredSeries(r.id, SeriesKey(r.deployment, r.model, tuple((k, v) for k, v in json.loads(r.labels))), r.state)
        for r in rows
    ]
    return sorted(found, key=lambda s: s.key)


def buckets(
    connection: Connection, series_id: int, version: str, start: int, end: int | None = None
) -> Iterator[Bucket]:
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
) -> list[dict[str, Any]]:
    """The turns in [start, end) that show a feature most clearly: least doubtful evidence first, then oldest."""
    t, keys, offsets = schema.turns, schema.event_keys, schema.offsets
    order = t.c[f"q_{BEHAVIOURS[ALIGNED]}"].asc() if feature == "misaligned" else t.c[f"q_{feature}"].desc()
    query = (
        select(t, offsets.c.source)
        .join_from(t, keys, t.c.event_id == keys.c.event_id)
        .join(offsets, keys.c.offset_id == offsets.c.id)
        .where(t.c.series_id == series_id, t.c.classifier_version == version, t.c.ts >= start, t.c.ts < end)
        .order_by(order, t.c.ts, t.c.event_id, t.c.turn)
        .limit(limit)
    )
    return [
        {
            "event_id": r["event_id"],
            "turn": r["turn"],
            "conversation_id": r["conversation_id"],
            "ts": r["ts"].isoformat(),
            "where": f"{r['source']}:{r['line']}",
            "behaviour": max(BEHAVIOURS[1:], key=lambda b: r[f"q_{b}"]),
            "probability": round(max(r[f"q_{b}"] for b in BEHAVIOURS[1:]) / Q_UNIT, 4),
        }
        for r in connection.execute(query).mappings()
    ]


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
    return cast(Sequence[Mapping[str, Any]], connection.execute(query).mappings().all())


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


def alerts(connection: Connection, series_id: int) -> list[Alert]:
    """Alerts of a series, oldest first."""
    t = schema.alerts
    rows = connection.execute(select(t).where(t.c.series_id == series_id).order_by(t.c.raised_at, t.c.id)).mappings()
    return [Alert(**r) for r in rows]


def points(
    connection: Connection, series_id: int, version: str, window_minutes: int, *, after: datetime | None = None
) -> Sequence[Mapping[str, Any]]:
    """Trajectory points of one window length (after a time), oldest first, by the table's column names."""
    query = _points(series_id, version, window_minutes).order_by(schema.points.c.t)
    if after is not None:
        query = query.where(schema.points.c.t > after)
    return cast(Sequence[Mapping[str, Any]], connection.execute(query).mappings().all())


def latest_point(connection: Connection, series_id: int, version: str, window_minutes: int) -> Mapping[str, Any] | None:
    """The last trajectory point of one window length, by the table's column names."""
    query = _points(series_id, version, window_minutes).order_by(schema.points.c.t.desc()).limit(1)
    return cast(Mapping[str, Any] | None, connection.execute(query).mappings().first())


def _points(series_id: int, version: str, window_minutes: int) -> Select[Any]:
    t = schema.points
    return select(t).where(
        t.c.series_id == series_id, t.c.classifier_version == version, t.c.window_minutes == window_minutes
    )


def dead_letters(connection: Connection, offset_ids: Sequence[int] | None = None, limit: int = 100) -> list[Any]:
    """Dead letters of the given sources (None: of all), by source and line."""
    t, o = schema.dead_letters, schema.offsets
    query = select(o.c.source, t.c.line, t.c.position, t.c.size, t.c.kind, t.c.reason).join_from(t, o)
    if offset_ids is not None:
        query = query.where(t.c.offset_id.in_(offset_ids))
    return list(connection.execute(query.order_by(o.c.source, t.c.line).limit(limit)).all())
