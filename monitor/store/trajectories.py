"""What a step of a series made of its buckets, into the store: points, baselines, alerts, and the state to resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, select, update

from monitor.rules import RULES
from monitor.state import SeriesState
from monitor.store import schema
from monitor.store.baselines import LEARNED, RELEARNED, Origin, add_baseline
from monitor.store.database import insert, writing
from monitor.store.partitions import ensure_months, forget_made, month_of
from monitor.store.retry import retrying
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import Learned, Point
from monitor.transcript import time_of

FINDINGS: Final = ("value_drift", *RULES)
"""Rules of what steps find (alerts.reasons, monitor.rules)."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert as it is kept and shown (docs/alerts.md); without a series it is about the monitor itself.

    Those of FINDINGS are raised and ended by steps, all others by the on-call pass (alerts.oncall).
    """

    id: str
    series_id: int | None
    rule: str
    firing: bool
    raised_at: datetime
    resolved_at: datetime | None
    onset: datetime
    onset_lo: datetime
    onset_hi: datetime
    reason: str
    values: dict[str, Any]
    telling_turns: list[dict[str, Any]]
    severity: str | None = None
    """As people were last told; None: nobody was."""
    told_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None

    @property
    def behaviours(self) -> list[str]:
        """All behaviours it names: those it was raised for and those that joined since."""
        joined = [b for part in self.values["joined"] for b in part["moved"]]
        return [*self.values["moved"], *joined]


class MovedMeanwhile(Exception):
    """Another process has moved the series on since its state was read: begin again from the stored one."""


def replace_state(connection: Connection, series_id: int, stored: bytes | None, state: SeriesState) -> None:
    """Put a state in the place of the one it was made from: the lock under which a series is changed.

    Raises
    ------
    MovedMeanwhile : the stored state is another by now.
    """
    table = schema.series
    moved = connection.execute(
        update(table)
        .where(table.c.id == series_id, table.c.state.is_(None) if stored is None else table.c.state == stored)
        .values(state=state.pack())
    )
    if moved.rowcount != 1:
        raise MovedMeanwhile


def end_alerts(connection: Connection, series_id: int, at: datetime, reason: str) -> int:
    """Resolve the findings of a series that stand, at an event time, for a reason that is kept; returns how many."""
    table = schema.alerts
    standing = connection.execute(
        select(table.c.id, table.c["values"]).where(
            table.c.series_id == series_id, table.c.firing, table.c.rule.in_(FINDINGS)
        )
    ).all()
    for key, values in standing:
        changed = {"firing": False, "resolved_at": at, "values": values | {"ended": reason}}
        connection.execute(update(table).where(table.c.id == key).values(changed))
    return len(standing)


@dataclass(frozen=True, slots=True)
class Stepped:
    """What a step made of a series' state, and the state it left; findings raised before `resolved_at` end with it.

    `resolved_rule` : those of this rule; None: of every one.
    `readings` : what rules compare, at the last of the points (monitor.readings); None without points.
    """

    state: SeriesState
    points: Sequence[Point]
    learned: Sequence[Learned]
    alerts: Sequence[Alert]
    resolved_at: datetime | None = None
    resolved_rule: str | None = None
    readings: Mapping[str, tuple[float, float, float]] | None = None


def commit_step(engine: Engine, series_id: int, stored: bytes | None, made: Stepped) -> None:
    """Store what a step made of the `stored` state, in one transaction, however often it takes (monitor.store.retry).

    Raises
    ------
    MovedMeanwhile : the stored state is another by now.
    """
    packed = made.state.pack()
    tries = 0

    def attempt() -> None:
        nonlocal tries
        tries += 1
        if tries > 1:
            forget_made(engine)
        ensure_months(engine, "points", {month_of(time_of(p.t)) for p in made.points})
        try:
            with writing(engine) as connection:
                _write(connection, series_id, stored, made)
        except MovedMeanwhile:
            # by this very step, if its connection was lost during a COMMIT that came through
            if tries == 1 or _stored_state(engine, series_id) != packed:
                raise

    retrying(engine, attempt)


def _stored_state(engine: Engine, series_id: int) -> bytes | None:
    table = schema.series
    with engine.connect() as connection:
        found: bytes | None = connection.execute(select(table.c.state).where(table.c.id == series_id)).scalar_one()
        return found


def _write(connection: Connection, series_id: int, stored: bytes | None, made: Stepped) -> None:
    replace_state(connection, series_id, stored, made.state)
    if made.points:
        table = schema.points
        upsert = insert(table, connection)
        keys = {c.name for c in table.primary_key}
        connection.execute(
            upsert.on_conflict_do_update(
                index_elements=sorted(keys),
                set_={c.name: upsert.excluded[c.name] for c in table.c if c.name not in keys},
            ),
            [point_row(series_id, made.state.classifier_version, p) for p in made.points],
        )
    for found in made.learned:
        at = time_of(found.baseline.last_minute + 1)
        kind = LEARNED if found.reason is None else RELEARNED
        origin = Origin(kind, at, at, found.reason or "", found.warning)
        add_baseline(connection, series_id, made.state.classifier_version, found.baseline, origin)
    table = schema.alerts
    if made.resolved_at is not None:
        stood = table.c.firing & (table.c.raised_at < made.resolved_at)
        rules = FINDINGS if made.resolved_rule is None else (made.resolved_rule,)
        ended = update(table).where(table.c.series_id == series_id, stood, table.c.rule.in_(rules))
        connection.execute(ended.values(firing=False, resolved_at=made.resolved_at))
    for alert in made.alerts:
        values = {f.name: getattr(alert, f.name) for f in fields(Alert)}
        upsert = insert(table, connection).values(values)
        changed = {k: v for k, v in values.items() if k in ("firing", "resolved_at", "values")}
        connection.execute(upsert.on_conflict_do_update(index_elements=["id"], set_=changed))
    if made.state.last_minute is not None:
        _write_readings(connection, series_id, time_of(made.state.last_minute + 1), made)


def _write_readings(connection: Connection, series_id: int, last_event: datetime, made: Stepped) -> None:
    table = schema.readings
    row: dict[str, Any] = {"series_id": series_id, "t": None, "last_event": last_event, "values": {}}
    changed = {"last_event": last_event}
    if made.readings is not None:
        row |= {"t": time_of(made.points[-1].t), "values": {name: list(x) for name, x in made.readings.items()}}
        changed = {k: v for k, v in row.items() if k != "series_id"}
    upsert = insert(table, connection).values(row)
    connection.execute(upsert.on_conflict_do_update(index_elements=["series_id"], set_=changed))


def point_row(series_id: int, version: str, point: Point) -> dict[str, Any]:
    """A point by the column names of its table."""
    m = point.mixture
    row: dict[str, Any] = {
        "series_id": series_id,
        "t": time_of(point.t),
        "window_minutes": point.window_minutes,
        "classifier_version": version,
        "n": m.n,
        "effective_n": m.effective_n,
        "s": m.entropy.mean,
        "s_lo": m.entropy.low,
        "s_hi": m.entropy.high,
        "s_sd": m.entropy_sd,
        "misaligned": m.misaligned.mean,
        "misaligned_lo": m.misaligned.low,
        "misaligned_hi": m.misaligned.high,
        "ds_dt": point.slope.value,
        "ds_dt_se": point.slope.error,
        "kl": point.kl,
        "evidence": point.evidence,
    }
    for behaviour, share in zip(BEHAVIOURS, m.shares, strict=True):
        row |= {f"p_{behaviour}": share.mean, f"p_{behaviour}_lo": share.low, f"p_{behaviour}_hi": share.high}
    return row
