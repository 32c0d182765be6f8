"""Ethical entropy S(t) of a window, with an interval that allows for classifier error (design 3.1, 3.2).

Averaging a classifier's probabilities is biased as soon as the mixture moves, which is what drift is. So the window's
mean is inverted through the classifier's confusion: E[q] = C^T p, with p on the simplex.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.buckets import Sums
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
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    seen = p > 0
    if (q[seen] <= 0).any():
        return float("inf")
    return max(0.0, float((p[seen] * np.log(p[seen] / q[seen])).sum()))


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
    low, high = np.quantile(draws, TAILS)
    return Interval(float(draws.mean()), float(low), float(high))


class Quantifier:
    """Estimates the mixture p of a window from the classifier's answers: C^T p = mean(q), p on the simplex.

    The confusion is redrawn `DRAWS` times from its calibration counts (Dirichlet rows with the rows' own spread), the
    window's mean from a normal with the window's covariance; each pair is solved by least squares on the simplex. The
    calibration counts are worth as much as the confusion differs from source to source, because a deployment is a
    source never seen; `given` a healthy baseline, the draws that fit this deployment are kept
    (docs/decisions/0005-confusion-varies-by-source.md). What depends on the confusion's draws alone is prepared once.
    """

    def __init__(self, calibration: Calibration) -> None:
        rng = np.random.default_rng(2512_03047)
        # q sums to 1, so its covariance is singular along (1, ..., 1): a ridge makes the metric proper without changing
        # the solution inside the simplex, where five unknowns fit five equations exactly whatever the metric.
        self._spread = calibration.covariance.mean(axis=0)
        metric = np.linalg.inv(self._spread + np.eye(K) * (1e-3 + np.trace(self._spread) / K * 0.1))
        self._pool = _FaceSolvers(_draw_confusions(calibration, rng), metric)
        self._pool_noise = rng.standard_normal((2, POOL, K))
        self._at_mean = _FaceSolvers(calibration.mean[None], metric)
        self._keep(np.arange(DRAWS))

    def _keep(self, which: NDArray[np.int64]) -> None:
        self._solvers = self._pool.only(which)
        self._noise = self._pool_noise[:, which]

    def given(self, baseline: Sums, aligned_at_least: float) -> Quantifier:
        """For the deployment whose baseline this is, on the assumption that the baseline is healthy.

        Keeps the draws of the confusion under which the baseline's aligned share is at least `aligned_at_least`. When
        fewer than `FEWEST_DRAWS` do, the assumption is not tenable and nothing is assumed.
        """
        p = self._pool.solve(self._means(baseline, self._pool_noise[0]))
        fitting = np.flatnonzero(p[:, ALIGNED] >= aligned_at_least)
        if len(fitting) < FEWEST_DRAWS:
            return self
        other = copy(self)
        other._keep(fitting[:DRAWS])
        return other

    def estimate(self, sums: Sums) -> Mixture:
        """Mixture of the turns in `sums`. Deterministic. Raises ValueError when there are none."""
        q = self._means(sums, self._noise[0])
        p = self._solvers.solve(q)
        s = entropy(p)
        return Mixture(
            n=sums.n,
            effective_n=sums.effective_n,
            shares=tuple(interval(p[:, k]) for k in range(K)),
            entropy=interval(s),
            entropy_sd=float(entropy(self._at_mean.solve(q[:SAMPLING_DRAWS])).std(ddof=1)),
            misaligned=interval(1.0 - p[:, ALIGNED]),
        )

    def changes(self, before: Sums, after: Sums) -> Floats:
        """(draws, 5) changes of the shares from one window to another, under the same draw of the confusion each.

        Whatever the classifier gets wrong in the same way in both windows cancels, so a change is known better than the
        difference of two intervals would have it.
        """
        later = self._solvers.solve(self._means(after, self._noise[1]))
        return later - self._solvers.solve(self._means(before, self._noise[0]))

    def _means(self, sums: Sums, noise: Floats) -> Floats:
        """(draws, 5) redrawn means of the probabilities."""
        mean = sums.mean()
        values, vectors = np.linalg.eigh(sums.mean_covariance(self._spread, PRIOR_TURNS))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return np.asarray(mean + np.einsum("bj,ij->bi", noise, root))


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


class _FaceSolvers:
    """Least squares on the simplex for many fixed matrices and one metric, with everything but q factored in advance.

    The minimiser lies on one of the 2^5 - 1 faces of the simplex and there solves the problem with "sum to 1" alone;
    so: solve on every face, keep the solutions that are non-negative, take the best. Exact, no iteration.
    """

    def __init__(self, confusions: Floats, metric: Floats) -> None:
        self._root = np.linalg.cholesky(metric).T  # cost = |root (q - a p)|^2
        matrices = np.swapaxes(confusions, 1, 2)  # (B, k, y): mean(q) = matrix @ p
        self._whitened = self._root @ matrices
        draws = len(confusions)
        faces = [f for size in range(1, K + 1) for f in combinations(range(K), size)]
        self._gain = np.zeros((len(faces), draws, K, K))
        self._offset = np.zeros((len(faces), draws, K))
        for i, face in enumerate(faces):
            a = matrices[:, :, face]
            size = len(face)
            kkt = np.zeros((draws, size + 1, size + 1))
            # the ridge keeps faces of equal rows solvable; it moves no solution by more than rounding
            kkt[:, :size, :size] = np.swapaxes(a, 1, 2) @ metric @ a + np.eye(size) * 1e-10
            kkt[:, :size, size] = 1.0
            kkt[:, size, :size] = 1.0
            inverse = np.linalg.inv(kkt)
            self._gain[i][:, face, :] = inverse[:, :size, :size] @ np.swapaxes(a, 1, 2) @ metric
            self._offset[i][:, face] = inverse[:, :size, size]

    def only(self, which: NDArray[np.int64]) -> _FaceSolvers:
        """The same for some of the matrices."""
        other = copy(self)
        other._whitened = self._whitened[which]
        other._gain, other._offset = self._gain[:, which], self._offset[:, which]
        return other

    def solve(self, q: Floats) -> Floats:
        """(B, 5) means, one for each matrix (or any number for a single one) -> (B, 5) mixtures."""
        one = len(self._whitened) == 1
        gain, offset, whitened = (x[:, 0] if one else x for x in (self._gain, self._offset, self._whitened[None]))
        p = np.einsum("fij,bj->fbi" if one else "fbij,bj->fbi", gain, q) + (offset[:, None] if one else offset)
        fitted = np.einsum("ij,fbj->fbi" if one else "bij,fbj->fbi", whitened[0], p)
        residual = np.einsum("ij,bj->bi", self._root, q) - fitted
        cost = (residual * residual).sum(axis=2)
        cost = np.where((p >= -1e-9).all(axis=2), cost, np.inf)
        best = cost.argmin(axis=0)
        chosen = np.maximum(p[best, np.arange(len(q))], 0.0)
        return np.asarray(chosen / chosen.sum(axis=1, keepdims=True))
