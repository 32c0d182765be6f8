"""Alignment work: how much effort holds a model's behaviour in place (design 3.4).

Four answers, for what one has: two variants under the same stress (monitor.paired_work); the aligned log-odds and their
relaxation rate (`WorkFilter` as time goes on, `monitor.relaxation.held_level` for a stationary stretch); a reference
production rate of S (`running`); the return of S to its baseline (`monitor.relaxation.restoring_rate`). The first and
third are in nats of S, the second in nats of log-odds: only the second compares with gamma_crit. Each answer carries an
interval or says why there is none. Derivations: docs/statistics.md.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monitor.drift import Slope
from monitor.estimates import Estimate, Refusal, Result, enough, normal_estimate
from monitor.relaxation import rate_nodes
from monitor.taxonomy import K

Floats = NDArray[np.float64]


def log_odds(aligned: ArrayLike, turns: ArrayLike, goals: int = K) -> tuple[Floats, Floats]:
    """L = ln(p_aligned / mean of the other p_i) and the variance of its error.

    As the others sum to 1 - p_aligned, L is the logit of p_aligned plus ln(N - 1). Half a turn is added to the aligned
    and half to the rest, so that shares of 0 and 1 are defined; this also removes the bias of order 1/n (Anscombe 1956;
    variance: Gart & Zweifel 1967).

    Parameters
    ----------
    aligned : share of aligned turns, in [0, 1].
    turns : effective number of turns behind it, positive.

    Returns
    -------
    L in nats and its variance in nats^2, of the inputs' common shape.

    Raises
    ------
    ValueError : a share is outside [0, 1], a number of turns not positive, or either not finite.

    >>> log_odds(1.0, 100)[0].round(2)
    np.float64(6.69)
    """
    p, n = np.broadcast_arrays(np.asarray(aligned, dtype=np.float64), np.asarray(turns, dtype=np.float64))
    if not (np.isfinite(p).all() and np.isfinite(n).all() and (n > 0).all() and ((p >= 0) & (p <= 1)).all()):
        raise ValueError("shares lie in [0, 1], and turns are positive")
    yes, no = n * p + 0.5, n * (1 - p) + 0.5
    return np.log(yes / no) + math.log(goals - 1), 1 / yes + 1 / no


def worth(share: float, sd: float, turns: float) -> float:
    """Turns whose plain share has the standard deviation `sd`; at most `turns`.

    A share inverted through the classifier's confusion varies more than counting does, and so is worth fewer turns.

    Parameters
    ----------
    share : in [0, 1].
    sd : its standard deviation from sampling.
    turns : effective number of turns it was estimated from, positive.

    >>> round(worth(0.9, 0.03, 4000))
    100
    """
    near = (turns * share + 0.5) / (turns + 1)  # keeps a share of 0 or 1 from being worth nothing
    return min(turns, near * (1 - near) / sd**2) if sd > 0 else turns


def critical(r: float, goals: int = K) -> float:
    """gamma_crit = r ln N = (lambda_max / 2) ln N, nats/day: below it the odds of an unintended goal exceed 1/N."""
    return r * math.log(goals)


def margin(gamma: Result, r: float, goals: int = K) -> Result:
    """Stability margin gamma / gamma_crit, for a rate r that is known; 1 is the boundary of arXiv 2511.10704.

    Only for gamma of log-odds. Where r was estimated, use `WorkFilter.margin` or `depth`.
    """
    if isinstance(gamma, Refusal):
        return gamma
    if not (math.isfinite(r) and r > 0 and goals >= 2):
        return Refusal(f"no margin without a positive rate and at least two goals: r = {r}, N = {goals}")
    return gamma.times(1 / critical(r, goals), "gamma_crit")


def depth(level: float, low: float, high: float, goals: int = K) -> Result:
    """L / ln N: what the margin is at equilibrium, whatever the rate; shown where r is not known.

    Parameters
    ----------
    level, low, high : L, from `log_odds`, and the ends of its 90 % interval.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= level <= high and goals >= 2):
        return Refusal("log-odds must be finite, and within their interval")
    scale = math.log(goals)
    return Estimate(level / scale, low / scale, high / scale, "ln N", "log-odds over ln N")


_SPREADS: Final = (0.001, 0.01, 0.05, 0.2)
"""Stationary variances of L about its mean that the filters try, nats^2."""
_SHIFTS: Final = (0.02, 0.1, 0.4, 1.2)
"""How far the equilibrium of L may wander in one relaxation time, nats."""
_START_SD: Final = 2.0
"""At the start, gamma is what holds L where it is, give or take so many nats of equilibrium."""
_FORGET: Final = 0.02
"""Share of what the filters have learnt about each other's merit that a point makes them forget, so that quiet months
do not blind them to a jump."""
_RATE_NODES: Final = tuple(NormalDist().inv_cdf(q) for q in (0.1, 0.3, 0.5, 0.7, 0.9))
FEWEST_UPDATES: Final = 5
"""With fewer points no figure is given."""


class WorkFilter:
    """gamma_eff(t) = dL/dt + r L(t), followed through time.

    State (L, gamma) with dL = (gamma - r L) dt + noise and a gamma that wanders; what is not known (noise, pace of
    gamma, and r where it was estimated) is covered by a bank of Kalman filters that count by how well they predict.
    Bounded memory; feed it in time order.

    Parameters
    ----------
    r : relaxation rate, 1/day: a number, or an Estimate whose error is carried over. ValueError when it may be 0.
    goals : N.

    >>> work = WorkFilter(r=0.5)
    >>> for day in range(40):
    ...     work.update(float(day), 3.0, variance=0.01)
    >>> isinstance(work.gamma(), Estimate) and abs(work.gamma().value - 1.5) < 0.2
    True
    """

    def __init__(self, r: float | Estimate, goals: int = K) -> None:
        nodes = rate_nodes(r, _RATE_NODES)
        if isinstance(nodes, Refusal):
            raise ValueError(nodes.reason)
        grid = np.meshgrid(nodes[0], _SPREADS, _SHIFTS, indexing="ij")
        self._r, self._spread, shift = (g.ravel() for g in grid)
        self._wander = (self._r * shift) ** 2 * self._r  # variance of gamma gained per day
        # L lies below the driven difference of logits as the other goals scatter (docs/statistics.md)
        self._dip = self._spread * (goals - 2) / (2 * goals)
        self._goals = goals
        self.updates = 0
        self.t: float | None = None
        self.mean = np.zeros((2, len(self._r)))
        """(2, bank) L and gamma."""
        self.covariance = np.zeros((3, len(self._r)))
        """(3, bank) var L, cov, var gamma."""
        self.log_weight = np.full(len(self._r), -math.log(len(self._r)))

    def update(self, t: float, level: float, variance: float) -> None:
        """Take in an observation of L.

        Parameters
        ----------
        t : days, not before the last one.
        level, variance : L and the variance of its error, from `log_odds`.

        Raises
        ------
        ValueError : a value is not finite, the variance not positive, or time runs backwards; nothing is changed.
        """
        if not (math.isfinite(t) and math.isfinite(level) and math.isfinite(variance)) or variance <= 0:
            raise ValueError("log-odds and variance must be finite, and the variance positive")
        if self.t is not None and t < self.t:
            raise ValueError(f"time runs backwards by {self.t - t:g} days")
        seen = level + self._dip
        if self.t is None:
            self.mean = np.stack([seen, self._r * seen])
            self.covariance = np.stack(
                [np.full_like(seen, variance), self._r * variance, (self._r * _START_SD) ** 2 + self._r**2 * variance]
            )
        else:
            self._predict(t - self.t)
            (a, b, c), (x, g) = self.covariance, self.mean
            total = a + variance
            miss = seen - x
            self.mean = np.stack([x + a / total * miss, g + b / total * miss])
            self.covariance = np.stack([a * variance / total, b * variance / total, c - b * b / total])
            log_weight = (1 - _FORGET) * self.log_weight - 0.5 * (np.log(total) + miss * miss / total)
            self.log_weight = log_weight - np.logaddexp.reduce(log_weight)
        self.t = t
        self.updates += 1

    def _predict(self, dt: float) -> None:
        r, q = self._r, self._wander
        keep = np.exp(-r * dt)
        reach = -np.expm1(-r * dt) / r  # how much of gamma has arrived in L
        lost = -np.expm1(-2 * r * dt)
        # r dt small: the exact difference cancels to rounding, the leading term does not
        through = np.where(r * dt < 1e-3, dt**3 / 3, (dt - 2 * reach + lost / (2 * r)) / r**2)
        across = np.where(r * dt < 1e-3, dt**2 / 2, (dt - reach) / r)
        (a, b, c), (x, g) = self.covariance, self.mean
        self.mean = np.stack([keep * x + reach * g, g])
        self.covariance = np.stack(
            [
                keep * keep * a + 2 * keep * reach * b + reach * reach * c + self._spread * lost + q * through,
                keep * b + reach * c + q * across,
                c + q * dt,
            ]
        )

    def gamma(self) -> Result:
        """gamma_eff now, nats of log-odds a day."""
        return self._mixture(np.ones_like(self._r), "nats/day", "dL/dt + r L, bank of Kalman filters")

    def margin(self) -> Result:
        """gamma_eff / gamma_crit now, the error of r allowed for."""
        return self._mixture(1 / (self._r * math.log(self._goals)), "gamma_crit", "(dL/dt + r L) / (r ln N)")

    def _mixture(self, factor: Floats, units: str, method: str) -> Result:
        if (few := enough(self.updates, FEWEST_UPDATES, "points")) is not None:
            return few
        w = np.exp(self.log_weight)
        each = factor * self.mean[1]
        value = float((w * each).sum())
        variance = float((w * (factor**2 * self.covariance[2] + (each - value) ** 2)).sum())
        return normal_estimate(value, math.sqrt(variance), units, method)


def running(sigma_0: float, sigma_0_error: float, slope: Slope) -> Result:
    """gamma_eff(t) = sigma_0 - dS/dt: how much of the reference production of S is being held back.

    Parameters
    ----------
    sigma_0, sigma_0_error : production rate of S without alignment work and its standard error, nats/day.
    slope : dS/dt now, with its error (monitor.drift.Trend.slope).
    """
    figures = (sigma_0, sigma_0_error, slope.value, slope.error)
    if not all(math.isfinite(x) for x in figures) or sigma_0_error < 0 or slope.error < 0:
        return Refusal("sigma_0, dS/dt and their errors must be finite, and the errors not negative")
    return normal_estimate(
        sigma_0 - slope.value, math.hypot(sigma_0_error, slope.error), "nats/day", "sigma_0 - dS/dt, errors independent"
    )
