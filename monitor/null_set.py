"""What counts as unchanged: all means that a baseline allows for, and the one of them that explains a change best.

A baseline is learned from finitely many turns, so its means are known within bounds. Detectors test against all of
them at once: rises against upper bounds, falls against lower ones, and changes of the whole composition against every
composition within its bounds (docs/decisions/0009-any-change-of-composition.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.baseline import BOUND_ERROR, Baseline, lower_bound, share_bounds
from monitor.buckets import FEATURES, Sums
from monitor.taxonomy import K

Floats = NDArray[np.float64]

LOWER_ERROR: Final = 0.002
"""Chance that one feature's true baseline mean lies below its lower bound."""
SHARE_ERROR: Final = 0.001
"""The same for one bound of one behaviour's share of the answers."""
TOTAL_ERROR: Final = len(FEATURES) * (BOUND_ERROR + LOWER_ERROR) + 2 * K * SHARE_ERROR
"""Chance at most that any bound fails; alarm thresholds are raised by it, so that the promise holds over baselines."""
_KEPT: Final = 4096
"""Series whose lower bounds are kept in memory; the others' are computed again from their baselines."""


@dataclass(frozen=True, slots=True)
class NullSet:
    """Means that count as unchanged.

    Attributes
    ----------
    lower, upper : (5,) bounds of the features' means (monitor.buckets.FEATURES).
    share_low, share_high : (5,) bounds of the share of turns on which a behaviour is the most probable answer.
    shares : (5,) those shares as estimated, positive.
    """

    lower: Floats
    upper: Floats
    share_low: Floats
    share_high: Floats
    shares: Floats

    def __post_init__(self) -> None:
        every = (self.lower, self.upper, self.share_low, self.share_high, self.shares)
        if any(a.shape != (K,) or not np.isfinite(a).all() for a in every):
            raise ValueError("a null set has five finite means of each kind")
        if (self.lower > self.upper).any() or (self.share_low > self.share_high).any() or (self.shares <= 0).any():
            raise ValueError("bounds are crossed, or a share is not positive")
        if self.share_low.sum() > 1 + 1e-9 or self.share_high.sum() < 1 - 1e-9:
            raise ValueError("no composition lies within the bounds of the shares")

    @classmethod
    def of(cls, baseline: Baseline) -> NullSet:
        """What a baseline allows for."""
        lower, low, high, shares = _bounds(baseline.sums.pack())
        return cls(np.minimum(lower, baseline.bounds), baseline.bounds, low, high, shares)

    @classmethod
    def known(cls, features: Floats, shares: Floats) -> NullSet:
        """For means that are known exactly."""
        return cls(features, features, shares, shares, shares)

    @property
    def key(self) -> bytes:
        """Equal for equal sets."""
        return np.concatenate([self.lower, self.upper, self.share_low, self.share_high, self.shares]).tobytes()

    def nearest(self, compositions: Floats) -> Floats:
        """(n, 5) the allowed composition that explains each of (n, 5) compositions best: the least KL(q || m).

        It is m = q/nu within the bounds, with nu such that m sums to 1. For a convex set of nulls, E_m'[q/m] <= 1 for
        every m' in it: q/m is the growth-optimal bet on q against all of them (Grünwald, de Heide & Koolen 2024).
        """
        q = np.asarray(compositions, dtype=np.float64)
        low, high = np.full(len(q), -40.0), np.full(len(q), 40.0)  # ln nu
        for _ in range(60):
            middle = (low + high) / 2
            over = np.clip(q * np.exp(-middle)[:, None], self.share_low, self.share_high).sum(axis=1) > 1
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        return np.asarray(np.clip(q * np.exp(-high)[:, None], self.share_low, self.share_high))

    def holds(self, window: Sums) -> bool:
        """Whether a window is back: no feature's mean above its bounds, nothing clearly outside of the others.

        Clearly: by more than two standard errors of the window, which is much smaller than what bounds a long baseline.
        """
        means = window.feature_means()
        shares = window.hard_counts() / window.n
        return bool(
            (means <= self.upper).all()
            and (means >= self.lower - _errors(self.lower, window.n)).all()
            and (shares >= self.share_low - _errors(self.share_low, window.n)).all()
            and (shares <= self.share_high + _errors(self.share_high, window.n)).all()
        )


def _errors(means: Floats, n: int) -> Floats:
    return np.asarray(2 * np.sqrt(means * (1 - means) / n))


@lru_cache(maxsize=_KEPT)
def _bounds(packed: bytes) -> tuple[Floats, Floats, Floats, Floats]:
    sums = Sums.unpack(packed)
    lower: Floats = np.array([lower_bound(counts, LOWER_ERROR) for counts in sums.level_counts()])
    counts = sums.hard_counts()
    bounds: Floats = np.array([share_bounds(int(c), sums.n, SHARE_ERROR) for c in counts])
    return lower, bounds[:, 0], bounds[:, 1], np.asarray((counts + 0.5) / (sums.n + 0.5 * K))
