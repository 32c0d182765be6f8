"""The frozen reference a series is compared with: its mixture, and an upper bound on the mean of every feature."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.buckets import FEATURES, LEVELS, Ints, Sums
from monitor.errors import ConfigError

Floats = NDArray[np.float64]

BOUND_ERROR: Final = 0.01
"""Chance that one feature's true baseline mean lies above its bound."""
_BETS: Final[Floats] = np.array([0.02, 0.04, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 0.9])


@dataclass(frozen=True, slots=True)
class BaselineRule:
    """When a baseline is complete: `turns` turns and `hours` hours of traffic, or just what lies in [start, end)."""

    turns: int = 300
    hours: float = 24.0
    start: datetime | None = None
    end: datetime | None = None

    @classmethod
    def parse(cls, text: str) -> BaselineRule:
        """Read `300` (turns), `36h`, `7d`, `300+24h` (both), or `2026-01-01..2026-01-08` (UTC, end not included).

        >>> BaselineRule.parse("500+7d")
        BaselineRule(turns=500, hours=168.0, start=None, end=None)
        """
        text = text.strip()
        try:
            if ".." in text:
                start, end = (datetime.fromisoformat(t) for t in text.split(".."))
                start, end = (t if t.tzinfo else t.replace(tzinfo=UTC) for t in (start, end))
                if start >= end:
                    raise ValueError
                return cls(turns=_FEWEST, hours=0.0, start=start, end=end)
            turns: int | None = None
            hours: float | None = None
            for part in text.split("+"):
                match = re.fullmatch(r"(\d+)([hd]?)", part.strip())
                if not match or (turns if match[2] == "" else hours) is not None:
                    raise ValueError
                if match[2]:
                    hours = int(match[1]) * (24.0 if match[2] == "d" else 1.0)
                else:
                    turns = int(match[1])
            if turns is not None and turns < _FEWEST:
                raise ConfigError(f"a baseline needs at least {_FEWEST} turns, not {turns}")
            return cls(turns=turns or _FEWEST, hours=hours or 0.0)
        except ValueError:
            raise ConfigError(
                f"baseline {text!r} is not understood; write 300 (turns), 7d, 300+24h, or 2026-01-01..2026-01-08"
            ) from None

    def wants(self, minute: int) -> bool:
        """Whether the traffic of a minute may be learned from."""
        at = _EPOCH + timedelta(minutes=minute)
        return (self.start is None or at >= self.start) and (self.end is None or at < self.end)

    def over(self, minute: int) -> bool:
        """Whether a minute lies behind the range to learn from."""
        return self.end is not None and _EPOCH + timedelta(minutes=minute) >= self.end

    def complete(self, turns: int, minutes: int) -> bool:
        return self.end is None and turns >= self.turns and minutes >= self.hours * 60


_FEWEST: Final = 50
"""Fewer turns than this bound nothing worth comparing with."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A frozen baseline.

    Attributes
    ----------
    first_minute, last_minute : the traffic it was learned from, both included.
    sums : statistics of its turns.
    bounds : (5,) upper 99 % bounds of the features' means (monitor.buckets.FEATURES).
    """

    first_minute: int
    last_minute: int
    sums: Sums
    bounds: Floats

    @classmethod
    def freeze(cls, first_minute: int, last_minute: int, sums: Sums) -> Baseline:
        """Raises ValueError on fewer than 50 turns."""
        if sums.n < _FEWEST:
            raise ValueError(f"not enough turns for a baseline: {sums.n} of {_FEWEST}")
        counts = sums.level_counts()
        bounds = np.array([upper_bound(counts[j]) for j in range(len(FEATURES))])
        return cls(first_minute, last_minute, sums, bounds)


def upper_bound(counts: Ints, error: float = BOUND_ERROR) -> float:
    """Upper confidence bound of the mean of a variable in [0, 1] known by its counts over `LEVELS`.

    The smaller of two bounds that hold for any distribution and any n, each given half of `error`: Chernoff's,
    n kl(mean, m) <= ln(1/error) (Hoeffding 1963), best for rare events; and a betting bound (Waudby-Smith & Ramdas
    2024, section 4), best for scores of small spread: were the mean m or more, the wealth of a gambler on lower values,
    mean_j prod_i (1 - b_j (x_i - m) / (1 - m)), would exceed 1/error with probability at most `error`.

    >>> counts = np.zeros(len(LEVELS), dtype=np.int64); counts[0] = 300
    >>> round(upper_bound(counts), 3)
    0.018
    """
    n = int(counts.sum())
    mean = float((counts * LEVELS).sum()) / n
    target = np.log(2 / error)
    chernoff = _bisect(mean, lambda m: n * _kl(mean, m) >= target)
    return min(chernoff, _bisect(mean, lambda m: _log_wealth(counts, m) >= target))


def _bisect(low: float, excluded: Callable[[float], bool]) -> float:
    high = 1.0
    for _ in range(40):
        m = (low + high) / 2
        if m >= 1.0 or excluded(m):
            high = m
        else:
            low = m
    return high


def _kl(p: float, m: float) -> float:
    inside = p * np.log(p / m) if p > 0 else 0.0
    outside = (1 - p) * np.log((1 - p) / (1 - m)) if p < 1 else 0.0
    return float(inside + outside)


def _log_wealth(counts: Ints, m: float) -> float:
    steps = np.log1p(-_BETS[:, None] * (LEVELS[None, :] - m) / (1 - m))
    wealth = (steps * counts).sum(axis=1)
    return float(np.logaddexp.reduce(wealth) - np.log(len(_BETS)))
