"""Moves every series on: its new closed buckets through the trajectory, what came of them into the store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Final

from sqlalchemy import Connection, Engine

from alerts.reasons import alert_id, explain, joined_values
from monitor.baseline import Baseline, BaselineRule
from monitor.buckets import Bucket
from monitor.entropy import Quantifier
from monitor.errors import StoreError
from monitor.state import SeriesState
from monitor.store import reads
from monitor.store.database import shown, writing
from monitor.store.trajectories import Alert, MovedMeanwhile, write_step
from monitor.trajectory import (
    MINUTES_PER_DAY,
    WINDOWS_MINUTES,
    Alarm,
    Learned,
    Point,
    Recovery,
    Settings,
    advance,
    points_due_before,
)
from monitor.transcript import time_of

ONSET_HORIZON_MINUTES: Final = 28 * MINUTES_PER_DAY
"""An onset is sought no further back: it bounds what is read at an alarm."""

MOST_TRIES: Final = 20
"""Two processes that step the same series take turns long before this."""
SLICE_MINUTES: Final = 7 * MINUTES_PER_DAY
"""A step's transaction covers this much event time; a multiple of an hour, so that no hour is cut in two."""


@dataclass(frozen=True, slots=True)
class Stepper:
    """Everything a step needs but time."""

    engine: Engine
    quantifier: Quantifier
    version: str
    rule: BaselineRule
    settings: Settings

    def step(self, closed_until: int | None = None) -> list[tuple[str, Alert]]:
        """Advance all series over the buckets before minute `closed_until` (None: all).

        Returns the alerts that were raised or joined, with the name of their series.

        A series moves a week of event time a transaction: memory and the time a database is locked stay bounded, and a
        kill leaves every series at a whole step, to go on from there.
        """
        with self.engine.connect() as connection:
            found = reads.all_series(connection)
        return [(s.key.name, alert) for s in found for alert in self._step_one(s, closed_until)]

    def _step_one(self, series: reads.StoredSeries, closed_until: int | None) -> list[Alert]:
        """One series, again from its stored state whenever another process has moved it meanwhile."""
        for _ in range(MOST_TRIES):
            try:
                return self._step_series(series, closed_until)
            except MovedMeanwhile:
                with self.engine.connect() as connection:
                    series = next(s for s in reads.all_series(connection) if s.id == series.id)
        raise StoreError(f"{shown(self.engine)}: series {series.key.name} keeps being moved on by another process")

    def _step_series(self, series: reads.StoredSeries, closed_until: int | None) -> list[Alert]:
        state = None if series.state is None else SeriesState.unpack(series.state)
        resolves = False
        if state is None or state.classifier_version != self.version:
            # judgements of another classifier version are never compared with this one's: learn anew, and let go of
            # alerts whose end it could not see
            resolves = state is not None
            state = SeriesState(self.version)
        raised: list[Alert] = []
        stored = series.state
        with self.engine.connect() as reader:
            start = state.next_minute
            recent = list(reads.buckets(reader, series.id, self.version, start - max(WINDOWS_MINUTES), start))
            fresh = reads.buckets(reader, series.id, self.version, start)
            for week, members in groupby(fresh, key=lambda bucket: bucket.minute // SLICE_MINUTES):
                end = (week + 1) * SLICE_MINUTES
                piece = list(members)
                until = end if closed_until is None else min(end, closed_until)
                if piece[0].minute >= until:
                    break
                resolved_at = time_of(piece[0].minute) if resolves else None
                raised += self._step_piece(series, stored, state, recent, piece, until, resolved_at)
                stored, resolves = state.pack(), False
                recent = [b for b in recent + piece if b.minute >= end - max(WINDOWS_MINUTES)]
            if points_due_before(state, closed_until):
                raised += self._step_piece(series, stored, state, recent, [], closed_until)
        return raised

    def _step_piece(
        self,
        series: reads.StoredSeries,
        stored: bytes | None,
        state: SeriesState,
        recent: list[Bucket],
        piece: list[Bucket],
        until: int | None,
        resolved_at: datetime | None = None,
    ) -> list[Alert]:
        points: list[Point] = []
        learned: list[Baseline] = []
        alerts: dict[str, Alert] = {}
        for outcome in advance(state, recent, piece, self.quantifier, self.rule, self.settings, closed_until=until):
            match outcome:
                case Point():
                    points.append(outcome)
                case Learned(baseline):
                    learned.append(baseline)
                case Alarm():
                    assert state.baseline is not None
                    alert = self._alert(series, outcome, state.baseline, alerts.values())
                    if alert is not None:
                        alerts[alert.id] = alert
                case Recovery(at):
                    # what stood before this piece ended with the first recovery; what the piece raised, with the next
                    resolved_at = resolved_at or time_of(at)
                    alerts = {
                        k: replace(a, firing=False, resolved_at=time_of(at)) if a.firing else a
                        for k, a in alerts.items()
                    }
        with writing(self.engine) as connection:
            write_step(connection, series.id, stored, state, points, learned, list(alerts.values()), resolved_at)
        return list(alerts.values())

    def _alert(
        self, series: reads.StoredSeries, alarm: Alarm, baseline: Baseline, pending: Collection[Alert]
    ) -> Alert | None:
        """The alert an alarm raises; or the one that stands, joined by what moved since; or none when that is known."""
        with self.engine.connect() as connection:
            latest = {a.id: a for a in (*reads.alerts(connection, series.id), *pending)}
            standing = next((a for a in latest.values() if a.firing), None) if alarm.again else None
            known = () if standing is None else standing.behaviours
            history = self._history(connection, series.id, alarm)
            every = self.settings.false_alarm_every_days
            quantifier = self.quantifier.given(baseline.sums, self.settings.baseline_aligned_at_least)
            finding = explain(alarm, baseline, history, quantifier, every, known)
            if finding is None:
                return None
            telling = reads.telling_turns(
                connection, series.id, self.version, finding.behaviour, finding.onset, finding.raised_at
            )
        if standing is not None:
            joined = [*standing.values["joined"], joined_values(finding, telling)]
            return replace(standing, values=standing.values | {"joined": joined})
        return Alert(
            id=alert_id(series.key.name, finding.rule, finding.raised_at),
            series_id=series.id,
            rule=finding.rule,
            firing=True,
            raised_at=finding.raised_at,
            resolved_at=None,
            onset=finding.onset,
            onset_lo=finding.onset_lo,
            onset_hi=finding.onset_hi,
            reason=finding.reason,
            values=finding.values | {"joined": []},
            telling_turns=telling,
        )

    def _history(self, connection: Connection, series_id: int, alarm: Alarm) -> Sequence[Bucket]:
        start = max(alarm.armed_from, alarm.at + 1 - ONSET_HORIZON_MINUTES)
        return list(reads.buckets(connection, series_id, self.version, start, alarm.at + 1))
