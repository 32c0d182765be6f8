"""A series through time: points, baseline, alarm and recovery, the same whenever and however often it is resumed."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.baseline import BaselineRule
from monitor.buckets import Bucket, Sums
from monitor.detectors import COMPONENTS, SIGNALS
from monitor.state import SeriesState
from monitor.trajectory import (
    REARM_MINUTES,
    WINDOWS_MINUTES,
    Alarm,
    Learned,
    Outcome,
    Point,
    Recovery,
    Settings,
    advance,
    onset_of,
)
from tests.unit.core_cases import DRIFTED, HEALTHY, calm, corner, quantifier, rng, traffic

START = 29_453_760
"""2026-01-01 00:00 UTC, minutes since 1970."""
HOUR, DAY = 60, 1440
T = TypeVar("T")
RULE = BaselineRule.parse("100")
SETTINGS = Settings(false_alarm_every_days=30.0)


def follow(
    state: SeriesState,
    buckets: Sequence[Bucket],
    *,
    closed_until: int | None = None,
    rule: BaselineRule = RULE,
    config: Settings = SETTINGS,
) -> list[Outcome]:
    """One step as the store makes it: recent and fresh buckets read from all that are stored."""
    since = state.next_minute
    recent = [b for b in buckets if since - max(WINDOWS_MINUTES) <= b.minute < since]
    fresh = [b for b in buckets if b.minute >= since]
    return list(advance(state, recent, fresh, quantifier(), rule, config, closed_until=closed_until))


def of_kind(outcomes: Sequence[Outcome], kind: type[T]) -> list[T]:
    return [o for o in outcomes if isinstance(o, kind)]


def news(outcomes: Sequence[Outcome]) -> list[Alarm]:
    """Alarms that do not repeat one that still stands."""
    return [a for a in of_kind(outcomes, Alarm) if not a.again]


def told(outcomes: Sequence[Outcome]) -> list[Any]:
    """Outcomes as comparable values; a point written again over itself is one point."""
    values: list[Any] = []
    for o in outcomes:
        v = (
            ("learned", o.baseline.first_minute, o.baseline.last_minute, o.baseline.bounds.tobytes())
            if isinstance(o, Learned)
            else o
        )
        if v not in values:
            values.append(v)
    return values


def drifting(seed: int, hours: float = 14, drift_at: float = 7) -> list[Bucket]:
    """Irregular traffic of some hours that drifts in the middle."""
    r = rng(seed)
    minutes = START + np.cumsum(r.choice([1, 2, 5, 40], p=[0.3, 0.3, 0.37, 0.03], size=2000))
    minutes = minutes[minutes < START + hours * HOUR]
    cut = int(START + drift_at * HOUR)
    return [
        *traffic(r, [int(m) for m in minutes if m < cut]),
        *traffic(r, [int(m) for m in minutes if m >= cut], DRIFTED),
    ]


STREAM = drifting(1)


def test_the_whole_story() -> None:
    """A series learns its baseline, is calm, drifts, and raises one alarm that names the behaviour and the time."""
    state = SeriesState("v")
    outcomes = follow(state, STREAM)
    (learned,) = of_kind(outcomes, Learned)
    (alarm,) = news(outcomes)
    drift = START + 7 * HOUR
    assert learned.baseline.sums.n >= 100
    assert outcomes.index(learned) < outcomes.index(alarm)
    assert drift <= alarm.at < drift + 3 * HOUR
    assert alarm.evidence >= 1
    assert "harmful_compliance" in SIGNALS[int(np.argmax(alarm.signal_shares))]
    assert alarm.armed_from == learned.baseline.last_minute + 1
    history = [b for b in STREAM if alarm.armed_from <= b.minute <= alarm.at]
    onset = onset_of(history, alarm.armed_from, learned.baseline)
    assert abs(history[onset.at].minute - drift) <= 60
    assert history[onset.low].minute <= drift + 30
    assert history[onset.high].minute >= drift - 30
    assert state.alarmed_at == alarm.at


def test_points_are_the_windows() -> None:
    """Every point holds exactly the turns of the hour, day or week before it, no more and no less."""
    outcomes = follow(SeriesState("v"), STREAM)
    points = of_kind(outcomes, Point)
    (learned,) = of_kind(outcomes, Learned)
    lens = quantifier().given(learned.baseline.sums, SETTINGS.baseline_aligned_at_least)
    assert {p.window_minutes for p in points} == set(WINDOWS_MINUTES)
    for p in points:
        inside = [b.sums for b in STREAM if p.t - p.window_minutes <= b.minute < p.t]
        assert p.t % HOUR == 0
        assert p.mixture.n == sum(s.n for s in inside)
    for p in points[::9]:
        inside = [b.sums for b in STREAM if p.t - p.window_minutes <= b.minute < p.t]
        assert p.mixture == (quantifier() if p.kl is None else lens).estimate(sum(inside, Sums.zero()))
    busy = {
        b.minute // HOUR
        for b in STREAM
        if sum(x.sums.n for x in STREAM if x.minute // HOUR == b.minute // HOUR) >= SETTINGS.min_window_turns
    }
    assert {p.t // HOUR - 1 for p in points if p.window_minutes == HOUR} == busy


def test_points_tell_the_state_of_alarm() -> None:
    """Evidence is a share of the alarm threshold: below 1 before, 1 while the alarm stands; kl rises with the drift."""
    outcomes = follow(SeriesState("v"), STREAM)
    (alarm,) = news(outcomes)
    (learned,) = of_kind(outcomes, Learned)
    for p in of_kind(outcomes, Point):
        if p.t <= alarm.at:
            assert 0 <= p.evidence < 1
        else:
            assert p.evidence == 1.0
        assert (p.kl is None) == (p.t <= learned.baseline.last_minute)
    hourly = [p for p in of_kind(outcomes, Point) if p.window_minutes == HOUR and p.kl is not None]
    calm = [p.kl for p in hourly if p.t <= START + 7 * HOUR and p.kl is not None]
    late = [p.kl for p in hourly if p.t > START + 8 * HOUR and p.kl is not None]
    assert np.median(late) > 3 * np.median(calm)
    assert of_kind(outcomes, Point)[-1].slope.value > 0


# --- resuming


@settings(max_examples=12, deadline=None)
@given(st.sets(st.integers(1, len(STREAM) - 1), max_size=6), st.integers(1, 3))
def test_resumed_at_any_bucket(cuts: set[int], seed: int) -> None:
    """A run stopped after any bucket, its state stored and read back, goes on as if never stopped, bit for bit."""
    stream = STREAM if seed == 1 else drifting(seed, hours=5, drift_at=3)
    whole = SeriesState("v")
    expected = follow(whole, stream)
    state = SeriesState("v")
    got: list[Outcome] = []
    for cut in sorted(c for c in cuts if c < len(stream)):
        got += follow(state, stream[:cut], closed_until=stream[cut].minute)
        state = SeriesState.unpack(state.pack())
    got += follow(state, stream)
    assert told(got) == told(expected)
    assert state.pack() == whole.pack()


@settings(max_examples=8, deadline=None)
@given(st.sets(st.integers(1, 15)))
def test_closed_in_pieces(hours: set[int]) -> None:
    """Closing hours one at a time or several at once makes no difference."""
    end = START + 16 * HOUR
    whole, state = SeriesState("v"), SeriesState("v")
    expected = follow(whole, STREAM, closed_until=end)
    got: list[Outcome] = []
    for h in [*sorted(hours), 16]:
        got += follow(state, STREAM, closed_until=START + h * HOUR)
        state = SeriesState.unpack(state.pack())
    assert told(got) == told(expected)
    assert state.pack() == whole.pack()


def test_closed_minute_by_minute() -> None:
    """A followed log, looked at every minute, has the same trajectory as one read at once."""
    stream = drifting(5, hours=4, drift_at=3)
    end = START + 4 * HOUR
    whole, state = SeriesState("v"), SeriesState("v")
    expected = follow(whole, stream, closed_until=end)
    got = [o for t in range(START, end + 1) for o in follow(state, stream, closed_until=t)]
    assert told(got) == told(expected)
    assert state.pack() == whole.pack()


def test_point_of_a_quiet_hour_end() -> None:
    """An hour whose last minutes are silent gets its point when it closes, not when the next turn comes."""
    buckets = [Bucket(START + 50, corner(0, 30))]
    state = SeriesState("v")
    assert of_kind(follow(state, buckets, closed_until=START + 55), Point) == []
    assert of_kind(follow(state, buckets, closed_until=START + HOUR), Point) != []


def test_open_minutes_wait() -> None:
    """A minute that is not closed yet is left for the next step."""
    buckets = traffic(rng(2), range(START, START + 10))
    state = SeriesState("v")
    follow(state, buckets, closed_until=START + 4)
    assert state.last_minute == START + 3
    assert state.learning.n == sum(b.sums.n for b in buckets[:4])


def test_nothing_new() -> None:
    """A step without new buckets changes nothing and says nothing."""
    state = SeriesState("v")
    follow(state, STREAM)
    before = state.pack()
    assert follow(state, STREAM) == []
    assert state.pack() == before


@settings(max_examples=10, deadline=None)
@given(st.integers(0, len(STREAM)))
def test_state_round_trip(upto: int) -> None:
    """Stored state, read back, is what was stored, in a few kilobytes at any time of life."""
    state = SeriesState("v1")
    follow(state, STREAM[:upto])
    data = state.pack()
    assert SeriesState.unpack(data).pack() == data
    assert len(data) < 8192


@pytest.mark.parametrize("change", [lambda d: b"", lambda d: d[:-1], lambda d: b"\xc1" + d, lambda d: b"\x90"])
def test_damaged_state(change: Callable[[bytes], bytes]) -> None:
    """Damaged state is named as such."""
    with pytest.raises(ValueError, match="damaged series state"):
        SeriesState.unpack(change(SeriesState("v").pack()))


def test_state_of_an_older_layout() -> None:
    """State from when the detectors knew rises only is read: their bets go on, the others begin."""
    state = SeriesState("v")
    follow(state, STREAM[:150])
    rises = 40
    old = msgspec.msgpack.decode(state.pack())[:-1]
    old[8] = old[8][:rises]
    read = SeriesState.unpack(msgspec.msgpack.encode(old))
    assert (read.detector.log_wealth[:rises] == state.detector.log_wealth[:rises]).all()
    assert np.isneginf(read.detector.log_wealth[rises:]).all()
    assert read.standing is None
    assert of_kind(follow(read, STREAM), Alarm)
    old[8] = [0.0] * (COMPONENTS + 1)
    with pytest.raises(ValueError, match="newer layout"):
        SeriesState.unpack(msgspec.msgpack.encode(old))


def test_state_of_a_newer_layout() -> None:
    """State written by a newer version, which knows more, is refused: read in part it would lose what it knew."""
    newer = [*msgspec.msgpack.decode(SeriesState("v").pack()), 1]
    with pytest.raises(ValueError, match="state"):
        SeriesState.unpack(msgspec.msgpack.encode(newer))


# --- alarm and recovery


def burst(start: int, minutes: int, k: int = 2) -> list[Bucket]:
    return [Bucket(m, corner(k, 3)) for m in range(start, start + minutes)]


def test_recovery_after_a_clean_day() -> None:
    """An alarm ends only when a whole day since was within bounds, and a new drift then raises a new one."""
    bad = START + 10 * HOUR
    second = bad + 40 * HOUR
    stream = [
        *calm(1, START, bad),
        *burst(bad, 30),
        *calm(2, bad + 30, second),
        *burst(second, 30, k=3),
    ]
    outcomes = follow(SeriesState("v"), stream)
    alarms, recoveries = of_kind(outcomes, Alarm), of_kind(outcomes, Recovery)
    assert len(alarms) == 2
    assert len(recoveries) == 1
    assert bad <= alarms[0].at < bad + 30
    assert bad + 30 + DAY - HOUR <= recoveries[0].at <= bad + 30 + DAY + 2 * HOUR
    assert second <= alarms[1].at < second + 30
    assert recoveries[0].at - HOUR < alarms[1].armed_from <= recoveries[0].at
    assert SIGNALS[int(np.argmax(alarms[1].signal_shares))] in ("deception rose", "misaligned rose")


def test_relapse_delays_recovery() -> None:
    """A relapse within the day begins the waiting anew, and its alarm says that it repeats one that stands."""
    bad = START + 10 * HOUR
    relapse = bad + 20 * HOUR
    stream = [
        *calm(1, START, bad),
        *burst(bad, 30),
        *calm(2, bad + 30, relapse),
        *burst(relapse, 30),
        *calm(3, relapse + 30, relapse + 30 * HOUR),
    ]
    outcomes = follow(SeriesState("v"), stream)
    assert len(news(outcomes)) == 1
    (recovery,) = of_kind(outcomes, Recovery)
    assert relapse + 30 + DAY - HOUR <= recovery.at <= relapse + 30 + DAY + 2 * HOUR


def test_another_behaviour_joins() -> None:
    """When another behaviour begins to drift while an alarm stands, the detectors tell of it after their rest."""
    bad = START + 10 * HOUR
    stream = [
        *calm(1, START, bad),
        *burst(bad, 60),
        *calm(2, bad + 60, bad + 12 * HOUR),
        *burst(bad + 12 * HOUR, 60, k=4),
    ]
    first, second = of_kind(follow(SeriesState("v"), stream), Alarm)
    assert (first.again, second.again) == (False, True)
    assert bad + 12 * HOUR <= second.at < bad + 13 * HOUR
    assert second.armed_from == first.armed_from
    assert second.rearmed_from == first.at + REARM_MINUTES
    assert int(np.argmax(second.signal_shares)) == SIGNALS.index("goal_deviation rose")


def test_silence_is_not_recovery() -> None:
    """A series that falls silent after an alarm has not recovered, however long."""
    bad = START + 10 * HOUR
    stream = [*calm(1, START, bad), *burst(bad, 30), Bucket(bad + 5 * DAY, corner(0, 5))]
    state = SeriesState("v")
    outcomes = follow(state, stream)
    assert len(of_kind(outcomes, Alarm)) == 1
    assert of_kind(outcomes, Recovery) == []
    assert state.alarmed_at is not None


def test_alarm_in_the_hour_of_a_recovery() -> None:
    """A log read twice within the hour in which an alarm recovered can alarm again at once, with an onset."""
    bad = START + 10 * HOUR
    first = [*calm(1, START, bad), *burst(bad, 30), *calm(2, bad + 30, bad + 2 * DAY)]
    state = SeriesState("v")
    # read first until a few minutes into the hour at whose end the alarm recovers
    outcomes: list[Outcome] = []
    stored: list[Bucket] = []
    while not of_kind(outcomes, Recovery):
        stored = first[: len(stored) + 1] if stored else [b for b in first if b.minute < bad + DAY]
        outcomes = follow(state, stored)
        assert len(stored) < len(first)
    (recovery,) = of_kind(outcomes, Recovery)
    last = stored[-1].minute
    stored += burst(last + 1, recovery.at - last - 1 if recovery.at - last > 10 else 60)
    (alarm,) = of_kind(follow(state, stored), Alarm)
    assert state.baseline is not None
    assert alarm.armed_from <= alarm.at, "there must be buckets in which to seek the onset"
    history = [b for b in stored if alarm.armed_from <= b.minute <= alarm.at]
    onset_of(history, alarm.armed_from, state.baseline)


# --- odd traffic


def test_a_month_of_silence() -> None:
    """After a month without a turn the series goes on: no alarm, no old turns in its windows."""
    back = START + 30 * DAY
    stream = [*calm(1, START, START + 8 * HOUR), *calm(2, back, back + 8 * HOUR)]
    outcomes = follow(SeriesState("v"), stream)
    assert of_kind(outcomes, Alarm) == []
    last = of_kind(outcomes, Point)[-1]
    assert last.mixture.n == sum(b.sums.n for b in stream if b.minute >= back)
    assert math.isfinite(last.slope.value)


def test_a_drift_across_a_month_of_silence() -> None:
    """A model that comes back changed after a month is noticed."""
    back = START + 30 * DAY
    stream = [*calm(1, START, START + 8 * HOUR), *traffic(rng(2), range(back, back + 200), DRIFTED, turns=2)]
    (alarm,) = of_kind(follow(SeriesState("v"), stream), Alarm)
    assert back <= alarm.at < back + 100


def test_one_turn_a_day() -> None:
    """With a turn a day no point pretends to know the mixture, and yet a capture is found within days."""
    r = rng(3)
    days = range(START + 500, START + 300 * DAY, DAY)
    stream = [*traffic(r, days[:200], HEALTHY, turns=1), *(Bucket(m, corner(2, 1)) for m in days[200:])]
    outcomes = follow(SeriesState("v"), stream)
    assert of_kind(outcomes, Point) == []
    assert len(of_kind(outcomes, Learned)) == 1
    (alarm,) = news(outcomes)
    assert 0 <= (alarm.at - days[200]) // DAY <= 12


def heavy(k_share: float, n: int) -> Sums:
    bad = round(n * k_share)
    return corner(0, n - bad) + corner(2, bad)


def test_thousands_of_turns_a_minute() -> None:
    """Heavy traffic at its usual mixture raises no alarm, and its intervals are narrow."""
    stream = [Bucket(START + m, heavy(0.02, 5000)) for m in range(2 * HOUR)]
    outcomes = follow(SeriesState("v"), stream)
    assert of_kind(outcomes, Alarm) == []
    last = of_kind(outcomes, Point)[-1]
    assert last.mixture.n == 600_000
    assert last.evidence < 1


@pytest.mark.parametrize("turns", [100, 300, 5000])
def test_sudden_capture(turns: int) -> None:
    """When a whole minute of busy traffic turns bad, the alarm comes that minute, with a finite evidence."""
    stream = [*(Bucket(START + m, heavy(0.01, 300)) for m in range(30)), Bucket(START + 30, heavy(1.0, turns))]
    (alarm,) = of_kind(follow(SeriesState("v"), stream), Alarm)
    assert alarm.at == START + 30
    assert math.isfinite(alarm.evidence)


# --- baselines


def test_too_few_turns_is_still_learning() -> None:
    """Before its baseline is complete a series has points, but nothing can be called drift."""
    stream = [*calm(1, START, START + 5 * HOUR), *burst(START + 5 * HOUR, 40)]
    state = SeriesState("v")
    outcomes = follow(state, stream, rule=BaselineRule.parse("1000"))
    assert {type(o) for o in outcomes} == {Point}
    assert all(p.kl is None and p.evidence == 0 for p in of_kind(outcomes, Point))
    assert state.baseline is None
    assert state.learning.n == sum(b.sums.n for b in stream)


def test_turns_and_hours() -> None:
    """`100+6h` is complete with the first bucket at which both are met."""
    stream = calm(1, START, START + 12 * HOUR)
    (learned,) = of_kind(follow(SeriesState("v"), stream, rule=BaselineRule.parse("100+6h")), Learned)
    b = learned.baseline
    assert b.first_minute == START
    assert b.last_minute == min(x.minute for x in stream if x.minute + 1 - START >= 6 * HOUR)
    assert b.sums.n == sum(x.sums.n for x in stream if x.minute <= b.last_minute)


def test_a_rule_is_kept() -> None:
    """A series goes on learning by the rule it began with, whatever later runs are given; frozen, it keeps none."""
    stream = calm(1, START, START + 12 * HOUR)
    state = SeriesState("v")
    follow(state, stream[:20], rule=BaselineRule.parse("100"))
    assert state.rule == "100"
    assert len(of_kind(follow(state, stream[:60], rule=BaselineRule.parse("5000+7d")), Learned)) == 1
    assert state.rule is None


@pytest.mark.parametrize(
    "rule", ["300", "7d", "300+24h", "2026-01-01..2026-01-08", "2026-01-01T02:30+02:00..2026-01-02"]
)
def test_rule_text(rule: str) -> None:
    """What is kept of a rule is read as the same rule."""
    read = BaselineRule.parse(rule)
    assert BaselineRule.parse(read.text) == read


RANGE = BaselineRule.parse("2026-01-01T02:00..2026-01-01T06:00")


@pytest.mark.parametrize(("shares", "fits"), [(HEALTHY, True), (np.array([0.2, 0.0, 0.8, 0.0, 0.0]), False)])
def test_a_baseline_no_healthy_deployment_explains(shares: Any, fits: bool) -> None:
    """It is learned, with a warning that intervals are then surer than they should be."""
    stream = traffic(rng(5), range(START, START + HOUR), shares, 4)
    (learned,) = of_kind(follow(SeriesState("v"), stream), Learned)
    assert ("fit no healthy deployment" in learned.warning) is not fits


def test_range_baseline() -> None:
    """A range is learned from what lies in it only, frozen by the first turn after it, and watched from there."""
    bad = START + 9 * HOUR
    stream = [*burst(START, 60), *calm(1, START + 60, bad), *burst(bad, 30)]
    outcomes = follow(SeriesState("v"), stream, rule=RANGE)
    (learned,) = of_kind(outcomes, Learned)
    (alarm,) = of_kind(outcomes, Alarm)
    assert learned.baseline.first_minute >= START + 2 * HOUR
    assert learned.baseline.last_minute < START + 6 * HOUR
    assert learned.baseline.sums.n == sum(b.sums.n for b in stream if 2 * HOUR <= b.minute - START < 6 * HOUR)
    assert bad <= alarm.at < bad + 30


def test_range_with_too_few_turns() -> None:
    """A range with fewer than 50 turns never becomes a baseline; later traffic does not fill it up."""
    few = traffic(rng(1), range(START + 2 * HOUR, START + 2 * HOUR + 49), turns=1)
    stream = [*few, *calm(2, START + 6 * HOUR, START + 20 * HOUR), *burst(START + 20 * HOUR, 30)]
    state = SeriesState("v")
    outcomes = follow(state, stream, rule=RANGE)
    assert {type(o) for o in outcomes} == {Point}
    assert state.learning.n == 49


def test_range_not_over() -> None:
    """Within the range the baseline stays open, however many turns there are."""
    state = SeriesState("v")
    follow(state, calm(1, START + 2 * HOUR, START + 6 * HOUR, every=1), rule=RANGE)
    assert state.baseline is None


# --- settings


def test_a_longer_promise_alarms_later() -> None:
    """Asking for fewer false alarms never brings an alarm forward."""
    at = []
    for days in (1.0, 30.0, 1000.0):
        outcomes = follow(SeriesState("v"), STREAM, config=Settings(false_alarm_every_days=days))
        at.append(min(a.at for a in of_kind(outcomes, Alarm)))
    assert at == sorted(at)


def test_min_window_turns() -> None:
    """Windows with fewer turns than asked for get no point."""
    few = [Bucket(START + 5, corner(0, 19)), Bucket(START + 65, corner(0, 1)), Bucket(START + 125, corner(0, 1))]
    points = of_kind(follow(SeriesState("v"), few), Point)
    assert {(p.t - START, p.window_minutes) for p in points} == {
        (t, w) for t in (120, 180) for w in WINDOWS_MINUTES if w != HOUR
    }


def test_unknown_setting() -> None:
    """A setting that does not exist is not silently ignored."""
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"false_alarm_every": 3}, Settings)
