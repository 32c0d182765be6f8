"""A labelled random slice: intervals that hold the truth whatever the classifier does, rare behaviours among them."""

import numpy as np
import pytest

from monitor.entropy import Floats, entropy
from monitor.prediction_powered import EXACT, PPI, Labelled, Slice, TooFewLabels, estimate
from monitor.taxonomy import K
from tests.unit.core_cases import CONFUSION, SHARPNESS, quantifier, sums

RUNS = 150


def judged(rng: np.random.Generator, mixture: Floats, n: int, wrong: float = 0.0) -> tuple[Floats, Floats]:
    """Behaviours (n,) and answers (n, 5) of a classifier that answers to a share of turns at random."""
    y = rng.choice(K, size=n, p=mixture)
    mean = (1 - wrong) * CONFUSION[y] + wrong / K
    q = rng.standard_gamma(SHARPNESS * mean) + 1e-12
    return y, q / q.sum(axis=1, keepdims=True)


def cascade_chances(q: Floats, doubtful: float = 0.1, others: float = 0.1) -> Floats:
    """The most doubtful turns for certain, the others by chance: classifiers.cascade."""
    doubt = 1 - q.max(axis=1)
    return np.where(doubt >= np.quantile(doubt, 1 - doubtful), 1.0, others)


def run(rng: np.random.Generator, mixture: Floats, n: int, unequal: bool, wrong: float = 0.0) -> Labelled:
    y, q = judged(rng, mixture, n, wrong)
    chance = cascade_chances(q) if unequal else np.full(n, 0.15)
    take = rng.random(n) < chance
    labelled = Slice(q[take], np.eye(K)[y[take]], chance[take], np.ones(take.sum()))
    return estimate(sums(q), labelled)


@pytest.mark.parametrize("unequal", [False, True], ids=["equal chances", "cascade"])
@pytest.mark.parametrize("share", [0.0, 0.005, 0.01, 0.05], ids=["0", "0.5 %", "1 %", "5 %"])
def test_covers(share: float, unequal: bool) -> None:
    """The 90 % intervals of a rare share, of the frequent ones and of S hold the truth nine times in ten or more."""
    mixture = np.array([0.95 - share, 0.0, share, 0.05, 0.0])
    rng = np.random.default_rng(round(1000 * share) + unequal)
    found = [run(rng, mixture, 1000, unequal) for _ in range(RUNS)]
    for k in (0, 1, 2, 3):
        held = [m.shares[k].low <= mixture[k] <= m.shares[k].high for m in found]
        assert np.mean(held) >= 0.84, k
    s = float(entropy(mixture))
    assert np.mean([m.entropy.low <= s <= m.entropy.high for m in found]) >= 0.84
    assert all(m.methods[1] == EXACT for m in found)


def test_covers_a_pure_window() -> None:
    """When every turn is aligned S = 0 is in the interval."""
    rng = np.random.default_rng(7)
    assert all(run(rng, np.eye(K)[0], 600, False).entropy.low == 0 for _ in range(20))


def test_wrong_classifier() -> None:
    """A classifier that is wrong where it was not calibrated does not move the estimate: the labels decide."""
    rng = np.random.default_rng(8)
    mixture = np.array([0.7, 0.1, 0.1, 0.05, 0.05])
    found = [run(rng, mixture, 1000, False, wrong=0.6) for _ in range(60)]
    assert np.mean([m.mean for m in found], axis=0) == pytest.approx(mixture, abs=0.015)
    inverted = quantifier().estimate(sums(judged(rng, mixture, 1000, 0.6)[1]))
    assert inverted.shares[0].high < 0.7


def test_answers_to_all_turns_help() -> None:
    """With a good classifier the interval of a frequent share is narrower than that of the labels alone."""
    rng = np.random.default_rng(9)
    y, q = judged(rng, np.array([0.5, 0.1, 0.3, 0.05, 0.05]), 4000)
    take = rng.random(4000) < 0.05
    labelled = Slice(q[take], np.eye(K)[y[take]], np.full(take.sum(), 0.05), np.ones(take.sum()))
    found = estimate(sums(q), labelled)
    share = np.mean(y[take] == 2)
    alone = 2 * 1.645 * np.sqrt(share * (1 - share) / take.sum())
    assert found.methods[2] == PPI
    assert found.shares[2].high - found.shares[2].low < 0.8 * alone
    assert 0 < found.power <= 1
    assert found.mean.sum() == pytest.approx(1)


def test_chances_count() -> None:
    """A slice of doubtful turns is not taken for the traffic: each label counts by the inverse of its chance."""
    rng = np.random.default_rng(10)
    mixture = np.array([0.85, 0.0, 0.15, 0.0, 0.0])
    y, q = judged(rng, mixture, 4000)
    chance = cascade_chances(q)
    take = rng.random(4000) < chance
    found = estimate(sums(q), Slice(q[take], np.eye(K)[y[take]], chance[take], np.ones(take.sum())))
    assert found.shares[2].low <= 0.15 <= found.shares[2].high
    assert found.effective_labels < found.labels


def test_accurate_tier_is_inverted() -> None:
    """Second judgements give that tier's mean answer; through its confusion that becomes the shares."""
    rng = np.random.default_rng(11)
    mixture = np.array([0.6, 0.0, 0.4, 0.0, 0.0])
    y, q = judged(rng, mixture, 3000, wrong=0.4)
    accurate = rng.standard_gamma(SHARPNESS * CONFUSION[y]) + 1e-12
    accurate /= accurate.sum(axis=1, keepdims=True)
    take = rng.random(3000) < 0.2
    found = estimate(sums(q), Slice(q[take], accurate[take], np.full(take.sum(), 0.2), np.ones(take.sum())))
    assert found.mean == pytest.approx(CONFUSION.T @ mixture, abs=0.04)
    draws = quantifier().inverted(found.mean, found.covariance)
    low, high = np.quantile(draws[:, 2], (0.05, 0.95))
    assert low <= 0.4 <= high
    assert high - low < 0.25


def test_sane_and_deterministic() -> None:
    """Shares, S and methods are in order and range, and the same twice."""
    a, b = (run(np.random.default_rng(12), np.full(K, 0.2), 400, True) for _ in range(2))
    assert a.entropy == b.entropy
    assert a.shares == b.shares
    for x in (*a.shares, a.misaligned, a.entropy):
        assert 0 <= x.low <= x.mean <= x.high <= np.log(K) + 1e-9


def test_refusals() -> None:
    """Too few labels, labels worth too little, no turns, NaN and impossible chances are refused by name."""
    q = np.full((40, K), 1 / K)
    ones = np.ones(40)
    window = sums(q)
    few = Slice(q[:12], q[:12], ones[:12], ones[:12])
    with pytest.raises(TooFewLabels, match="12 of 30"):
        estimate(window, few)
    with pytest.raises(TooFewLabels, match="0 of 30"):
        estimate(window, Slice(q[:0], q[:0], ones[:0], ones[:0]))
    lone = np.where(np.arange(40) == 0, 1e-4, 1.0)
    with pytest.raises(TooFewLabels, match="worth 1"):
        estimate(window, Slice(q, q, lone, ones))
    with pytest.raises(ValueError, match="no turns"):
        estimate(window - window, Slice(q, q, ones, ones))
    with pytest.raises(ValueError, match="finite"):
        Slice(np.full((40, K), np.nan), q, ones, ones)
    with pytest.raises(ValueError, match="choice probabilities"):
        Slice(q, q, ones * 0, ones)
    with pytest.raises(ValueError, match="weights"):
        Slice(q, q, ones, ones * np.nan)
    with pytest.raises(ValueError, match="as many"):
        Slice(q, q[:39], ones, ones)
