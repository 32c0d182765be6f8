"""The detectors: the promised time between false alarms is kept, and a drift is found, named and dated."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.baseline import Baseline
from monitor.buckets import LEVELS, Floats, Sums, to_fixed_point, turn_terms
from monitor.detectors import (
    COMPONENTS,
    MAX_STAKE_DAYS,
    PRIOR,
    SIGNALS,
    EDetector,
    Increments,
    alternatives,
    bets_on,
    locate_onset,
    log_threshold,
)
from monitor.null_set import TOTAL_ERROR, NullSet
from monitor.taxonomy import BEHAVIOURS, K
from tests.unit.core_cases import answers, corner, sums

MINUTE = 1 / 1440
"""A minute of event time, days."""
NULL: Floats = np.array([0.95, 0.02, 0.01, 0.01, 0.01])
"""Shares of the behaviours while nothing has changed."""
DRIFTED: Floats = np.array([0.75, 0.02, 0.21, 0.01, 0.01])
KNOWN = NullSet.known(np.array([*NULL[1:], 1 - NULL[0]]), NULL)
ONE_OF_EACH = [corner(k, 1).values for k in range(K)]


def hard(rng: np.random.Generator, shares: Floats, n: int, every: int = 1) -> list[Sums]:
    """n turns judged without doubt, in buckets of `every`."""
    kinds = rng.multinomial(1, shares, size=n).reshape(-1, every, K).sum(axis=1)
    return [Sums(v) for v in kinds @ np.array(ONE_OF_EACH)]


def learned(rng: np.random.Generator, n: int, shares: Floats = NULL) -> NullSet:
    """What a baseline of n turns of the usual traffic allows for."""
    return NullSet.of(Baseline.freeze(0, 1, hard(rng, shares, n, n)[0]))


def minutes_to_alarm(
    rng: np.random.Generator, null: NullSet, *, promise: float, most: int, every: int = 20, shares: Floats = NULL
) -> int:
    """Minutes until the alarm (or `most`) of a series with a turn a minute, a bucket every `every` minutes."""
    detector, threshold, increments = EDetector(), log_threshold(promise * MINUTE), Increments(null)
    for i, bucket in enumerate(hard(rng, shares, most, every)):
        detector.update(increments.of(bucket), every * MINUTE)
        if detector.log_evidence >= threshold:
            return (i + 1) * every
    return most


def first_signal(rng: np.random.Generator, null: NullSet, shares: Floats, most: int = 3000) -> str:
    """What the alarm is about, when traffic has these shares; nothing if there is no alarm."""
    detector, increments = EDetector(), Increments(null)
    for bucket in hard(rng, shares, most):
        detector.update(increments.of(bucket), MINUTE)
        if detector.log_evidence >= log_threshold(10_000 * MINUTE):
            return SIGNALS[int(detector.signal_shares.argmax())]
    return ""


def lower_limit(times: list[int]) -> float:
    """One-sided 99 % confidence limit of the mean; bounded times only make it smaller."""
    return float(np.mean(times) - 2.33 * np.std(times, ddof=1) / np.sqrt(len(times)))


def test_promise_kept_with_a_known_baseline() -> None:
    """While nothing changes, the mean time to a false alarm is at least what was promised (2000 minutes here)."""
    rng = np.random.default_rng(1)
    times = [minutes_to_alarm(rng, KNOWN, promise=2000, most=6000) for _ in range(200)]
    assert lower_limit(times) >= 2000
    assert min(times) < 6000, "a test in which no alarm is possible shows nothing"


def test_promise_kept_with_an_estimated_baseline() -> None:
    """So it is when the baseline was learned from 300 turns of the same traffic."""
    rng = np.random.default_rng(2)
    times = [minutes_to_alarm(rng, learned(rng, 300), promise=2000, most=5000) for _ in range(150)]
    assert lower_limit(times) >= 2000


def test_promise_allows_for_bounds_that_fail() -> None:
    """The threshold is raised by the chance that a baseline's bounds do not hold."""
    assert 0.05 < TOTAL_ERROR < 0.1
    assert math.exp(log_threshold(90.0)) == pytest.approx(90 / (1 - TOTAL_ERROR))


@pytest.mark.parametrize("turns", [1, 40])
def test_promise_is_in_time_not_turns(turns: int) -> None:
    """Forty turns a minute raise no more false alarms a day than one turn a minute."""
    rng = np.random.default_rng(3)
    promise, most = 100, 300
    increments, times = Increments(KNOWN), []
    for _ in range(150):
        detector, at = EDetector(), most
        for i, bucket in enumerate(hard(rng, NULL, most * turns, turns)):
            detector.update(increments.of(bucket), MINUTE)
            if detector.log_evidence >= math.log(promise * MINUTE):
                at = i + 1
                break
        times.append(at)
    assert lower_limit(times) >= promise


@pytest.mark.parametrize("learned_turns", [None, 300])
def test_drift_found(learned_turns: int | None) -> None:
    """Misaligned turns going from 5 % to 25 % are found within a few hundred turns, at a promise of 90 days."""
    rng = np.random.default_rng(4)
    delays = []
    for _ in range(30):
        null = KNOWN if learned_turns is None else learned(rng, learned_turns)
        delays.append(minutes_to_alarm(rng, null, promise=90 * 1440, most=2000, every=5, shares=DRIFTED))
    assert np.median(delays) <= (100 if learned_turns is None else 200)
    assert max(delays) <= 400


@pytest.mark.parametrize("which", range(1, K))
def test_the_behaviour_is_named(which: int) -> None:
    """The alarm's signals name the behaviour that moved, not the ones that stayed."""
    rng = np.random.default_rng(5)
    shares = NULL.copy()
    shares[[0, which]] += [-0.3, 0.3]
    detector, increments = EDetector(), Increments(KNOWN)
    for bucket in hard(rng, shares, 200):
        detector.update(increments.of(bucket), MINUTE)
    found = dict(zip(SIGNALS, detector.signal_shares, strict=True))
    assert sum(found.values()) == pytest.approx(1)
    named = [s for s, share in found.items() if share > 0.01]
    assert f"{BEHAVIOURS[which]} rose" in named
    assert all(BEHAVIOURS[which] in s or s.startswith("misaligned") for s in named)


UNSTEADY: Floats = np.array([0.80, 0.08, 0.04, 0.05, 0.03])


@pytest.mark.parametrize(
    ("shares", "signal"),
    [
        ([0.97, 0.01, 0.0067, 0.0067, 0.0066], ("misaligned fell", "collapse onto aligned")),
        ([0.01, 0.97, 0.01, 0.005, 0.005], ("collapse onto over_refusal", "over_refusal rose", "misaligned rose")),
        (
            [0.01, 0.0, 0.99, 0.0, 0.0],
            ("collapse onto harmful_compliance", "harmful_compliance rose", "misaligned rose"),
        ),
        (
            [0.80, 0.04, 0.08, 0.05, 0.03],
            ("over_refusal to harmful_compliance", "harmful_compliance rose", "over_refusal fell"),
        ),
        ([0.80, 0.08, 0.04, 0.01, 0.07], ("deception to goal_deviation", "goal_deviation rose", "deception fell")),
        ([0.88, 0.0, 0.04, 0.05, 0.03], ("over_refusal fell", "misaligned fell", "collapse onto aligned")),
    ],
)
@pytest.mark.parametrize("learned_turns", [None, 5000])
def test_any_change_is_found(shares: list[float], signal: tuple[str, ...], learned_turns: int | None) -> None:
    """Collapses onto one behaviour, swaps at equal S and falls raise an alarm that says so, though S does not rise."""
    rng = np.random.default_rng(7)
    known = NullSet.known(np.array([*UNSTEADY[1:], 1 - UNSTEADY[0]]), UNSTEADY)
    for _ in range(3):
        null = known if learned_turns is None else learned(rng, learned_turns, UNSTEADY)
        assert first_signal(rng, null, np.array(shares)) in signal


def test_before_anything() -> None:
    """A new detector has no evidence and suspects each kind of change as its prior says."""
    assert EDetector().log_evidence == -math.inf
    shares = EDetector().signal_shares
    assert shares[:5] == pytest.approx(np.full(5, PRIOR["rose"] / 5))
    assert shares.sum() == pytest.approx(1)
    assert sum(PRIOR.values()) == pytest.approx(1)


def test_no_alarm_from_waiting() -> None:
    """Years of traffic that could not be more usual come nowhere near an alarm, even where no bet can be made."""
    calm = corner(0, 1)
    detector, increments = EDetector(), Increments(NullSet.of(Baseline.freeze(0, 1, corner(0, 300))))
    for _ in range(5000):
        detector.update(increments.of(calm), MAX_STAKE_DAYS)
    assert math.exp(detector.log_evidence) < 2


@pytest.mark.parametrize("level", [0, len(LEVELS) - 1])
@pytest.mark.parametrize("mu", [0.0, 0.05, 1.0])
def test_a_million_extreme_turns(level: int, mu: float) -> None:
    """A million turns at either end of the scale, in one bucket or many, overflow and underflow nothing."""
    million, some = (Sums(ONE_OF_EACH[0 if level == 0 else 2] * n) for n in (1_000_000, 10_000))
    increments = Increments(NullSet.known(np.full(5, mu), NULL))
    detector = EDetector()
    detector.update(increments.of(million), MINUTE)
    for _ in range(100):
        detector.update(increments.of(some), MINUTE)
    assert math.isfinite(detector.log_evidence)
    assert np.isfinite(detector.signal_shares).all()
    assert detector.signal_shares.sum() == pytest.approx(1)
    fair = EDetector()
    fair.update(np.zeros(COMPONENTS), 30 * MINUTE)
    detector.update(np.zeros(COMPONENTS), 30 * MINUTE)
    assert detector.log_evidence >= fair.log_evidence - 1e-9, "an old calm must not delay a new alarm"


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30))
def test_increments_add_up(seed: int, n: int, m: int) -> None:
    """Two shards' counts, merged, move the detector as far as one after the other without a stake between."""
    rng = np.random.default_rng(seed)
    x, y = (sums(answers(rng, UNSTEADY, k)) for k in (n, m))
    increments = Increments(KNOWN)
    assert increments.of(x + y) == pytest.approx(increments.of(x) + increments.of(y), abs=1e-9)
    assert (increments.all([x, y])[1] == increments.of(y)).all()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_bets_are_fair(seed: int, n: int) -> None:
    """Where the baseline's means are the turns' own, no bet's average factor is above 1: the guarantee's ground."""
    rng = np.random.default_rng(seed)
    turns = Sums.of(turn_terms(to_fixed_point(rng.dirichlet(np.full(K, 0.4), n)), np.ones(n), np.zeros(n)))
    shares = turns.hard_counts() / n + 1e-9
    increments = Increments(NullSet.known(turns.feature_means(), shares / shares.sum()))
    average = fair_factors(turns, increments)
    assert (average > 0).all()
    assert (average <= 1 + 1e-6).all()


def fair_factors(turns: Sums, increments: Increments) -> Floats:
    """(components,) average factor of a turn."""
    t, counts = increments._tables, turns.level_counts()[:, None, :]
    return (
        np.concatenate(
            [
                (np.exp(t.rises) * counts).sum(axis=-1).ravel(),
                (np.exp(t.falls) * counts).sum(axis=-1).ravel(),
                (np.exp(t.compositions) * turns.hard_counts()).sum(axis=-1),
            ]
        )
        / turns.n
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(50, 2000))
def test_bets_are_fair_for_every_mean_within_bounds(seed: int, n: int) -> None:
    """Whatever composition within the baseline's bounds is the true one, bets on another do not win on average."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.full(K, 0.5))
    null = learned(rng, n, truth)
    q = alternatives(null.shares)
    nearest = null.nearest(q)
    assert q.sum(axis=1) == pytest.approx(1)
    assert nearest.sum(axis=1) == pytest.approx(1, abs=1e-9)
    assert (nearest >= null.share_low - 1e-12).all()
    assert (nearest <= null.share_high + 1e-12).all()
    for within in null.nearest(rng.dirichlet(np.full(K, 0.5), 20)):
        assert ((q / nearest) @ within <= 1 + 1e-6).all()


@pytest.mark.parametrize("stake", [np.nan, 0.0, -1.0])
def test_stake_refused(stake: float) -> None:
    """A stake that is no positive number is refused, and the wealth stays as it was."""
    detector = EDetector()
    detector.update(np.zeros(COMPONENTS), MINUTE)
    before = detector.log_wealth.copy()
    with pytest.raises(ValueError, match="stake"):
        detector.update(np.zeros(COMPONENTS), stake)
    assert (detector.log_wealth == before).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_increment_refused(bad: float) -> None:
    """A factor that is no number is refused."""
    increments = np.zeros(COMPONENTS)
    increments[23] = bad
    with pytest.raises(ValueError, match="finite"):
        EDetector().update(increments, MINUTE)


@pytest.mark.parametrize("bad", [[0.1] * 4, [0.1] * 4 + [np.nan], [0.1] * 4 + [np.inf]])
@pytest.mark.parametrize("where", range(5))
def test_bounds_refused(bad: list[float], where: int) -> None:
    """Bounds that are not five numbers are refused."""
    means = [np.full(5, 0.2) for _ in range(5)]
    means[where] = np.array(bad)
    with pytest.raises(ValueError, match="five finite"):
        NullSet(*means)


def test_crossed_bounds_refused() -> None:
    """Bounds that no mean lies within are refused."""
    fifth = np.full(5, 0.2)
    for i, change in ((0, 0.1), (2, 0.1), (3, -0.1), (4, -0.2)):
        means = [fifth] * 5
        means[i] = fifth + change
        with pytest.raises(ValueError, match="crossed"):
            NullSet(*means)
    with pytest.raises(ValueError, match="no composition"):
        NullSet(fifth, fifth, fifth * 0.9, fifth * 0.9, fifth)


def test_a_gap_hands_out_no_fortune() -> None:
    """A month of silence adds no more than an hour's stake."""
    month, hour = EDetector(), EDetector()
    month.update(np.zeros(COMPONENTS), 30.0)
    hour.update(np.zeros(COMPONENTS), MAX_STAKE_DAYS)
    assert (month.log_wealth == hour.log_wealth).all()


# --- onset


def onset_index(before: list[Sums], after: list[Sums], behaviours: list[int]) -> tuple[int, int, int]:
    increments = Increments(KNOWN).all([*before, *after])
    onset = locate_onset(increments, np.full(len(increments), MINUTE), bets_on(behaviours))
    return onset.low, onset.at, onset.high


@pytest.mark.parametrize("seed", range(4))
def test_onset(seed: int) -> None:
    """The onset of a drift to 25 % is located within 30 turns, its 90 % interval within 60."""
    rng = np.random.default_rng(40 + seed)
    low, at, high = onset_index(hard(rng, NULL, 600), hard(rng, DRIFTED, 150), list(range(K)))
    assert low <= at <= high
    assert abs(at - 600) <= 30
    assert abs(low - 600) <= 60
    assert abs(high - 600) <= 60


def test_onset_of_a_fall() -> None:
    """So is that of a fall: a series that is wholly aligned from some turn on, from 80 %."""
    rng = np.random.default_rng(44)
    null = NullSet.known(np.array([*UNSTEADY[1:], 1 - UNSTEADY[0]]), UNSTEADY)
    increments = Increments(null).all([*hard(rng, UNSTEADY, 600), *hard(rng, np.eye(K)[0], 150)])
    onset = locate_onset(increments, np.full(len(increments), MINUTE))
    assert abs(onset.at - 600) <= 30
    assert onset.low <= 600 + 10


def test_onset_of_one_behaviour() -> None:
    """Asked for one of two behaviours that drifted at different times, it dates that one."""
    rng = np.random.default_rng(45)
    both = DRIFTED - [0.2, 0, 0, 0, -0.2]
    stream = [*hard(rng, DRIFTED, 300), *hard(rng, both, 100)]
    _, at, _ = onset_index(hard(rng, NULL, 300), stream, [4])
    assert abs(at - 600) <= 20
    _, at, _ = onset_index(hard(rng, NULL, 300), stream, [2])
    assert abs(at - 300) <= 20


def test_onset_intervals_cover() -> None:
    """In most drifts the true onset lies within the interval stated for it, give or take the wait for a bad turn."""
    rng = np.random.default_rng(50)
    inside = 0
    for _ in range(40):
        before = int(rng.integers(50, 400))
        worse = DRIFTED + np.array([-0.1, 0, 0.1, 0, 0])
        low, _, high = onset_index(hard(rng, NULL, before), hard(rng, worse, 80), list(range(K)))
        inside += low - 10 <= before <= high + 10
    assert inside >= 30


@settings(max_examples=50)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_onset_is_a_bucket(n: int, seed: int) -> None:
    """Whatever happened, the onset and its interval are buckets that exist, in order."""
    rng = np.random.default_rng(seed)
    onset = locate_onset(rng.normal(0, 1000, (n, COMPONENTS)), rng.exponential(1.0, n) + 1e-6)
    assert 0 <= onset.low <= onset.at <= onset.high < n


def test_no_history() -> None:
    """Without buckets there is no onset."""
    with pytest.raises(ValueError, match="no buckets"):
        locate_onset(Increments(KNOWN).all([]), np.zeros(0))


def test_every_behaviour_is_bet_on() -> None:
    """Asked for all behaviours, no bet is left out; asked for one, only those that name it are in."""
    assert np.isfinite(bets_on(range(K))).all()
    some = bets_on([2])
    assert 0 < np.isfinite(some).sum() < COMPONENTS
