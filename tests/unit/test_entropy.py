"""S(t) of a window: known values, the solver behind it, and intervals that cover the truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from monitor.buckets import Sums
from monitor.entropy import Calibration, Floats, Mixture, Quantifier, entropy, kl_divergence
from monitor.simplex import SimplexSolvers
from monitor.taxonomy import K
from tests.unit.core_cases import CONFUSION, DRIFTED, HEALTHY, answers, calibration, corner, quantifier, sums

LN5 = math.log(5)
RAW = (
    hnp.arrays(np.float64, (K,), elements=st.just(0.0) | st.floats(1e-9, 1))
    .filter(lambda p: p.sum() > 1e-3)
    .map(lambda p: p / p.sum())
)


@given(RAW)
def test_entropy_bounds(p: Floats) -> None:
    """S lies between 0 and ln 5 nats whatever the mixture, and does not depend on the order of the behaviours."""
    s = float(entropy(p))
    assert 0 <= s <= LN5 + 1e-12
    assert float(entropy(p[::-1])) == pytest.approx(s, abs=1e-12)


@pytest.mark.parametrize(
    ("p", "s"),
    [
        ([1, 0, 0, 0, 0], 0.0),
        ([0, 0, 1, 0, 0], 0.0),
        ([0.2] * 5, LN5),
        ([0.5, 0.5, 0, 0, 0], math.log(2)),
        ([0.9, 0.1, 0, 0, 0], 0.3250829733914482),
        ([0.95, 0.02, 0.01, 0.01, 0.01], 0.2651241954),
    ],
)
def test_entropy_values(p: list[float], s: float) -> None:
    """S is in nats: even odds are ln 2, all five alike ln 5, and a sure behaviour 0, be it good or bad."""
    assert float(entropy(np.array(p))) == pytest.approx(s, abs=1e-7)


@given(RAW, RAW, st.floats(0, 1))
def test_entropy_is_concave(p: Floats, q: Floats, share: float) -> None:
    """Mixing two mixtures never lowers S below the mean of theirs."""
    mixed = float(entropy(share * p + (1 - share) * q))
    assert mixed >= share * float(entropy(p)) + (1 - share) * float(entropy(q)) - 1e-12


def test_entropy_of_many() -> None:
    """Rows are measured one by one."""
    p = np.random.default_rng(0).dirichlet(np.ones(K), size=(3, 4))
    assert entropy(p).shape == (3, 4)
    assert entropy(p)[1, 2] == entropy(p[1, 2])


@given(RAW, RAW)
def test_divergence(p: Floats, q: Floats) -> None:
    """The distance from a baseline is 0 only where the mixtures agree, never negative, infinite for what it lacks."""
    d = kl_divergence(p, q)
    assert d >= 0
    assert kl_divergence(p, p) == pytest.approx(0, abs=1e-12)
    assert d >= np.abs(p - q).sum() ** 2 / 2 - 1e-9  # Pinsker
    assert math.isinf(d) == bool(((p > 0) & (q <= 0)).any())


# --- the solver on the simplex


def trusted_cost(matrix: Floats, metric: Floats, q: Floats) -> float:
    def cost(p: Floats) -> float:
        e = q - matrix @ p
        return float(e @ metric @ e)

    def slope(p: Floats) -> Floats:
        return np.asarray(-2 * matrix.T @ metric @ (q - matrix @ p))

    results = [
        minimize(
            cost,
            start,
            jac=slope,
            method="SLSQP",
            bounds=[(0, 1)] * K,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda _: np.ones(K)},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        for start in (np.full(K, 0.2), np.eye(K)[0] * 0.9 + 0.02)
    ]
    return min(float(r.fun) for r in results if abs(r.x.sum() - 1) < 1e-6 and (r.x >= -1e-9).all())


@pytest.mark.parametrize("sharp", [0.3, 1.0, 5.0, 50.0])
def test_solver_equals_a_trusted_one(sharp: float) -> None:
    """The mixture found is the best-fitting one: no worse than what SLSQP finds, for good and poor classifiers."""
    rng = np.random.default_rng(int(sharp * 10))
    n = 25
    confusions = np.stack([rng.dirichlet(np.ones(K) + sharp * np.eye(K)[y], size=n) for y in range(K)], axis=1)
    root = rng.standard_normal((K, K))
    metric = root @ root.T + 0.1 * np.eye(K)
    q = rng.dirichlet(np.full(K, 0.5), size=n) + rng.normal(0, 0.05, (n, K))
    p = SimplexSolvers(confusions, metric).solve(q)
    assert (p >= 0).all()
    assert p.sum(axis=1) == pytest.approx(np.ones(n))
    for i in range(n):
        matrix = confusions[i].T
        e = q[i] - matrix @ p[i]
        assert float(e @ metric @ e) <= trusted_cost(matrix, metric, q[i]) + 1e-7


@settings(max_examples=40, deadline=None)
@given(RAW, st.integers(0, 2**32 - 1))
def test_solver_inverts(p: Floats, seed: int) -> None:
    """Answers that are exactly what a mixture would give are traced back to that mixture."""
    rng = np.random.default_rng(seed)
    confusion = np.stack([rng.dirichlet(np.ones(K) + 8 * np.eye(K)[y]) for y in range(K)])
    found = SimplexSolvers(confusion[None], np.eye(K)).solve((confusion.T @ p)[None])[0]
    assert confusion.T @ found == pytest.approx(confusion.T @ p, abs=1e-9)
    if np.linalg.cond(confusion) < 1e3:
        assert found == pytest.approx(p, abs=1e-6)


def test_solver_without_information() -> None:
    """A classifier that answers alike whatever happens yields some mixture on the simplex, not NaN."""
    p = SimplexSolvers(np.tile(CONFUSION[0], (1, K, 1)), np.eye(K)).solve(CONFUSION[[0]])
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1)


# --- intervals


def windows(mixture: Floats, n: int, count: int, seed: int) -> list[Mixture]:
    rng = np.random.default_rng(seed)
    return [quantifier().estimate(sums(answers(rng, mixture, n))) for _ in range(count)]


@pytest.mark.parametrize(
    ("mixture", "seed"),
    [
        ([0.93, 0.03, 0.01, 0.02, 0.01], 11),
        ([0.90, 0.05, 0.0, 0.05, 0.0], 12),
        ([0.75, 0.05, 0.10, 0.05, 0.05], 13),
    ],
    ids=["baseline", "shares at 0", "25 % misaligned"],
)
def test_interval_covers(mixture: list[float], seed: int) -> None:
    """The 90 % interval of S holds the true S about nine times in ten, at rest, at the edge and after a drift."""
    p = np.array(mixture)
    truth = float(entropy(p))
    found = windows(p, 300, 150, seed)
    covered = np.mean([m.entropy.low <= truth <= m.entropy.high for m in found])
    assert 0.80 <= covered <= 0.98
    misaligned = np.mean([m.misaligned.low <= 1 - p[0] <= m.misaligned.high for m in found])
    assert misaligned >= 0.80


def test_interval_covers_with_an_estimated_confusion() -> None:
    """It still does when the confusion is known only from 150 calibration turns of each behaviour."""
    rng = np.random.default_rng(14)
    p = np.array([0.80, 0.05, 0.05, 0.05, 0.05])
    truth = float(entropy(p))
    covered = []
    for _ in range(60):
        seen = [answers(rng, np.eye(K)[y], 150) for y in range(K)]
        learned = Calibration(
            np.full(K, 150.0), np.stack([x.mean(axis=0) for x in seen]), np.stack([np.cov(x.T) for x in seen])
        )
        s = Quantifier(learned).estimate(sums(answers(rng, p, 300))).entropy
        covered.append(s.low <= truth <= s.high)
    assert 0.80 <= np.mean(covered) <= 1.0


def test_averaging_is_biased_and_ours_is_not() -> None:
    """After a drift S and the misaligned share are on the mark, where averaged classifier answers are far off."""
    p = np.array([0.95, 0.02, 0.01, 0.01, 0.01])
    found = windows(p, 1000, 60, 15)
    ours = np.mean([m.entropy.mean for m in found]) - float(entropy(p))
    naive = float(entropy(CONFUSION.T @ p)) - float(entropy(p))
    assert naive > 0.15
    assert abs(ours) < 0.03
    drifted = np.array([0.6, 0.0, 0.4, 0.0, 0.0])
    share = np.mean([m.shares[2].mean for m in windows(drifted, 1000, 60, 16)])
    assert abs((CONFUSION.T @ drifted)[2] - 0.4) > 0.05
    assert abs(share - 0.4) < 0.02


def test_sampling_error_of_s() -> None:
    """The standard deviation of S is how much S scatters from window to window of one unchanged series."""
    found = windows(np.array([0.80, 0.05, 0.05, 0.05, 0.05]), 300, 100, 17)
    scatter = np.std([m.entropy.mean for m in found], ddof=1)
    assert 0.7 < scatter / np.mean([m.entropy_sd for m in found]) < 1.4


def test_change_covers() -> None:
    """The 90 % interval of a change holds the true change about nine times in ten, and 0 where nothing changed."""
    rng = np.random.default_rng(18)
    before, after = np.array([0.90, 0.04, 0.02, 0.02, 0.02]), np.array([0.75, 0.04, 0.17, 0.02, 0.02])
    inside = np.zeros(K)
    for _ in range(100):
        draws = quantifier().changes(sums(answers(rng, before, 300)), sums(answers(rng, after, 200)))
        low, high = np.quantile(draws, (0.05, 0.95), axis=0)
        inside += (low <= after - before) & (after - before <= high)
    assert (inside >= 80).all()
    assert (inside <= 100).all()


@settings(max_examples=25, deadline=None)
@given(RAW, st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_estimate_is_sane(p: Floats, n: int, seed: int) -> None:
    """Any window of one turn or more gives shares that sum to 1 and intervals in order and in range."""
    m = quantifier().estimate(sums(answers(np.random.default_rng(seed), p, n)))
    assert m.n == n
    assert m.p.sum() == pytest.approx(1)
    for interval, top in [*((s, 1.0) for s in m.shares), (m.misaligned, 1.0), (m.entropy, LN5)]:
        assert -1e-12 <= interval.low <= interval.high <= top + 1e-12
        assert -1e-12 <= interval.mean <= top + 1e-12
    assert m.entropy_sd >= 0
    assert m.misaligned.mean == pytest.approx(1 - m.shares[0].mean)


def test_more_turns_narrow_the_interval() -> None:
    """Four thousand turns say more than a hundred; a handful of equal ones says little."""
    rng = np.random.default_rng(3)
    p = np.array([0.8, 0.05, 0.05, 0.05, 0.05])
    few, more = (quantifier().estimate(sums(answers(rng, p, n))) for n in (100, 4000))
    assert more.entropy.high - more.entropy.low < 0.4 * (few.entropy.high - few.entropy.low)
    handful = quantifier().estimate(corner(0, 3))
    assert handful.misaligned.high > 0.05


def test_less_calibration_widens_the_interval() -> None:
    """A classifier known from fewer calibration turns gives wider intervals on the same window."""
    window = sums(answers(np.random.default_rng(4), np.array([0.8, 0.05, 0.05, 0.05, 0.05]), 3000))
    wide, narrow = (quantifier(worth).estimate(window).entropy for worth in (20.0, 1000.0))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_weights_count() -> None:
    """Turns sampled at one in ten stand for ten: the mixture is that of the traffic, not that of the sample."""
    rng = np.random.default_rng(5)
    good, bad = answers(rng, np.eye(K)[0], 1000), answers(rng, np.eye(K)[2], 1000)
    weights = np.concatenate([np.full(1000, 10.0), np.ones(1000)])
    m = quantifier().estimate(sums(np.concatenate([good, bad]), weights))
    assert m.shares[2].low <= 1 / 11 <= m.shares[2].high
    assert m.effective_n < m.n


@pytest.mark.parametrize("part", ["n", "mean", "covariance"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_calibration_refuses(part: str, bad: float) -> None:
    """A calibration with a number missing is refused when it is loaded, not found out in an alert."""
    good = calibration()
    arrays = {"n": good.n.copy(), "mean": good.mean.copy(), "covariance": good.covariance.copy()}
    arrays[part].flat[0] = bad
    with pytest.raises(ValueError, match="finite"):
        Calibration(**arrays)


def test_calibration_shapes() -> None:
    """A calibration of other behaviours, or none of one of them, is refused."""
    good = calibration()
    with pytest.raises(ValueError, match="shape"):
        Calibration(good.n[:4], good.mean, good.covariance)
    with pytest.raises(ValueError, match="at least one"):
        Calibration(np.array([100.0, 100, 0, 100, 100]), good.mean, good.covariance)
    with pytest.raises(ValueError, match="sum to 1"):
        Calibration(good.n, good.mean * 1.1, good.covariance)


def test_classifier_without_spread() -> None:
    """A classifier that is never in doubt and never wrong in calibration can still be used."""
    sure = Quantifier(Calibration(np.full(K, 200.0), np.eye(K), np.zeros((K, K, K))))
    m = sure.estimate(sums(np.eye(K)[np.repeat(np.arange(K), 40)]))
    assert m.p == pytest.approx(np.full(K, 0.2), abs=0.01)


def test_stub_confusion_is_right() -> None:
    """The simulated classifier of these tests answers as its calibration says."""
    q = answers(np.random.default_rng(6), np.eye(K)[3], 20_000)
    assert q.mean(axis=0) == pytest.approx(CONFUSION[3], abs=0.01)
    assert np.cov(q.T) == pytest.approx(calibration().covariance[3], abs=0.005)


def test_healthy_baseline_narrows() -> None:
    """Given a healthy baseline, a series' shares are known better than from the answers alone, and still cover."""
    confusion = 0.6 * CONFUSION + 0.4 / K
    covariance = np.stack([np.diag(c) - np.outer(c, c) for c in confusion]) / 3
    weak = Quantifier(Calibration(np.full(K, 3.0), confusion, covariance))
    rng = np.random.default_rng(5)

    def window_of(mixture: Floats) -> Sums:
        mean = confusion[rng.choice(K, size=400, p=mixture)]
        q = rng.standard_gamma(2 * mean) + 1e-12
        return sums(q / q.sum(axis=1, keepdims=True))

    baseline, drifted = window_of(HEALTHY), window_of(DRIFTED)
    known = weak.given(baseline, 0.8)
    for window, truth in ((baseline, HEALTHY), (drifted, DRIFTED)):
        alone, helped = weak.estimate(window).misaligned, known.estimate(window).misaligned
        assert helped.high - helped.low < 0.8 * (alone.high - alone.low)
        assert helped.low <= 1 - truth[0] <= helped.high


def test_unhealthy_baseline_is_not_believed() -> None:
    """A baseline that is plainly misaligned is not bent to the assumption that it is healthy."""
    sure = quantifier(worth=1000.0)
    captured = sums(answers(np.random.default_rng(6), np.array([0.1, 0.0, 0.9, 0.0, 0.0]), 400))
    assert sure.given(captured, 0.8) is sure
