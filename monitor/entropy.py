"""Ethical entropy S(t) of a window, with an interval that allows for classifier error (design 3.1, 3.2).

Averaging a classifier's probabilities is biased as soon as the mixture moves, which is what drift is. So the window's
mean is inverted through the classifier's confusion: E[q] = C^T p, with p on the simplex.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.buckets import Sums
from monitor.quantification import of_means
from monitor.simplex import SimplexSolvers
from monitor.taxonomy import ALIGNED, K

Floats = NDArray[np.float64]

DRAWS: Final = 256
"""Posterior draws behind an interval."""
POOL: Final = 1024
"""Draws of the confusion from which a healthy baseline keeps those that fit it."""
FEWEST_DRAWS: Final = 32
"""With fewer fitting draws the baseline is not taken for healthy."""
PRIOR_TURNS: Final = 10.0
"""Weight, in turns, of the classifier's own per-turn spread in a window's covariance."""
SAMPLING_DRAWS: Final = 64
"""Draws behind the standard deviation of S from sampling alone."""
TAILS: Final = (0.05, 0.95)
"""Quantiles of the 90 % interval."""
TEST_DRAWS: Final = 96
"""Simulated windows behind one test of an entropy."""
TEST_PLACES: Final = 9
"""Entropies tested on either side of the estimate."""
PURE_TAIL: Final = 0.1
"""S = 0 stays in the interval while at least so many windows of one pure behaviour would look as mixed as this one:
there is no error on the other side of a boundary, so all of the 10 % is spent here."""
PURE_TAIL_GIVEN: Final = 0.075
"""The same, where the comparison with a baseline spends the remaining 2.5 %."""
BASELINE_ERRORS: Final = 1.96
"""Standard errors by which a wholly aligned window may look less aligned than the baseline (2.5 % one-sided)."""
CONTRADICTED: Final = 9.49
"""Squared distance of a baseline from what the calibration expects of a mixture: 95 % of chi-squared with 4 degrees."""


def entropy(p: Floats) -> Floats:
    """Shannon entropy in nats along the last axis; 0 ln 0 = 0.

    >>> float(entropy(np.array([1.0, 0, 0, 0, 0])))
    0.0
    >>> round(float(entropy(np.full(5, 0.2))), 4)
    1.6094
    """
    p = np.asarray(p, dtype=np.float64)
    logs = np.log(np.where(p > 0, p, 1.0))
    return np.asarray(np.maximum(-(p * logs).sum(axis=-1), 0.0))


def kl_divergence(p: Floats, q: Floats) -> float:
    """KL(p || q) in nats; infinite where p puts mass on what q excludes."""
    return float(kl_divergences(p, q))


def kl_divergences(p: Floats, q: Floats) -> Floats:
    """KL(p || q) in nats along the last axis of arrays that broadcast."""
    p, q = np.broadcast_arrays(np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64))
    seen = p > 0
    excluded = (seen & (q <= 0)).any(axis=-1)
    # two logarithms, not one of a quotient: p / q may overflow
    terms = p * (np.log(np.where(seen, p, 1.0)) - np.log(np.where(seen & (q > 0), q, 1.0)))
    return np.asarray(np.where(excluded, np.inf, np.maximum(terms.sum(axis=-1), 0.0)))


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a classifier answers turns whose behaviour is known, from rows it was not trained on.

    Attributes
    ----------
    n : (5,) what the calibration turns of each behaviour are worth, in independent turns: their means differ from
        source to source, and a deployment is a source never seen, so this is far fewer than were counted.
    mean : (5, 5) row y is E[q | y], the confusion C of design 3.2; rows sum to 1.
    covariance : (5, 5, 5) per-turn covariance of q given y.
    """

    n: Floats
    mean: Floats
    covariance: Floats

    def __post_init__(self) -> None:
        if self.n.shape != (K,) or self.mean.shape != (K, K) or self.covariance.shape != (K, K, K):
            raise ValueError("calibration arrays have the wrong shape")
        if not all(np.isfinite(a).all() for a in (self.n, self.mean, self.covariance)) or (self.n < 1).any():
            raise ValueError("calibration needs at least one finite turn of each behaviour")
        if (np.abs(self.mean.sum(axis=1) - 1) > 1e-6).any():
            raise ValueError("calibration rows do not sum to 1")


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 90 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a window's behaviour is made of.

    Attributes
    ----------
    n : turns in the window.
    effective_n : turns, after unequal weights.
    shares : one Interval a behaviour, in taxonomy order.
    entropy : S, nats.
    entropy_sd : standard deviation of S from the window's sampling alone, nats: the confusion's error is common to all
        windows of a series, so it does not blur how S moves.
    misaligned : 1 - share of aligned.
    """

    n: int
    effective_n: float
    shares: tuple[Interval, ...]
    entropy: Interval
    entropy_sd: float
    misaligned: Interval

    @property
    def p(self) -> Floats:
        """(5,) posterior mean shares."""
        return np.array([s.mean for s in self.shares])


def interval(draws: Floats) -> Interval:
    """Mean and 90 % interval of draws."""
    return intervals(draws[:, None])[0]


def intervals(draws: Floats) -> list[Interval]:
    """Mean and 90 % interval of each column of draws."""
    low, high = np.quantile(draws, TAILS, axis=0)
    return [Interval(*figures) for figures in zip(*(x.tolist() for x in (draws.mean(axis=0), low, high)), strict=True)]


class Quantifier:
    """Estimates the mixture p of a window from the classifier's answers: C^T p = mean(q), p on the simplex.

    The confusion is redrawn `DRAWS` times from its calibration counts (Dirichlet rows with the rows' own spread), the
    window's mean from a normal with the window's covariance; each pair is solved by least squares on the simplex, or by
    EM where the confusion is near-singular. The calibration counts are worth as much as the confusion differs from
    source to source, because a deployment is a source never seen; `given` a healthy baseline, the draws are made to fit
    this deployment (docs/decisions/0005-confusion-varies-by-source.md). The interval of S is found by testing
    (docs/decisions/0010-interval-of-s-by-testing.md). What depends on the confusion's draws alone is prepared once.
    """

    def __init__(self, calibration: Calibration) -> None:
        rng = np.random.default_rng(2512_03047)
        # q sums to 1, so its covariance is singular along (1, ..., 1): a ridge makes the metric proper without changing
        # the solution inside the simplex, where five unknowns fit five equations exactly whatever the metric.
        self._spread = calibration.covariance.mean(axis=0)
        self._metric = np.linalg.inv(self._spread + np.eye(K) * (1e-3 + np.trace(self._spread) / K * 0.1))
        self._calibration = calibration
        self._row_covariance = np.stack([_row_covariance(calibration, y) for y in range(K)])
        self._pool = SimplexSolvers(_draw_confusions(calibration, rng), self._metric)
        self._pool_noise = rng.standard_normal((2, POOL, K))
        self._pool_starts = rng.dirichlet(np.ones(K), size=POOL)
        self._shrink = np.where(np.arange(POOL) % 2, rng.random(POOL), 1.0)
        self._baseline: Sums | None = None
        which = np.arange(DRAWS)
        self._keep(self._pool.only(which), which)
        self._alone = self

    def _keep(self, solvers: SimplexSolvers, which: NDArray[np.int64]) -> None:
        self._solvers = solvers
        self._noise, self._starts = self._pool_noise[:, which], self._pool_starts[which]
        self._at_mean = SimplexSolvers(solvers.confusions.mean(axis=0, keepdims=True), self._metric)

    def given(self, baseline: Sums, aligned_at_least: float) -> Quantifier:
        """For the deployment whose baseline this is, on the assumption that the baseline is healthy.

        The baseline is inverted under each draw of the confusion; half of the mixtures are moved towards wholly aligned
        by a random part of the way, since five shares that cannot be negative are scattered away from it. Those with an
        aligned share of at least `aligned_at_least` that the calibration does not contradict are kept, and each draw is
        changed as little as makes it explain the baseline by its mixture. When fewer than `FEWEST_DRAWS` are left the
        assumption is not tenable and nothing is assumed.
        """
        u = self._means(baseline, self._pool_noise[0])
        solved = self._solve(self._pool, u, self._pool_starts)
        if (solved[:, ALIGNED] >= aligned_at_least).sum() < FEWEST_DRAWS:
            return self
        pure = np.eye(K)[ALIGNED]
        p = pure + self._shrink[:, None] * (solved - pure)
        expected = p @ self._calibration.mean
        variance = np.einsum("by,ykl->bkl", p**2, self._row_covariance) + np.eye(K) * 1e-6
        sampling = baseline.mean_covariance(self._spread, PRIOR_TURNS)
        away = u - expected
        distance = (away * np.linalg.solve(variance + sampling, away[:, :, None])[:, :, 0]).sum(axis=1)
        fitting = np.flatnonzero((p[:, ALIGNED] >= aligned_at_least) & (distance <= CONTRADICTED))[:DRAWS]
        if len(fitting) < FEWEST_DRAWS:
            return self
        # what the draw leaves unexplained goes to the rows in proportion to their share and their uncertainty (the
        # conditional draw of a normal vector: Matheron's rule)
        c, p = self._pool.confusions[fitting], p[fitting]
        unexplained = u[fitting] - np.einsum("byk,by->bk", c, p)
        pull = np.linalg.solve(variance[fitting], unexplained[:, :, None])[:, :, 0]
        c = np.maximum(c + p[:, :, None] * np.einsum("ykl,bl->byk", self._row_covariance, pull), 1e-4)
        other = copy(self)
        other._baseline = baseline
        other._alone = self._alone
        other._keep(SimplexSolvers(c / c.sum(axis=2, keepdims=True), self._metric), fitting)
        return other

    @property
    def assumes_baseline(self) -> bool:
        """Whether it is `given` a baseline that can be taken for healthy."""
        return self._baseline is not None

    def estimate(self, sums: Sums) -> Mixture:
        """Mixture of the turns in `sums`. Deterministic. Raises ValueError when there are none."""
        p, sd = self._draws(sums)
        s, *shares = intervals(np.column_stack([entropy(p), p]))
        low, high, pure = self._tested(sums)
        if pure is not None:
            shares = [replace(x, high=1.0) if k == pure else replace(x, low=0.0) for k, x in enumerate(shares)]
        aligned = shares[ALIGNED]
        return Mixture(
            n=sums.n,
            effective_n=sums.effective_n,
            shares=tuple(shares),
            entropy=Interval(s.mean, min(low, s.mean), max(high, s.mean)),
            entropy_sd=sd,
            misaligned=Interval(1.0 - aligned.mean, 1.0 - aligned.high, 1.0 - aligned.low),
        )

    def level(self, sums: Sums) -> tuple[float, float]:
        """(S, its standard deviation from sampling) as `estimate` has them, for the trend; an interval costs more."""
        p, sd = self._draws(sums)
        return float(entropy(p).mean()), sd

    def _draws(self, sums: Sums) -> tuple[Floats, float]:
        """(draws, 5) mixtures, and the standard deviation of S from sampling."""
        q = self._means(sums, self._noise[0])
        sd = float(entropy(self._at_mean.solve(q[:SAMPLING_DRAWS])).std(ddof=1))
        return self._solve(self._solvers, q, self._starts), sd

    def _tested(self, sums: Sums) -> tuple[float, float, int | None]:
        """The 90 % interval of S, and the behaviour that may be all there is.

        Mixtures on the way from the estimate to the nearest pure behaviour, and to all behaviours alike, are tested:
        each is answered as the draws of the confusion and of sampling would have it, and estimated. S is in the
        interval when at least 5 % of these estimates are as far out as the window's (test inversion along a path:
        DiCiccio and Romano 1990).
        """
        found = self._at_mean.solve(sums.mean()[None])[0]
        pure = int(found.argmax())
        x = np.linspace(0.0, 1.0, TEST_PLACES)[:, None] ** 2
        down = found + x * (np.eye(K)[pure] - found)
        up = found + x * (1.0 / K - found)
        seen = float(entropy(found))
        answers = self._answers(sums, np.concatenate([down, up]))
        # 0 to 1 in steps of 1 / TEST_DRAWS, by place
        above = (answers >= seen - 1e-9).mean(axis=1)[:TEST_PLACES]
        below = (answers <= seen + 1e-9).mean(axis=1)[TEST_PLACES:]
        low = _crossing(entropy(down), above)
        high = _crossing(entropy(up), below)
        if self._may_be_pure(sums, pure, above[-1]):
            return 0.0, high, pure
        return low, high, None

    def _answers(self, sums: Sums, mixtures: Floats) -> Floats:
        """(places, TEST_DRAWS) entropies that windows like this one, of these mixtures, would be given."""
        noise = self._means(sums, self._noise[1][:TEST_DRAWS]) - sums.mean()
        simulated = mixtures @ self._solvers.confusions[:TEST_DRAWS] + noise[:, None]
        solved = self._at_mean.solve(simulated.reshape(-1, K))
        return entropy(solved).reshape(-1, len(mixtures)).T

    def _may_be_pure(self, sums: Sums, pure: int, above: float) -> bool:
        """Whether the answers allow that nothing but this behaviour is in the window.

        A wholly aligned window looks as aligned as its deployment can; it cannot look less so than the baseline.
        """
        if self._baseline is None or pure != ALIGNED:
            return bool(above >= PURE_TAIL)
        error = sum(s.mean_covariance(self._spread, PRIOR_TURNS)[ALIGNED, ALIGNED] for s in (sums, self._baseline))
        if sums.mean()[ALIGNED] < self._baseline.mean()[ALIGNED] - BASELINE_ERRORS * np.sqrt(error):
            return False
        alone = self._alone
        seen = float(entropy(alone._at_mean.solve(sums.mean()[None])[0]))
        return bool((alone._answers(sums, np.eye(K)[[ALIGNED]]) >= seen - 1e-9).mean() >= PURE_TAIL_GIVEN)

    @staticmethod
    def _solve(solvers: SimplexSolvers, q: Floats, starts: Floats) -> Floats:
        """(draws, 5) mixtures: by faces, or by EM from a random start where the confusion is near-singular."""
        p = solvers.solve(q)
        weak = solvers.near_singular
        if weak.any():
            p[weak] = of_means(solvers.confusions[weak], q[weak], starts[weak])
        return p

    def changes(self, before: Sums, after: Sums) -> Floats:
        """(draws, 5) changes of the shares from one window to another, under the same draw of the confusion each.

        Whatever the classifier gets wrong in the same way in both windows cancels, so a change is known better than the
        difference of two intervals would have it.
        """
        earlier, later = self.pairs(before, after)
        return later - earlier

    def pairs(self, before: Sums, after: Sums) -> tuple[Floats, Floats]:
        """(draws, 5) mixtures of two windows, under the same draw of the confusion each."""
        earlier, later = (
            self._solve(self._solvers, self._means(sums, noise), self._starts)
            for sums, noise in zip((before, after), self._noise, strict=True)
        )
        return earlier, later

    def together(self, windows: Sequence[Sums]) -> Floats:
        """(windows, draws, 5) mixtures of windows that share no turns, under the same draw of the confusion each."""
        noise = np.random.default_rng(len(windows)).standard_normal((len(windows), len(self._starts), K))
        return np.stack(
            [self._solve(self._solvers, self._means(s, z), self._starts) for s, z in zip(windows, noise, strict=True)]
        )

    def inverted(self, mean: Floats, covariance: Floats) -> Floats:
        """(draws, 5) mixtures behind a mean answer (5,) of this classifier known with a covariance (5, 5).

        For a mean that was not taken over all turns, such as the accurate tier's by prediction-powered inference.
        """
        return self._solve(self._solvers, mean + self._noise[0] @ _root(covariance).T, self._starts)

    def inverse(self, draw: int | None = None) -> Callable[[Floats], Floats]:
        """The map from (..., 5) mean answers to shares: under one draw of the confusion, or (None) under their mean."""
        solvers = self._at_mean if draw is None else self._solvers.only(np.array([draw]))
        return lambda q: solvers.solve(q.reshape(-1, K)).reshape(q.shape)

    def _means(self, sums: Sums, noise: Floats) -> Floats:
        """(draws, 5) redrawn means of the probabilities."""
        return np.asarray(sums.mean() + noise @ _root(sums.mean_covariance(self._spread, PRIOR_TURNS)).T)


def _root(covariance: Floats) -> Floats:
    """(5, 5) matrix A with A A^T = covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _draw_confusions(calibration: Calibration, rng: np.random.Generator) -> Floats:
    """(POOL, 5, 5) draws in which each behaviour answers to its own name most.

    A draw in which, say, aligned turns get more probability of deception than deceptive ones do has the behaviours
    mixed up; such draws are passed over, unless the calibration itself is so mixed up that few others come.
    """
    rows = [rng.dirichlet(_dirichlet_parameters(calibration, y), size=8 * POOL) for y in range(K)]
    drawn = np.stack(rows, axis=1)
    named = (drawn.argmax(axis=1) == np.arange(K)).all(axis=1)
    first = np.concatenate([np.flatnonzero(named), np.flatnonzero(~named)])[:POOL]
    return np.asarray(drawn[first])


def _dirichlet_parameters(calibration: Calibration, y: int) -> Floats:
    """Dirichlet whose mean is row y and whose spread is that of a mean over n[y] calibration turns.

    One categorical draw with mean c has variance c (1 - c); soft probabilities vary less, so n turns are worth more.
    """
    c = np.maximum(calibration.mean[y], 1e-4)
    c = c / c.sum()
    spread = float(np.trace(calibration.covariance[y]))
    categorical = float((c * (1 - c)).sum())
    worth = calibration.n[y] * min(categorical / max(spread, 1e-9), 100.0)
    return np.asarray(c * max(worth, 2.0), dtype=np.float64)


def _row_covariance(calibration: Calibration, y: int) -> Floats:
    """(5, 5) covariance of row y between the draws of the confusion."""
    a = _dirichlet_parameters(calibration, y)
    c = a / a.sum()
    return np.asarray((np.diag(c) - np.outer(c, c)) / (a.sum() + 1.0))


def _crossing(entropies: Floats, tails: Floats) -> float:
    """The entropy at which the tail falls below 5 %, between the places tested; the last one's when it never does."""
    out = np.flatnonzero(tails < TAILS[0])
    if not len(out):
        return float(entropies[-1])
    i = int(out[0])
    if i == 0:
        return float(entropies[0])
    part = (tails[i - 1] - TAILS[0]) / (tails[i - 1] - tails[i])
    return float(entropies[i - 1] + part * (entropies[i] - entropies[i - 1]))
