"""Sequential tests with a false-alarm guarantee (design 3.5): e-detectors of Shiryaev-Roberts type.

A gambler bets, turn by turn, that a series has changed in one certain way. While it has not, his wealth does not grow
on average, whatever the distribution, for every mean that the baseline allows for (monitor.null_set). There are bets on
each feature's mean having risen above its upper bound, on its having fallen under its lower bound, and on the
composition of the answers having moved from one behaviour to another, or onto one behaviour. A new gambler of stake dt
(days of event time since the last bucket) enters with every bucket, so the total wealth

    M <- L (M + dt),    alarm when the average of M over all bets, by their prior weights, reaches A

satisfies E[M] <= elapsed days up to any stopping time: the mean time to a false alarm is at least A days, whatever the
distribution and the traffic (Shin, Ramdas & Rinaldo 2022; docs/decisions/0004-stake-is-event-time.md). With
A = `false_alarm_every`, raised for the chance that a bound fails, that is the promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.buckets import FEATURES, LEVELS, Sums
from monitor.null_set import TOTAL_ERROR, NullSet
from monitor.taxonomy import ALIGNED, BEHAVIOURS, K

Floats = NDArray[np.float64]

BETS: Final[Floats] = np.array([0.02, 0.04, 0.08, 0.15, 0.25, 0.4, 0.6, 0.9])
"""On a rise: fractions of the largest admissible bet, 1/mean."""
FALLS: Final[Floats] = np.array([0.1, 0.25, 0.5, 0.75, 0.95])
"""On a fall: fractions of the largest admissible bet; the best one is the relative fall itself."""
MOVED: Final[Floats] = np.array([0.3, 0.6, 0.9])
"""On a swap: the part of one behaviour's share that has moved to another's."""
LEFT: Final[Floats] = np.array([0.5, 0.1])
"""On a collapse onto one behaviour: the part of all other shares that is left."""
PRIOR: Final = {"rose": 0.6, "fell": 0.12, "swap": 0.18, "collapse": 0.1}
"""Weight of each kind of bet in the average, split evenly within a kind but for `BET_WEIGHTS`
(docs/decisions/0009-any-change-of-composition.md)."""
BET_WEIGHTS: Final[Floats] = np.array([0.14, 0.22, 0.24, 0.18, 0.1, 0.06, 0.04, 0.02])
"""How a rise's weight is split over `BETS`: what large bets find is found in a few turns, whatever their weight."""
MAX_STAKE_DAYS: Final = 1 / 24
"""A gap in the traffic must not hand out a large stake; a smaller one only makes false alarms rarer."""
_NOTHING: Final = -np.inf
_NO_BET: Final = -1.0
"""Where the baseline allows for all a bet could find, its gambler loses: were he to wait, his stakes alone would add up
to an alarm in the end."""

_PAIRS: Final = tuple(permutations(range(1, K), 2))
"""Swaps from one non-aligned behaviour to another; one with aligned is a rise or a fall."""

SIGNALS: Final = (
    *(f"{f} rose" for f in FEATURES),
    *(f"{f} fell" for f in FEATURES),
    *(f"{BEHAVIOURS[i]} to {BEHAVIOURS[j]}" for i, j in _PAIRS),
    *(f"collapse onto {b}" for b in BEHAVIOURS),
)
"""What a bet is on: the alarm's evidence is split over these."""

_KINDS: Final = (
    ("rose", len(FEATURES), BETS),
    ("fell", len(FEATURES), FALLS),
    ("swap", 12, MOVED),
    ("collapse", K, LEFT),
)
_SIGNAL_OF: Final = np.repeat(np.arange(len(SIGNALS)), [len(grid) for _, n, grid in _KINDS for _ in range(n)])
"""(components,) signal of each bet."""
_LOG_PRIOR: Final[Floats] = np.log(
    np.concatenate(
        [
            np.tile(BET_WEIGHTS if kind == "rose" else np.full(len(grid), 1 / len(grid)), n) * PRIOR[kind] / n
            for kind, n, grid in _KINDS
        ]
    )
)
COMPONENTS: Final = len(_LOG_PRIOR)
"""Gamblers that enter with a bucket. Stored states of fewer know only the first ones."""


def log_threshold(false_alarm_every_days: float) -> float:
    """ln of the average wealth, in days, at which the mean time between false alarms is kept.

    Where the bounds hold, wealth A comes once in A days on average; they hold but for a chance of `TOTAL_ERROR`.
    """
    return float(np.log(false_alarm_every_days) - np.log1p(-TOTAL_ERROR))


@dataclass(frozen=True, slots=True)
class _Tables:
    """Log wealth factors of a turn, by bet and by level or most probable answer."""

    rises: Floats
    falls: Floats
    compositions: Floats


class Increments:
    """Log wealth factors of a bucket against what a baseline allows for."""

    def __init__(self, null: NullSet) -> None:
        self._tables = _tables(null.key)

    def of(self, sums: Sums) -> Floats:
        """(components,) of one bucket."""
        counts = sums.level_counts()[:, None, :]
        t = self._tables
        return np.concatenate(
            [
                (counts * t.rises).sum(axis=-1).ravel(),
                (counts * t.falls).sum(axis=-1).ravel(),
                (sums.hard_counts() * t.compositions).sum(axis=-1),
            ]
        )

    def all(self, buckets: Sequence[Sums]) -> Floats:
        """(buckets, components) of several buckets, none if there are none."""
        return np.stack([self.of(b) for b in buckets]) if buckets else np.zeros((0, COMPONENTS))


@lru_cache(maxsize=4096)
def _tables(key: bytes) -> _Tables:
    null = NullSet(*np.frombuffer(key, dtype=np.float64).reshape(5, K))
    x = LEVELS[None, None, :]
    upper = np.clip(null.upper, 1e-4, 1.0)[:, None, None]
    lower = np.clip(null.lower, 0.0, 1 - 1e-4)[:, None, None]
    changed = alternatives(null.shares)
    return _Tables(
        np.where(upper < 1, np.log1p(BETS[None, :, None] * (x - upper) / upper), _NO_BET),
        np.where(lower > 0, np.log1p(FALLS[None, :, None] * (lower - x) / (1 - lower)), _NO_BET),
        np.where(_outside(null, changed)[:, None], np.log(changed / null.nearest(changed)), _NO_BET),
    )


def _outside(null: NullSet, compositions: Floats) -> NDArray[np.bool_]:
    return np.asarray(((compositions < null.share_low) | (compositions > null.share_high)).any(axis=1))


def alternatives(shares: Floats) -> Floats:
    """(swaps and collapses, 5) compositions that a composition may have changed to."""
    out = []
    for i, j in _PAIRS:
        for part in MOVED:
            q = shares.copy()
            q[[i, j]] += np.array([-1, 1]) * part * shares[i]
            out.append(q)
    for k in range(K):
        for left in LEFT:
            q = shares * left
            q[k] = 1 - (1 - shares[k]) * left
            out.append(q)
    return np.array(out)


@dataclass(slots=True)
class EDetector:
    """The wealth of all gamblers, in logs; constant size."""

    log_wealth: Floats = field(default_factory=lambda: np.full(COMPONENTS, _NOTHING))

    def update(self, increments: Floats, stake_days: float) -> None:
        """Take in one bucket.

        Parameters
        ----------
        increments : (components,) from `Increments.of`.
        stake_days : event time since the last bucket, days; must not depend on the bucket's content.

        Raises
        ------
        ValueError : an increment is not finite, or the stake is not positive; the wealth stays as it was.
        """
        if not np.isfinite(increments).all() or not stake_days > 0:
            raise ValueError("increments must be finite and the stake positive")
        stake = np.log(min(stake_days, MAX_STAKE_DAYS))
        self.log_wealth = increments + np.logaddexp(self.log_wealth, stake)

    @property
    def log_evidence(self) -> float:
        """ln of the average wealth, in days; alarm when it reaches `log_threshold`."""
        return float(np.logaddexp.reduce(self.log_wealth + _LOG_PRIOR))

    @property
    def signal_shares(self) -> Floats:
        """(signals,) share of each of `SIGNALS` in the wealth: what the alarm is about."""
        mass = self.log_wealth + _LOG_PRIOR
        if not np.isfinite(mass).any():
            mass = _LOG_PRIOR
        shares = np.bincount(_SIGNAL_OF, np.exp(mass - mass.max()))
        return np.asarray(shares / shares.sum())

    def copy(self) -> EDetector:
        """One that goes on by itself."""
        return EDetector(self.log_wealth.copy())


@dataclass(frozen=True, slots=True)
class Onset:
    """Since when: index of the first changed bucket, with a 90 % interval."""

    at: int
    low: int
    high: int


def bets_on(behaviours: Sequence[int]) -> Floats:
    """(components,) log prior of the bets that are on some of the behaviours; the others are left out."""
    names = {BEHAVIOURS[k] for k in behaviours} | ({"misaligned"} if ALIGNED in behaviours else set())
    about = np.array([not names.isdisjoint(s.split()) for s in SIGNALS])
    return np.where(about[_SIGNAL_OF], _LOG_PRIOR, _NOTHING)


def locate_onset(increments: Floats, stakes_days: Floats, log_prior: Floats = _LOG_PRIOR) -> Onset:
    """When did the change behind an alarm, in whichever direction, begin?

    The wealth at the alarm is a sum over the gamblers who entered with each bucket; its share by entrance is a
    posterior over the onset (with the stakes as prior).

    Parameters
    ----------
    increments : (buckets, components) from the end of the baseline to the alarm.
    stakes_days : (buckets,) stakes.
    log_prior : (components,) of the bets to look at, from `bets_on`.
    """
    if not len(increments):
        raise ValueError("no buckets to search for an onset")
    later = np.cumsum(increments[::-1], axis=0)[::-1]
    stakes = np.log(np.minimum(stakes_days, MAX_STAKE_DAYS))
    log_mass = np.logaddexp.reduce(later + log_prior, axis=1) + stakes
    mass = np.exp(log_mass - log_mass.max())
    reached = np.cumsum(mass) / mass.sum()
    low, at, high = (int(np.searchsorted(reached, share)) for share in (0.05, 0.5, 0.95))
    return Onset(min(at, len(mass) - 1), low, min(high, len(mass) - 1))
