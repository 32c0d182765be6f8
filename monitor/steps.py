"""Moves every series on: its new closed buckets through the trajectory, what came of them into the store."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import chain, groupby
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine

from alerts.reasons import VALUE_DRIFT, alert_id, explain, interval_values, joined_values, known_moves
from alerts.rulebook import compile_rules
from alerts.severity import severities
from classifiers.api import Classifier
from monitor.baseline import Baseline, BaselineRule
from monitor.buckets import Bucket
from monitor.config import Config
from monitor.entropy import Quantifier
from monitor.errors import StoreError
from monitor.multiplicity import PAGE
from monitor.readings import READINGS, Reading, Wanted, read_off
from monitor.rules import RULES, broken
from monitor.state import SeriesState
from monitor.store import reads
from monitor.store.baselines import baselines
from monitor.store.database import shown
from monitor.store.retry import reading, retrying
from monitor.store.trajectories import Alert, MovedMeanwhile, Stepped, commit_step
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
from monitor.transcript import minute_of, time_of
from monitor.where import where

ONSET_HORIZON_MINUTES: Final = 28 * MINUTES_PER_DAY
"""An onset is sought no further back: it bounds what is read at an alarm."""

MOST_TRIES: Final = 20
"""Two processes that step the same series take turns long before this."""
SLICE_MINUTES: Final = 7 * MINUTES_PER_DAY
"""A step's transaction covers this much event time; a multiple of an hour, so that no hour is cut in two."""


class News(NamedTuple):
    """An alert of a series to tell people of; severity (alerts.severity) None: it is resolved already."""

    series: str
    alert: Alert
    severity: str | None


@dataclass(frozen=True, slots=True)
class _Stored:
    """Buckets of a series with start <= minute < end, read whenever they are asked for."""

    connection: Connection
    series_id: int
    version: str
    start: int
    end: int

    def __iter__(self) -> Iterator[Bucket]:
        return reads.buckets(self.connection, self.series_id, self.version, self.start, self.end)


@dataclass(frozen=True, slots=True)
class Stepper:
    """Everything a step needs but time."""

    engine: Engine
    quantifier: Quantifier
    version: str
    rule: BaselineRule
    settings: Settings
    wanted: Wanted = READINGS

    @classmethod
    def of(cls, engine: Engine, classifier: Classifier, config: Config) -> Stepper:
        """The one for a classifier and the settings. Raises ConfigError where a setting is wrong."""
        quantifier = Quantifier(classifier.calibration)
        wanted = Wanted(kappa=not {"kappa", "half_life"}.isdisjoint(compile_rules(config.alerts).metrics))
        return cls(engine, quantifier, classifier.version, config.baseline_rule(), config.trajectory(), wanted)

    def step(self, closed_until: int | None = None) -> list[News]:
        """Advance all series over the buckets before minute `closed_until` (None: all).

        Returns the alerts that were raised or joined, and those that were only listed before and page now.

        A series moves a week of event time a transaction: memory and the time a database is locked stay bounded, and a
        kill leaves every series at a whole step, to go on from there.
        """
        found = reading(self.engine, reads.all_series)
        before = self._firing(found)
        raised = {alert.id: s for s in found for alert in self._step_one(s, closed_until)}
        if not (raised or before):
            return []
        after = self._firing(reading(self.engine, reads.all_series))
        changed = {s.id: s for s in raised.values()}.values()
        own = [(s, reading(self.engine, partial(reads.alerts, series_id=s.id))) for s in changed]
        told = [(s, a) for s, alerts in own for a in alerts if a.id in raised]
        fresh = [News(s.key.name, a, after[a.id].severity if a.id in after else None) for s, a in told]
        listed = {key for key, was in before.items() if was.severity != PAGE}
        return fresh + [late for key, late in after.items() if key in listed - raised.keys() and late.severity == PAGE]

    def _firing(self, found: Sequence[reads.StoredSeries]) -> dict[str, News]:
        """Every alert that fires, by its id."""
        firing = reading(self.engine, reads.firing_alerts)
        if not firing:
            return {}
        states = [SeriesState("") if s.state is None else SeriesState.unpack(s.state) for s in found]
        alerts = [[a for a in firing if a.series_id == s.id] for s in found]
        severity = severities(list(zip(states, alerts, strict=True)), self.settings)
        return {a.id: News(s.key.name, a, severity[a.id]) for s, own in zip(found, alerts, strict=True) for a in own}

    def _step_one(self, series: reads.StoredSeries, closed_until: int | None) -> list[Alert]:
        """One series, again from its stored state whenever another process has moved it or the database was away."""
        raised: list[Alert] = []
        at_hand = [series]

        def attempt() -> None:
            start = at_hand.pop() if at_hand else self._stored_series(series.id)
            self._step_series(start, closed_until, raised)

        for _ in range(MOST_TRIES):
            with contextlib.suppress(MovedMeanwhile):
                retrying(self.engine, attempt)
                return raised
        raise StoreError(f"{shown(self.engine)}: series {series.key.name} keeps being moved on by another process")

    def _stored_series(self, series_id: int) -> reads.StoredSeries:
        with self.engine.connect() as connection:
            found = reads.one_series(connection, series_id)
        assert found is not None, "a series is never deleted"
        return found

    def _step_series(self, series: reads.StoredSeries, closed_until: int | None, raised: list[Alert]) -> None:
        """Step a series as far as its buckets go; alerts are added to `raised` as they are committed."""
        state = None if series.state is None else SeriesState.unpack(series.state)
        resolves = False
        if state is None or state.classifier_version != self.version:
            # judgements of another classifier version are never compared with this one's: begin anew, and let go of
            # alerts whose end it could not see
            resolves = state is not None
            state = self._begin(series)
        stored = series.state
        with self.engine.connect() as reader, contextlib.ExitStack() as streams:
            start = state.next_minute
            recent: Iterable[Bucket] = _Stored(reader, series.id, self.version, start - max(WINDOWS_MINUTES), start)
            # what is left unread would hold SQLite's snapshot on the pooled connection, and its next write would fail
            fresh = streams.enter_context(contextlib.closing(reads.buckets(reader, series.id, self.version, start)))
            piece: list[Bucket] = []
            for week, members in groupby(fresh, key=lambda bucket: bucket.minute // SLICE_MINUTES):
                end = (week + 1) * SLICE_MINUTES
                if piece:
                    oldest = week * SLICE_MINUTES - max(WINDOWS_MINUTES)
                    recent = [b for b in chain(recent, piece) if b.minute >= oldest]
                piece = list(members)
                until = end if closed_until is None else min(end, closed_until)
                if piece[0].minute >= until:
                    break
                resolved_at = time_of(piece[0].minute) if resolves else None
                raised += self._step_piece(series, stored, state, recent, piece, until, resolved_at)
                stored, resolves = state.pack(), False
            if points_due_before(state, closed_until):
                raised += self._step_piece(series, stored, state, recent, [], closed_until)

    def _begin(self, series: reads.StoredSeries) -> SeriesState:
        """The state of a series that was not last stepped with these weights: from their latest baseline on, if any.

        Where that was let go, traffic from before is not learned from again; nor is what has become days since, which
        has had its points.
        """
        with self.engine.connect() as connection:
            state = SeriesState(self.version, next_minute=reads.days_until(connection, series.id, self.version))
            own = [b for b in baselines(connection, series.id) if b.classifier_version == self.version]
        if own:
            state.next_minute = max(state.next_minute, minute_of(own[-1].replaced_at or own[-1].origin.frozen_at))
            if own[-1].replaced_at is None:
                state.adopt(own[-1].baseline, state.next_minute)
        return state

    def _step_piece(
        self,
        series: reads.StoredSeries,
        stored: bytes | None,
        state: SeriesState,
        recent: Iterable[Bucket],
        piece: list[Bucket],
        until: int | None,
        resolved_at: datetime | None = None,
    ) -> list[Alert]:
        points: list[Point] = []
        learned: list[Learned] = []
        alerts: dict[str, Alert] = {}
        begins_anew = resolved_at is not None
        for outcome in advance(state, recent, piece, self.quantifier, self.rule, self.settings, closed_until=until):
            match outcome:
                case Point():
                    points.append(outcome)
                    alerts |= {a.id: a for a in self._limit_alerts(series, outcome, alerts.values())}
                case Learned():
                    learned.append(outcome)
                case Alarm():
                    assert state.baseline is not None
                    alert = self._alert(series, outcome, state.baseline, alerts.values())
                    if alert is not None:
                        alerts[alert.id] = alert
                case Recovery(at):
                    # what stood before this piece ended with the first recovery; what the piece raised, with the next
                    resolved_at = resolved_at or time_of(at)
                    alerts = {
                        k: replace(a, firing=False, resolved_at=time_of(at))
                        if a.firing and a.rule == VALUE_DRIFT
                        else a
                        for k, a in alerts.items()
                    }
        rule = None if begins_anew else VALUE_DRIFT
        readings = self._readings(series.id, state, points)
        made = Stepped(state, points, learned, list(alerts.values()), resolved_at, rule, readings)
        commit_step(self.engine, series.id, stored, made)
        return list(alerts.values())

    def _readings(self, series_id: int, state: SeriesState, points: Sequence[Point]) -> dict[str, Reading] | None:
        if not points:
            return None
        with self.engine.connect() as connection:
            return read_off(connection, series_id, state, points, self.settings, self.wanted)

    def _alert(
        self, series: reads.StoredSeries, alarm: Alarm, baseline: Baseline, pending: Collection[Alert]
    ) -> Alert | None:
        """The alert an alarm raises; or the one that stands, joined by what moved since; or none when that is known."""
        with self.engine.connect() as connection:
            latest = {a.id: a for a in (*reads.alerts(connection, series.id), *pending)}
            standing = (
                next((a for a in latest.values() if a.firing and a.rule == VALUE_DRIFT), None) if alarm.again else None
            )
            known = set() if standing is None else known_moves(standing.values)
            history = self._history(connection, series.id, alarm)
            every = self.settings.false_alarm_every_days
            quantifier = self.quantifier.given(baseline.sums, self.settings.baseline_aligned_at_least)
            finding = explain(alarm, baseline, history, quantifier, every, known)
            if finding is None:
                return None
            telling = reads.telling_turns(
                connection, series.id, self.version, finding.behaviour, finding.onset, finding.raised_at
            )
            moved, times = finding.values["directions"], (finding.onset, finding.raised_at)
            carriers = where(connection, series.id, self.version, baseline, quantifier, moved, *times)
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
            values=finding.values | {"where": carriers, "joined": []},
            telling_turns=telling,
        )

    def _limit_alerts(self, series: reads.StoredSeries, point: Point, pending: Collection[Alert]) -> Iterator[Alert]:
        """Alerts of limits that a person set (monitor.rules): raised when a day's lower end is above, else ended."""
        s = self.settings
        if point.window_minutes != MINUTES_PER_DAY or not (s.entropy_above_nats or s.entropy_rate_above_nats_per_day):
            return
        exceeded = broken(
            point.mixture.entropy,
            point.slope,
            level_nats=s.entropy_above_nats,
            rate_nats_per_day=s.entropy_rate_above_nats_per_day,
        )
        with self.engine.connect() as connection:
            latest = {a.id: a for a in (*reads.alerts(connection, series.id), *pending)}
        standing = {a.rule: a for a in latest.values() if a.firing and a.rule in RULES}
        at, day = time_of(point.t), time_of(point.t - MINUTES_PER_DAY)
        for b in exceeded:
            if b.rule not in standing:
                values = {
                    "kind": "limit",
                    "moved": [],
                    "joined": [],
                    "limit": b.limit,
                    "figure": interval_values(b.figure),
                }
                key = alert_id(series.key.name, b.rule, at)
                yield Alert(key, series.id, b.rule, True, at, None, day, day, at, b.reason, values, [])
        for rule, alert in standing.items():
            if rule not in [b.rule for b in exceeded]:
                yield replace(alert, firing=False, resolved_at=at)

    def _history(self, connection: Connection, series_id: int, alarm: Alarm) -> Sequence[Bucket]:
        start = max(alarm.armed_from, alarm.at + 1 - ONSET_HORIZON_MINUTES)
        return list(reads.buckets(connection, series_id, self.version, start, alarm.at + 1))
