"""Sequential tests with a false-alarm guarantee (design 3.5): e-detectors of Shiryaev-Roberts type.

For a feature X in [0, 1] whose baseline mean is at most mu, and a bet b in (0, 1), a turn multiplies the wealth of a
gambler on "the mean has risen" by 1 + b (X - mu) / mu, at most 1 on average while nothing has changed. A new gambler of
stake dt (days of event time since the last bucket) enters with every bucket, so the total wealth

    M <- L (M + dt),    alarm when the average of M over features and bets reaches A

satisfies E[M] <= elapsed days up to any stopping time: the mean time to a false alarm is at least A days, whatever the
distribution and the traffic (Shin, Ramdas & Rinaldo 2022; docs/decisions/0004-stake-is-event-time.md). With
A = `false_alarm_every` that is the promise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.buckets import FEATURES, LEVELS, Ints

Floats = NDArray[np.float64]

BETS: Final[Floats] = np.array([0.02, 0.04, 0.08, 0.15, 0.25, 0.4, 0.6, 0.9])
"""Fractions of the largest admissible bet 1/mu."""
MAX_STAKE_DAYS: Final = 1 / 24
"""A gap in the traffic must not hand out a large stake; a smaller one only makes false alarms rarer."""
_NOTHING: Final = -np.inf


class Increments:
    """Log wealth factors of a bucket for given baseline bounds: one (features, bets) table a bucket."""

    def __init__(self, bounds: Floats) -> None:
        if bounds.shape != (len(FEATURES),) or not np.isfinite(bounds).all():
            raise ValueError("bounds must be five finite means")
        mu = np.clip(bounds, 1e-4, 1.0)
        x = LEVELS[None, None, :]
        self._table: Floats = np.log1p(BETS[None, :, None] * (x - mu[:, None, None]) / mu[:, None, None])

    def of(self, counts: Ints) -> Floats:
        """(..., features, levels) counts -> (..., features, bets) log factors."""
        return np.asarray((counts[..., :, None, :] * self._table).sum(axis=-1))


@dataclass(slots=True)
class EDetector:
    """The wealth of all gamblers, in logs; constant size."""

    log_wealth: Floats = field(default_factory=lambda: np.full((len(FEATURES), len(BETS)), _NOTHING))

    def update(self, increments: Floats, stake_days: float) -> None:
        """Take in one bucket.

        Parameters
        ----------
        increments : (features, bets) from `Increments.of`.
        stake_days : event time since the last bucket, days; must not depend on the bucket's content.
        """
        if not np.isfinite(increments).all() or not stake_days > 0:
            raise ValueError("increments must be finite and the stake positive")
        stake = np.log(min(stake_days, MAX_STAKE_DAYS))
        self.log_wealth = increments + np.logaddexp(self.log_wealth, stake)

    @property
    def log_evidence(self) -> float:
        """ln of the average wealth, in days; alarm when it reaches ln(false_alarm_every in days)."""
        return float(np.logaddexp.reduce(self.log_wealth, axis=None) - np.log(self.log_wealth.size))

    @property
    def feature_shares(self) -> Floats:
        """(features,) share of each feature in the wealth: which one the alarm is about."""
        by_feature = np.logaddexp.reduce(self.log_wealth, axis=1)
        total = np.logaddexp.reduce(by_feature)
        if not np.isfinite(total):
            return np.full(len(FEATURES), 1 / len(FEATURES))
        return np.asarray(np.exp(by_feature - total))


@dataclass(frozen=True, slots=True)
class Onset:
    """Since when: index of the first changed bucket, with a 90 % interval."""

    at: int
    low: int
    high: int


def locate_onset(increments: Floats, stakes_days: Floats) -> Onset:
    """When did the change behind an alarm begin?

    The wealth at the alarm is a sum over the gamblers who entered with each bucket; its share by entrance is a
    posterior over the onset (with the stakes as prior).

    Parameters
    ----------
    increments : (buckets, features, bets) from the end of the baseline to the alarm.
    stakes_days : (buckets,) stakes.
    """
    if not len(increments):
        raise ValueError("no buckets to search for an onset")
    later = np.cumsum(increments[::-1], axis=0)[::-1]
    stakes = np.log(np.minimum(stakes_days, MAX_STAKE_DAYS))
    log_mass = np.logaddexp.reduce(later.reshape(len(later), -1), axis=1) + stakes
    mass = np.exp(log_mass - log_mass.max())
    reached = np.cumsum(mass) / mass.sum()
    low, at, high = (int(np.searchsorted(reached, share)) for share in (0.05, 0.5, 0.95))
    return Onset(min(at, len(mass) - 1), low, min(high, len(mass) - 1))
