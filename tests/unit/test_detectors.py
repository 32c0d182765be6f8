"""The detectors: the promised time between false alarms is kept, and a drift is found, named and dated."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.baseline import upper_bound
from monitor.buckets import FEATURES, LEVELS, Floats, Ints
from monitor.detectors import BETS, MAX_STAKE_DAYS, EDetector, Increments, locate_onset

MINUTE = 1 / 1440
"""A minute of event time, days."""
EDGES = (LEVELS[1:] + LEVELS[:-1]) / 2


def counts_of(features: Floats) -> Ints:
    """(n, 5) feature values -> (5, levels) counts."""
    out = np.zeros((len(FEATURES), len(LEVELS)), dtype=np.int64)
    for j in range(len(FEATURES)):
        out[j] = np.bincount(np.searchsorted(EDGES, features[:, j]), minlength=len(LEVELS))
    return out


def hard(rng: np.random.Generator, shares: list[float], n: int) -> Floats:
    """(n, 5) features of n turns judged without doubt: four exclusive behaviours at these shares, and their sum."""
    kind = rng.choice(5, size=n, p=[1 - sum(shares), *shares])
    x = np.eye(5)[kind][:, 1:]
    return np.column_stack([x, x.sum(axis=1)])


NULL = [0.02, 0.01, 0.01, 0.01]
NULL_MEANS = np.array([*NULL, 0.05])


def minutes_to_alarm(
    rng: np.random.Generator, bounds: Floats, *, promise: float, most: int, every: int = 20, shares: list[float] = NULL
) -> int:
    """Minutes until the alarm (or `most`) of a series with a turn a minute, a bucket every `every` minutes."""
    features = hard(rng, shares, most).reshape(-1, every, 5)
    counts = np.stack([counts_of(f) for f in features])
    detector, threshold = EDetector(), math.log(promise * MINUTE)
    for i, x in enumerate(Increments(bounds).of(counts)):
        detector.update(x, every * MINUTE)
        if detector.log_evidence >= threshold:
            return (i + 1) * every
    return most


def lower_limit(times: list[int]) -> float:
    """One-sided 99 % confidence limit of the mean; bounded times only make it smaller."""
    return float(np.mean(times) - 2.33 * np.std(times, ddof=1) / np.sqrt(len(times)))


def test_promise_kept_with_a_known_baseline() -> None:
    """While nothing changes, the mean time to a false alarm is at least what was promised (2000 minutes here)."""
    rng = np.random.default_rng(1)
    times = [minutes_to_alarm(rng, NULL_MEANS, promise=2000, most=6000) for _ in range(200)]
    assert lower_limit(times) >= 2000
    assert min(times) < 6000, "a test in which no alarm is possible shows nothing"


def test_promise_kept_with_an_estimated_baseline() -> None:
    """So it is when the baseline was learned from 300 turns of the same traffic."""
    rng = np.random.default_rng(2)
    times = []
    for _ in range(150):
        learned = counts_of(hard(rng, NULL, 300))
        bounds = np.array([upper_bound(c) for c in learned])
        times.append(minutes_to_alarm(rng, bounds, promise=2000, most=5000))
    assert lower_limit(times) >= 2000


@pytest.mark.parametrize("turns", [1, 40])
def test_promise_is_in_time_not_turns(turns: int) -> None:
    """Forty turns a minute raise no more false alarms a day than one turn a minute."""
    rng = np.random.default_rng(3)
    promise, most = 100, 300
    times = []
    for _ in range(150):
        counts = np.stack([counts_of(f) for f in hard(rng, NULL, most * turns).reshape(most, turns, 5)])
        detector, at = EDetector(), most
        for i, x in enumerate(Increments(NULL_MEANS).of(counts)):
            detector.update(x, MINUTE)
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
        bounds = NULL_MEANS
        if learned_turns:
            bounds = np.array([upper_bound(c) for c in counts_of(hard(rng, NULL, learned_turns))])
        drifted = [0.02, 0.21, 0.01, 0.01]
        delays.append(minutes_to_alarm(rng, bounds, promise=90 * 1440, most=2000, every=5, shares=drifted))
    assert np.median(delays) <= (100 if learned_turns is None else 200)
    assert max(delays) <= 400


@pytest.mark.parametrize("which", range(4))
def test_the_feature_is_named(which: int) -> None:
    """The alarm's shares name the feature that moved, not the ones that stayed."""
    rng = np.random.default_rng(5)
    shares = list(NULL)
    shares[which] += 0.3
    detector = EDetector()
    for f in hard(rng, shares, 200).reshape(-1, 1, 5):
        detector.update(Increments(NULL_MEANS).of(counts_of(f)), MINUTE)
    found = detector.feature_shares
    assert found.sum() == pytest.approx(1)
    assert int(found[:4].argmax()) == which
    assert found[which] + found[4] > 0.99


def test_before_anything() -> None:
    """A new detector has no evidence and suspects all features alike."""
    assert EDetector().log_evidence == -math.inf
    assert EDetector().feature_shares == pytest.approx(np.full(5, 0.2))


def test_good_news_is_no_alarm() -> None:
    """A series that gets better never comes near an alarm."""
    rng = np.random.default_rng(6)
    assert minutes_to_alarm(rng, NULL_MEANS, promise=200, most=5000, shares=[0.001] * 4) == 5000


@pytest.mark.parametrize("level", [0, len(LEVELS) - 1])
@pytest.mark.parametrize("mu", [0.0, 0.05, 1.0])
def test_a_million_extreme_turns(level: int, mu: float) -> None:
    """A million turns at either end of the scale, in one bucket or many, overflow and underflow nothing."""
    counts = np.zeros((len(FEATURES), len(LEVELS)), dtype=np.int64)
    counts[:, level] = 1_000_000
    increments = Increments(np.full(len(FEATURES), mu))
    detector = EDetector()
    detector.update(increments.of(counts), MINUTE)
    for _ in range(100):
        detector.update(increments.of(counts // 100), MINUTE)
    assert math.isfinite(detector.log_evidence)
    assert np.isfinite(detector.feature_shares).all()
    assert detector.feature_shares.sum() == pytest.approx(1)
    if level == 0:
        fair = EDetector()
        fair.update(np.zeros((len(FEATURES), len(BETS))), 30 * MINUTE)
        detector.update(np.zeros((len(FEATURES), len(BETS))), 30 * MINUTE)
        assert detector.log_evidence >= fair.log_evidence - 1e-9, "an old calm must not delay a new alarm"


@given(
    st.lists(st.integers(0, 20), min_size=len(LEVELS), max_size=len(LEVELS)),
    st.lists(st.integers(0, 20), min_size=len(LEVELS), max_size=len(LEVELS)),
    st.floats(0, 1),
)
def test_increments_add_up(a: list[int], b: list[int], mu: float) -> None:
    """Two shards' counts, merged, move the detector as far as one after the other without a stake between."""
    x, y = np.tile(np.array(a), (5, 1)), np.tile(np.array(b), (5, 1))
    increments = Increments(np.full(5, mu))
    assert increments.of(x + y) == pytest.approx(increments.of(x) + increments.of(y), abs=1e-9)
    assert increments.of(np.stack([x, y]))[1] == pytest.approx(increments.of(y), abs=1e-12)


@given(st.lists(st.integers(0, 30), min_size=len(LEVELS), max_size=len(LEVELS)).filter(any))
def test_bets_are_fair(counts: list[int]) -> None:
    """At a baseline mean equal to the turns' own, a bet's average factor is 1: the ground of the guarantee."""
    c = np.array(counts)
    mu = max(float(c @ LEVELS) / c.sum(), 1e-4)
    one_turn_each = np.eye(len(LEVELS), dtype=np.int64)[:, None, :].repeat(len(FEATURES), axis=1)
    factors = np.exp(Increments(np.full(len(FEATURES), mu)).of(one_turn_each))
    average = (factors * c[:, None, None]).sum(axis=0) / c.sum()
    assert (factors > 0).all()
    assert (average <= 1 + 1e-9).all()


@pytest.mark.parametrize("stake", [np.nan, 0.0, -1.0])
def test_stake_refused(stake: float) -> None:
    """A stake that is no positive number is refused, and the wealth stays as it was."""
    detector = EDetector()
    detector.update(np.zeros((5, len(BETS))), MINUTE)
    before = detector.log_wealth.copy()
    with pytest.raises(ValueError, match="stake"):
        detector.update(np.zeros((5, len(BETS))), stake)
    assert (detector.log_wealth == before).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_increment_refused(bad: float) -> None:
    """A factor that is no number is refused."""
    increments = np.zeros((5, len(BETS)))
    increments[2, 3] = bad
    with pytest.raises(ValueError, match="finite"):
        EDetector().update(increments, MINUTE)


@pytest.mark.parametrize("bounds", [[0.1] * 4, [0.1] * 4 + [np.nan], [0.1] * 4 + [np.inf]])
def test_bounds_refused(bounds: list[float]) -> None:
    """Bounds that are not five numbers are refused."""
    with pytest.raises(ValueError, match="five finite"):
        Increments(np.array(bounds))


def test_a_gap_hands_out_no_fortune() -> None:
    """A month of silence adds no more than an hour's stake."""
    month, hour = EDetector(), EDetector()
    month.update(np.zeros((5, len(BETS))), 30.0)
    hour.update(np.zeros((5, len(BETS))), MAX_STAKE_DAYS)
    assert (month.log_wealth == hour.log_wealth).all()


# --- onset


@pytest.mark.parametrize("seed", range(4))
def test_onset(seed: int) -> None:
    """The onset of a drift to 25 % is located within 30 turns, its 90 % interval within 60."""
    rng = np.random.default_rng(40 + seed)
    before, after = 600, 150
    features = np.concatenate([hard(rng, NULL, before), hard(rng, [0.02, 0.21, 0.01, 0.01], after)])
    increments = Increments(NULL_MEANS).of(np.stack([counts_of(f[None, :]) for f in features]))
    onset = locate_onset(increments, np.full(len(features), MINUTE))
    assert onset.low <= onset.at <= onset.high
    assert abs(onset.at - before) <= 30
    assert abs(onset.low - before) <= 60
    assert abs(onset.high - before) <= 60


def test_onset_intervals_cover() -> None:
    """In most drifts the true onset lies within the interval stated for it, give or take the wait for a bad turn."""
    rng = np.random.default_rng(50)
    inside = 0
    for _ in range(40):
        before = int(rng.integers(50, 400))
        features = np.concatenate([hard(rng, NULL, before), hard(rng, [0.02, 0.31, 0.01, 0.01], 80)])
        increments = Increments(NULL_MEANS).of(np.stack([counts_of(f[None, :]) for f in features]))
        onset = locate_onset(increments, np.full(len(features), MINUTE))
        inside += onset.low - 10 <= before <= onset.high + 10
    assert inside >= 30


@settings(max_examples=50)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_onset_is_a_bucket(n: int, seed: int) -> None:
    """Whatever happened, the onset and its interval are buckets that exist, in order."""
    rng = np.random.default_rng(seed)
    onset = locate_onset(rng.normal(0, 1000, (n, 5, len(BETS))), rng.exponential(1.0, n) + 1e-6)
    assert 0 <= onset.low <= onset.at <= onset.high < n


def test_no_history() -> None:
    """Without buckets there is no onset."""
    with pytest.raises(ValueError, match="no buckets"):
        locate_onset(np.zeros((0, 5, len(BETS))), np.zeros(0))
