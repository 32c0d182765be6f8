"""Moves every series on: its new closed buckets through the trajectory, what came of them into the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, Engine

from alerts.reasons import alert_id, explain
from monitor.baseline import Baseline, BaselineRule
from monitor.buckets import Bucket
from monitor.entropy import Quantifier
from monitor.state import SeriesState
from monitor.store import reads
from monitor.store.database import writing
from monitor.store.writes import Alert, write_step
from monitor.trajectory import (
    MINUTES_PER_DAY,
    WINDOWS_MINUTES,
    Alarm,
    Learned,
    Point,
    Recovery,
    Settings,
    advance,
)
from monitor.transcript import time_of

ONSET_HORIZON_MINUTES: Final = 28 * MINUTES_PER_DAY
"""An onset is sought no further back: it bounds what is read at an alarm."""


@dataclass(frozen=True, slots=True)
class Stepper:
    """Everything a step needs but time."""

    engine: Engine
    quantifier: Quantifier
    version: str
    rule: BaselineRule
    settings: Settings

    def step(self, closed_until: int | None = None) -> list[tuple[str, Alert]]:
        """Advance all series over the buckets before minute `closed_until` (None: all); returns (series, new alert).

        Each series moves in one transaction, so a kill between or within leaves every series at a whole step.
        """
        with self.engine.connect() as connection:
            found = reads.all_series(connection)
        return [(s.key.name, alert) for s in found for alert in self._step_series(s, closed_until)]

    def _step_series(self, series: reads.StoredSeries, closed_until: int | None) -> list[Alert]:
        state = None if series.state is None else SeriesState.unpack(series.state)
        if state is None or state.classifier_version != self.version:
            # judgements of another classifier version are never compared with this one's: learn anew
            state = SeriesState(self.version)
        points: list[Point] = []
        learned: list[Baseline] = []
        raised: list[Alert] = []
        resolved_at = None
        with self.engine.connect() as reader:
            recent = reads.buckets(
                reader, series.id, self.version, state.next_minute - max(WINDOWS_MINUTES), state.next_minute
            )
            fresh = reads.buckets(reader, series.id, self.version, state.next_minute)
            before = state.next_minute
            for outcome in advance(
                state, list(recent), fresh, self.quantifier, self.rule, self.settings, closed_until=closed_until
            ):
                match outcome:
                    case Point():
                        points.append(outcome)
                    case Learned(baseline):
                        learned.append(baseline)
                    case Alarm():
                        assert state.baseline is not None
                        raised.append(self._alert(series, outcome, state.baseline))
                    case Recovery(at):
                        resolved_at = time_of(at)
                        raised = [replace(a, firing=False, resolved_at=resolved_at) if a.firing else a for a in raised]
        if state.next_minute == before and not points:
            return []
        with writing(self.engine) as connection:
            write_step(connection, series.id, state, points, learned, raised, resolved_at)
        return raised

    def _alert(self, series: reads.StoredSeries, alarm: Alarm, baseline: Baseline) -> Alert:
        with self.engine.connect() as connection:
            history = self._history(connection, series.id, alarm)
            finding = explain(alarm, baseline, history, self.quantifier, self.settings.false_alarm_every_days)
            telling = reads.telling_turns(
                connection, series.id, self.version, finding.behaviour, finding.onset, finding.raised_at
            )
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
            values=finding.values,
            telling_turns=telling,
        )

    def _history(self, connection: Connection, series_id: int, alarm: Alarm) -> Sequence[Bucket]:
        start = max(alarm.armed_from, alarm.at + 1 - ONSET_HORIZON_MINUTES)
        return list(reads.buckets(connection, series_id, self.version, start, alarm.at + 1))
