"""A series through time: closed buckets in, trajectory points and alarms out (design sections 2 and 3).

`advance` is a pure step over buckets in time order; all it remembers between calls is `SeriesState`, a few kilobytes
that the store keeps, so a series resumes to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.baseline import (
    FEWEST_COMPARED,
    MOST_EXTENSIONS,
    Baseline,
    BaselineRule,
    changed_features,
    unsteady,
)
from monitor.buckets import Bucket, Ints, Sums
from monitor.detectors import EDetector, Increments, Onset, bets_on, locate_onset, log_threshold
from monitor.drift import Slope
from monitor.entropy import Mixture, Quantifier, kl_divergence
from monitor.null_set import NullSet
from monitor.state import SeriesState
from monitor.taxonomy import K

Floats = NDArray[np.float64]

MINUTES_PER_DAY: Final = 1440
WINDOWS_MINUTES: Final = (60, MINUTES_PER_DAY, 7 * MINUTES_PER_DAY)
"""1 h, 24 h, 7 d."""
POINT_EVERY_MINUTES: Final = 60
"""Trajectory resolution, of which every window is a multiple; detectors advance every minute."""
REARM_MINUTES: Final = 6 * 60
"""After an alarm the detectors rest so long; then they look for other behaviours that moved."""
MISFIT: Final = (
    "the answers to its turns fit no healthy deployment, as the classifier is calibrated: "
    "shares and S may lie outside their intervals more often than in 10 %"
)
"""Warning of a baseline under which monitor.entropy.Quantifier.given assumes nothing."""
_LARGEST_LOG: Final = 700.0
"""Evidence is shown up to exp of this; the detectors themselves keep logs."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a series is followed; the units stand in the names."""

    false_alarm_every_days: float = 90.0
    """Promised mean time between false alarms of one series."""
    page_every_days: float = 30.0
    """Promised mean time between false pages of all series together (monitor.multiplicity)."""
    entropy_above_nats: float = 0.0
    """An alert while S of 24 h is surely above this (monitor.rules); 0 is off."""
    entropy_rate_above_nats_per_day: float = 0.0
    """An alert while dS/dt is surely above this; 0 is off."""
    baseline_aligned_at_least: float = 0.8
    """A baseline is taken to be this healthy when the classifier's errors are allowed for; 0 assumes nothing."""
    min_window_turns: int = 20
    """A window with fewer turns gets no point."""
    trend_cell_turns: int = 60
    """Turns in one estimate of S that the trend takes in, over at least an hour."""
    lambda_max_per_day: float = 0.0
    """Twice the rate at which aligned log-odds decay unheld (monitor.work_values), 1/day; 0: not known."""
    sigma_0_nats_per_day: float = 0.0
    """Production rate of S where no alignment work is done; 0: not known."""


@dataclass(frozen=True, slots=True)
class Point:
    """The trajectory at minute `t` (exclusive end) over the `window_minutes` before it."""

    t: int
    window_minutes: int
    mixture: Mixture
    slope: Slope
    kl: float | None
    evidence: float
    """Average wealth of the detectors over its alarm threshold; an alarm is raised at 1."""
    doubt: float = 0.0
    """Mean probability that a judgement of the window is wrong."""
    fits: bool = True
    """Whether the calibration explains the answers on the baseline by a healthy mixture; True without a baseline."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A detector crossed its threshold in the bucket of minute `at`.

    The change is to be sought from `armed_from` on; the evidence was gathered from `rearmed_from` on, which is later
    when an earlier alarm has not recovered yet (`again`): this one is news only if another behaviour moved.
    """

    at: int
    armed_from: int
    evidence: float
    signal_shares: tuple[float, ...]
    rearmed_from: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Recovery:
    """After an alarm, a day's traffic was back within the baseline's bounds."""

    at: int


@dataclass(frozen=True, slots=True)
class Learned:
    """The baseline was frozen; `reason` says why a series learned anew, `warning` what is wrong with it."""

    baseline: Baseline
    reason: str | None = None
    warning: str = ""


Outcome = Point | Alarm | Recovery | Learned


def advance(
    state: SeriesState,
    recent: Iterable[Bucket],
    fresh: Iterable[Bucket],
    quantifier: Quantifier,
    rule: BaselineRule,
    settings: Settings,
    *,
    closed_until: int | None = None,
) -> Iterator[Outcome]:
    """Take in closed buckets, changing `state`; yields what came of them, in time order.

    Parameters
    ----------
    recent : buckets of the longest window before `state.next_minute`, in time order, one a minute; read only when a
        point is due.
    fresh : buckets from `state.next_minute` on, in time order, one a minute.
    closed_until : minutes before this are closed; None closes all. The hour of the last bucket gets its point when it
        is closed.

    Raises
    ------
    ValueError : a fresh bucket lies before `state.next_minute`, or before the one ahead of it.
    """
    step = _Step(state, quantifier, rule, settings, _Windows(recent))
    for bucket in fresh:
        if closed_until is not None and bucket.minute >= closed_until:
            break
        if bucket.minute < state.next_minute:
            raise ValueError(f"minute {bucket.minute} runs backwards: the series is at {state.next_minute}")
        if points_due_before(state, bucket.minute):
            yield from step.points()
        yield from step.take(bucket)
        state.last_minute = bucket.minute
        state.next_minute = bucket.minute + 1
        state.point_due = True
    if points_due_before(state, closed_until):
        yield from step.points()


def points_due_before(state: SeriesState, minute: int | None) -> bool:
    """Whether an hour with traffic has ended by `minute` (None: all have) and not had its points."""
    if not state.point_due or state.last_minute is None:
        return False
    return minute is None or _hour_end(state.last_minute) <= minute


def _hour_end(minute: int) -> int:
    return (minute // POINT_EVERY_MINUTES + 1) * POINT_EVERY_MINUTES


class _Windows:
    """Sums over the last 1 h, 24 h and 7 d, made of sums over whole hours: exact, because they are integers.

    `recent` is not read before a window is asked for: most minutes ask for none.
    """

    def __init__(self, recent: Iterable[Bucket]) -> None:
        self._unread: list[Iterable[Bucket]] = [recent]
        self._hours: dict[int, Ints] = {}

    def add(self, bucket: Bucket) -> None:
        self._unread.append((bucket,))

    def ending(self, t: int) -> Iterator[tuple[int, Sums]]:
        """(window minutes, sums) of the windows that end at the full hour t."""
        for bucket in chain.from_iterable(self._unread):
            hour = bucket.minute // POINT_EVERY_MINUTES
            if hour in self._hours:
                self._hours[hour] += bucket.sums.values
            else:
                self._hours[hour] = bucket.sums.values.copy()
        self._unread = []
        self._hours = {h: x for h, x in self._hours.items() if h * POINT_EVERY_MINUTES >= t - max(WINDOWS_MINUTES)}
        for minutes in WINDOWS_MINUTES:
            inside = [x for h, x in self._hours.items() if t - minutes <= h * POINT_EVERY_MINUTES < t]
            yield minutes, Sums(np.sum(inside, axis=0)) if inside else Sums.zero()


class _Step:
    """One series, one call of `advance`."""

    def __init__(
        self, state: SeriesState, quantifier: Quantifier, rule: BaselineRule, settings: Settings, windows: _Windows
    ) -> None:
        self._state = state
        self._quantifier = quantifier
        if state.baseline is None and state.rule is None:
            # kept: a later run that is given another rule must not change what this series is compared with
            state.rule = rule.text
        self._rule = rule if state.rule is None else BaselineRule.parse(state.rule)
        self._settings = settings
        self._windows = windows
        self._set_baseline(state.baseline)

    def _set_baseline(self, baseline: Baseline | None) -> None:
        self._null = None if baseline is None else NullSet.of(baseline)
        self._increments = None if self._null is None else Increments(self._null)
        self._lens_of_baseline: tuple[Quantifier, Floats] | None = None

    def _lens(self) -> tuple[Quantifier, Floats | None]:
        """The quantifier for this deployment and the shares of its baseline; most minutes need neither."""
        baseline = self._state.baseline
        if baseline is None:
            return self._quantifier, None
        if self._lens_of_baseline is None:
            quantifier = self._quantifier.given(baseline.sums, self._settings.baseline_aligned_at_least)
            # a share whose every draw is 0 must not make the distance infinite
            p = quantifier.estimate(baseline.sums).p + 1e-6
            self._lens_of_baseline = quantifier, p / p.sum()
        return self._lens_of_baseline

    def take(self, bucket: Bucket) -> Iterator[Outcome]:
        state = self._state
        self._windows.add(bucket)
        if state.baseline is None and self._rule.over(bucket.minute) and state.learning.n >= self._rule.turns:
            assert state.last_minute is not None
            yield self._freeze(state.last_minute)
        if state.baseline is None:
            yield from self._learn(bucket)
        elif self._increments is not None:
            stake = stake_days(state.last_minute, bucket.minute)
            increments = self._increments.of(bucket.sums)
            if state.standing is not None:
                state.standing.update(increments, stake)
            if bucket.minute >= state.rearm_at:
                state.detector.update(increments, stake)
                if state.detector.log_evidence >= log_threshold(self._settings.false_alarm_every_days):
                    yield self._alarm(bucket.minute)
        self._feed_trend(bucket)

    def _alarm(self, minute: int) -> Alarm:
        """Tell of the alarm, and start the detectors anew after a rest."""
        state = self._state
        shares = tuple(state.detector.signal_shares.tolist())
        again = state.alarmed_at is not None
        alarm = Alarm(minute, state.armed_from, self._wealth(), shares, max(state.armed_from, state.rearm_at), again)
        if state.alarmed_at is None:
            state.alarmed_at, state.standing = minute, state.detector
        state.rearm_at = minute + REARM_MINUTES
        state.detector = EDetector()
        return alarm

    def _learn(self, bucket: Bucket) -> Iterator[Outcome]:
        state = self._state
        if not self._rule.wants(bucket.minute):
            return
        if state.learning_from is None:
            state.learning_from = bucket.minute
        state.learning = state.learning + bucket.sums
        minutes = bucket.minute + 1 - state.learning_from
        rule = self._rule.times(2**state.extensions)
        if state.earlier is None:
            if rule.half_way(state.learning.n, minutes, bucket.minute):
                state.earlier, state.later_from = state.learning, bucket.minute + 1
            return
        later = state.learning - state.earlier
        if later.n < FEWEST_COMPARED or not rule.complete(state.learning.n, minutes):
            return
        if state.extensions < MOST_EXTENSIONS and changed_features(state.earlier, later):
            # the second half becomes part of the first half of a learning twice as long
            state.learning, state.learning_from, state.earlier = later, state.later_from, None
            state.extensions += 1
        else:
            yield self._freeze(bucket.minute)

    def _freeze(self, last_minute: int) -> Learned:
        state = self._state
        assert state.learning_from is not None
        baseline = Baseline.freeze(state.learning_from, last_minute, state.learning)
        halves = None if state.earlier is None else (state.earlier, state.learning - state.earlier)
        changing = unsteady(changed_features(*halves)) if halves else ""
        reason = state.relearn_reason
        state.adopt(baseline, last_minute + 1)
        self._set_baseline(baseline)
        odd = "" if self._lens()[0].assumes_baseline else MISFIT
        return Learned(baseline, reason, "; ".join(w for w in (changing, odd) if w))

    def _feed_trend(self, bucket: Bucket) -> None:
        state = self._state
        if not state.cell.n:
            state.cell_from, state.cell_moment = bucket.minute, 0
        state.cell = state.cell + bucket.sums
        state.cell_moment += bucket.sums.n * (bucket.minute - state.cell_from)
        span = bucket.minute + 1 - state.cell_from
        if state.cell.n >= self._settings.trend_cell_turns and span >= POINT_EVERY_MINUTES:
            s, sd = self._lens()[0].level(state.cell)
            at = state.cell_from + state.cell_moment / state.cell.n
            state.trend.update(at / MINUTES_PER_DAY, s, max(sd**2, 1e-8))
            state.cell = Sums.zero()

    def points(self) -> Iterator[Outcome]:
        """The points of the last bucket's hour, at its end."""
        state = self._state
        assert state.last_minute is not None
        t = _hour_end(state.last_minute)
        state.point_due = False
        for minutes, sums in self._windows.ending(t):
            if minutes >= MINUTES_PER_DAY and self._recovered(t, minutes, sums):
                state.alarmed_at = None
                state.rearm_at, state.armed_from = 0, state.next_minute
                state.detector, state.standing = EDetector(), None
                yield Recovery(t)
            if sums.n < self._settings.min_window_turns:
                continue
            quantifier, baseline_p = self._lens()
            mixture = quantifier.estimate(sums)
            kl = None if baseline_p is None else kl_divergence(mixture.p, baseline_p)
            fits = baseline_p is None or quantifier.assumes_baseline
            yield Point(t, minutes, mixture, state.trend.slope, kl, self._evidence(), sums.mean_doubt, fits)

    def _evidence(self) -> float:
        return 1.0 if self._state.alarmed_at is not None else self._wealth()

    def _wealth(self) -> float:
        log = self._state.detector.log_evidence - log_threshold(self._settings.false_alarm_every_days)
        return float(np.exp(min(log, _LARGEST_LOG)))

    def _recovered(self, t: int, minutes: int, window: Sums) -> bool:
        """Whether a whole window since the alarm lies within the baseline's bounds: a day, or a thin week."""
        alarmed_at = self._state.alarmed_at
        if self._null is None or alarmed_at is None or t < alarmed_at + minutes:
            return False
        return window.n >= self._settings.min_window_turns and self._null.holds(window)


def stake_days(last_minute: int | None, minute: int) -> float:
    """Event time since the last bucket of the series, days: what a new gambler enters with."""
    return 1 / MINUTES_PER_DAY if last_minute is None else (minute - last_minute) / MINUTES_PER_DAY


def onset_of(history: Sequence[Bucket], start: int, baseline: Baseline, behaviours: Sequence[int] = range(K)) -> Onset:
    """Since when the behaviours of a series have been changing, in whichever direction.

    Parameters
    ----------
    history : its buckets from minute `start` to an alarm's, one a minute; the result's places count in it.
    behaviours : which of monitor.taxonomy.BEHAVIOURS to look at.
    """
    increments = Increments(NullSet.of(baseline)).all([b.sums for b in history])
    before = [start - 1, *(b.minute for b in history)]
    stakes = np.array([stake_days(last, b.minute) for last, b in zip(before, history, strict=False)])
    return locate_onset(increments, stakes, bets_on(behaviours))
